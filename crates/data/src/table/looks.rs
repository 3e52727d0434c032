//! What a column looks like by its cells.

use std::collections::BTreeSet;

use super::dates;
use super::notation::Notation;
use crate::spec::{CsvFormat, DateOrder, DecimalMark};

/// Share of the cells that must be numbers for the others to be taken as mistakes in a column of
/// numbers.
const NUMERIC_SHARE: f64 = 0.95;
/// One cell in so many may be another text, if it is the same one, more than once: a marker of
/// missing values.
const MOST_GAPS: usize = 10;
/// Most different numbers with different units that are taken as categories.
const MOST_SIZES: usize = 10;
/// Cells that are tried for what stands before and after their numbers.
const TRIED: usize = 3;

/// What a column looks like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Looks {
    /// Numbers, NaN and infinities among them, which are refused with their place later.
    Numeric(Numbers),
    /// Texts.
    Categorical,
    /// Numbers or dates, but how to read them is open.
    Open(Open),
}

/// How a column of numbers is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) notation: Notation,
    /// A text that stands in several cells instead of a number.
    pub(crate) gap: Option<String>,
}

/// Why a column of numbers cannot be read, with an example.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Open {
    /// `1,234`: is that 1.234 or 1234?
    Mark(String),
    /// `01/02/2024`: the second of January or the first of February?
    DateOrder(String),
    /// `01.02.24`: of which century?
    ShortYear(String),
    /// `12 kg` and `300 g`.
    Units(String, String),
}

impl Open {
    /// What is open, and what to write.
    pub(crate) fn reason(&self) -> String {
        match self {
            Open::Mark(example) => {
                let (comma, point) = ("decimal = \",\"", "decimal = \".\"");
                let read =
                    |decimal| Notation::number(decimal, true, "", "").read(core(example)).unwrap_or(0.0);
                let (as_comma, as_point) = (read(DecimalMark::Comma), read(DecimalMark::Point));
                format!("`{example}` can be {as_comma} (write `{comma}`) or {as_point} (write `{point}`)")
            }
            Open::DateOrder(example) => format!(
                "`{example}` can be day, month or month, day: write `date_order = \"day-month-year\"` or \
                 `date_order = \"month-day-year\"`"
            ),
            Open::ShortYear(example) => {
                format!(
                    "`{example}` looks like a date with a year of two digits: write four, as in 2024-02-01"
                )
            }
            Open::Units(one, other) => format!(
                "its numbers do not all have the same unit (`{one}` and `{other}`): bring them to one unit"
            ),
        }
    }
}

/// Which mark of decimals a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Neither a comma nor a point, or no numbers.
    None,
    /// Some cell can only be read so.
    Decided(DecimalMark),
    /// Every cell can be read either way; the mark that stands in them.
    Open(DecimalMark),
}

impl Looks {
    /// A column is numeric if at least 95 % of its cells that are not missing read as numbers, or
    /// 90 % and all others are one text.
    pub(crate) fn of<'a>(cells: impl Iterator<Item = &'a str>, format: &CsvFormat) -> Looks {
        let present: Vec<&str> = cells.filter(|cell| !format.is_missing(cell)).collect();
        let Some(first) = present.first() else { return Looks::Categorical };
        if present.iter().all(|cell| dates::is_compact(cell)) {
            let notation = Notation::Date { order: DateOrder::YearMonthDay };
            return Looks::Numeric(Numbers { notation, gap: None });
        }
        let told = Notation::number(format.decimal.unwrap_or_default(), format.decimal.is_some(), "", "");
        if let Some(numbers) = fits(&present, told) {
            return Looks::Numeric(numbers);
        }
        if first.starts_with(|c: char| c.is_ascii_alphanumeric())
            && let Some(looks) = times(&present, format)
        {
            return looks;
        }
        let mut affixes: BTreeSet<(&str, &str)> =
            present.iter().take(TRIED).filter_map(|c| affixes(c)).collect();
        affixes.insert(("", ""));
        for &(prefix, suffix) in &affixes {
            if let Some(looks) = marked(&present, format, prefix, suffix) {
                return looks;
            }
        }
        units(&present).map_or(Looks::Categorical, Looks::Open)
    }

    /// Which mark of decimals the numbers of a column show, whatever the format says of them.
    pub(crate) fn marks<'a>(cells: impl Iterator<Item = &'a str>, format: &CsvFormat) -> Marks {
        let undecided = CsvFormat { decimal: None, ..format.clone() };
        let present: Vec<&str> = cells.filter(|cell| !format.is_missing(cell)).collect();
        match Looks::of(present.iter().copied(), &undecided) {
            Looks::Open(Open::Mark(_)) => Marks::Open(DecimalMark::Comma),
            Looks::Numeric(Numbers {
                notation: Notation::Number { decimal, thousands, prefix, suffix },
                ..
            }) => {
                let other = Notation::number(DecimalMark::Comma, true, &prefix, &suffix);
                if decimal == DecimalMark::Comma || thousands {
                    Marks::Decided(decimal)
                } else if !present.iter().any(|cell| core(cell).contains('.')) {
                    Marks::None
                } else if fits(&present, other).is_some() {
                    Marks::Open(DecimalMark::Point)
                } else {
                    Marks::Decided(DecimalMark::Point)
                }
            }
            _ => Marks::None,
        }
    }
}

/// Whether a notation reads enough of the cells, and which text stands for a gap.
fn fits(present: &[&str], notation: Notation) -> Option<Numbers> {
    let allowed = present.len() / MOST_GAPS;
    let mut others = Vec::new();
    for &cell in present {
        if notation.read(cell).is_none() {
            others.push(cell);
            if others.len() > allowed {
                return None;
            }
        }
    }
    let one_text = others.len() > 1 && others.iter().all(|other| *other == others[0]);
    let numbers = (present.len() - others.len()) as f64;
    let enough = one_text || numbers >= NUMERIC_SHARE * present.len() as f64;
    (enough && numbers > 0.0).then(|| Numbers { notation, gap: one_text.then(|| others[0].to_owned()) })
}

/// Dates or times of day.
fn times(present: &[&str], format: &CsvFormat) -> Option<Looks> {
    let date = |order| fits(present, Notation::Date { order });
    if !present[0].contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let certain = [DateOrder::YearMonthDay, DateOrder::NamedMonth].into_iter().find_map(date);
    if let Some(numbers) = fits(present, Notation::Time).or(certain) {
        return Some(Looks::Numeric(numbers));
    }
    if present.iter().all(|cell| dates::has_short_year(cell)) {
        return Some(Looks::Open(Open::ShortYear(present[0].to_owned())));
    }
    match (date(DateOrder::DayMonthYear), date(DateOrder::MonthDayYear)) {
        (Some(_), Some(month_first)) if format.date_order == Some(DateOrder::MonthDayYear) => {
            Some(Looks::Numeric(month_first))
        }
        // Points stand in dates where the day comes first.
        (Some(day_first), Some(_)) if format.date_order.is_some() || present[0].contains('.') => {
            Some(Looks::Numeric(day_first))
        }
        (Some(_), Some(_)) => Some(Looks::Open(Open::DateOrder(present[0].to_owned()))),
        (one, other) => one.or(other).map(Looks::Numeric),
    }
}

/// Numbers with marks of decimals and thousands between a prefix and a suffix.
fn marked(present: &[&str], format: &CsvFormat, prefix: &str, suffix: &str) -> Option<Looks> {
    let read = |decimal, thousands| fits(present, Notation::number(decimal, thousands, prefix, suffix));
    if let Some(plain) = read(format.decimal.unwrap_or_default(), format.decimal.is_some()) {
        return Some(Looks::Numeric(plain));
    }
    match (read(DecimalMark::Point, true), read(DecimalMark::Comma, true)) {
        (Some(_), Some(_)) => {
            let example = present.iter().find(|cell| core(cell).contains(',')).unwrap_or(&present[0]);
            Some(Looks::Open(Open::Mark((*example).to_owned())))
        }
        (one, other) => one.or(other).map(Looks::Numeric),
    }
}

/// Numbers most of which have a unit behind them, but not the same. A few are taken as categories,
/// as sizes of packages are.
fn units(present: &[&str]) -> Option<Open> {
    let different: BTreeSet<&str> = present.iter().copied().collect();
    if different.len() <= MOST_SIZES {
        return None;
    }
    let parts: Vec<(&str, &str)> = present.iter().map(|cell| affixes(cell)).collect::<Option<_>>()?;
    // One letter is more often part of a name (`5a`), and `5th` counts.
    let is_unit = |suffix: &str| {
        let short = suffix.chars().count() == 1;
        (!short || "gmlshWVAkKMBT%°$€£¥".contains(suffix)) && !["st", "nd", "rd", "th"].contains(&suffix)
    };
    if !parts.iter().all(|(_, suffix)| suffix.is_empty() || is_unit(suffix)) {
        return None;
    }
    let one = parts.iter().position(|part| *part != ("", ""))?;
    let other = parts.iter().position(|part| *part != parts[one])?;
    Some(Open::Units(present[one].into(), present[other].into()))
}

const CURRENCIES: [&str; 29] = [
    "USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK",
    "HUF", "BRL", "ZAR", "RUB", "TRY", "KRW", "MXN", "SGD", "HKD", "Rs", "Rs.", "kr", "Fr", "Fr.",
];

fn is_currency(text: &str) -> bool {
    // U+20A0 to U+20CF are Unicode's currency symbols; letters may stand before them, as in `US$`.
    let symbol = |c: char| matches!(c, '$' | '¢' | '£' | '¤' | '¥' | '\u{20a0}'..='\u{20cf}');
    let letters = text.trim_end_matches(symbol);
    CURRENCIES.contains(&text)
        || (letters.len() < text.len()
            && letters.len() <= 2
            && letters.bytes().all(|b| b.is_ascii_uppercase()))
}

/// What stands before and after the digits of a cell, if that can be a currency or a unit.
fn affixes(cell: &str) -> Option<(&str, &str)> {
    let start = cell.find(|c: char| c.is_ascii_digit())?;
    let around = |c: char| c.is_whitespace() || "+-\u{2212}\u{2013}(.,".contains(c);
    // The point of `Rs. 5` belongs to the currency, that of `$.50` to the number.
    let whole = cell[..start].trim_matches(|c| around(c) && c != '.');
    let prefix = if is_currency(whole) { whole } else { whole.trim_matches(around) };
    let run = |c: char| c.is_ascii_digit() || c.is_whitespace() || ".,'\u{2019}_".contains(c);
    let end = start + cell[start..].find(|c| !run(c)).unwrap_or(cell.len() - start);
    let suffix = cell[end..].trim_end_matches(|c| ")-\u{2212}\u{2013}".contains(c)).trim();
    let begins =
        |c: char| c.is_alphabetic() || "%‰°'\"/".contains(c) || is_currency(c.encode_utf8(&mut [0; 4]));
    // `m2` and `m³` end in a digit; `A34` is no unit.
    let body = suffix.strip_suffix(['2', '3']).unwrap_or(suffix);
    let is_unit = suffix.is_empty()
        || (suffix.starts_with(begins)
            && suffix.chars().count() <= 12
            && !body.contains(|c: char| c.is_ascii_digit()));
    ((prefix.is_empty() || is_currency(prefix)) && is_unit).then_some((prefix, suffix))
}

/// The digits of a cell with their marks.
fn core(cell: &str) -> &str {
    affixes(cell).map_or(cell, |(prefix, suffix)| {
        let text = cell.split_once(prefix).filter(|_| !prefix.is_empty()).map_or(cell, |(_, rest)| rest);
        text.strip_suffix(suffix).unwrap_or(text).trim()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(cells: &[&str], format: &CsvFormat) -> Looks {
        Looks::of(cells.iter().copied(), format)
    }

    fn numeric(decimal: DecimalMark, thousands: bool, prefix: &str, suffix: &str) -> Looks {
        let notation = Notation::number(decimal, thousands, prefix, suffix);
        Looks::Numeric(Numbers { notation, gap: None })
    }

    #[test]
    fn what_cells_decide_needs_no_key() {
        use DecimalMark::{Comma, Point};
        let format = CsvFormat::default();
        assert_eq!(looks(&["1.5", "2"], &format), numeric(Point, false, "", ""));
        assert_eq!(looks(&["1,5", "1,234"], &format), numeric(Comma, true, "", ""));
        assert_eq!(looks(&["1.359,40", "12"], &format), numeric(Comma, true, "", ""));
        assert_eq!(looks(&["1,149.24", "1,149"], &format), numeric(Point, true, "", ""));
        assert_eq!(looks(&["$1.5", "$2"], &format), numeric(Point, false, "$", ""));
        assert_eq!(looks(&["1.51 kg", "2 kg"], &format), numeric(Point, false, "", "kg"));
        assert_eq!(looks(&["3,5 €", "12,25 €"], &format), numeric(Comma, true, "", "€"));
        assert_eq!(looks(&["5 m2", "61 m2"], &format), numeric(Point, false, "", "m2"));
        assert_eq!(looks(&["A11", "A12"], &format), Looks::Categorical);
        assert_eq!(looks(&["1st", "2nd", "3rd"], &format), Looks::Categorical);
        assert_eq!(looks(&["5-9", "10-14"], &format), Looks::Categorical);
        assert_eq!(looks(&["yes", "no"], &format), Looks::Categorical);
    }

    #[test]
    fn what_is_open_is_asked_or_taken_from_the_key() {
        use DecimalMark::{Comma, Point};
        let open = looks(&["12", "1,608", "3,630"], &CsvFormat::default());
        let Looks::Open(reason) = &open else { panic!("{open:?}") };
        let reason = reason.reason();
        assert_eq!(
            reason,
            "`1,608` can be 1.608 (write `decimal = \",\"`) or 1608 (write `decimal = \".\"`)"
        );
        for decimal in [Comma, Point] {
            let told = CsvFormat { decimal: Some(decimal), ..CsvFormat::default() };
            assert_eq!(looks(&["12", "1,608", "3,630"], &told), numeric(decimal, true, "", ""));
        }
        let unclear = looks(&["01/02/2024", "03/04/2024"], &CsvFormat::default());
        assert!(matches!(unclear, Looks::Open(Open::DateOrder(_))), "{unclear:?}");
        let cells: Vec<String> = (0..40).map(|i| format!("{i} {}", ["kg", "g"][i % 2])).collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        assert!(matches!(looks(&cells, &CsvFormat::default()), Looks::Open(Open::Units(..))));
        for names in ["a b c", "st nd rd th"] {
            let endings: Vec<&str> = names.split(' ').collect();
            let cells: Vec<String> = (0..40).map(|i| format!("{i}{}", endings[i % endings.len()])).collect();
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            assert_eq!(looks(&cells, &CsvFormat::default()), Looks::Categorical, "{names}");
        }
        assert_eq!(looks(&["500 g", "1 kg", "2 kg"], &CsvFormat::default()), Looks::Categorical);
        let short = looks(&["01.02.24", "13.12.24"], &CsvFormat::default());
        assert!(matches!(short, Looks::Open(Open::ShortYear(_))), "{short:?}");
    }

    #[test]
    fn one_repeated_text_among_numbers_is_a_gap() {
        let mut cells = vec!["1.5"; 18];
        cells.extend(["unk"; 2]);
        let numbers = Numbers { gap: Some("unk".into()), ..Numbers::default() };
        assert_eq!(looks(&cells, &CsvFormat::default()), Looks::Numeric(numbers));
        cells[0] = "other";
        assert_eq!(looks(&cells, &CsvFormat::default()), Looks::Categorical);
    }

    #[test]
    fn dates_are_recognised_by_their_parts() {
        let order = |cells: &[&str]| match looks(cells, &CsvFormat::default()) {
            Looks::Numeric(Numbers { notation: Notation::Date { order }, .. }) => Some(order),
            _ => None,
        };
        assert_eq!(order(&["2024-01-02", "2024-12-31"]), Some(DateOrder::YearMonthDay));
        assert_eq!(order(&["1/2/2024", "1/31/2024"]), Some(DateOrder::MonthDayYear));
        assert_eq!(order(&["1/2/2024", "31/1/2024"]), Some(DateOrder::DayMonthYear));
        assert_eq!(order(&["1.2.2024", "3.4.2024"]), Some(DateOrder::DayMonthYear));
        assert_eq!(order(&["Jan 5, 2024", "May 12, 2024"]), Some(DateOrder::NamedMonth));
    }

    #[test]
    fn marks_are_decided_by_one_cell() {
        let marks = |cells: &[&str]| Looks::marks(cells.iter().copied(), &CsvFormat::default());
        assert_eq!(marks(&["1,608", "2"]), Marks::Open(DecimalMark::Comma));
        assert_eq!(marks(&["1.608", "2"]), Marks::Open(DecimalMark::Point));
        assert_eq!(marks(&["1.608", "2.5"]), Marks::Decided(DecimalMark::Point));
        assert_eq!(marks(&["1,608", "2,5"]), Marks::Decided(DecimalMark::Comma));
        assert_eq!(marks(&["1", "2"]), Marks::None);
        assert_eq!(marks(&["a", "b"]), Marks::None);
    }
}

//! How the numbers of a column are written: marks of decimals and thousands, currencies and units,
//! dates and times.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::dates;
use crate::spec::{DateOrder, DecimalMark};

/// How the cells of a column of numbers are read; found on the train rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Notation {
    /// Numbers, each with the same text before and after it: `$1,234.50`, `12 kg`, `3,5 %`.
    Number {
        /// The mark before the decimals.
        decimal: DecimalMark,
        /// Whether the other mark may part groups of three digits. Spaces, apostrophes and
        /// underscores always may.
        thousands: bool,
        /// A currency before the number, or nothing.
        prefix: String,
        /// A unit, a currency or `%` after the number, or nothing.
        suffix: String,
    },
    /// Days since the start of 1970; a time of day, if there is one, is a fraction.
    Date {
        /// In which order year, month and day stand.
        order: DateOrder,
    },
    /// A time of day, such as `7:05`, `19:05:30` or `7:05 pm`, in seconds since midnight; or a
    /// span, such as `30:15:00` or `2 days 07:05:00`, in seconds.
    Time,
}

impl Default for Notation {
    fn default() -> Self {
        Notation::number(DecimalMark::Point, false, "", "")
    }
}

impl Notation {
    pub(crate) fn number(decimal: DecimalMark, thousands: bool, prefix: &str, suffix: &str) -> Notation {
        Notation::Number { decimal, thousands, prefix: prefix.to_owned(), suffix: suffix.to_owned() }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Notation::default()
    }

    /// The number in a cell, perhaps not a finite one.
    pub(crate) fn read(&self, cell: &str) -> Option<f64> {
        match self {
            Notation::Number { decimal, thousands, prefix, suffix } => {
                if prefix.is_empty()
                    && suffix.is_empty()
                    && *decimal == DecimalMark::Point
                    && let Ok(number) = cell.parse()
                {
                    return Some(number);
                }
                let (sign, text) = without(cell, prefix, suffix)?;
                number(text, *decimal, *thousands).map(|number| sign * number)
            }
            Notation::Date { order: DateOrder::NamedMonth } => dates::named_month(cell),
            Notation::Date { order } => dates::moment(cell, *order),
            Notation::Time => dates::time_of_day(cell),
        }
    }

    /// What a person should know of a column that is written so, after its name; nothing of plain
    /// numbers.
    pub(crate) fn remark(&self, example: &str) -> Option<String> {
        match self {
            Notation::Number { decimal, thousands, prefix, suffix } => {
                let mut parts = Vec::new();
                match (prefix.as_str(), suffix.as_str()) {
                    ("", "") => {}
                    ("", unit) | (unit, "") => parts.push(format!("in `{unit}`")),
                    (currency, unit) => parts.push(format!("in `{currency}` and `{unit}`")),
                }
                if *decimal == DecimalMark::Comma {
                    parts.push("with a decimal comma".to_owned());
                } else if *thousands && example.contains(',') {
                    parts.push("with commas between thousands".to_owned());
                }
                let value = self.read(example)?;
                (!parts.is_empty())
                    .then(|| format!("is read as numbers {}: `{example}` is {value}", parts.join(" and ")))
            }
            Notation::Date { order } => {
                let order = match order {
                    DateOrder::YearMonthDay => "year, month, day",
                    DateOrder::DayMonthYear => "day, month, year",
                    DateOrder::MonthDayYear => "month, day, year",
                    DateOrder::NamedMonth => "with the month's name",
                };
                // A millionth of a day is a tenth of a second.
                let days = (self.read(example)? * 1e6).round() / 1e6;
                Some(format!("holds dates ({order}) and becomes days since 1970: `{example}` is {days}"))
            }
            Notation::Time => {
                let seconds = self.read(example)?;
                Some(format!(
                    "holds times and becomes seconds, of the time of day since midnight: `{example}` is {seconds}"
                ))
            }
        }
    }
}

const MINUS: [char; 3] = ['-', '\u{2212}', '\u{2013}'];

/// The number of a cell without what stands before and after it, and its sign where that stands
/// outside: `-$5` or, as accountants write it, `($5)`.
fn without<'a>(cell: &'a str, prefix: &str, suffix: &str) -> Option<(f64, &'a str)> {
    let (mut sign, mut text) = (1.0, cell);
    if let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        (sign, text) = (-1.0, inner.trim());
    } else if let Some(rest) = text.strip_prefix(MINUS).filter(|_| !prefix.is_empty()) {
        (sign, text) = (-1.0, rest.trim_start());
    }
    let text = text.strip_prefix(prefix)?.trim_start();
    Some((sign, text.strip_suffix(suffix)?.trim_end()))
}

fn number(text: &str, decimal: DecimalMark, thousands: bool) -> Option<f64> {
    let (mark, other) = decimal.and_other();
    let (sign, digits) = match text.strip_prefix(MINUS) {
        Some(rest) => ("-", rest),
        // `12.-` are twelve francs; `12.50-` is negative, as accounting programs write it.
        None => match text.strip_suffix(MINUS) {
            Some(rest) if rest.ends_with(mark) => ("", rest),
            Some(rest) => ("-", rest),
            None => ("", text.strip_prefix('+').unwrap_or(text)),
        },
    };
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once(mark).unwrap_or((mantissa, ""));
    let whole = ungrouped(whole, thousands.then_some(other))?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    format!("{sign}{whole}.{fraction}e{exponent}").parse().ok()
}

/// Digits without the marks between groups of three, or of two before the last three, as commas
/// stand in India: `12,34,567`.
fn ungrouped(whole: &str, mark: Option<char>) -> Option<Cow<'_, str>> {
    let Some(found) = whole.chars().find(|c| !c.is_ascii_digit()) else { return Some(whole.into()) };
    let always = [' ', '\u{a0}', '\u{2009}', '\u{202f}', '\'', '\u{2019}', '_'];
    if mark != Some(found) && !always.contains(&found) {
        return None;
    }
    let groups: Vec<&str> = whole.split(found).collect();
    let [first, between @ .., last] = &groups[..] else { return None };
    let of = |length: usize| between.iter().all(|group| group.len() == length);
    let first_fits = |most: usize| (1..=most).contains(&first.len()) && !first.starts_with('0');
    let by_three = first_fits(3) && of(3);
    let by_two = found == ',' && first_fits(2) && !between.is_empty() && of(2);
    if last.len() != 3 || !(by_three || by_two) {
        return None;
    }
    let joined = groups.concat();
    joined.bytes().all(|b| b.is_ascii_digit()).then_some(joined.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecimalMark::{Comma, Point};

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let read = |cell: &str, decimal, thousands, prefix: &str, suffix: &str| {
            Notation::number(decimal, thousands, prefix, suffix).read(cell)
        };
        for (cell, decimal, thousands, prefix, suffix, value) in [
            ("1,234,567.5", Point, true, "", "", Some(1_234_567.5)),
            ("1.234,5", Comma, true, "", "", Some(1234.5)),
            ("1,608", Comma, true, "", "", Some(1.608)),
            ("1,608", Point, true, "", "", Some(1608.0)),
            ("1,608", Point, false, "", "", None),
            ("10.36", Comma, true, "", "", None),
            ("0,623", Point, true, "", "", None),
            ("1,23,456", Point, true, "", "", Some(123_456.0)),
            ("12,34,56,789.5", Point, true, "", "", Some(123_456_789.5)),
            ("1,23,45", Point, true, "", "", None),
            ("1.23.456", Comma, true, "", "", None),
            ("123,45,678", Point, true, "", "", None),
            ("12.50-", Point, false, "", "", Some(-12.5)),
            ("1.250,5-", Comma, true, "", "", Some(-1250.5)),
            ("13.-", Point, false, "", "", Some(13.0)),
            ("Fr. 13.\u{2013}", Point, false, "Fr.", "", Some(13.0)),
            ("-5-", Point, false, "", "", None),
            ("5-9", Point, false, "", "", None),
            ("1 234.5", Point, false, "", "", Some(1234.5)),
            ("1\u{202f}234,5", Comma, false, "", "", Some(1234.5)),
            ("1'234", Point, false, "", "", Some(1234.0)),
            ("1_234", Point, false, "", "", Some(1234.0)),
            ("12_34", Point, false, "", "", None),
            ("\u{2212}3.5", Point, false, "", "", Some(-3.5)),
            ("+1,5e-3", Comma, false, "", "", Some(0.0015)),
            ("-$5.50", Point, false, "$", "", Some(-5.5)),
            ("($1,000)", Point, true, "$", "", Some(-1000.0)),
            ("$ -2", Point, false, "$", "", Some(-2.0)),
            ("1.51 kg", Point, false, "", "kg", Some(1.51)),
            ("20.0%", Point, false, "", "%", Some(20.0)),
            ("12", Point, false, "", "kg", None),
            ("kg", Point, false, "", "kg", None),
            ("-", Point, false, "", "", None),
            ("é", Point, true, "", "", None),
        ] {
            assert_eq!(read(cell, decimal, thousands, prefix, suffix), value, "{cell}");
        }
    }
}

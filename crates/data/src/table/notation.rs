//! How the numbers of a column are written: marks of decimals and thousands, currencies and units,
//! dates and times.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use time::{Date, Month};

use crate::spec::DecimalMark;

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
    /// A time of day, such as `7:05`, `19:05:30` or `7:05 pm`: seconds since midnight.
    Time,
}

/// The order in which the parts of a date stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DateOrder {
    /// `2024-02-01`
    YearMonthDay,
    /// `01.02.2024`
    DayMonthYear,
    /// `02/01/2024`
    MonthDayYear,
    /// `1 Feb 2024` or `February 1, 2024`
    NamedMonth,
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
            Notation::Date { order: DateOrder::NamedMonth } => named_month(cell),
            Notation::Date { order } => moment(cell, *order),
            Notation::Time => time_of_day(cell),
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
                Some(format!("holds times and becomes seconds since midnight: `{example}` is {seconds}"))
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
    let (sign, digits) = match text.strip_prefix(MINUS) {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (mark, other) = decimal.and_other();
    let (whole, fraction) = mantissa.split_once(mark).unwrap_or((mantissa, ""));
    let whole = ungrouped(whole, thousands.then_some(other))?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    format!("{sign}{whole}.{fraction}e{exponent}").parse().ok()
}

/// Digits without the marks between groups of three.
fn ungrouped(whole: &str, mark: Option<char>) -> Option<Cow<'_, str>> {
    let Some(found) = whole.chars().find(|c| !c.is_ascii_digit()) else { return Some(whole.into()) };
    let always = [' ', '\u{a0}', '\u{2009}', '\u{202f}', '\'', '\u{2019}', '_'];
    if mark != Some(found) && !always.contains(&found) {
        return None;
    }
    let mut groups = whole.split(found);
    let first = groups.next().filter(|g| (1..=3).contains(&g.len()) && !g.starts_with('0'))?;
    let mut joined = first.to_owned();
    for group in groups {
        (group.len() == 3).then(|| joined.push_str(group))?;
    }
    joined.bytes().all(|b| b.is_ascii_digit()).then_some(joined.into())
}

/// Days since 1970 of a date and, perhaps, a time of day and an offset from UTC.
fn moment(cell: &str, order: DateOrder) -> Option<f64> {
    let (date, time) = match cell.find(['T', ' ']) {
        Some(at) => (&cell[..at], Some(cell[at + 1..].trim())),
        None => (cell, None),
    };
    let mark = date.chars().find(|c| !c.is_ascii_digit()).filter(|c| ['-', '/', '.'].contains(c))?;
    let parts: Vec<&str> = date.split(mark).collect();
    let [a, b, c] = parts[..] else { return None };
    let (year, month, day) = match order {
        DateOrder::YearMonthDay => (a, b, c),
        DateOrder::DayMonthYear => (c, b, a),
        DateOrder::MonthDayYear => (c, a, b),
        DateOrder::NamedMonth => return None,
    };
    let month = Month::try_from(small(month)?).ok()?;
    let seconds = time.map_or(Some(0.0), zoned_time)?;
    Some(days(year, month, day)? + seconds / 86_400.0)
}

/// A number of one or two digits.
fn small(text: &str) -> Option<u8> {
    (1..=2).contains(&text.len()).then(|| text.parse().ok()).flatten()
}

/// Days since 1970; the year has four digits.
fn days(year: &str, month: Month, day: &str) -> Option<f64> {
    let year: i32 = (year.len() == 4).then(|| year.parse().ok()).flatten()?;
    let date = Date::from_calendar_date(year, month, small(day)?).ok()?;
    let epoch = Date::from_ordinal_date(1970, 1).ok()?;
    Some(f64::from(date.to_julian_day() - epoch.to_julian_day()))
}

fn named_month(cell: &str) -> Option<f64> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let month = |word: &str| {
        let word = word.to_ascii_lowercase();
        let at = NAMES.iter().position(|name| word.len() >= 3 && name.starts_with(&word))?;
        Month::try_from(at as u8 + 1).ok()
    };
    let words: Vec<&str> =
        cell.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let [a, b, year] = words[..] else { return None };
    match (month(a), month(b)) {
        (Some(month), None) => days(year, month, b),
        (None, Some(month)) => days(year, month, a),
        _ => None,
    }
}

/// Whether a cell is a date whose year has two digits, so that its century is open.
pub(crate) fn has_short_year(cell: &str) -> bool {
    let date = cell.split([' ', 'T']).next().unwrap_or_default();
    let mark = date.chars().find(|c| !c.is_ascii_digit()).filter(|c| ['-', '/', '.'].contains(c));
    let parts = mark.map(|mark| date.split(mark).map(|part| (part.len(), small(part))).collect::<Vec<_>>());
    let in_year =
        |limit: u8| move |&(_, n): &(usize, Option<u8>)| n.is_some_and(|n| (1..=limit).contains(&n));
    parts.is_some_and(|p| {
        p.len() == 3
            && p[2].0 == 2
            && p[2].1.is_some()
            && p[..2].iter().all(in_year(31))
            && p[..2].iter().any(in_year(12))
    })
}

/// Seconds since midnight in UTC of a time that may have an offset.
fn zoned_time(text: &str) -> Option<f64> {
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    if let Some(utc) = text.strip_suffix(['Z', 'z']) {
        return time_of_day(utc);
    }
    let Some(at) = text.rfind(['+', '-']) else { return time_of_day(text) };
    let offset = &text[at + 1..];
    let offset = match offset.len() {
        2 => 3600.0 * offset.parse::<u8>().ok().map(f64::from)?,
        4 => return zoned_time(&format!("{}{}:{}", &text[..=at], offset.get(..2)?, offset.get(2..)?)),
        _ => time_of_day(offset)?,
    };
    Some(time_of_day(text[..at].trim_end())? - if text[at..].starts_with('-') { -offset } else { offset })
}

fn time_of_day(cell: &str) -> Option<f64> {
    let lower = cell.to_ascii_lowercase();
    let (text, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(text), _) => (text.trim_end(), Some(0)),
        (_, Some(text)) => (text.trim_end(), Some(12)),
        _ => (lower.as_str(), None),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hour: u32 =
        hour.parse().ok().filter(|&h| if half.is_some() { (1..=12).contains(&h) } else { h < 24 })?;
    let hour = half.map_or(hour, |half| hour % 12 + half);
    let minute: u32 = minute.parse().ok().filter(|&m| m < 60 && minute.len() == 2 && digits(minute))?;
    let second: f64 = second.parse().ok().filter(|s| (0.0..61.0).contains(s))?;
    Some(f64::from(hour * 3600 + minute * 60) + second)
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
            ("1,23,456", Point, true, "", "", None),
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

    #[test]
    fn dates_and_times_are_numbers() {
        use DateOrder::{DayMonthYear, MonthDayYear, NamedMonth, YearMonthDay};
        let date = |cell: &str, order| Notation::Date { order }.read(cell);
        assert_eq!(date("1970-01-02", YearMonthDay), Some(1.0));
        assert_eq!(date("2024-03-01", YearMonthDay), Some(19_783.0), "after a leap day");
        assert_eq!(date("01.03.2024", DayMonthYear), Some(19_783.0));
        assert_eq!(date("3/1/2024", MonthDayYear), Some(19_783.0));
        assert_eq!(date("1970-01-01T12:00:00Z", YearMonthDay), Some(0.5));
        assert_eq!(date("1970-01-01 13:00:00+01:00", YearMonthDay), Some(0.5));
        assert_eq!(date("1970-01-01 10:00:00-0200", YearMonthDay), Some(0.5));
        assert_eq!(date("1 Mar 2024", NamedMonth), Some(19_783.0));
        assert_eq!(date("March 1, 2024", NamedMonth), Some(19_783.0));
        assert_eq!((date("01-MAR-2024", NamedMonth), date("1 Ma 2024", NamedMonth)), (Some(19_783.0), None));
        assert!(has_short_year("1.2.24") && has_short_year("12/31/99") && !has_short_year("1.2.2024"));
        assert!(!has_short_year("1.2.3") && !has_short_year("10.0.12") && !has_short_year("192.168.24"));
        for wrong in
            ["2023-02-29", "2024-13-01", "2024-1", "24-01-01", "2024-01-01x", "é", "2024-01-01 25:00"]
        {
            assert_eq!(date(wrong, YearMonthDay), None, "{wrong}");
        }
        let time = |cell: &str| Notation::Time.read(cell);
        assert_eq!(
            (time("7:05"), time("19:05:30.5"), time("7:05 PM")),
            (Some(25_500.0), Some(68_730.5), Some(68_700.0))
        );
        assert_eq!((time("12:00 am"), time("24:00"), time("7:5"), time("7")), (Some(0.0), None, None, None));
    }
}

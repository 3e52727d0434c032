//! Dates and times of day in the forms that programs and people write.

use time::{Date, Month};

use crate::spec::DateOrder;

/// The months in English, German, French, Spanish and Italian.
const MONTHS: [[&str; 5]; 12] = [
    ["january", "januar", "janvier", "enero", "gennaio"],
    ["february", "februar", "février", "febrero", "febbraio"],
    ["march", "märz", "mars", "marzo", "marzo"],
    ["april", "april", "avril", "abril", "aprile"],
    ["may", "mai", "mai", "mayo", "maggio"],
    ["june", "juni", "juin", "junio", "giugno"],
    ["july", "juli", "juillet", "julio", "luglio"],
    ["august", "august", "août", "agosto", "agosto"],
    ["september", "september", "septembre", "septiembre", "settembre"],
    ["october", "oktober", "octobre", "octubre", "ottobre"],
    ["november", "november", "novembre", "noviembre", "novembre"],
    ["december", "dezember", "décembre", "diciembre", "dicembre"],
];
/// Days of the week, which say nothing beside a date.
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// Years of dates that are written as eight digits: other numbers of eight digits exist.
const COMPACT_YEARS: std::ops::RangeInclusive<u32> = 1900..=2100;

/// Days since 1970 of a date and, perhaps, a time of day and an offset from UTC.
pub(super) fn moment(cell: &str, order: DateOrder) -> Option<f64> {
    let (date, time) = match cell.find(['T', ' ']) {
        Some(at) => (cell[..at].trim_end_matches(','), Some(cell[at + 1..].trim())),
        None => (cell, None),
    };
    if order == DateOrder::YearMonthDay && is_digits(date, 8) {
        let day = days(&date[..4], month_of(&date[4..6])?, &date[6..])?;
        return Some(day + time.map_or(Some(0.0), compact_time)? / 86_400.0);
    }
    let mark = date.chars().find(|c| !c.is_ascii_digit()).filter(|c| ['-', '/', '.'].contains(c))?;
    let parts: Vec<&str> = date.split(mark).collect();
    let [a, b, c] = parts[..] else { return None };
    let (year, month, day) = match order {
        DateOrder::YearMonthDay => (a, b, c),
        DateOrder::DayMonthYear => (c, b, a),
        DateOrder::MonthDayYear => (c, a, b),
        DateOrder::NamedMonth => return None,
    };
    let seconds = time.map_or(Some(0.0), zoned_time)?;
    Some(days(year, month_of(month)?, day)? + seconds / 86_400.0)
}

fn is_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a cell is a date written as eight digits, `20240201`.
pub(super) fn is_compact(cell: &str) -> bool {
    is_digits(cell, 8)
        && cell[..4].parse().is_ok_and(|year| COMPACT_YEARS.contains(&year))
        && moment(cell, DateOrder::YearMonthDay).is_some()
}

/// `123059` or `1230` and, perhaps, `Z`; or a time with colons.
fn compact_time(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(['Z', 'z']);
    match digits.len() {
        4 | 6 if is_digits(digits, digits.len()) => {
            let parts =
                [&digits[..2], &digits[2..4], digits.get(4..).filter(|s| !s.is_empty()).unwrap_or("00")];
            time_of_day(&parts.join(":"))
        }
        _ => zoned_time(text),
    }
}

/// A number of one or two digits.
fn small(text: &str) -> Option<u8> {
    (1..=2).contains(&text.len()).then(|| text.parse().ok()).flatten()
}

fn month_of(text: &str) -> Option<Month> {
    Month::try_from(small(text)?).ok()
}

/// Days since 1970; the year has four digits.
fn days(year: &str, month: Month, day: &str) -> Option<f64> {
    let year: i32 = (year.len() == 4).then(|| year.parse().ok()).flatten()?;
    let date = Date::from_calendar_date(year, month, small(day)?).ok()?;
    let epoch = Date::from_ordinal_date(1970, 1).ok()?;
    Some(f64::from(date.to_julian_day() - epoch.to_julian_day()))
}

/// The month that a word of three letters or more begins the name of, if it is one alone.
fn named(word: &str) -> Option<Month> {
    let word = word.to_lowercase();
    let begins = |names: &[&str; 5]| names.iter().any(|name| name.starts_with(&word));
    let mut months = (1..).zip(&MONTHS).filter(|(_, names)| word.chars().count() >= 3 && begins(names));
    let (number, _) = months.next()?;
    months.next().is_none().then(|| Month::try_from(number).ok()).flatten()
}

/// A date with the month's name, such as `1 Feb 2024`, `Thu, February 1, 2024 7:05 PM` or
/// `Thu Feb 01 07:05:00 2024`.
pub(super) fn named_month(cell: &str) -> Option<f64> {
    let (mut month, mut numbers, mut time) = (None, Vec::new(), String::new());
    for word in cell.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        let of_time = ["am", "pm", "a.m.", "p.m.", "utc", "gmt", "z"].contains(&lower.as_str())
            || word.starts_with(['+', '-']);
        if word.contains(':') && time.is_empty() {
            time.push_str(word);
            continue;
        }
        if of_time && !time.is_empty() {
            time.push(' ');
            time.push_str(word);
            continue;
        }
        for part in word.split(['-', '/', '.']).filter(|part| !part.is_empty()) {
            let is_weekday = |part: &str| {
                let part = part.to_ascii_lowercase();
                part.len() >= 3 && WEEKDAYS.iter().any(|day| day.starts_with(&part))
            };
            if part.starts_with(|c: char| c.is_ascii_digit()) {
                let end = ["st", "nd", "rd", "th"].iter().find_map(|end| part.strip_suffix(end));
                numbers.push(end.unwrap_or(part));
            } else if let Some(own) = named(part) {
                month.replace(own).is_none().then_some(())?;
            } else if !is_weekday(part) {
                return None;
            }
        }
    }
    let (year, day) = match numbers[..] {
        [year, day] if year.len() == 4 => (year, day),
        [day, year] => (year, day),
        _ => return None,
    };
    let seconds = if time.is_empty() { 0.0 } else { zoned_time(&time)? };
    Some(days(year, month?, day)? + seconds / 86_400.0)
}

/// Whether a cell is a date whose year has two digits, so that its century is open.
pub(super) fn has_short_year(cell: &str) -> bool {
    let date = cell.split([' ', 'T']).next().unwrap_or_default();
    let mark = date.chars().find(|c| !c.is_alphanumeric()).filter(|c| ['-', '/', '.'].contains(c));
    let Some(mark) = mark else { return false };
    let parts: Vec<&str> = date.split(mark).collect();
    let [a, b, year] = parts[..] else { return false };
    if year.len() != 2 || small(year).is_none() {
        return false;
    }
    let in_year = |part: &str, limit: u8| small(part).is_some_and(|n| (1..=limit).contains(&n));
    let is_named = named(b).is_some() && in_year(a, 31);
    is_named || (in_year(a, 31) && in_year(b, 31) && (in_year(a, 12) || in_year(b, 12)))
}

/// Whether a cell that is not read as a date may be one all the same: a year from 1900 to 2099
/// stands in it, with another number or the name of a month beside it.
pub(crate) fn may_be_date(cell: &str) -> bool {
    let groups: Vec<&str> = cell.split(|c: char| !c.is_ascii_digit()).filter(|g| !g.is_empty()).collect();
    let year = |group: &&&str| group.len() == 4 && (group.starts_with("19") || group.starts_with("20"));
    let has_month = || cell.split(|c: char| !c.is_alphabetic()).any(|word| named(word).is_some());
    cell.len() <= 40 && groups.iter().any(|group| year(&group)) && (groups.len() > 1 || has_month())
}

/// Seconds since midnight in UTC of a time that may have an offset.
fn zoned_time(text: &str) -> Option<f64> {
    let text = [" UTC", " GMT", " Z"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text);
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

/// Seconds of a time of day, or of a span of hours or days.
pub(super) fn time_of_day(cell: &str) -> Option<f64> {
    let lower = cell.to_ascii_lowercase();
    if let Some((count, rest)) = lower.split_once(" days ").or_else(|| lower.split_once(" day ")) {
        let (count, rest) = (count.parse::<i32>().ok()?, rest.trim_start_matches('+'));
        return Some(f64::from(count) * 86_400.0 + time_of_day(rest)?);
    }
    let ends = |ends: [&str; 2]| ends.iter().find_map(|end| lower.strip_suffix(end)).map(str::trim_end);
    let (text, half) = match (ends(["am", "a.m."]), ends(["pm", "p.m."])) {
        (Some(text), _) => (text, Some(0)),
        (_, Some(text)) => (text, Some(12)),
        _ => (lower.strip_suffix(" uhr").unwrap_or(&lower), None),
    };
    let parts: Vec<&str> = text.split(':').collect();
    // Hours beyond a day count a span, where it is clear that they are hours.
    let (hour, minute, second, most) = match parts[..] {
        [hour] if half.is_some() => (hour, "00", "0", 0),
        [hour, minute] => (hour, minute, "0", 24),
        [hour, minute, second] => (hour, minute, second, 9999),
        _ => return None,
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = |&h: &u32| if half.is_some() { (1..=12).contains(&h) } else { h <= most };
    let hour: u32 = hour.parse().ok().filter(fits).filter(|_| digits(hour))?;
    let hour = half.map_or(hour, |half| hour % 12 + half);
    let minute: u32 = minute.parse().ok().filter(|&m| m < 60 && minute.len() == 2 && digits(minute))?;
    let second: f64 = second.parse().ok().filter(|s| (0.0..61.0).contains(s))?;
    let past_midnight = parts.len() == 2 && hour == 24 && minute > 0;
    (!past_midnight).then(|| f64::from(hour * 3600 + minute * 60) + second)
}

#[cfg(test)]
mod tests {
    use super::super::notation::Notation;
    use super::*;
    use DateOrder::{DayMonthYear, MonthDayYear, NamedMonth, YearMonthDay};

    #[test]
    fn dates_and_times_are_numbers() {
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
        for wrong in [
            "2023-02-29",
            "2024-13-01",
            "2024-1",
            "24-01-01",
            "2024-01-01x",
            "é",
            "2024-01-01 25:00",
            "20240230",
        ] {
            assert_eq!(date(wrong, YearMonthDay), None, "{wrong}");
        }
        let time = |cell: &str| Notation::Time.read(cell);
        assert_eq!(
            (time("7:05"), time("19:05:30.5"), time("7:05 PM")),
            (Some(25_500.0), Some(68_730.5), Some(68_700.0))
        );
        assert_eq!((time("12:00 am"), time("24:30"), time("7:5"), time("7")), (Some(0.0), None, None, None));
        assert_eq!(
            (time("24:00"), time("7 p.m."), time("07:05 Uhr")),
            (Some(86_400.0), Some(68_400.0), Some(25_500.0))
        );
        assert_eq!((time("30:15:00"), time("30:15"), time("0:00:61")), (Some(108_900.0), None, None));
        assert_eq!((time("2 days 01:00:00"), time("-1 days +23:00:00")), (Some(176_400.0), Some(-3600.0)));
    }

    #[test]
    fn forms_of_programs_and_languages() {
        let date = |cell: &str, order| Notation::Date { order }.read(cell);
        for (cell, order) in [
            ("20240301", YearMonthDay),
            ("20240301T000000Z", YearMonthDay),
            ("3/1/2024, 12:00 AM", MonthDayYear),
            ("Fri Mar 01 00:00:00 2024", NamedMonth),
            ("Fri Mar 01 00:00:00 +0000 2024", NamedMonth),
            ("Fri, 01 Mar 2024 00:00:00 GMT", NamedMonth),
            ("Friday, March 1st, 2024", NamedMonth),
            ("2024 Mar 1", NamedMonth),
            ("01 Mar 2024 01:00:00 +0100", NamedMonth),
            ("1. März 2024", NamedMonth),
            ("1 mars 2024", NamedMonth),
            ("1 marzo 2024", NamedMonth),
        ] {
            assert_eq!(date(cell, order), Some(19_783.0), "{cell}");
        }
        assert_eq!(date("6 févr. 2021", NamedMonth), date("2021-02-06", YearMonthDay));
        for wrong in
            ["1 jui 2024", "March 2024", "Mar Apr 1 2024", "1 March 24", "Maria 1 2024", "1 2 March 2024"]
        {
            assert_eq!(date(wrong, NamedMonth), None, "{wrong}");
        }
        assert!(has_short_year("06-Jan-21") && !has_short_year("06-Xyz-21"));
        assert!(is_compact("20240201") && !is_compact("20241301") && !is_compact("12345678"));
        assert!(
            may_be_date("2021-01-06 07:03 CET") && may_be_date("2021年01月06日") && may_be_date("Mai 2021")
        );
        assert!(!may_be_date("route 66") && !may_be_date("2021") && !may_be_date("version 2.1"));
    }
}

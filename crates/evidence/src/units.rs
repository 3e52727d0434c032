//! Numbers as people read them.

/// Bytes in decimal units: 1 MB is 10^6 bytes.
pub fn bytes(n: usize) -> String {
    let n = n as f64;
    match n {
        n if n < 1e3 => format!("{n} B"),
        n if n < 1e6 => format!("{} kB", three(n / 1e3)),
        n if n < 1e9 => format!("{} MB", three(n / 1e6)),
        n => format!("{} GB", three(n / 1e9)),
    }
}

/// Milliseconds.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{} µs", three(ms * 1e3)),
        ms if ms < 1e3 => format!("{} ms", three(ms)),
        ms => format!("{} s", three(ms / 1e3)),
    }
}

/// Seconds, as minutes where there are many.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 36_000.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// A count with thin gaps between thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let gap = |(i, c): (usize, char)| {
        let rest = digits.len() - i;
        if i > 0 && rest.is_multiple_of(3) { vec!['\u{202f}', c] } else { vec![c] }
    };
    digits.chars().enumerate().flat_map(gap).collect()
}

/// A number to three digits, without an exponent.
pub fn three(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// A positive number to two digits that mean something, however small.
pub fn significant(x: f64) -> String {
    if x == 0.0 || !x.is_finite() || x.abs() >= 100.0 {
        return format!("{x:.0}");
    }
    let places = (1 - x.abs().log10().floor() as i64).clamp(0, 12) as usize;
    format!("{x:.places$}")
}

/// A fraction in per cent, with its standard deviation.
pub fn percent(mean: f64, sd: Option<f64>) -> String {
    match sd {
        Some(sd) => format!("{:.2} ± {:.2} %", mean * 100.0, sd * 100.0),
        None => format!("{:.2} %", mean * 100.0),
    }
}

/// A difference of fractions in percentage points, with its sign.
pub fn points(difference: f64) -> String {
    let p = difference * 100.0;
    if p.abs() < 0.005 {
        "0.00 pt".into()
    } else {
        format!("{}{:.2} pt", if p < 0.0 { "−" } else { "+" }, p.abs())
    }
}

/// A loss scale: a power of two where it is one.
pub fn scale(s: f64) -> String {
    let exponent = s.log2();
    if exponent.fract() == 0.0 && exponent.abs() >= 4.0 { format!("2^{exponent}") } else { three(s) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.23 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(milliseconds(0.1234), "123 µs");
        assert_eq!(milliseconds(12.34), "12.3 ms");
        assert_eq!(seconds(75.9), "1 min 15 s");
        assert_eq!([significant(12.34), significant(0.01234), significant(0.0)], ["12", "0.012", "0"]);
        assert_eq!(count(1234567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(12), "12");
        assert_eq!(percent(0.8812, Some(0.003)), "88.12 ± 0.30 %");
        assert_eq!(points(-0.0012), "−0.12 pt");
        assert_eq!(points(-0.00001), "0.00 pt");
        assert_eq!(scale(65536.0), "2^16");
        assert_eq!(scale(1.0), "1.00");
    }
}

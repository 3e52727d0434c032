//! Durations as people write them.

use std::time::Duration;

/// Reads `90`, `90s`, `30m`, `1.5h`, `1h30m` or `2d`; a number alone is seconds.
///
/// # Errors
/// What is wrong, for clap to show.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration; write 90s, 30m, 1h30m or 2d");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    let mut smaller_than = f64::INFINITY;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        let unit = rest[digits..].chars().next();
        let factor = match unit {
            Some('d') => 86_400.0,
            Some('h') => 3600.0,
            Some('m') => 60.0,
            Some('s') => 1.0,
            None if smaller_than.is_infinite() => 1.0,
            _ => return Err(expected()),
        };
        // Largest first, each unit once: 30m1h is more likely a slip than meant.
        if factor >= smaller_than {
            return Err(expected());
        }
        (seconds, smaller_than) = (seconds + number * factor, factor);
        rest = rest[digits..].strip_prefix(|c: char| Some(c) == unit).unwrap_or_default();
    }
    if smaller_than.is_finite() && seconds == 0.0 {
        return Err(format!("in `{text}` nothing can be done; write 90s, 30m, 1h30m or 2d"));
    }
    // A hundred years: more than that cannot be added to every system's clock.
    if seconds >= 3.2e9 {
        return Err(format!("`{text}` is more than a hundred years; leave it out for no end"));
    }
    if smaller_than.is_infinite() {
        return Err(expected());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("90", 90.0), ("90s", 90.0), ("30m", 1800.0), ("1h30m", 5400.0), ("1.5h", 5400.0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parse("2d1h0.5s"), Ok(Duration::from_secs_f64(2.0 * 86_400.0 + 3600.5)));
        for wrong in
            ["", "s", "0", "0s", "-5s", "5x", "30m1h", "5m5m", "1h30", "1e3s", "inf", "99999999d", "5 m"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("0s").unwrap_err().contains("nothing can be done"));
        assert!(parse("").unwrap_err().contains("is no duration"));
    }
}

//! Numbers and names of formats as people write them.

use halfstep::float::Format;

use super::super::failure::Failure;

/// Most terms of a sum: f32 stops at 2^24 ones, which is below; more takes long.
const MOST_TERMS: f64 = 1e8;

/// A number: 0.1, 1e-8, 2^-24, 1/3, inf, nan.
pub fn number(text: &str) -> Result<f64, Failure> {
    parse(text).ok_or_else(|| {
        Failure::asked(format!("`{text}` is not a number"), "write it as 0.1, 1e-8, 2^-24, 1/3, inf or nan")
    })
}

fn parse(text: &str) -> Option<f64> {
    let plain = |text: &str| text.trim().parse::<f64>().ok();
    if let Some((base, power)) = text.split_once('^') {
        let (base, power) = (plain(base)?, power.trim().parse::<i32>().ok()?);
        return Some(base.powi(power));
    }
    if let Some((above, below)) = text.split_once('/') {
        return Some(plain(above)? / plain(below)?);
    }
    plain(text)
}

/// A format by its name or by that of `ml_dtypes`.
pub fn format(name: &str) -> Result<Format, Failure> {
    name.trim().parse().map_err(|_| {
        Failure::unknown(format!("there is no number format `{name}`"), name, &Format::ALL.map(Format::name))
    })
}

/// A number of terms: a whole number, also as 1e4 or 2^20.
pub fn count(text: &str) -> Result<u64, Failure> {
    let n = number(text)?;
    if (1.0..=MOST_TERMS).contains(&n) && n.fract() == 0.0 {
        return Ok(n as u64);
    }
    Err(Failure::asked(
        format!("--sum {text} is out of range"),
        format!("give a whole number from 1 to {MOST_TERMS:e}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!(parse("2^-24"), Some(2f64.powi(-24)));
        assert_eq!(parse("1/3"), Some(1.0 / 3.0));
        assert_eq!(parse("-1e-8"), Some(-1e-8));
        assert_eq!(parse("-inf"), Some(f64::NEG_INFINITY));
        assert!(parse("nan").is_some_and(f64::is_nan));
        for bad in ["", "abc", "1/", "^2", "2^x", "0x10", "1,5"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn counts_are_whole() {
        assert_eq!(count("1e4").ok(), Some(10_000));
        for bad in ["0", "-1", "1.5", "1e9", "nan", "inf"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}

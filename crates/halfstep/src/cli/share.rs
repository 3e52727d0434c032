//! Shares on the command line: `1%` or `0.01`.

/// Reads a share from 0 up.
///
/// # Errors
/// What would do, for text that is no such number.
pub fn parse(text: &str) -> Result<f64, String> {
    let value = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|p| p / 100.0),
        None => text.trim().parse::<f64>(),
    };
    value
        .ok()
        .filter(|share| *share >= 0.0 && share.is_finite())
        .ok_or_else(|| "expected a share such as 1% or 0.01".to_string())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        assert_eq!(parse("1%"), Ok(0.01));
        assert_eq!(parse(" 2.5 % "), Ok(0.025));
        assert_eq!(parse("0.01"), Ok(0.01));
        for wrong in ["", "%", "-1%", "nan", "inf", "one"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

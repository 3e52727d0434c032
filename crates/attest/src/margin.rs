//! Margins of metrics: the largest harm that counts as none.

use serde::Deserialize;
use serde::de::Visitor;
use serde_json::Value;

/// A margin, as recipes write them: `"1.0pt"` is percentage points, `"2%"` a share of the
/// reference's own value, and a number is in units of the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// In units of the metric.
    Absolute(f64),
    /// As a share of the reference's value.
    Relative(f64),
}

impl Margin {
    fn parse(text: &str) -> Result<Margin, String> {
        let number = |digits: &str, kind: fn(f64) -> Margin| match digits.trim().parse::<f64>() {
            Ok(x) => kind(x / 100.0).checked(),
            Err(_) => Err(format!("\"{text}\" is no margin: write \"1.0pt\", \"2%\" or a number")),
        };
        if let Some(points) = text.strip_suffix("pt") {
            number(points, Margin::Absolute)
        } else if let Some(share) = text.strip_suffix('%') {
            number(share, Margin::Relative)
        } else {
            Err(format!("\"{text}\" is no margin: write \"1.0pt\", \"2%\" or a number without quotes"))
        }
    }

    fn checked(self) -> Result<Margin, String> {
        let (Margin::Absolute(size) | Margin::Relative(size)) = self;
        if size > 0.0 && size.is_finite() {
            Ok(self)
        } else {
            Err("a margin is a finite number above zero".into())
        }
    }

    /// The margin of a test in a verdict.
    pub(crate) fn of_test(test: &Value) -> Option<Margin> {
        let size = test["margin"]["value"].as_f64()?;
        let margin = match test["margin"]["kind"].as_str()? {
            "absolute" => Margin::Absolute(size),
            "relative" => Margin::Relative(size),
            _ => return None,
        };
        margin.checked().ok()
    }
}

impl std::fmt::Display for Margin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Margin::Absolute(size) => write!(f, "{size}"),
            Margin::Relative(share) => write!(f, "{} % of the reference's value", share * 100.0),
        }
    }
}

impl<'de> Deserialize<'de> for Margin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Margin, D::Error> {
        struct OfMargin;
        impl Visitor<'_> for OfMargin {
            type Value = Margin;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a margin: \"1.0pt\", \"2%\" or a number")
            }
            fn visit_f64<E: serde::de::Error>(self, size: f64) -> Result<Margin, E> {
                Margin::Absolute(size).checked().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, size: i64) -> Result<Margin, E> {
                self.visit_f64(size as f64)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Margin, E> {
                Margin::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(OfMargin)
    }
}

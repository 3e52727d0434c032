//! A number of bytes as people write it: `512 MiB`, `1.5 GB`, `100000`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Units by factor, largest first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes. Read from a number with a unit (`MiB` is 2^20 bytes, `MB` is 10^6; case does
/// not matter) or from a plain number of bytes; written exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub usize);

/// Text that is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of bytes; expected one such as \"512 MiB\", \"1.5 GB\" or 100000000")]
pub struct ByteSizeError(pub String);

impl ByteSize {
    /// The size in MiB with one decimal, rounded up: what to write to be given at least as much.
    pub fn rounded_up(self) -> String {
        let tenths = (self.0 as u128 * 10).div_ceil(1 << 20);
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<ByteSize, ByteSizeError> {
        let wrong = || ByteSizeError(text.to_string());
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let factor = match unit {
            "" => 1,
            _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1,
        };
        if let Ok(whole) = number.parse::<u64>() {
            let bytes = whole.checked_mul(factor).and_then(|b| usize::try_from(b).ok());
            return bytes.map(ByteSize).ok_or_else(wrong);
        }
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
        // Below 2^53 a float counts bytes exactly.
        if (0.0..9e15).contains(&bytes) { Ok(ByteSize(bytes.round() as usize)) } else { Err(wrong()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as u64;
        let unit = UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", bytes / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as \"512 MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(|_| E::custom(ByteSizeError(bytes.to_string())))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units_and_written_exactly() {
        let read = |text: &str| text.parse::<ByteSize>().map(|b| b.0);
        assert_eq!(read("512 MiB"), Ok(512 << 20));
        assert_eq!(read("512mib"), Ok(512 << 20));
        assert_eq!(read("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(read(" 100000 "), Ok(100_000));
        for wrong in ["", "MiB", "1 MX", "-3 MB", "1.2.3 B", "nan", "99999999999999 TiB"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for bytes in [0, 1, 1 << 20, 3 << 30, (1 << 20) + 1] {
            assert_eq!(read(&ByteSize(bytes).to_string()), Ok(bytes));
            let up = read(&ByteSize(bytes).rounded_up()).unwrap();
            assert!(up >= bytes && up - bytes <= (1 << 20) / 10 + 1);
        }
        assert_eq!(ByteSize(512 << 20).to_string(), "512 MiB");
        assert_eq!(ByteSize(1_500_000_000).to_string(), "1500 MB");
    }
}

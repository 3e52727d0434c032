//! Which GPU is meant.

use std::fmt;
use std::str::FromStr;

use crate::architecture::Architecture;
use crate::cuda::Gpu;

/// Which GPU is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuChoice {
    /// The first that can be used.
    Any,
    /// By its number among those that the driver shows.
    Ordinal(u32),
    /// By its UUID, or by as much of its beginning as tells it from the others.
    Uuid(UuidPrefix),
}

/// The beginning of a UUID, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UuidPrefix {
    /// Hexadecimal digits, in lower case; zeros behind them.
    digits: [u8; 32],
    count: u8,
    /// Whether it is written as that of a part of a GPU.
    part: bool,
}

/// What is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a UUID of a GPU is `GPU-` or `MIG-` and at most 32 hexadecimal digits, of which the first few may do"
)]
pub struct UuidError;

impl FromStr for UuidPrefix {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<UuidPrefix, UuidError> {
        let kind = text.get(..4).ok_or(UuidError)?.to_ascii_uppercase();
        if kind != "GPU-" && kind != "MIG-" {
            return Err(UuidError);
        }
        let mut prefix = UuidPrefix { digits: [0; 32], count: 0, part: kind == "MIG-" };
        for digit in text[4..].bytes().filter(|b| *b != b'-') {
            let place = prefix.digits.get_mut(usize::from(prefix.count)).ok_or(UuidError)?;
            *place = Some(digit.to_ascii_lowercase()).filter(u8::is_ascii_hexdigit).ok_or(UuidError)?;
            prefix.count += 1;
        }
        if prefix.count == 0 { Err(UuidError) } else { Ok(prefix) }
    }
}

impl fmt::Display for UuidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.part { "MIG-" } else { "GPU-" })?;
        for (i, digit) in self.digits[..usize::from(self.count)].iter().enumerate() {
            let dash = if matches!(i, 8 | 12 | 16 | 20) { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*digit))?;
        }
        Ok(())
    }
}

/// No GPU is the one that is meant, or it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// None has this number or UUID.
    #[error("there is no GPU `{asked}`; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// Number, name and UUID of each.
        known: Vec<String>,
    },
    /// Several begin so.
    #[error("several GPUs begin with `{asked}`: {}", known.join(", "))]
    Several {
        /// What was asked for.
        asked: String,
        /// Number, name and UUID of each.
        known: Vec<String>,
    },
    /// It is too old.
    #[error(
        "{name} has compute capability {}.{}; GPUs from {}.{} on are supported (Ampere, 2020)",
        capability.0, capability.1, Architecture::MINIMUM.major, Architecture::MINIMUM.minor
    )]
    TooOld {
        /// Its model.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
}

impl GpuChoice {
    /// The GPU that is meant, of at least one.
    ///
    /// # Errors
    /// There is none such, several, or it is too old.
    pub fn of(self, gpus: &[Gpu]) -> Result<&Gpu, ChoiceError> {
        let usable = |gpu: &Gpu| gpu.capability >= (Architecture::MINIMUM.major, Architecture::MINIMUM.minor);
        let known =
            |gpus: &[&Gpu]| gpus.iter().map(|g| format!("{} {} {}", g.ordinal, g.name, g.uuid)).collect();
        let digits = |gpu: &Gpu| gpu.uuid.bytes().skip(4).filter(|b| *b != b'-').collect::<Vec<u8>>();
        let matching: Vec<&Gpu> = match self {
            GpuChoice::Any => gpus.iter().find(|gpu| usable(gpu)).or(gpus.first()).into_iter().collect(),
            GpuChoice::Ordinal(n) => gpus.iter().filter(|gpu| gpu.ordinal == n).collect(),
            GpuChoice::Uuid(UuidPrefix { digits: asked, count, .. }) => {
                gpus.iter().filter(|gpu| digits(gpu).starts_with(&asked[..usize::from(count)])).collect()
            }
        };
        match matching[..] {
            [gpu] if usable(gpu) => Ok(gpu),
            [gpu] => Err(ChoiceError::TooOld { name: gpu.name.clone(), capability: gpu.capability }),
            [] => {
                let known = known(&gpus.iter().collect::<Vec<_>>());
                Err(ChoiceError::Unknown { asked: self.to_string(), known })
            }
            [..] => Err(ChoiceError::Several { asked: self.to_string(), known: known(&matching) }),
        }
    }
}

/// As `--device` takes it.
impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuChoice::Any => f.write_str("cuda"),
            GpuChoice::Ordinal(n) => write!(f, "cuda:{n}"),
            GpuChoice::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(ordinal: u32, capability: (u32, u32), uuid: &str) -> Gpu {
        Gpu {
            ordinal,
            name: format!("Card {ordinal}"),
            uuid: uuid.into(),
            capability,
            memory_bytes: 1 << 30,
            multiprocessors: 10,
            shared_bytes: 100 << 10,
            l2_bytes: 1 << 20,
        }
    }

    fn uuid(text: &str) -> GpuChoice {
        GpuChoice::Uuid(text.parse().unwrap())
    }

    #[test]
    fn gpus_are_chosen_by_number_and_uuid_and_the_first_that_is_new_enough() {
        let gpus = [
            gpu(0, (7, 5), "GPU-8d3a0000-0000-0000-0000-000000000001"),
            gpu(1, (8, 6), "GPU-8d3b0000-0000-0000-0000-000000000002"),
            gpu(2, (9, 0), "GPU-12340000-0000-0000-0000-000000000003"),
        ];
        let chosen = |choice: GpuChoice| choice.of(&gpus).map(|gpu| gpu.ordinal).map_err(|e| e.to_string());
        assert_eq!(chosen(GpuChoice::Any), Ok(1));
        assert_eq!(chosen(GpuChoice::Ordinal(2)), Ok(2));
        assert_eq!(chosen(uuid("GPU-8d3b")), Ok(1));
        assert_eq!(chosen(uuid("mig-12340000-0000-0000-0000-000000000003")), Ok(2));
        let old = "Card 0 has compute capability 7.5; GPUs from 8.0 on are supported (Ampere, 2020)";
        assert_eq!(chosen(GpuChoice::Ordinal(0)), Err(old.into()));
        assert_eq!(GpuChoice::Any.of(&gpus[..1]).unwrap_err().to_string(), old);
        let none = chosen(GpuChoice::Ordinal(3)).unwrap_err();
        assert!(none.starts_with("there is no GPU `cuda:3`; there are: 0 Card 0 GPU-8d3a0000-"), "{none}");
        let none = chosen(uuid("MIG-77")).unwrap_err();
        assert!(none.starts_with("there is no GPU `MIG-77`; there are: 0 Card 0"), "{none}");
        let several = chosen(uuid("GPU-8d3")).unwrap_err();
        assert!(several.starts_with("several GPUs begin with `GPU-8d3`: 0 Card 0 "), "{several}");
        assert!(!several.contains("Card 2"));
    }

    #[test]
    fn uuids_are_read_as_tools_write_them() {
        let whole = "GPU-8d3a0000-0000-0000-0000-000000000001";
        assert_eq!(whole.parse::<UuidPrefix>().unwrap().to_string(), whole);
        for wrong in ["", "GPU", "GPU-", "8d3a", "GPU-xyz", &format!("{whole}2"), "GPÜ-1"] {
            assert_eq!(wrong.parse::<UuidPrefix>(), Err(UuidError), "{wrong}");
        }
    }
}

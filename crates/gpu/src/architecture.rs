//! Which generation of GPU code is compiled for.

use std::fmt;
use std::str::FromStr;

/// A compute capability, as in NVIDIA's CUDA C++ Programming Guide, and whether code may use what
/// is only on GPUs of just this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// The number before the point: 9 of 9.0.
    pub major: u32,
    /// The number behind it.
    pub minor: u32,
    /// Whether code may use instructions of this capability that later ones lack, such as `wgmma`:
    /// the `a` of `sm_90a`.
    pub specific: bool,
}

impl Architecture {
    /// The lowest that kernels are written for.
    pub const MINIMUM: Architecture = Architecture { major: 8, minor: 0, specific: false };

    /// The best target for a device of this compute capability.
    pub fn of_device(major: u32, minor: u32) -> Architecture {
        Architecture { major, minor, specific: (major, minor) == (9, 0) }
    }

    /// The most bytes of shared memory that a block can have there: CUDA C++ Programming Guide,
    /// table of technical specifications per compute capability.
    pub fn shared_bytes(self) -> usize {
        let kib = match (self.major, self.minor) {
            (8, 0 | 7) => 163,
            (8, _) | (12, _) => 99,
            _ => 227,
        };
        kib << 10
    }

    /// Whether `mma.sync` takes codes of 8 bits and adds their products in f32. It takes them from
    /// 8.9 on, but 8.9 keeps 13 bits of a sum: of 16 products it was up to 7 times farther from the
    /// exact sum than f32 may be, even where nothing else was added to them in so few bits.
    pub(crate) fn adds_codes_in_f32(self) -> bool {
        self.major >= 9
    }

    /// Whether what it makes of them are conversions and products of f16, as ptxas 13.0 does for
    /// 9.0 and 10.x, where other instructions multiply codes.
    pub(crate) fn converts_codes(self) -> bool {
        matches!(self.major, 9..12)
    }

    /// The name that PTX has for it, such as `compute_90a`.
    pub fn compute(self) -> String {
        format!("compute_{}", self.number())
    }

    fn number(self) -> String {
        let Architecture { major, minor, specific } = self;
        format!("{major}{minor}{}", if specific { "a" } else { "" })
    }
}

/// The name that machine code has for it, such as `sm_90a`.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}

/// What is no architecture that kernels are written for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no architecture `{given}` to plan for; there are: {}", KNOWN.map(|n| format!("sm_{n}")).join(", "))]
pub struct ArchitectureError {
    /// What was given.
    pub given: String,
}

/// Those that NVRTC 13.0 compiles for and that are not below [`Architecture::MINIMUM`].
const KNOWN: [&str; 10] = ["80", "86", "87", "89", "90a", "100", "103", "110", "120", "121"];

/// By the name that machine code has for it; `sm_90` is `sm_90a`, which is what a GPU of 9.0 gets.
impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(name: &str) -> Result<Architecture, ArchitectureError> {
        let unknown = || ArchitectureError { given: name.to_string() };
        let plain = |number: &'static str| number.strip_suffix('a').unwrap_or(number);
        let number = name.strip_prefix("sm_").ok_or_else(unknown)?;
        let number = number.strip_suffix('a').unwrap_or(number);
        let known = KNOWN.into_iter().map(plain).find(|known| *known == number).ok_or_else(unknown)?;
        let (major, minor) = known.split_at(known.len() - 1);
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Architecture::of_device(major, minor)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Architecture, KNOWN};

    #[test]
    fn names_are_those_of_the_compiler() {
        let names = |major, minor| {
            let architecture = Architecture::of_device(major, minor);
            (architecture.to_string(), architecture.compute())
        };
        assert_eq!(names(8, 0), ("sm_80".into(), "compute_80".into()));
        assert_eq!(names(9, 0), ("sm_90a".into(), "compute_90a".into()));
        assert_eq!(names(12, 0), ("sm_120".into(), "compute_120".into()));
    }
    #[test]
    fn architectures_are_known_by_name() {
        for known in KNOWN {
            let name = format!("sm_{known}");
            assert_eq!(name.parse::<Architecture>().unwrap().to_string(), name);
        }
        assert_eq!("sm_90".parse(), Ok(Architecture::of_device(9, 0)));
        for wrong in ["sm_75", "sm_", "sm_9", "sm_901", "90a", "sm_é"] {
            let error = wrong.parse::<Architecture>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "there is no architecture `{wrong}` to plan for; there are: sm_80, "
                ))
            );
        }
    }
}

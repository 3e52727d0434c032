//! Which generation of GPU code is compiled for.

use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::Architecture;

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
}

//! Which instruction set the kernels use, and how one body of plain Rust is compiled once for each.
//!
//! An [`Isa`] value is proof that this processor runs the set: it can be had only through the
//! constructors here, which check. That is what makes `Isa::run` safe to call.

use std::fmt;

/// An instruction set level. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every x86-64 (or any other) processor has.
    Portable,
    /// AVX2, FMA and F16C: 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW, VL and DQ: 512-bit vectors.
    Avx512,
    /// AVX512-BF16 on top of AVX-512: pairs of bf16 products added to f32.
    Avx512Bf16,
    /// AMX tiles with bf16 products, on top of all that.
    Amx,
    /// AMX tiles that take f16 too.
    AmxFp16,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 6] =
        [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx, Level::AmxFp16];

    /// The name used by `HALFSTEP_ISA` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512-bf16",
            Level::Amx => "amx",
            Level::AmxFp16 => "amx-fp16",
        }
    }
}

/// Proof that this processor runs a [`Level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

/// Why an instruction set cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The processor or the operating system lacks features.
    #[error("this processor cannot run `{}`: it lacks {}; the best it has is `{}`", .wanted.name(), .missing.join(", "), .best.name())]
    Missing {
        /// What was asked for.
        wanted: Level,
        /// The features that are absent.
        missing: Vec<&'static str>,
        /// The highest level that is present.
        best: Level,
    },
    /// `HALFSTEP_ISA` holds something else than a level's name.
    #[error("HALFSTEP_ISA is `{0}`; expected one of portable, avx2, avx512, avx512-bf16, amx, amx-fp16")]
    Unknown(String),
}

/// A computation written as plain Rust, to be compiled once per instruction set.
///
/// `run` and everything it calls in a hot loop must be `#[inline(always)]`, so that it is compiled
/// with the caller's target features.
pub(crate) trait Kernel {
    /// What the computation returns.
    type Output;
    /// The computation.
    fn run(self) -> Self::Output;
}

impl Isa {
    /// The portable level, which every processor has.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// The level if this processor runs it.
    ///
    /// # Errors
    /// [`IsaError::Missing`] names what the processor lacks.
    pub fn new(level: Level) -> Result<Isa, IsaError> {
        let missing = missing(level);
        if missing.is_empty() {
            return Ok(Isa(level));
        }
        Err(IsaError::Missing { wanted: level, missing, best: Isa::best().0 })
    }

    /// The highest level this processor runs.
    pub fn best() -> Isa {
        let level = Level::ALL.into_iter().rev().find(|&l| missing(l).is_empty());
        Isa(level.unwrap_or(Level::Portable))
    }

    /// Every level this processor runs, lowest first.
    pub fn available() -> Vec<Isa> {
        Level::ALL.into_iter().filter_map(|l| Isa::new(l).ok()).collect()
    }

    /// The level named by `HALFSTEP_ISA`, or the best one where the variable is unset.
    ///
    /// # Errors
    /// If the variable names no level, or one that this processor does not run.
    pub fn from_env() -> Result<Isa, IsaError> {
        match std::env::var("HALFSTEP_ISA") {
            Err(_) => Ok(Isa::best()),
            Ok(name) => match Level::ALL.into_iter().find(|l| l.name() == name) {
                Some(level) => Isa::new(level),
                None => Err(IsaError::Unknown(name)),
            },
        }
    }

    /// The level this value proves.
    pub fn level(self) -> Level {
        self.0
    }

    /// Runs `kernel` compiled for this instruction set. Levels above AVX-512 add products only:
    /// `kernel` is compiled for AVX-512.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Portable => kernel.run(),
            // SAFETY: an `Isa` of this level exists only if `missing` found every feature the
            // function enables.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx | Level::AmxFp16 => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run(),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
pub(crate) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2")]
pub(crate) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(not(target_arch = "x86_64"))]
fn missing(level: Level) -> Vec<&'static str> {
    match level {
        Level::Portable => Vec::new(),
        _ => vec!["x86-64"],
    }
}

/// The features of `level` that this processor or operating system lacks.
#[cfg(target_arch = "x86_64")]
fn missing(level: Level) -> Vec<&'static str> {
    let mut missing = Vec::new();
    macro_rules! need {
        ($($feature:tt)*) => { $(if !std::arch::is_x86_feature_detected!($feature) { missing.push($feature) })* };
    }
    if level >= Level::Avx2 {
        need!("avx2" "fma" "f16c" "bmi1" "bmi2");
    }
    if level >= Level::Avx512 {
        need!("avx512f" "avx512bw" "avx512vl" "avx512dq");
    }
    if level >= Level::Avx512Bf16 {
        need!("avx512bf16");
    }
    if level >= Level::Amx && !crate::amx::available() {
        missing.push("amx-bf16");
    }
    if level >= Level::AmxFp16 && !crate::amx::fp16() {
        missing.push("amx-fp16");
    }
    missing
}

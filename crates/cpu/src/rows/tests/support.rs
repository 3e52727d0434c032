//! What the tests of kernels share: tensors in any storage, every instruction set and thread count,
//! error bounds.

use std::num::NonZeroUsize;
use std::sync::Once;

use halfstep_float::{Philox, bf16_from_f32, e4m3_from_f32, e5m2_from_f32, f16_from_f32, unit_f32};

use crate::isa::{Isa, Level};
use crate::pool::Pool;
use crate::rows::storage::{Dst, Src, Storage};

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

pub const STORAGES: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::F16];

/// Bound on the relative error of n operations in f32 (Higham, Accuracy and Stability, lemma 3.1).
pub fn gamma(n: usize) -> f64 {
    let nu = n as f64 * U;
    nu / (1.0 - nu)
}

/// Relative error bound of the kernels' sums: 32 additions in a lane or group, a tree of 5, one
/// rounding, and f64 beyond; rounded up.
pub fn sum_error() -> f64 {
    gamma(40)
}

/// Unit roundoff: half the distance from 1 to the next number, 2^-p for p significant bits.
pub(crate) fn unit_roundoff(storage: Storage) -> f64 {
    match storage {
        Storage::F32 => 1.0 / (1u64 << 24) as f64,
        Storage::Bf16 => 1.0 / (1u64 << 8) as f64,
        Storage::F16 => 1.0 / (1u64 << 11) as f64,
        Storage::E4m3 => 1.0 / (1u64 << 4) as f64,
        Storage::E5m2 => 1.0 / (1u64 << 3) as f64,
    }
}

/// Error of rounding `x` to a storage format: half an ulp, or half the smallest number.
pub fn rounding(storage: Storage, x: f64) -> f64 {
    let smallest = match storage {
        Storage::F32 => 2f64.powi(-149),
        Storage::Bf16 => 2f64.powi(-133),
        Storage::F16 => 2f64.powi(-24),
        Storage::E4m3 => 2f64.powi(-9),
        Storage::E5m2 => 2f64.powi(-16),
    };
    unit_roundoff(storage) * x.abs() + smallest / 2.0
}

/// The bits of a tensor, so that results can be compared exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Bits {
    Wide(Vec<u32>),
    Narrow(Vec<u16>),
}

/// A tensor that owns its memory.
#[derive(Clone, Debug)]
pub enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
    E4m3(Vec<u8>),
    E5m2(Vec<u8>),
}

impl Stored {
    /// The values rounded to a storage format by the reference conversion.
    pub fn new(storage: Storage, values: &[f32]) -> Stored {
        match storage {
            Storage::F32 => Stored::F32(values.to_vec()),
            Storage::Bf16 => Stored::Bf16(values.iter().map(|&x| bf16_from_f32(x)).collect()),
            Storage::F16 => Stored::F16(values.iter().map(|&x| f16_from_f32(x)).collect()),
            Storage::E4m3 => Stored::E4m3(values.iter().map(|&x| e4m3_from_f32(x)).collect()),
            Storage::E5m2 => Stored::E5m2(values.iter().map(|&x| e5m2_from_f32(x)).collect()),
        }
    }

    /// Filled with a pattern that is easily seen where a kernel forgets to write.
    pub fn empty(storage: Storage, len: usize) -> Stored {
        Stored::new(storage, &vec![-7777.0; len])
    }

    pub fn src(&self) -> Src<'_> {
        match self {
            Stored::F32(v) => Src::F32(v),
            Stored::Bf16(v) => Src::Bf16(v),
            Stored::F16(v) => Src::F16(v),
            Stored::E4m3(v) => Src::E4m3(v),
            Stored::E5m2(v) => Src::E5m2(v),
        }
    }

    pub fn dst(&mut self) -> Dst<'_> {
        match self {
            Stored::F32(v) => Dst::F32(v),
            Stored::Bf16(v) => Dst::Bf16(v),
            Stored::F16(v) => Dst::F16(v),
            Stored::E4m3(v) => Dst::E4m3(v),
            Stored::E5m2(v) => Dst::E5m2(v),
        }
    }

    pub fn values(&self) -> Vec<f64> {
        (0..self.src().len()).map(|i| f64::from(self.src().get(i))).collect()
    }

    pub fn bits(&self) -> Bits {
        match self {
            Stored::F32(v) => Bits::Wide(v.iter().map(|x| x.to_bits()).collect()),
            Stored::Bf16(v) | Stored::F16(v) => Bits::Narrow(v.clone()),
            Stored::E4m3(v) | Stored::E5m2(v) => Bits::Narrow(v.iter().map(|&c| c.into()).collect()),
        }
    }
}

/// Numbers in (−scale, scale), the same for the same seed.
pub fn random(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let philox = Philox::new(seed);
    (0..len).map(|i| (2.0 * unit_f32(philox.word(0, i as u64)) - 1.0) * scale).collect()
}

pub fn random_stored(seed: u64, storage: Storage, len: usize, scale: f32) -> Stored {
    Stored::new(storage, &random(seed, len, scale))
}

pub fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap())
}

/// The instruction sets this processor has; says once on stderr which ones are not tested here.
pub fn isas() -> Vec<Isa> {
    static SAY: Once = Once::new();
    SAY.call_once(|| {
        for level in Level::ALL {
            if let Err(error) = Isa::new(level) {
                eprintln!("skipped: {error}");
            }
        }
    });
    // AMX changes nothing for these kernels: they use its AVX-512 part.
    Isa::available()
}

/// Computes on every instruction set with one, two and three threads; the bits must not depend on
/// the threads. Returns a result for each instruction set.
pub fn everywhere(compute: impl Fn(Isa, &Pool) -> Vec<Stored>) -> Vec<Vec<Stored>> {
    let bits = |result: &[Stored]| result.iter().map(Stored::bits).collect::<Vec<_>>();
    isas()
        .into_iter()
        .map(|isa| {
            let result = compute(isa, &pool(1));
            for threads in [2, 3] {
                let other = compute(isa, &pool(threads));
                assert!(bits(&other) == bits(&result), "{isa}: {threads} threads differ from one");
            }
            result
        })
        .collect()
}

/// Fails where |actual − expected| is beyond the bound of its element.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f64], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let (error, bound) = ((a - e).abs(), bound(i));
        assert!(error <= bound, "{what}[{i}] is {a}, expected {e}: off by {error:.3e}, bound {bound:.3e}");
    }
}

/// erf and erfc for x ≥ 0 in f64, to about 1e-14: a series of positive terms, beyond 2.5 Lentz's
/// continued fraction. (Abramowitz and Stegun 7.1.6 and 7.1.14.)
fn erf_parts(x: f64) -> (f64, f64) {
    let front = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        let erf = 2.0 * front * sum;
        (erf, 1.0 - erf)
    } else {
        let mut fraction = x;
        for n in (1..=120).rev() {
            fraction = x + 0.5 * f64::from(n) / fraction;
        }
        let erfc = front / fraction;
        (1.0 - erfc, erfc)
    }
}

pub fn erf(x: f64) -> f64 {
    if x.is_nan() { x } else { erf_parts(x.abs().min(30.0)).0.copysign(x) }
}

/// The normal distribution function.
pub fn normal_cdf(x: f64) -> f64 {
    let (_, erfc) = erf_parts((x.abs() / std::f64::consts::SQRT_2).min(30.0));
    if x < 0.0 { erfc / 2.0 } else { 1.0 - erfc / 2.0 }
}

pub fn gelu(x: f64) -> f64 {
    x * normal_cdf(x)
}

pub fn gelu_grad(x: f64) -> f64 {
    normal_cdf(x) + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

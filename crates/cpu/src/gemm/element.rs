//! How a stored element becomes what a micro-kernel multiplies.

use halfstep_float::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};

/// A stored element and the f32 value that it stands for in the product.
pub(crate) trait Element {
    /// The stored type; its default is the code of zero.
    type Stored: Copy + Default;
    /// The value, rounded to the compute format where the storage is wider. Exact otherwise.
    fn value(stored: Self::Stored) -> f32;
    /// The value as a sum of bf16 codes, of which a bf16 product needs only the first.
    fn halves(stored: Self::Stored) -> [u16; 2];
}

/// f32 computed as f32.
pub(crate) struct F32;
/// bf16 codes.
pub(crate) struct Bf16;
/// f16 codes.
pub(crate) struct F16;
/// f32 rounded to bf16.
pub(crate) struct F32ToBf16;
/// f32 rounded to f16.
pub(crate) struct F32ToF16;

impl Element for F32 {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        stored
    }
    #[inline(always)]
    fn halves(stored: f32) -> [u16; 2] {
        F32ToBf16::halves(stored)
    }
}

impl Element for Bf16 {
    type Stored = u16;
    #[inline(always)]
    fn value(stored: u16) -> f32 {
        f32_from_bf16(stored)
    }
    #[inline(always)]
    fn halves(stored: u16) -> [u16; 2] {
        [stored, 0]
    }
}

impl Element for F32ToBf16 {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        f32_from_bf16(bf16_from_f32(stored))
    }
    #[inline(always)]
    fn halves(stored: f32) -> [u16; 2] {
        [bf16_from_f32(stored), 0]
    }
}

impl Element for F16 {
    type Stored = u16;
    #[inline(always)]
    fn value(stored: u16) -> f32 {
        f32_from_f16(stored)
    }
    #[inline(always)]
    fn halves(stored: u16) -> [u16; 2] {
        split_f16(f32_from_f16(stored))
    }
}

impl Element for F32ToF16 {
    type Stored = f32;
    #[inline(always)]
    fn value(stored: f32) -> f32 {
        f32_from_f16(f16_from_f32(stored))
    }
    #[inline(always)]
    fn halves(stored: f32) -> [u16; 2] {
        F16::halves(f16_from_f32(stored))
    }
}

/// The exact sum of two bf16 codes for the value `x` of an f16 code.
///
/// With |x| in [2^e, 2^(e+1)) the high part is x to eight bits, so the rest is at most half of bf16's unit, 2^(e−8),
/// and a multiple of f16's unit, 2^(e−10): an integer of magnitude ≤ 4 times a power of two, which bf16 holds
/// exactly. The largest f16 value rounds up to 2^16, which bf16 has. Every f16 value, subnormals included, and so
/// each part, is a multiple of 2^-24: never a bf16 subnormal (below 2^-126), which the matrix unit would flush. Each
/// product is a multiple of 2^-48, and so is every partial sum: nothing is flushed in the accumulator either.
///
/// An infinity or NaN goes to the high part and the low part is zero. Their products with the other operand's low
/// part may turn an infinity into NaN (∞ · 0): non-finite stays non-finite, but which of the two is not kept.
#[inline(always)]
fn split_f16(x: f32) -> [u16; 2] {
    let high = bf16_from_f32(x);
    let rest = x - f32_from_bf16(high);
    let finite = x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
    // The rest has at most three significant bits, so cutting its lower half loses nothing.
    [high, if finite { (rest.to_bits() >> 16) as u16 } else { 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claim that the product of f16 values by bf16 passes is exact rests on this, so all codes are tried.
    #[test]
    fn every_f16_is_the_exact_sum_of_two_bf16_that_are_not_subnormal() {
        for code in 0..=u16::MAX {
            let x = f32_from_f16(code);
            let [high, low] = F16::halves(code).map(f32_from_bf16);
            if x.is_finite() {
                assert_eq!(f64::from(high) + f64::from(low), f64::from(x), "{code:#x}");
                for part in [high, low] {
                    assert!(part == 0.0 || part.abs() >= 2f32.powi(-24), "{code:#x}");
                }
            } else {
                assert!(!high.is_finite() && high.is_nan() == x.is_nan() && low == 0.0, "{code:#x}");
            }
        }
    }
}

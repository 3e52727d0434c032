//! How a stored element becomes what a micro-kernel multiplies.

use halfstep_float::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16, round_to_tf32};

/// A stored element and the f32 value that it stands for in the product.
pub(crate) trait Element {
    /// The stored type; its default is the code of zero.
    type Stored: Copy + Default;
    /// The value, rounded to the compute format where the storage is wider. Exact otherwise.
    fn value(stored: Self::Stored) -> f32;
    /// The 16-bit codes that tiles multiply, one for each plane of the scheme; zeros after the
    /// last.
    fn terms(stored: Self::Stored) -> [u16; 3];
}

/// Types that say how an element is converted: its value, and its codes.
macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident($stored:ident: $type:ty) = $value:expr, $terms:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Element for $name {
            type Stored = $type;
            #[inline(always)]
            fn value($stored: $type) -> f32 {
                $value
            }
            #[inline(always)]
            fn terms($stored: $type) -> [u16; 3] {
                $terms
            }
        }
    )+};
}

elements! {
    /// f32 computed as f32, or split into bf16 terms.
    F32(x: f32) = x, split_f32(x);
    /// f32 rounded to tf32.
    F32ToTf32(x: f32) = round_to_tf32(x), split_f32(round_to_tf32(x));
    /// bf16 codes.
    Bf16(code: u16) = f32_from_bf16(code), [code, 0, 0];
    /// f16 codes.
    F16(code: u16) = f32_from_f16(code), split_f16(f32_from_f16(code));
    /// f32 rounded to bf16.
    F32ToBf16(x: f32) = f32_from_bf16(bf16_from_f32(x)), [bf16_from_f32(x), 0, 0];
    /// f32 rounded to f16.
    F32ToF16(x: f32) = f32_from_f16(f16_from_f32(x)), F16::terms(f16_from_f32(x));
    /// f16 codes for tiles that take them.
    F16Code(code: u16) = f32_from_f16(code), [code, 0, 0];
    /// f32 rounded to f16 for tiles that take it.
    F32ToF16Code(x: f32) = F32ToF16::value(x), [f16_from_f32(x), 0, 0];
}

/// The exact sum of two bf16 codes for the value `x` of an f16 code.
///
/// With |x| in [2^e, 2^(e+1)) the high part is x to eight bits, so the rest is at most half of
/// bf16's unit, 2^(e−8), and a multiple of f16's unit, 2^(e−10): an integer of magnitude ≤ 4 times
/// a power of two, which bf16 holds exactly. The largest f16 value rounds up to 2^16, which bf16
/// has. Every f16 value, subnormals included, and so each part, is a multiple of 2^-24: never a
/// bf16 subnormal (below 2^-126), which the matrix unit would flush. Each product is a multiple of
/// 2^-48, and so is every partial sum: nothing is flushed in the accumulator either.
///
/// An infinity or NaN goes to the high part and the low part is zero. Their products with the other
/// operand's low part may turn an infinity into NaN (∞ · 0): non-finite stays non-finite, but which
/// of the two is not kept.
#[inline(always)]
fn split_f16(x: f32) -> [u16; 3] {
    let high = bf16_from_f32(x);
    let rest = x - f32_from_bf16(high);
    let finite = x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
    // The rest has at most three significant bits, so cutting its lower half loses nothing.
    [high, if finite { (rest.to_bits() >> 16) as u16 } else { 0 }, 0]
}

/// `x` as a sum of bf16 terms, each what those before it leave, rounded to nearest even.
///
/// With |x| in [2^e, 2^(e+1)) the first rest is at most 2^(e−8) and has 16 bits, so its difference
/// is exact; the second is at most 2^(e−17) and a multiple of 2^(e−23), so the third term is all of
/// it: three terms are x, two are x within 2^-17·|x|. Values within half a unit of f32's maximum,
/// which would round to infinity, are cut instead: bf16 has the cut value, the first rest is then
/// below 2^(e−7) and the rest of this holds with twice the numbers. Terms below 2^-126 are bf16
/// subnormals, which the matrix unit takes for zero: an absolute error below 2^-125.
///
/// An infinity or NaN goes to the first term and the others are zero; as for [`split_f16`], an
/// infinity may become NaN in the product, but never finite, and NaN stays NaN.
#[inline(always)]
fn split_f32(x: f32) -> [u16; 3] {
    let finite = x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
    let nearest = bf16_from_f32(x);
    let overflows = finite && nearest & 0x7fff == 0x7f80;
    let first = if overflows { (x.to_bits() >> 16) as u16 } else { nearest };
    let rest = if finite { x - f32_from_bf16(first) } else { 0.0 };
    let second = bf16_from_f32(rest);
    // At most eight significant bits are left: rounding them loses nothing.
    [first, second, bf16_from_f32(rest - f32_from_bf16(second))]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claim that the product of f16 values by bf16 passes is exact rests on this, so all codes
    /// are tried.
    #[test]
    fn every_f16_is_the_exact_sum_of_two_bf16_that_are_not_subnormal() {
        for code in 0..=u16::MAX {
            let x = f32_from_f16(code);
            let [high, low, none] = F16::terms(code).map(f32_from_bf16);
            assert_eq!(none, 0.0);
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
    fn bits(i: u32) -> f32 {
        f32::from_bits(i)
    }

    /// What [`Split`](halfstep_graph::Split) and its bounds rest on: every exponent, with the
    /// significands at which rounding turns and some between.
    #[test]
    fn three_bf16_terms_are_the_value_and_two_are_near_it() {
        let edges = [
            0u32, 1, 0x7f, 0x80, 0x81, 0x7fff, 0x8000, 0x8001, 0x17fff, 0x18000, 0xff_ffff, 0x7f_ffff,
            0x7f_8000,
        ];
        let random = halfstep_float::Philox::new(3);
        let significands =
            edges.map(|e| e & 0x7f_ffff).into_iter().chain((0..500).map(|i| random.word(0, i) >> 9));
        for significand in significands {
            for code in (0..=254u32).flat_map(|e| [e << 23, 1 << 31 | e << 23]) {
                let x = bits(code | significand);
                let terms = F32::terms(x).map(|t| f64::from(f32_from_bf16(t)));
                let exact = f64::from(x);
                assert!(terms.iter().all(|t| t.is_finite()), "{x:e}: {terms:?}");
                // Below 2^-133, bf16's last place, the rest is rounded too.
                let place = 2f64.powi(-134);
                assert!(
                    (exact - terms.iter().sum::<f64>()).abs()
                        <= if exact.abs() < 2f64.powi(-109) { place } else { 0.0 }
                );
                assert!(
                    (exact - terms[0] - terms[1]).abs() <= 2f64.powi(-17) * 1.002 * exact.abs() + place,
                    "{x:e}"
                );
                assert!(terms[1].abs() <= 2f64.powi(-8) * 1.002 * exact.abs() + place, "{x:e}");
                assert!(terms[2].abs() <= 2f64.powi(-17) * 1.002 * exact.abs() + place, "{x:e}");
            }
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let [first, second, third] = F32::terms(x).map(f32_from_bf16);
            assert!((first == x || (first.is_nan() && x.is_nan())) && second == 0.0 && third == 0.0);
        }
    }
}

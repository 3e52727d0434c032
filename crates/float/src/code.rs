//! The reference conversion between f64 values and codes of a format, in integer arithmetic only.
//!
//! Going from f64 straight to the target rounds once; f32 values are exact in f64, so one function
//! serves both.

use serde::{Deserialize, Serialize};

use crate::format::{Format, exp2i};

/// How a value between two neighbours of a format is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Rounding {
    /// To the nearest; halfway to the one with an even mantissa (IEEE 754 roundTiesToEven).
    #[default]
    NearestEven,
    /// Away from zero with a probability equal to the dropped fraction. The number is uniform in 0
    /// ..= 2^32 − 1 and comes from a counter-based generator ([`crate::Philox`]), so that equal
    /// draws give equal results.
    Stochastic(u32),
}

/// The overflow mode of a conversion: what becomes of values beyond the largest finite one,
/// infinities included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// IEEE: to infinity; to NaN in a format without infinities (e4m3); saturated where there is
    /// neither (e2m1).
    NonFinite,
    /// To the largest finite value of the same sign (the OCP "saturating" mode, which also maps
    /// infinities).
    Saturate,
}

const SIGN64: u64 = 1 << 63;

/// The code of `x` in `format`, in the low bits. NaN becomes the format's quiet NaN with the sign
/// kept where it has one, and a zero of the other sign in e3m2, e2m3 and e2m1, which have none;
/// both as `ml_dtypes` does.
pub fn encode(format: Format, x: f64, rounding: Rounding, overflow: Overflow) -> u32 {
    let info = format.info();
    let sign = if x.is_sign_negative() { format.sign_bit() } else { 0 };
    if x.is_nan() {
        return format.nan_code(sign);
    }
    let magnitude = match x.is_infinite() {
        true => format.max_finite_code() + 1,
        false => encode_finite(x.to_bits() & !SIGN64, info.mantissa_bits, 1 - info.bias, rounding),
    };
    let max = format.max_finite_code();
    match (magnitude > max, overflow) {
        (false, _) if magnitude == 0 && !info.has_negative_zero => 0,
        (false, _) => sign | magnitude,
        (true, Overflow::Saturate) => sign | max,
        (true, Overflow::NonFinite) => format.overflow_code(sign),
    }
}

/// The code of the finite non-negative f64 with these bits as if the exponent field had no upper
/// end, so that a result above the largest finite code means overflow.
fn encode_finite(bits: u64, mantissa_bits: u32, min_exponent: i32, rounding: Rounding) -> u32 {
    if bits == 0 {
        return 0;
    }
    let field = (bits >> 52) as i32;
    let fraction = bits & ((1 << 52) - 1);
    // x = significand · 2^(exponent − 52); for a subnormal f64 the leading one is lower, which
    // matters to no target here: all of them round such values to zero or to their smallest number.
    let (significand, exponent) =
        if field == 0 { (fraction, -1022) } else { (fraction | 1 << 52, field - 1023) };
    let base = exponent.max(min_exponent);
    // One unit of the target's mantissa is 2^(base − mantissa_bits): that many low bits are
    // dropped.
    let dropped = (base - exponent) as u32 + 52 - mantissa_bits;
    let kept = round_shift(significand, dropped, rounding);
    // A carry out of the mantissa runs into the exponent field, which is what it should do.
    let code = (((base - min_exponent) as u64) << mantissa_bits) + kept;
    u32::try_from(code).unwrap_or(u32::MAX >> 1)
}

/// `x / 2^shift` rounded to an integer; `x` < 2^53.
fn round_shift(x: u64, shift: u32, rounding: Rounding) -> u64 {
    if shift == 0 {
        return x;
    }
    // 128 bits hold the fraction without loss up to shift 127; beyond 118 it is below 2^-64 of a
    // unit anyway.
    let shift = shift.min(118);
    let x = u128::from(x);
    let floor = x >> shift;
    let fraction = x & ((1 << shift) - 1);
    let up = match rounding {
        Rounding::NearestEven => {
            let half = 1u128 << (shift - 1);
            fraction > half || (fraction == half && floor & 1 == 1)
        }
        Rounding::Stochastic(random) => {
            let top = if shift >= 32 { fraction >> (shift - 32) } else { fraction << (32 - shift) };
            u128::from(random) < top
        }
    };
    floor as u64 + u64::from(up)
}

/// The value of a code; exact. Bits above the format's width are ignored.
pub fn decode(format: Format, code: u32) -> f64 {
    let info = format.info();
    let magnitude = code & (format.sign_bit() - 1);
    let negative = code & format.sign_bit() != 0;
    let value = if magnitude > format.max_finite_code() {
        if Some(magnitude) == format.inf_code() { f64::INFINITY } else { f64::NAN }
    } else if negative && magnitude == 0 && !info.has_negative_zero {
        f64::NAN
    } else {
        let field = magnitude >> info.mantissa_bits;
        let fraction = magnitude & ((1 << info.mantissa_bits) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << info.mantissa_bits };
        let exponent = field.max(1) as i32 - info.bias - info.mantissa_bits as i32;
        f64::from(significand) * exp2i(exponent)
    };
    if negative { -value } else { value }
}

/// `x` rounded to `format`, to nearest even, overflowing to infinity (or NaN) as IEEE does.
pub fn round_to(format: Format, x: f64) -> f64 {
    decode(format, encode(format, x, Rounding::NearestEven, Overflow::NonFinite))
}

/// The distance from |`x`| to the next larger value of `format` for finite x in its range, after
/// Goldberg (1991): 2^(max(⌊log2 |x|⌋, 1 − bias) − mantissa bits). NaN for a non-finite x.
pub fn ulp(format: Format, x: f64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    let info = format.info();
    let field = ((x.to_bits() & !SIGN64) >> 52) as i32;
    exp2i((field - 1023).max(1 - info.bias) - info.mantissa_bits as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nearest(format: Format, x: f64) -> u32 {
        encode(format, x, Rounding::NearestEven, Overflow::NonFinite)
    }

    fn codes(format: Format) -> impl Iterator<Item = u32> {
        0..1u32 << format.bits()
    }

    #[test]
    fn every_code_decodes_as_half_does_and_encodes_back() {
        for code in 0..=u16::MAX {
            let bf = half::bf16::from_bits(code).to_f64();
            let hf = half::f16::from_bits(code).to_f64();
            for (format, expected) in [(Format::Bf16, bf), (Format::F16, hf)] {
                let got = decode(format, code.into());
                assert!(got == expected || (got.is_nan() && expected.is_nan()), "{format} {code:#x}");
                assert_eq!(got.is_sign_negative(), code >> 15 == 1);
                if !got.is_nan() {
                    assert_eq!(nearest(format, got), code.into(), "{format} {code:#x}");
                }
            }
        }
    }

    #[test]
    fn small_formats_round_trip() {
        for format in Format::ALL.into_iter().filter(|f| f.bits() <= 8) {
            let mut previous = -1.0;
            for code in codes(format) {
                let value = decode(format, code);
                if !value.is_nan() {
                    assert_eq!(nearest(format, value), code, "{format} {code:#x}");
                }
                if code < 1 << (format.bits() - 1) && value.is_finite() {
                    assert!(value > previous, "codes ascend");
                    previous = value;
                }
            }
        }
        let e2m1: Vec<f64> = (0..8).map(|c| decode(Format::E2m1, c)).collect();
        assert_eq!(e2m1, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!(decode(Format::E4m3fnuz, 0x80).is_nan() && decode(Format::E5m2fnuz, 0x80).is_nan());
        assert_eq!(codes(Format::E4m3).filter(|&c| decode(Format::E4m3, c).is_nan()).count(), 2);
    }

    /// Halfway points between neighbours go to the even code, and the f64 neighbours of the
    /// midpoint to the near side: this fails if anything rounds twice.
    #[test]
    fn midpoints_go_to_even_and_round_once() {
        for format in Format::ALL.into_iter().filter(|f| f.bits() <= 16) {
            for code in 0..format.max_finite_code() {
                let (low, high) = (decode(format, code), decode(format, code + 1));
                let middle = low + (high - low) / 2.0;
                let even = if code % 2 == 0 { code } else { code + 1 };
                assert_eq!(nearest(format, middle), even);
                assert_eq!(nearest(format, middle.next_down()), code);
                assert_eq!(nearest(format, middle.next_up()), code + 1);
                let zero = even == 0 && !format.info().has_negative_zero;
                assert_eq!(nearest(format, -middle), if zero { 0 } else { even | format.sign_bit() });
                assert_eq!(ulp(format, low), high - low);
            }
        }
    }

    #[test]
    fn overflow_follows_the_mode() {
        for format in Format::ALL {
            let info = format.info();
            for x in [info.max_finite * 2.0, f64::MAX, f64::INFINITY] {
                let saturated = encode(format, -x, Rounding::NearestEven, Overflow::Saturate);
                assert_eq!(decode(format, saturated), -info.max_finite);
                let free = round_to(format, x);
                match (info.has_inf, info.has_nan) {
                    (true, _) => assert_eq!(free, f64::INFINITY),
                    (false, true) => assert!(free.is_nan()),
                    (false, false) => assert_eq!(free, info.max_finite),
                }
            }
            let nan = round_to(format, f64::NAN);
            assert!(nan.is_nan() || (!info.has_nan && nan == 0.0));
        }
        // 464 lies halfway between 448 and the 480 that e4m3fn gives to NaN; 448 has the even
        // mantissa.
        assert_eq!(round_to(Format::E4m3, 464.0), 448.0);
        assert!(round_to(Format::E4m3, 464.0f64.next_up()).is_nan());
        assert_eq!(round_to(Format::F16, 65520.0f64.next_down()), 65504.0);
        assert_eq!(round_to(Format::F16, 65520.0), f64::INFINITY);
    }

    #[test]
    fn stochastic_rounding_has_the_right_mean() {
        // 1 + 3/8 of an e4m3 unit (1/8): over all 2^16 evenly spread draws exactly 3/8 go up.
        let x = 1.0 + 0.375 / 8.0;
        let ups = (0..1u32 << 16)
            .filter(|i| {
                decode(
                    Format::E4m3,
                    encode(Format::E4m3, x, Rounding::Stochastic(i << 16), Overflow::NonFinite),
                ) > 1.0
            })
            .count();
        assert_eq!(ups, 3 << 13);
        for x in [1.0, 0.0, 448.0] {
            assert_eq!(
                decode(Format::E4m3, encode(Format::E4m3, x, Rounding::Stochastic(0), Overflow::NonFinite)),
                x
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The processor's own f64 → f32 conversion is IEEE.
        #[test]
        fn f32_agrees_with_the_processor(bits: u64) {
            let x = f64::from_bits(bits);
            let expected = x as f32;
            let got = nearest(Format::F32, x);
            prop_assert!(got == expected.to_bits() || (x.is_nan() && f32::from_bits(got).is_nan()));
        }

        /// The same near the ends of f32's range, where random bits seldom fall.
        #[test]
        fn f32_agrees_in_its_range(bits: u32, low: u32) {
            let x = f64::from_bits(f64::from(f32::from_bits(bits)).to_bits() ^ u64::from(low & 0x3fff_ffff));
            let expected = x as f32;
            let got = nearest(Format::F32, x);
            prop_assert!(got == expected.to_bits() || (x.is_nan() && f32::from_bits(got).is_nan()));
        }

        #[test]
        fn f16_and_bf16_agree_with_half(bits: u32) {
            let x = f32::from_bits(bits);
            let h = half::f16::from_f32(x);
            let b = half::bf16::from_f32(x);
            prop_assert!(x.is_nan() || nearest(Format::F16, x.into()) == u32::from(h.to_bits()));
            prop_assert!(x.is_nan() || nearest(Format::Bf16, x.into()) == u32::from(b.to_bits()));
        }
    }
}

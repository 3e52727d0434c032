//! Conversions between f32 and the two 16-bit formats, without branches, so that loops over them
//! vectorise.
//!
//! Round to nearest even; NaN stays NaN (made quiet, sign and upper payload kept); subnormals are
//! preserved; overflow goes to infinity. The processor's own bf16 conversions flush subnormals and
//! are not used here.

/// The bf16 code of `x`.
#[inline(always)]
pub fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let quiet = (bits >> 16) | 0x40;
    // Infinity has a zero mantissa, so the rounding addend leaves it alone.
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { quiet } else { rounded }) as u16
}

/// The value of a bf16 code; exact.
#[inline(always)]
pub fn f32_from_bf16(code: u16) -> f32 {
    f32::from_bits(u32::from(code) << 16)
}

/// The f16 code of `x`.
#[inline(always)]
pub fn f16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: rebias the exponent from 127 to 15 and round at bit 13; a carry may reach
    // infinity.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Subnormal results: 0.5 has an ulp of 2^-24, which is f16's smallest number, so the sum rounds
    // for us.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let nan = 0x7e00 | ((magnitude >> 13) & 0x1ff);
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let large = if magnitude > 0x7f80_0000 { nan } else { 0x7c00 };
    (sign | if magnitude >= 143 << 23 { large } else { finite }) as u16
}

/// The value of an f16 code; exact.
#[inline(always)]
pub fn f32_from_f16(code: u16) -> f32 {
    let sign = (u32::from(code) & 0x8000) << 16;
    let shifted = (u32::from(code) & 0x7fff) << 13;
    let normal = shifted + (112 << 23);
    // Subnormals: put the mantissa below an implicit one at 2^-14 and take that one away; no f32
    // subnormal appears.
    let subnormal = (f32::from_bits(shifted + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let quiet = if shifted > 0x0f80_0000 { 1 << 22 } else { 0 };
    let non_finite = (shifted + (224 << 23)) | quiet;
    let finite = if shifted < 1 << 23 { subnormal } else { normal };
    f32::from_bits(sign | if shifted >= 0x0f80_0000 { non_finite } else { finite })
}

macro_rules! slice_conversion {
    ($(#[$doc:meta])* $name:ident, $element:ident, $from:ty, $to:ty) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// If the slices differ in length.
        #[inline(always)]
        pub fn $name(from: &[$from], to: &mut [$to]) {
            assert_eq!(from.len(), to.len(), "source and destination differ in length");
            for (to, &from) in to.iter_mut().zip(from) {
                *to = $element(from);
            }
        }
    };
}

slice_conversion!(
    /// Converts each element to bf16.
    f32_to_bf16, bf16_from_f32, f32, u16
);
slice_conversion!(
    /// Converts each bf16 code to its value.
    bf16_to_f32, f32_from_bf16, u16, f32
);
slice_conversion!(
    /// Converts each element to f16.
    f32_to_f16, f16_from_f32, f32, u16
);
slice_conversion!(
    /// Converts each f16 code to its value.
    f16_to_f32, f32_from_f16, u16, f32
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits()
            || (a.is_nan() && b.is_nan() && a.is_sign_negative() == b.is_sign_negative())
    }

    fn check(x: f32) {
        let (b, h) = (half::bf16::from_f32(x), half::f16::from_f32(x));
        if x.is_nan() {
            assert!(f32_from_bf16(bf16_from_f32(x)).is_nan());
            assert!(f32_from_f16(f16_from_f32(x)).is_nan());
        } else {
            assert_eq!(bf16_from_f32(x), b.to_bits(), "bf16 of {x:e}");
            assert_eq!(f16_from_f32(x), h.to_bits(), "f16 of {x:e}");
        }
    }

    #[test]
    fn every_code_has_the_value_that_half_gives_it() {
        for code in 0..=u16::MAX {
            assert!(same(f32_from_bf16(code), half::bf16::from_bits(code).to_f32()));
            let (got, expected) = (f32_from_f16(code), half::f16::from_bits(code).to_f32());
            assert!(same(got, expected), "{code:#x}: {got:e} against {expected:e}");
        }
    }

    /// Every code, both midpoints beside it and their f32 neighbours.
    #[test]
    fn codes_midpoints_and_neighbours_round_as_half_does() {
        for code in 0..=u16::MAX {
            for x in [f32_from_bf16(code), f32_from_f16(code)] {
                let bits = x.to_bits();
                for step in [1, 0x1000, 0x8000] {
                    for y in [bits.wrapping_sub(step), bits.wrapping_add(step)] {
                        for z in [y.wrapping_sub(1), y, y.wrapping_add(1)] {
                            check(f32::from_bits(z));
                        }
                    }
                }
                check(x);
            }
        }
        // Midpoints between f16 subnormals, in f32: (2i + 1) · 2^-25.
        for i in 0..1024u16 {
            let x = f32::from(2 * i + 1) * 2f32.powi(-25);
            check(x);
            check(x.next_up());
            check(-x.next_down());
        }
    }

    #[test]
    fn slices() {
        let x = [1.0, -0.0, f32::MAX, 1e-7, f32::NAN];
        let mut codes = [0; 5];
        f32_to_f16(&x, &mut codes);
        assert_eq!(codes, [0x3c00, 0x8000, 0x7c00, 2, 0x7e00]);
        let mut back = [0.0; 5];
        f16_to_f32(&codes, &mut back);
        assert_eq!(back[3], 2f32.powi(-23));
        f32_to_bf16(&x, &mut codes);
        assert_eq!(codes[..3], [0x3f80, 0x8000, 0x7f80]);
        bf16_to_f32(&codes, &mut back);
        assert_eq!(back[0], 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn any_f32(bits: u32) {
            check(f32::from_bits(bits));
        }
    }
}

//! e8m0: a power of two in a byte, the scale of OCP MX blocks.

use serde::{Deserialize, Serialize};

/// An OCP MX scale (`float8_e8m0fnu`): 2^(code − 127), from 2^−127 to 2^127; code 255 is NaN. No
/// sign, no zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct E8m0(pub u8);

impl E8m0 {
    /// The scale that is not a number.
    pub const NAN: E8m0 = E8m0(255);
    /// 1.
    pub const ONE: E8m0 = E8m0(127);

    /// 2^`exponent`; the nearest scale where that is beyond −127 ..= 127.
    #[inline(always)]
    pub const fn from_exponent(exponent: i32) -> E8m0 {
        let code = if exponent < -127 { -127 } else { exponent };
        let code = if code > 127 { 127 } else { code };
        E8m0((code + 127) as u8)
    }

    /// The scale nearest to `x`; halfway to the larger. NaN for zero, negative and non-finite
    /// numbers and for those that would round to 2^128. As `ml_dtypes` does, which takes all
    /// numbers between 2^−127 and 2^−126 to the latter.
    #[inline(always)]
    pub const fn nearest(x: f32) -> E8m0 {
        let bits = x.to_bits();
        let (field, mantissa) = (bits >> 23, bits & 0x7f_ffff);
        if bits == 0 || field >= 255 {
            return E8m0::NAN;
        }
        let up = if field == 0 { mantissa > 0x40_0000 } else { mantissa >= 0x40_0000 };
        E8m0(field as u8 + up as u8)
    }

    /// The value; exact.
    #[inline(always)]
    pub const fn value(self) -> f32 {
        match self.0 {
            0 => f32::from_bits(0x40_0000),
            255 => f32::NAN,
            code => f32::from_bits((code as u32) << 23),
        }
    }

    /// One over the value; exact.
    #[inline(always)]
    pub const fn reciprocal(self) -> f32 {
        match self.0 {
            255 => f32::NAN,
            code => E8m0(254 - code).value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_powers_of_two() {
        for code in 0..255u8 {
            let scale = E8m0(code);
            assert_eq!(f64::from(scale.value()), 2f64.powi(i32::from(code) - 127));
            assert_eq!(f64::from(scale.reciprocal()), 2f64.powi(127 - i32::from(code)));
            assert_eq!(E8m0::nearest(scale.value()), scale);
            assert_eq!(E8m0::from_exponent(i32::from(code) - 127), scale);
        }
        assert!(E8m0::NAN.value().is_nan() && E8m0::NAN.reciprocal().is_nan());
        assert_eq!([-1000, 1000].map(E8m0::from_exponent), [E8m0(0), E8m0(254)]);
    }
}

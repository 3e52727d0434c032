//! The number formats and their constants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A binary floating-point format: sign, exponent, mantissa, most significant bit first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of binary32.
    Bf16,
    /// OCP FP8 E4M3 (`float8_e4m3fn`): no infinities, one NaN per sign, largest finite value 448.
    E4m3,
    /// OCP FP8 E5M2 (`float8_e5m2`): IEEE-like, with infinities and NaNs.
    E5m2,
    /// `float8_e4m3fnuz`: bias 8, neither infinities nor −0, whose code is the one NaN; largest
    /// value 240.
    E4m3fnuz,
    /// `float8_e5m2fnuz`: bias 16, neither infinities nor −0, whose code is the one NaN; largest
    /// value 57344.
    E5m2fnuz,
    /// OCP MX FP6 E3M2 (`float6_e3m2fn`): neither infinities nor NaN, largest value 28.
    E3m2,
    /// OCP MX FP6 E2M3 (`float6_e2m3fn`): neither infinities nor NaN, largest value 7.5.
    E2m3,
    /// OCP MX FP4 E2M1 (`float4_e2m1fn`): neither infinities nor NaN, largest value 6.
    E2m1,
}

/// What a format can represent. Every f64 field is exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FormatInfo {
    /// Total width in bits.
    pub bits: u32,
    /// Width of the exponent field in bits.
    pub exponent_bits: u32,
    /// Width of the stored mantissa in bits (without the implicit one).
    pub mantissa_bits: u32,
    /// Exponent bias: the smallest normal number is 2^(1 − bias).
    pub bias: i32,
    /// Largest finite value.
    pub max_finite: f64,
    /// Smallest positive normal value.
    pub min_normal: f64,
    /// Smallest positive value, 2^(1 − bias − mantissa bits).
    pub min_subnormal: f64,
    /// Largest relative error of rounding to nearest in the normal range, 2^−(mantissa bits + 1).
    pub unit_roundoff: f64,
    /// Whether the format has infinities.
    pub has_inf: bool,
    /// Whether the format has a NaN.
    pub has_nan: bool,
    /// Whether zero has a sign.
    pub has_negative_zero: bool,
}

/// 2^`e`, exact, for e in −1074 ..= 1023.
pub(crate) const fn exp2i(e: i32) -> f64 {
    assert!(e >= -1074 && e <= 1023);
    if e >= -1022 { f64::from_bits(((e + 1023) as u64) << 52) } else { f64::from_bits(1 << (e + 1074)) }
}

impl Format {
    /// Every format, widest first.
    pub const ALL: [Format; 10] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::E4m3,
        Format::E5m2,
        Format::E4m3fnuz,
        Format::E5m2fnuz,
        Format::E3m2,
        Format::E2m3,
        Format::E2m1,
    ];

    /// The format's constants.
    pub const fn info(self) -> FormatInfo {
        let (exponent_bits, mantissa_bits, has_inf, has_nan) = match self {
            Format::F32 => (8, 23, true, true),
            Format::F16 => (5, 10, true, true),
            Format::Bf16 => (8, 7, true, true),
            Format::E4m3 => (4, 3, false, true),
            Format::E5m2 => (5, 2, true, true),
            Format::E4m3fnuz => (4, 3, false, true),
            Format::E5m2fnuz => (5, 2, false, true),
            Format::E3m2 => (3, 2, false, false),
            Format::E2m3 => (2, 3, false, false),
            Format::E2m1 => (2, 1, false, false),
        };
        let has_negative_zero = !matches!(self, Format::E4m3fnuz | Format::E5m2fnuz);
        // The bias is one more where −0 gives its code to NaN: the name's "uz" formats.
        let bias = (1 << (exponent_bits - 1)) - has_negative_zero as i32;
        let max = self.max_finite_code();
        let significand = (max & ((1 << mantissa_bits) - 1)) | (1 << mantissa_bits);
        let exponent = (max >> mantissa_bits) as i32 - bias - mantissa_bits as i32;
        FormatInfo {
            bits: 1 + exponent_bits + mantissa_bits,
            exponent_bits,
            mantissa_bits,
            bias,
            max_finite: significand as f64 * exp2i(exponent),
            min_normal: exp2i(1 - bias),
            min_subnormal: exp2i(1 - bias - mantissa_bits as i32),
            unit_roundoff: exp2i(-(mantissa_bits as i32) - 1),
            has_inf,
            has_nan,
            has_negative_zero,
        }
    }

    /// Width in bits.
    pub const fn bits(self) -> u32 {
        self.info().bits
    }

    /// The name used in recipes, plans and reports.
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// The name in Python's `ml_dtypes` and numpy, which [`FromStr`] takes too.
    pub const fn python_name(self) -> &'static str {
        self.names().1
    }

    /// [`Format::name`] and [`Format::python_name`].
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Format::F32 => ("f32", "float32"),
            Format::F16 => ("f16", "float16"),
            Format::Bf16 => ("bf16", "bfloat16"),
            Format::E4m3 => ("e4m3", "float8_e4m3fn"),
            Format::E5m2 => ("e5m2", "float8_e5m2"),
            Format::E4m3fnuz => ("e4m3fnuz", "float8_e4m3fnuz"),
            Format::E5m2fnuz => ("e5m2fnuz", "float8_e5m2fnuz"),
            Format::E3m2 => ("e3m2", "float6_e3m2fn"),
            Format::E2m3 => ("e2m3", "float6_e2m3fn"),
            Format::E2m1 => ("e2m1", "float4_e2m1fn"),
        }
    }

    /// The exponent of the largest finite value: ⌊log2 max⌋, OCP MX's emax.
    pub const fn max_exponent(self) -> i32 {
        (self.max_finite_code() >> self.info().mantissa_bits) as i32 - self.info().bias
    }

    /// The code of the largest finite value.
    pub(crate) const fn max_finite_code(self) -> u32 {
        match self {
            Format::F32 => 0x7f7f_ffff,
            Format::F16 => 0x7bff,
            Format::Bf16 => 0x7f7f,
            Format::E4m3 => 0x7e,
            Format::E5m2 => 0x7b,
            Format::E4m3fnuz | Format::E5m2fnuz => 0x7f,
            Format::E3m2 | Format::E2m3 => 0x1f,
            Format::E2m1 => 0x7,
        }
    }

    /// The code of +∞, where there is one.
    pub(crate) const fn inf_code(self) -> Option<u32> {
        if self.info().has_inf { Some(self.max_finite_code() + 1) } else { None }
    }

    /// The bit of the sign.
    pub const fn sign_bit(self) -> u32 {
        1 << (self.bits() - 1)
    }

    /// The code a NaN with this sign bit (in place, or 0) becomes. Formats without a NaN give a
    /// zero of the other sign: it has no meaning, and is what `ml_dtypes` does.
    pub(crate) const fn nan_code(self, sign: u32) -> u32 {
        match self {
            Format::F32 => sign | 0x7fc0_0000,
            Format::F16 => sign | 0x7e00,
            Format::Bf16 => sign | 0x7fc0,
            Format::E4m3 => sign | 0x7f,
            Format::E5m2 => sign | 0x7e,
            Format::E4m3fnuz | Format::E5m2fnuz => 0x80,
            Format::E3m2 | Format::E2m3 | Format::E2m1 => sign ^ self.sign_bit(),
        }
    }

    /// The code of what lies beyond the largest finite value on the side of this sign bit:
    /// infinity, else NaN, else the largest finite value.
    pub(crate) const fn overflow_code(self, sign: u32) -> u32 {
        match self.inf_code() {
            Some(inf) => sign | inf,
            None if self.info().has_nan => self.nan_code(sign),
            None => sign | self.max_finite_code(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not a format's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown number format `{0}`; expected one of {names}", names = names())]
pub struct UnknownFormat(pub String);

fn names() -> String {
    Format::ALL.map(Format::name).join(", ")
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Format, UnknownFormat> {
        Format::ALL
            .into_iter()
            .find(|f| f.name() == name || f.python_name() == name)
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_the_published_ones() {
        let max = |f: Format| f.info().max_finite;
        assert_eq!(max(Format::F32), f64::from(f32::MAX));
        assert_eq!(max(Format::F16), 65504.0);
        assert_eq!(max(Format::Bf16), half::bf16::MAX.to_f64());
        assert_eq!(max(Format::E4m3), 448.0);
        assert_eq!(max(Format::E5m2), 57344.0);
        assert_eq!(max(Format::E2m1), 6.0);
        assert_eq!(Format::F32.info().min_normal, f64::from(f32::MIN_POSITIVE));
        assert_eq!(Format::F32.info().min_subnormal, 2f64.powi(-149));
        assert_eq!(Format::F16.info().min_subnormal, 2f64.powi(-24));
        assert_eq!(Format::Bf16.info().min_subnormal, 2f64.powi(-133));
        assert_eq!(Format::E4m3.info().min_subnormal, 2f64.powi(-9));
        assert_eq!(Format::E5m2.info().min_subnormal, 2f64.powi(-16));
        assert_eq!(Format::E2m1.info().min_subnormal, 0.5);
        assert_eq!(Format::Bf16.info().unit_roundoff, 2f64.powi(-8));
        assert_eq!([max(Format::E4m3fnuz), max(Format::E5m2fnuz)], [240.0, 57344.0]);
        assert_eq!(Format::E4m3fnuz.info().min_subnormal, 2f64.powi(-10));
        assert_eq!(Format::E5m2fnuz.info().min_subnormal, 2f64.powi(-17));
        assert_eq!([max(Format::E3m2), max(Format::E2m3)], [28.0, 7.5]);
        assert_eq!(Format::E3m2.info().min_subnormal, 2f64.powi(-4));
        assert_eq!(Format::E2m3.info().min_subnormal, 2f64.powi(-3));
        assert_eq!(Format::ALL.map(Format::bits), [32, 16, 16, 8, 8, 8, 8, 6, 6, 4]);
        // OCP MX v1.0, table 1.
        let mx = [Format::E5m2, Format::E4m3, Format::E3m2, Format::E2m3, Format::E2m1];
        assert_eq!(mx.map(Format::max_exponent), [15, 8, 4, 2, 2]);
    }

    #[test]
    fn names_round_trip() {
        for f in Format::ALL {
            assert_eq!(f.name().parse(), Ok(f));
            assert_eq!(f.python_name().parse(), Ok(f));
        }
        assert!("fp16".parse::<Format>().is_err());
    }
}

//! Number formats of PTX and the conversions between them, bit by bit.
//!
//! Values are converted from an exact integer times a power of two, so that every conversion rounds
//! once. Rules are those of `cvt` in the PTX ISA 9.0, section "Data Movement and Conversion
//! Instructions: cvt".

/// A floating-point format that a PTX instruction reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE binary32.
    F32,
    /// 8 exponent and 10 mantissa bits in the upper 19 bits of a 32-bit register.
    Tf32,
    /// IEEE binary16.
    F16,
    /// The upper half of an `F32`.
    Bf16,
    /// 8 bits, 3 of mantissa, no infinities, largest value 448.
    E4m3,
    /// 8 bits, 2 of mantissa, largest finite value 57,344.
    E5m2,
    /// 6 bits, 2 of mantissa, neither infinities nor NaN, largest value 28.
    E3m2,
    /// 6 bits, 3 of mantissa, neither infinities nor NaN, largest value 7.5.
    E2m3,
    /// 4 bits, 1 of mantissa, neither infinities nor NaN, largest value 6.
    E2m1,
}

/// How a value between two representable ones is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `rn`: to the nearest, ties to the even code.
    NearestEven,
    /// `rna`: to the nearest, ties away from zero.
    NearestAway,
    /// `rz`: towards zero.
    Zero,
    /// `rm`: towards negative infinity.
    Down,
    /// `rp`: towards positive infinity.
    Up,
}

/// Modifiers of a conversion to a narrower format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The rounding modifier.
    pub rounding: Rounding,
    /// `.satfinite`: what exceeds the largest finite value becomes that value, with its sign.
    pub satfinite: bool,
    /// `.relu`: what is negative becomes +0.
    pub relu: bool,
}

impl Conversion {
    /// A conversion that has a rounding modifier and no other.
    pub const fn rounded(rounding: Rounding) -> Self {
        Self { rounding, satfinite: false, relu: false }
    }
}

/// What a format has at the top of its range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Top {
    /// Infinities, and NaN above them.
    Infinity,
    /// One NaN, the greatest code.
    Nan,
    /// Finite values only.
    Finite,
}

/// A floating-point value taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// significand · 2^(exponent − mantissa bits of its format). Subnormal values and zero keep the
    /// smallest exponent of the format.
    Finite {
        /// With its sign and, for normal values, the implicit bit.
        significand: i32,
        /// The unbiased exponent.
        exponent: i32,
    },
    /// An infinity.
    Infinite {
        /// Whether it is −∞.
        negative: bool,
    },
    /// Any NaN.
    Nan,
}

impl Format {
    /// Bits of the mantissa without the implicit one.
    pub const fn mantissa_bits(self) -> u32 {
        match self {
            Self::F32 => 23,
            Self::Tf32 | Self::F16 => 10,
            Self::Bf16 => 7,
            Self::E4m3 | Self::E2m3 => 3,
            Self::E5m2 | Self::E3m2 => 2,
            Self::E2m1 => 1,
        }
    }

    const fn exponent_bits(self) -> u32 {
        match self {
            Self::F32 | Self::Tf32 | Self::Bf16 => 8,
            Self::F16 | Self::E5m2 => 5,
            Self::E4m3 => 4,
            Self::E3m2 => 3,
            Self::E2m3 | Self::E2m1 => 2,
        }
    }

    const fn top(self) -> Top {
        match self {
            Self::F32 | Self::Tf32 | Self::F16 | Self::Bf16 | Self::E5m2 => Top::Infinity,
            Self::E4m3 => Top::Nan,
            Self::E3m2 | Self::E2m3 | Self::E2m1 => Top::Finite,
        }
    }

    /// Bits below the code in its register: 13 for `Tf32`, none for the others.
    const fn padding(self) -> u32 {
        if matches!(self, Self::Tf32) { 13 } else { 0 }
    }

    /// Bits of a code, as it lies in memory.
    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits() + self.mantissa_bits() + self.padding()
    }

    /// Bits from one code to the next where two are packed: six-bit codes have a byte each.
    pub const fn packed_bits(self) -> u32 {
        if self.bits() == 6 { 8 } else { self.bits() }
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent_bits() - 1)) - 1
    }

    /// The exponent of the smallest normal value, which subnormal values share.
    pub const fn smallest_exponent(self) -> i32 {
        1 - self.bias()
    }

    /// The greatest code of a finite value, without padding.
    const fn largest(self) -> u32 {
        let infinity = ((1 << self.exponent_bits()) - 1) << self.mantissa_bits();
        match self.top() {
            Top::Infinity => infinity - 1,
            Top::Nan => infinity + (1 << self.mantissa_bits()) - 2,
            Top::Finite => infinity + (1 << self.mantissa_bits()) - 1,
        }
    }

    /// The NaN that instructions write. Formats without NaN have the largest value instead.
    pub const fn canonical_nan(self) -> u32 {
        match self {
            Self::F32 | Self::Tf32 => 0x7fff_ffff,
            Self::F16 | Self::Bf16 => 0x7fff,
            Self::E4m3 | Self::E5m2 => 0x7f,
            Self::E3m2 | Self::E2m3 | Self::E2m1 => self.largest(),
        }
    }

    /// Takes a code apart. Bits above the code are ignored, and so is the padding of `Tf32`, as
    /// Tensor Cores do.
    #[inline(always)]
    pub const fn parts(self, code: u32) -> Parts {
        let (mantissa_bits, exponent_bits) = (self.mantissa_bits(), self.exponent_bits());
        let code = code >> self.padding();
        let negative = code >> (mantissa_bits + exponent_bits) & 1 == 1;
        let field = code >> mantissa_bits & ((1 << exponent_bits) - 1);
        let mantissa = code & ((1 << mantissa_bits) - 1);
        let magnitude = field << mantissa_bits | mantissa;
        if magnitude > self.largest() {
            let infinite = matches!(self.top(), Top::Infinity) && mantissa == 0;
            return if infinite { Parts::Infinite { negative } } else { Parts::Nan };
        }
        let significand = if field == 0 { mantissa } else { mantissa | 1 << mantissa_bits } as i32;
        let exponent = if field == 0 { 1 } else { field as i32 } - self.bias();
        Parts::Finite { significand: if negative { -significand } else { significand }, exponent }
    }

    /// The value of a code. Every value of these formats is an `f32`; a NaN is the canonical one.
    pub fn decode(self, code: u32) -> f32 {
        let sign = code >> (self.bits() - 1) & 1;
        match self.parts(code) {
            Parts::Finite { significand: 0, .. } => f32::from_bits(sign << 31),
            Parts::Finite { significand, exponent } => {
                let scale = exponent - self.mantissa_bits() as i32;
                // An f64 holds both factors and the product exactly.
                (f64::from(significand) * power_of_two(scale)) as f32
            }
            Parts::Infinite { negative: false } => f32::INFINITY,
            Parts::Infinite { negative: true } => f32::NEG_INFINITY,
            Parts::Nan => f32::from_bits(Self::F32.canonical_nan()),
        }
    }

    /// The code of a value. An `f32` converts to `f64` exactly.
    pub fn encode(self, value: f64, conversion: Conversion) -> u32 {
        let bits = value.to_bits();
        let (negative, field) = (bits >> 63 == 1, (bits >> 52 & 0x7ff) as i32);
        let mantissa = bits & ((1 << 52) - 1);
        if value.is_nan() {
            return self.canonical_nan();
        }
        if conversion.relu && negative {
            return 0;
        }
        if value.is_infinite() {
            let finite = conversion.satfinite || self.top() == Top::Finite;
            return self.signed(negative, if finite { self.largest() } else { self.overflowed() });
        }
        let magnitude = if field == 0 { mantissa } else { mantissa | 1 << 52 };
        self.round(negative, u128::from(magnitude), field.max(1) - 1075, conversion)
    }

    /// The code of ±`magnitude` · 2^`scale`, rounded once.
    pub fn round(self, negative: bool, magnitude: u128, scale: i32, conversion: Conversion) -> u32 {
        if conversion.relu && negative {
            return 0;
        }
        if magnitude == 0 {
            return self.signed(negative, 0);
        }
        let mantissa_bits = self.mantissa_bits() as i32;
        let top = scale + 127 - magnitude.leading_zeros() as i32;
        let exponent = top.max(self.smallest_exponent());
        // Codes count upwards in units of 2^(exponent - mantissa_bits): a carry goes into the
        // exponent by itself.
        let drop = exponent - mantissa_bits - scale;
        let (kept, half, rest) = split(magnitude, drop);
        let up = match conversion.rounding {
            Rounding::NearestEven => half && (rest || kept & 1 == 1),
            Rounding::NearestAway => half,
            Rounding::Zero => false,
            Rounding::Down => negative && (half || rest),
            Rounding::Up => !negative && (half || rest),
        };
        let base = (exponent - self.smallest_exponent()) as u32;
        if base >= 1 << self.exponent_bits() {
            return self.overflow(negative, conversion);
        }
        let code = (base << mantissa_bits) + kept as u32 + u32::from(up);
        if code > self.largest() { self.overflow(negative, conversion) } else { self.signed(negative, code) }
    }

    fn overflow(self, negative: bool, conversion: Conversion) -> u32 {
        let inwards = match conversion.rounding {
            Rounding::Zero => true,
            Rounding::Down => !negative,
            Rounding::Up => negative,
            Rounding::NearestEven | Rounding::NearestAway => false,
        };
        let finite = conversion.satfinite || inwards || self.top() == Top::Finite;
        self.signed(negative, if finite { self.largest() } else { self.overflowed() })
    }

    /// Infinity, or the NaN of a format that has no infinity.
    const fn overflowed(self) -> u32 {
        self.largest() + 1
    }

    const fn signed(self, negative: bool, code: u32) -> u32 {
        let sign = (negative as u32) << (self.exponent_bits() + self.mantissa_bits());
        (sign | code) << self.padding()
    }
}

/// `magnitude` / 2^`drop`: the integer part, whether the first dropped bit is set, and whether any
/// after it is.
fn split(magnitude: u128, drop: i32) -> (u128, bool, bool) {
    match drop {
        ..=0 => (magnitude << -drop, false, false),
        1..=128 => {
            let kept = if drop == 128 { 0 } else { magnitude >> drop };
            let half = magnitude >> (drop - 1) & 1 == 1;
            (kept, half, magnitude & ((1 << (drop - 1)) - 1) != 0)
        }
        _ => (0, false, magnitude != 0),
    }
}

/// 2^`exponent` for exponents of normal `f64` values.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Two codes in one register: of `cvt.….f16x2.f32 d, high, low` and its kin, which name the upper
/// one first.
pub fn packed(format: Format, high: f64, low: f64, conversion: Conversion) -> u32 {
    format.encode(high, conversion) << format.packed_bits() | format.encode(low, conversion)
}

/// The `ue8m0` code of a value's magnitude, as `cvt.{rz,rp}.satfinite.ue8m0x2.f32`: a power of two
/// from 2^-127 to 2^127, or 0xff for NaN.
pub fn encode_ue8m0(value: f32, rounding: Rounding) -> u8 {
    if value.is_nan() {
        return 0xff;
    }
    let bits = value.to_bits() & 0x7fff_ffff;
    let (field, mantissa) = (bits >> 23, bits & 0x7f_ffff);
    // 2^-127, the value of code 0, is the f32 with field 0 and only the first mantissa bit.
    let above = if field == 0 { mantissa > 0x40_0000 } else { mantissa != 0 };
    (field + u32::from(above && rounding == Rounding::Up)).min(0xfe) as u8
}

/// The value of a `ue8m0` code.
pub fn decode_ue8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x40_0000),
        0xff => f32::from_bits(Format::F32.canonical_nan()),
        field => f32::from_bits(u32::from(field) << 23),
    }
}

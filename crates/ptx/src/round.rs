//! Rounding of exact values in the directions that PTX names.

/// A direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// `rn`: to the nearest, ties to the even one.
    Nearest,
    /// `rna`: to the nearest, ties away from zero.
    NearestAway,
    /// `rz`: towards zero.
    Zero,
    /// `rm`: down.
    Down,
    /// `rp`: up.
    Up,
}

/// A binary format with an implicit leading bit and subnormals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    pub exponent_bits: u32,
    pub fraction_bits: u32,
}

/// IEEE half precision.
pub(crate) const F16: Binary = Binary { exponent_bits: 5, fraction_bits: 10 };
/// The upper half of an f32.
pub(crate) const BF16: Binary = Binary { exponent_bits: 8, fraction_bits: 7 };
/// An f32.
pub(crate) const F32: Binary = Binary { exponent_bits: 8, fraction_bits: 23 };

/// Rounds `x`, which is exact or odd-rounded from something exact, to `format`; returns its bits.
/// Infinities stay, NaN becomes the canonical one of PTX (all bits below the sign set for 16 and
/// 32 bits).
pub(crate) fn round(x: f64, format: Binary, rounding: Rounding) -> u32 {
    let Binary { exponent_bits, fraction_bits } = format;
    let sign = (x.to_bits() >> 63) as u32;
    let largest_exponent = (1u32 << exponent_bits) - 1;
    let above = sign << (exponent_bits + fraction_bits);
    let infinity = largest_exponent << fraction_bits;
    if x.is_nan() {
        return (1 << (exponent_bits + fraction_bits)) - 1;
    }
    if x.is_infinite() {
        return above | infinity;
    }
    if x == 0.0 {
        return above;
    }
    // x = significand · 2^exponent, with 53 bits of significand unless x is a subnormal f64.
    let biased = (x.to_bits() >> 52 & 0x7ff) as i32;
    let fraction = x.to_bits() & ((1 << 52) - 1);
    let (significand, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
    let bias = (1 << (exponent_bits - 1)) - 1;
    // Weight of the last bit that the format keeps here.
    let top = exponent + 63 - significand.leading_zeros() as i32;
    let last = top.max(1 - bias) - fraction_bits as i32;
    let drop = last - exponent;
    let (kept, rest, half) = if drop <= 0 {
        (significand << -drop, 0, 1)
    } else if drop >= 64 {
        (0, 1, 2)
    } else {
        (significand >> drop, significand & ((1 << drop) - 1), 1u64 << (drop - 1))
    };
    let up = match rounding {
        Rounding::Nearest => rest > half || rest == half && kept & 1 == 1,
        Rounding::NearestAway => rest >= half,
        Rounding::Zero => false,
        Rounding::Down => sign == 1 && rest != 0,
        Rounding::Up => sign == 0 && rest != 0,
    };
    // Adding the fraction to the exponent field carries as it should.
    let field = (last + fraction_bits as i32 + bias).max(1) as u64 - 1;
    let bits = (field << fraction_bits) + kept + u64::from(up);
    if bits < u64::from(infinity) {
        return above | bits as u32;
    }
    let away = match rounding {
        Rounding::Nearest | Rounding::NearestAway => true,
        Rounding::Zero => false,
        Rounding::Down => sign == 1,
        Rounding::Up => sign == 0,
    };
    above | if away { infinity } else { infinity - 1 }
}

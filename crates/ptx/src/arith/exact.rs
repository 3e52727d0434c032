//! Sums and products rounded once, in any direction.

use crate::formats::{Conversion, Format, Rounding};

/// An f32 of a register; subnormals become zeros of their sign where they are flushed.
#[inline(always)]
pub(super) fn single(bits: u32, flush: bool) -> f32 {
    let subnormal = flush && bits & 0x7f80_0000 == 0;
    f32::from_bits(if subnormal { bits & 0x8000_0000 } else { bits })
}

/// The register of a result: NaN is the canonical one, subnormals are flushed where asked.
#[inline(always)]
pub(super) fn register(value: f32, flush: bool) -> u32 {
    let bits = if value.is_nan() { 0x7fff_ffff } else { value.to_bits() };
    if flush && bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// An f64 of a register.
#[inline(always)]
pub(super) fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// `sum`, the nearest f64 to `sum + error`, made odd if it is not exact: rounded once more, to
/// fewer bits by at least two, it gives what the exact value would give (Boldo and Melquiond,
/// "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
fn to_odd(sum: f64, error: f64) -> f64 {
    if error == 0.0 || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// a + b, odd-rounded.
pub(super) fn sum_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let other = sum - a;
    let error = (a - (sum - other)) + (b - other);
    to_odd(sum, error)
}

/// The f32 nearest to an f64 in a direction; `zero` is what an exact zero becomes.
fn directed(value: f64, rounding: Rounding, zero: f32) -> f32 {
    if value == 0.0 {
        return zero;
    }
    f32::from_bits(Format::F32.encode(value, Conversion::rounded(rounding)))
}

/// The zero that a + b is if it is one.
fn zero_sum(a: f32, b: f32, rounding: Rounding) -> f32 {
    if a == 0.0 && b == 0.0 && a.is_sign_negative() == b.is_sign_negative() {
        return a;
    }
    if rounding == Rounding::Down { -0.0 } else { 0.0 }
}

/// a + b.
#[inline(always)]
pub(super) fn add(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::NearestEven | Rounding::NearestAway => a + b,
        _ => directed(sum_to_odd(a.into(), b.into()), rounding, zero_sum(a, b, rounding)),
    }
}

/// a · b.
#[inline(always)]
pub(super) fn multiply(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::NearestEven | Rounding::NearestAway => a * b,
        _ => directed(f64::from(a) * f64::from(b), rounding, a * b),
    }
}

/// a · b + c, rounded once.
#[inline(always)]
pub(super) fn fused(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let sum = product + f64::from(c);
    if matches!(rounding, Rounding::NearestEven | Rounding::NearestAway) {
        // Rounding twice differs from rounding once only where the f64 lies half-way between two
        // f32, which for subnormal f32 are further apart.
        let half_way = sum.to_bits() & 0x1fff_ffff == 0x1000_0000;
        let tiny = sum.abs() < f64::from(f32::MIN_POSITIVE) && sum != 0.0;
        if !half_way && !tiny {
            return sum as f32;
        }
        return sum_to_odd(product, c.into()) as f32;
    }
    let zero = if product == 0.0 { zero_sum(a * b, c, rounding) } else { zero_sum(1.0, -1.0, rounding) };
    directed(sum_to_odd(product, c.into()), rounding, zero)
}

/// a / b.
#[inline(always)]
pub(super) fn divide(a: f32, b: f32, rounding: Rounding) -> f32 {
    if matches!(rounding, Rounding::NearestEven | Rounding::NearestAway) {
        return a / b;
    }
    let (x, y) = (f64::from(a), f64::from(b));
    let quotient = x / y;
    if !quotient.is_finite() || quotient == 0.0 {
        return a / b;
    }
    // The remainder of a quotient of two f32 in f64 is exact.
    let remainder = f64::mul_add(-quotient, y, x);
    directed(to_odd(quotient, if y < 0.0 { -remainder } else { remainder }), rounding, a / b)
}

/// √a.
#[inline(always)]
pub(super) fn square_root(a: f32, rounding: Rounding) -> f32 {
    if matches!(rounding, Rounding::NearestEven | Rounding::NearestAway) {
        return a.sqrt();
    }
    let x = f64::from(a);
    let root = x.sqrt();
    if !root.is_finite() || root == 0.0 {
        return a.sqrt();
    }
    directed(to_odd(root, f64::mul_add(-root, root, x)), rounding, a.sqrt())
}

/// The smaller of two, or the one that is a number; −0 is below +0.
#[inline(always)]
pub(super) fn minimum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b < a || b == a && b.is_sign_negative() { b } else { a }
}

/// The larger of two, or the one that is a number; +0 is above −0.
#[inline(always)]
pub(super) fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b > a || b == a && b.is_sign_positive() { b } else { a }
}

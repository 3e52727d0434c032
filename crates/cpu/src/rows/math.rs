//! exp, log, tanh, erf, the logistic function and the normal distribution in f32, written so that
//! loops over them vectorise: no branches, no calls, no saturating conversion.
//!
//! Argument reductions follow Cephes (S. Moshier) for exp and FreeBSD's msun (`e_logf.c`) for log,
//! whose polynomial is used as it is; the other polynomials are minimax fits made for this file
//! (Remez exchange, coefficients rounded one after another from the lowest). The bounds stated are
//! checked by the tests against f64.

#![allow(clippy::excessive_precision, reason = "coefficients are given to the digits that name one f32")]

use super::Caps;
use super::body::fma;

/// 1.5·2^23: adding it rounds a small number to an integer, which the low bits of the sum then
/// hold.
const ROUND: f32 = 12_582_912.0;

/// The smaller of x and `bound`; NaN if x is NaN. (`f32::min` would return `bound`.)
#[inline(always)]
fn at_most(x: f32, bound: f32) -> f32 {
    if bound < x { bound } else { x }
}

#[inline(always)]
fn at_least(x: f32, bound: f32) -> f32 {
    if bound > x { bound } else { x }
}

/// 2^n for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// exp(x) within 2 ulp; overflows to infinity, underflows gradually to 0, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<C: Caps>(x: f32) -> f32 {
    // Beyond these the result is infinity or rounds to 0.
    let x = at_least(at_most(x, 89.0), -105.0);
    let shifted = fma::<C>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    // ln 2 in two parts; n times the first is exact.
    let r = fma::<C>(n, -0.693_359_375, x);
    let r = fma::<C>(n, 2.121_944_4e-4, r);
    let p = 0.001_384_045_8;
    let p = fma::<C>(p, r, 0.008_369_351);
    let p = fma::<C>(p, r, 0.041_668_083_5);
    let p = fma::<C>(p, r, 0.166_665_152);
    let p = fma::<C>(p, r, 0.499_999_94);
    let p = fma::<C>(p, r * r, r) + 1.0;
    // Two factors, because 2^exponent itself may be too large or too small for an f32.
    let half = exponent >> 1;
    p * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// exp(x) for −87 ≤ x ≤ 88 within 2 ulp; 0 below, NaN stays NaN. A little faster than [`exp`]; for
/// x ≤ 0 it differs only in that results below 1.7e-38 are flushed to zero.
#[inline(always)]
pub(crate) fn exp_normal<C: Caps>(x: f32) -> f32 {
    let inside = at_least(x, -87.0);
    let shifted = fma::<C>(inside, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<C>(n, -0.693_359_375, inside);
    let r = fma::<C>(n, 2.121_944_4e-4, r);
    let p = 0.001_384_045_8;
    let p = fma::<C>(p, r, 0.008_369_351);
    let p = fma::<C>(p, r, 0.041_668_083_5);
    let p = fma::<C>(p, r, 0.166_665_152);
    let p = fma::<C>(p, r, 0.499_999_94);
    let p = fma::<C>(p, r * r, r) + 1.0;
    // The integer is in the low bits of `shifted`: move it to the exponent and add 127.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * scale }
}

/// ln(x) within 2 ulp: −∞ at 0, NaN below, exact at 1, infinity at infinity.
#[inline(always)]
pub(crate) fn log<C: Caps>(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let bias = if small { -23 } else { 0 };
    // x = 2^k (1 + f) with sqrt(1/2) ≤ 1 + f < sqrt(2).
    let bits = scaled.to_bits().wrapping_sub(0x3f35_04f3);
    let k = (bits as i32 >> 23) + bias;
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    // Integers below 2^22 become floats through the low bits of ROUND.
    let k = f32::from_bits((ROUND.to_bits() as i32).wrapping_add(k) as u32) - ROUND;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * fma::<C>(w, 0.242_790_79, 0.400_009_72);
    let odd = z * fma::<C>(w, 0.284_987_87, 0.666_666_63);
    let half = 0.5 * f * f;
    let correction = fma::<C>(s, half + (even + odd), k * 9.058_000_6e-6);
    let result = fma::<C>(k, 0.693_138_12, f - (half - correction));
    let result = if x == f32::INFINITY { x } else { result };
    let result = if x == 0.0 { f32::NEG_INFINITY } else { result };
    // False for NaN too.
    if x >= 0.0 { result } else { f32::NAN }
}

/// tanh(x) within 2 ulp; odd, ±1 at ±∞, NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh<C: Caps>(x: f32) -> f32 {
    let t = at_most(x.abs(), 10.0);
    let z = t * t;
    let p = -0.005_897_972;
    let p = fma::<C>(p, z, 0.020_798_627);
    let p = fma::<C>(p, z, -0.053_784_717);
    let p = fma::<C>(p, z, 0.133_319_363);
    let p = fma::<C>(p, z, -0.333_332_986);
    let near = fma::<C>(p * z, t, t);
    let far = 1.0 - 2.0 / (exp_normal::<C>(2.0 * t) + 1.0);
    (if t < 0.6 { near } else { far }).copysign(x)
}

/// erf(x) within 4 ulp; odd, ±1 at ±∞, NaN stays NaN.
///
/// Near 0 an odd polynomial; beyond, 1 − exp(−p(|x|)) where p approximates −ln erfc.
#[inline(always)]
pub(crate) fn erf<C: Caps>(x: f32) -> f32 {
    let t = at_most(x.abs(), 4.0);
    let z = t * t;
    let p = -5.981_807_5e-4;
    let p = fma::<C>(p, z, 0.004_991_641_3);
    let p = fma::<C>(p, z, -0.026_765_805);
    let p = fma::<C>(p, z, 0.112_818_047);
    let p = fma::<C>(p, z, -0.376_124_948);
    let p = fma::<C>(p, z, 0.128_379_151);
    let near = fma::<C>(p, t, t);
    let q = 1.042_958_5e-5;
    let q = fma::<C>(q, t, -3.148_288_3e-4);
    let q = fma::<C>(q, t, 0.003_610_250_8);
    let q = fma::<C>(q, t, -0.023_694_431);
    let q = fma::<C>(q, t, 0.106_158_957);
    let q = fma::<C>(q, t, 0.635_198_057);
    let q = fma::<C>(q, t, 0.128_637_075);
    let far = 1.0 - exp_normal::<C>(-fma::<C>(q, t, t));
    (if t < 0.921_875 { near } else { far }).copysign(x)
}

/// 1 / (1 + exp(−x)) within 4 ulp; 0 below −87, where the result is under 1.7e-38.
#[inline(always)]
pub(crate) fn sigmoid<C: Caps>(x: f32) -> f32 {
    let e = exp_normal::<C>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// exp(−z²/2) and Φ(−z) for z ≥ 0.
///
/// Φ(−z) is exp(−z²/2)·g(z), where g falls slowly and is a polynomial in 1 / (1 + 0.3 z). Nothing
/// cancels, so the relative error stays within (4 + z²/2)·2^-23; the second term is the rounding of
/// z².
#[inline(always)]
fn normal_tail<C: Caps>(z: f32) -> (f32, f32) {
    // Φ(−13.1) is below the smallest normal number.
    let z = at_most(z, 13.1);
    let s = 1.0 / fma::<C>(0.3, z, 1.0);
    let p = -0.020_624_600;
    let p = fma::<C>(p, s, 0.112_441_137);
    let p = fma::<C>(p, s, -0.228_225_484);
    let p = fma::<C>(p, s, 0.191_799_551);
    let p = fma::<C>(p, s, -0.079_435_774);
    let p = fma::<C>(p, s, 0.096_163_474);
    let p = fma::<C>(p, s, 0.078_387_320);
    let p = fma::<C>(p, s, 0.110_235_929);
    let p = fma::<C>(p, s, 0.119_571_753);
    let p = fma::<C>(p, s, 0.119_686_693);
    let e = exp_normal::<C>(-0.5 * z * z);
    (e, e * (p * s))
}

/// x·Φ(x): GELU with the exact normal distribution (Hendrycks and Gimpel 2016).
///
/// Relative error at most (5 + x²/2)·2^-23.
#[inline(always)]
pub(crate) fn gelu<C: Caps>(x: f32) -> f32 {
    let (_, tail) = normal_tail::<C>(x.abs());
    // −∞·0 would be NaN; the limit is −0.
    let below = if x < -13.1 { -0.0 } else { x * tail };
    if x < 0.0 { below } else { x * (1.0 - tail) }
}

/// Φ(x) + x·φ(x), the derivative of [`gelu`]. Absolute error at most 8·2^-23.
#[inline(always)]
pub(crate) fn gelu_grad<C: Caps>(x: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_28;
    let (e, tail) = normal_tail::<C>(x.abs());
    let inside = at_least(at_most(x, 13.1), -13.1);
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    fma::<C>(inside * INV_SQRT_2PI, e, cdf)
}

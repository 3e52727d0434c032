//! Sums with a fixed order: the same on every instruction set but for fused multiply-add, and for
//! any thread count.

use super::Caps;
use super::body::fma;

/// Independent partial sums: enough for every vector width.
pub(crate) const LANES: usize = 32;

/// Folds lanes pairwise.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(x) over at most a few thousand elements: 32 lanes, then a tree. For n elements the relative
/// error bound is γ of n/32 + 6 additions, besides what `f` rounds.
#[inline(always)]
pub(crate) fn sum_by(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    fold(lanes, |a, b| a + b)
}

/// Σ x·y with the order of [`sum_by`].
#[inline(always)]
pub(crate) fn dot<C: Caps>(xs: &[f32], ys: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x_chunks, x_rest) = xs.as_chunks::<LANES>();
    let (y_chunks, y_rest) = ys.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = fma::<C>(x, y, *lane);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane = fma::<C>(x, y, *lane);
    }
    fold(lanes, |a, b| a + b)
}

/// The larger; NaN if either is NaN, as torch's `max` and `maximum` have it.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    // A NaN in `a` makes `a >= b` false and `a != a` true.
    if a >= b || a.is_nan() { a } else { b }
}

/// The largest element; NaN if there is one; −∞ if there are none.
#[inline(always)]
pub(crate) fn max(xs: &[f32]) -> f32 {
    max_by(xs, |x| x)
}

/// The largest f(x); NaN if there is one; −∞ if there are none.
#[inline(always)]
pub(crate) fn max_by(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, f(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, f(x));
    }
    fold(lanes, larger)
}

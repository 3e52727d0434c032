//! Element by element: functions and dropout.

use halfstep_float::Philox;

use super::Tensor;
use crate::op::{Binary, Unary};

/// The error function, to about f64 accuracy: the Maclaurin series below 2, the continued fraction
/// of erfc above (Abramowitz and Stegun 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() {
        return x;
    }
    if a < 2.0 {
        // erf x = 2/√π · exp(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)): all terms positive, so nothing
        // cancels.
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= 2.0 * x * x / (2 * n + 1) as f64;
            sum += term;
            if term.abs() < sum.abs() * 1e-18 {
                break;
            }
        }
        return std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    (1.0 - erfc_tail(a)).copysign(x)
}

/// erfc for x ≥ 2, with relative accuracy.
fn erfc_tail(x: f64) -> f64 {
    let mut fraction = 0.0;
    for n in (1..120).rev() {
        fraction = n as f64 / 2.0 / (x + fraction);
    }
    (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction)
}

/// Φ(x), with relative accuracy in the lower tail.
fn normal_cdf(x: f64) -> f64 {
    let z = x * std::f64::consts::FRAC_1_SQRT_2;
    if z <= -2.0 { 0.5 * erfc_tail(-z) } else { 0.5 * (1.0 + erf(z)) }
}

/// x·Φ(x).
pub fn gelu(x: f64) -> f64 {
    if x == f64::NEG_INFINITY { 0.0 } else { x * normal_cdf(x) }
}

pub(super) fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => max(x, 0.0),
        Unary::Step => f64::from(x > 0.0),
        Unary::Gelu => gelu(x),
        Unary::GeluGrad if x.is_infinite() => f64::from(x > 0.0),
        Unary::GeluGrad => normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt(),
        Unary::IsFinite => f64::from(x.is_finite()),
        Unary::Square => x * x,
        Unary::Sign if x.is_nan() || x == 0.0 => x,
        Unary::Sign => x.signum(),
    }
}

/// The larger; NaN if either is.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

pub(super) fn binary(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => max(a, b),
        Binary::Min => -max(-a, -b),
        Binary::Greater => f64::from(a > b),
        Binary::GreaterEqual => f64::from(a >= b),
        Binary::Equal => f64::from(a == b),
    }
}

/// `f` of broadcast operands.
pub(super) fn zip(x: &[&Tensor], f: impl Fn(&[f64]) -> f64) -> Tensor {
    let shape = x[1..].iter().fold(x[0].shape.clone(), |s, t| s.broadcast(&t.shape).unwrap_or(s));
    let mut row = vec![0.0; x.len()];
    Tensor::build(&shape, |i| {
        row.iter_mut().zip(x).for_each(|(r, t)| *r = t.at(i));
        f(&row)
    })
}

/// The same draw as the kernels': one Philox block for four neighbours, dropped where the word is
/// below rate · 2³².
pub(super) fn dropout(rate: f64, id: u32, x: &Tensor, key: &Tensor) -> Tensor {
    let word = |i: usize| key.data[i] as i64 as u32;
    let philox = Philox::with_key([word(0), word(1)]);
    let samples = x.shape.first().copied().unwrap_or(1);
    let per_sample = x.data.len() / samples;
    let threshold = (f64::from(rate as f32) * 4_294_967_296.0) as u32;
    let keep = |i: usize| {
        let (sample, element) = (i / per_sample, i % per_sample);
        let block = philox.block([id, word(2), word(3).wrapping_add(sample as u32), (element / 4) as u32]);
        block[element % 4] >= threshold
    };
    let scaled = |(i, &v): (usize, &f64)| if keep(i) { v / (1.0 - rate) } else { 0.0 };
    Tensor { shape: x.shape.clone(), data: x.data.iter().enumerate().map(scaled).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_published_values() {
        // Abramowitz and Stegun, table 7.1, and erfc(3) from table 7.3.
        for (x, y) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (1.9, 0.9927904292), (2.0, 0.9953222650)] {
            assert!((erf(x) - y).abs() < 1e-10, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erfc_tail(3.0) / 2.209049699858544e-5 - 1.0).abs() < 1e-13);
        assert!((erf(1.999_999_999) - erf(2.0)).abs() < 1e-10, "the two formulas meet");
    }
}

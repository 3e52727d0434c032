use super::support::{self, U, isas};
use crate::isa::Isa;
use crate::rows::{Body, Caps, dispatch, math};

/// Which function is evaluated.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    ExpNormal,
    Log,
    Tanh,
    Erf,
    Sigmoid,
    Gelu,
    GeluGrad,
}

struct Evaluate<'a>(Function, &'a [f32], &'a mut [f32]);

impl Body for Evaluate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Evaluate(function, xs, ys) = self;
        macro_rules! map {
            ($f:path) => {
                for (y, &x) in ys.iter_mut().zip(xs) {
                    *y = $f(x);
                }
            };
        }
        match function {
            Function::Exp => map!(math::exp::<C>),
            Function::ExpNormal => map!(math::exp_normal::<C>),
            Function::Log => map!(math::log::<C>),
            Function::Tanh => map!(math::tanh::<C>),
            Function::Erf => map!(math::erf::<C>),
            Function::Sigmoid => map!(math::sigmoid::<C>),
            Function::Gelu => map!(math::gelu::<C>),
            Function::GeluGrad => map!(math::gelu_grad::<C>),
        }
    }
}

fn evaluate(isa: Isa, function: Function, xs: &[f32]) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len()];
    dispatch(isa, Evaluate(function, xs, &mut ys));
    ys
}

/// Distance between neighbouring f32 numbers at `x`.
fn ulp(x: f64) -> f64 {
    let exponent = if x == 0.0 { -126 } else { ((x.abs().to_bits() >> 52) as i32 - 1023).max(-126) };
    2f64.powi(exponent - 23)
}

/// 2^22 numbers evenly spread over all bit patterns, so over all exponents and both signs, and
/// their edges.
fn samples() -> Vec<f32> {
    let spread = (0..1u32 << 22).map(|i| f32::from_bits((i << 10) | (i.wrapping_mul(0x9e37_79b9) >> 22)));
    let edges =
        [0.0, 1.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::MAX, f32::INFINITY, f32::NAN, 88.722_84];
    spread.chain(edges).chain(edges.map(|x| -x)).collect()
}

/// Checks all samples: special values exactly, others within `bound(x, expected)`.
fn check(function: Function, exact: impl Fn(f64) -> f64, bound: impl Fn(f64, f64) -> f64) {
    let xs = samples();
    for isa in isas() {
        let ys = evaluate(isa, function, &xs);
        let mut worst = (0.0, 0.0);
        for (&x, &y) in xs.iter().zip(&ys) {
            let expected = exact(f64::from(x));
            let rounded = expected as f32;
            if expected.is_nan() {
                assert!(y.is_nan(), "{function:?}({x:e}) is {y:e} on {isa}, expected NaN");
                continue;
            }
            if !rounded.is_finite() || !y.is_finite() {
                // Within the bound of the limit of overflow, either side of it is right.
                let near = expected.is_finite()
                    && f64::from(f32::MAX) * (1.0 + 8.0 * U) > expected.abs()
                    && expected.abs() > f64::from(f32::MAX) * (1.0 - 8.0 * U);
                assert!(y == rounded || near, "{function:?}({x:e}) is {y:e} on {isa}, expected {rounded:e}");
                continue;
            }
            let error = (f64::from(y) - expected).abs();
            let allowed = bound(f64::from(x), expected);
            if error / allowed > worst.0 {
                worst = (error / allowed, f64::from(x));
            }
        }
        assert!(worst.0 <= 1.0, "{function:?}({:e}) on {isa}: {:.3} times its bound", worst.1, worst.0);
        eprintln!("{function:?} on {isa}: at most {:.2} of its bound, at {:e}", worst.0, worst.1);
    }
}

#[test]
fn exp_is_within_2_ulp() {
    check(Function::Exp, f64::exp, |_, y| 2.0 * ulp(y));
}

#[test]
fn fast_exp_is_within_2_ulp_and_flushes_tiny_results() {
    let xs: Vec<f32> = samples().into_iter().filter(|x| *x <= 88.0 || x.is_nan()).collect();
    for isa in isas() {
        for (&x, &y) in xs.iter().zip(&evaluate(isa, Function::ExpNormal, &xs)) {
            let expected = f64::from(x).exp();
            let flushed = x < -87.0 && y == 0.0;
            let error = (f64::from(y) - expected).abs();
            assert!(
                flushed || error <= 2.0 * ulp(expected) || (x.is_nan() && y.is_nan()),
                "exp({x:e}) is {y:e} on {isa}, expected {expected:e}"
            );
        }
    }
}

#[test]
fn log_is_within_2_ulp() {
    check(Function::Log, |x| if x == 0.0 { f64::NEG_INFINITY } else { x.ln() }, |_, y| 2.0 * ulp(y));
}

#[test]
fn tanh_is_within_2_ulp() {
    check(Function::Tanh, f64::tanh, |_, y| 2.0 * ulp(y));
}

#[test]
fn erf_is_within_4_ulp() {
    check(Function::Erf, support::erf, |_, y| 4.0 * ulp(y));
}

#[test]
fn sigmoid_is_within_4_ulp_and_flushes_tiny_results() {
    let exact = |x: f64| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
    check(Function::Sigmoid, exact, |x, y| if x < -87.0 { 1.7e-38 } else { 4.0 * ulp(y) });
}

#[test]
fn gelu_is_as_good_as_stated() {
    // Below −13.1 the result is −0, where the exact one is less than 4e-38.
    let bound = |x: f64, y: f64| (5.0 + x.min(0.0).powi(2) / 2.0) * 2.0 * U * y.abs() + 4e-38;
    let exact = |x: f64| if x == f64::NEG_INFINITY { -0.0 } else { support::gelu(x) };
    check(Function::Gelu, exact, bound);
}

#[test]
fn derivative_of_gelu_is_as_good_as_stated() {
    let exact = |x: f64| if x.is_infinite() { f64::from(u8::from(x > 0.0)) } else { support::gelu_grad(x) };
    check(Function::GeluGrad, exact, |_, _| 8.0 * 2.0 * U);
}

#[test]
fn reference_error_function() {
    // Abramowitz and Stegun, table 7.1, and two values of erfc from table 7.3 / mpmath.
    assert!((support::erf(0.5) - 0.520_499_877_813_046_5).abs() < 1e-15);
    assert!((support::erf(2.0) - 0.995_322_265_018_952_7).abs() < 1e-15);
    assert!((support::normal_cdf(-5.0) / 2.866_515_718_791_945e-7 - 1.0).abs() < 1e-12);
    assert!((support::normal_cdf(-3.0) / 1.349_898_031_630_094_6e-3 - 1.0).abs() < 1e-12);
}

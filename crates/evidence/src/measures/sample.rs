//! One sample's logits, in f64 from f32.

/// What one row of logits says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The likeliest class; the first of equals.
    pub predicted: u32,
    /// How many classes stand before the label, equals counting in order of their number.
    pub rank: u32,
    /// Probability of the predicted class: maximum softmax.
    pub confidence: f64,
    /// Negative log-likelihood of the label, in nats.
    pub nll: f64,
    /// Squared distance of the probabilities from the label's one-hot vector.
    pub brier: f64,
    /// −log Σ exp(logit): low for what the model knows (Liu et al., arXiv 2010.03759).
    pub energy: f64,
}

impl Sample {
    /// Whether the likeliest class is the label.
    pub fn correct(&self) -> bool {
        self.rank == 0
    }
}

/// Measures one row. `exps` is scratch of the row's length and leaves holding exp(logit −
/// greatest).
///
/// The logits must be finite and the label one of their indices, as [`crate::logits`] checks;
/// otherwise the numbers mean nothing. An empty row or a label out of range gives a sample that is
/// wrong about everything.
pub fn measure(logits: &[f32], label: u32, exps: &mut [f64]) -> Sample {
    let nothing = Sample {
        predicted: u32::MAX,
        rank: u32::MAX,
        confidence: 0.0,
        nll: f64::INFINITY,
        brier: 2.0,
        energy: f64::INFINITY,
    };
    let Some(&own) = logits.get(label as usize) else { return nothing };
    let greatest = greatest(logits);
    let top = f64::from(greatest);
    for (e, &x) in exps.iter_mut().zip(logits) {
        *e = exp_not_above_zero(f64::from(x) - top);
    }
    let (sum, squares) = sums(&exps[..logits.len()]);
    let before = |(i, &x): (usize, &f32)| x > own || (x == own && i < label as usize);
    let rank = if own == greatest && logits[..label as usize].iter().all(|&x| x < own) {
        0
    } else {
        logits.iter().enumerate().filter(|&p| before(p)).count() as u32
    };
    let log_sum = sum.ln();
    let of_label = exps[label as usize] / sum;
    Sample {
        predicted: if rank == 0 {
            label
        } else {
            logits.iter().position(|&x| x == greatest).map_or(u32::MAX, |i| i as u32)
        },
        rank,
        confidence: 1.0 / sum,
        nll: log_sum + (top - f64::from(own)),
        brier: squares / (sum * sum) - 2.0 * of_label + 1.0,
        energy: -(top + log_sum),
    }
}

/// Measures one row of two models and the divergence KL(first ‖ second) of their probabilities, in
/// nats.
///
/// As [`measure`]; both rows have the same length, and so has `exps`.
pub fn measure_pair(first: &[f32], second: &[f32], label: u32, exps: &mut [f64]) -> (Sample, Sample, f64) {
    let b = measure(second, label, exps);
    let a = measure(first, label, exps);
    (a, b, divergence(first, second, exps, &a, &b))
}

/// KL(first ‖ second) from what [`measure`] found and left in `exps` for the first.
pub fn divergence(first: &[f32], second: &[f32], exps: &[f64], a: &Sample, b: &Sample) -> f64 {
    let sum = (-a.energy - f64::from(greatest(first))).exp();
    // Σ p (x − y) with p = exp(x − top) / sum; and log Z of both.
    let mut lanes = [0.0f64; 4];
    let mut rest = 0.0;
    let (xs, ys) = (first.chunks_exact(4), second.chunks_exact(4));
    let (x_end, y_end) = (xs.remainder(), ys.remainder());
    for ((x, y), e) in xs.zip(ys).zip(exps.chunks_exact(4)) {
        for i in 0..4 {
            lanes[i] += e[i] * (f64::from(x[i]) - f64::from(y[i]));
        }
    }
    for ((x, y), e) in x_end.iter().zip(y_end).zip(&exps[first.len() - x_end.len()..]) {
        rest += e * (f64::from(*x) - f64::from(*y));
    }
    let mean = (lanes[0] + lanes[1] + (lanes[2] + lanes[3]) + rest) / sum;
    // Zero at least, by Gibbs; rounding alone can go below.
    (mean + a.energy - b.energy).max(0.0)
}

/// The greatest of finite numbers, several at a time.
pub(super) fn greatest(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [f32::NEG_INFINITY; 8];
    for c in chunks {
        for (lane, &x) in lanes.iter_mut().zip(c) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Sum and sum of squares, in an order that the length alone decides.
fn sums(exps: &[f64]) -> (f64, f64) {
    let (mut sum, mut squares) = ([0.0f64; 4], [0.0f64; 4]);
    let chunks = exps.chunks_exact(4);
    let rest = chunks.remainder();
    for e in chunks {
        for i in 0..4 {
            sum[i] += e[i];
            squares[i] += e[i] * e[i];
        }
    }
    for (i, e) in rest.iter().enumerate() {
        sum[i] += e;
        squares[i] += e * e;
    }
    (sum[0] + sum[1] + (sum[2] + sum[3]), squares[0] + squares[1] + (squares[2] + squares[3]))
}

/// exp(x) for x ≤ 0, to a few units in the last place; below −708 it stays at exp(−708) ≈ 3e−308.
///
/// Written without branches and calls, so that a loop over it runs several at a time: x = n ln 2 +
/// r with |r| ≤ ln 2 / 2 (ln 2 in two parts, Cody and Waite 1980), the Taylor polynomial of degree
/// 13 for exp(r), whose rest is below 5e−18, and n added to the exponent.
#[inline(always)]
pub(crate) fn exp_not_above_zero(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Added and taken away it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = if x < -708.0 { -708.0 } else { x };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 6_227_020_800.0;
    p = p * r + 1.0 / 479_001_600.0;
    p = p * r + 1.0 / 39_916_800.0;
    p = p * r + 1.0 / 3_628_800.0;
    p = p * r + 1.0 / 362_880.0;
    p = p * r + 1.0 / 40_320.0;
    p = p * r + 1.0 / 5_040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    #[test]
    fn the_exponential_is_right_to_a_few_units() {
        // r is right to about 1.5 u·|x| / |x| … 3 u, Horner adds about 2 u, the library's own is
        // right to 1 u: 8 u in all.
        for i in 0..100_000 {
            let x = -(i as f64) * 0.00707;
            let (ours, exact) = (exp_not_above_zero(x), x.exp());
            assert!((ours - exact).abs() <= 8.0 * f64::EPSILON / 2.0 * exact, "{x}: {ours} {exact}");
        }
        assert_eq!(exp_not_above_zero(0.0), 1.0);
        assert!(exp_not_above_zero(-1e30) < 1e-307);
    }

    #[test]
    fn a_row_by_hand() {
        // Probabilities 1/2, 1/4, 1/4.
        let logits = [2.0f32.ln(), 0.0, 0.0];
        let mut exps = [0.0; 3];
        let s = measure(&logits, 2, &mut exps);
        // f32's ln 2 is off by 2^-25 at most, relative; everything else is f64.
        let tolerance = 2f64.powi(-24);
        assert_eq!((s.predicted, s.rank), (0, 2));
        assert!((s.confidence - 0.5).abs() < tolerance && (s.nll - 4f64.ln()).abs() < tolerance);
        assert!((s.brier - (0.25 + 0.0625 + 0.5625)).abs() < 2.0 * tolerance);
        assert!((s.energy + 4f64.ln()).abs() < tolerance);
        assert!(measure(&[1.0, 1.0], 0, &mut exps).correct(), "the first of equals is predicted");
        assert!(!measure(&[1.0, 1.0], 1, &mut exps).correct());
        assert!(!measure(&[1.0], 4, &mut exps).correct());
        // Far apart, and large: nothing overflows.
        let far = measure(&[3e38, -3e38], 1, &mut exps);
        assert_eq!((far.confidence, far.brier), (1.0, 2.0));
        assert_eq!(far.nll, 2.0 * f64::from(3e38f32));
    }

    #[test]
    fn divergence_is_that_of_the_definition() {
        let normals = Draws::new(2, 0);
        let n = 11;
        let row = |k: u64| (0..n).map(|i| 3.0 * normals.normal(100 * k + i) as f32).collect::<Vec<f32>>();
        let (x, y) = (row(0), row(1));
        let softmax = |x: &[f32]| {
            let e: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|e| e / sum).collect::<Vec<f64>>()
        };
        let expected: f64 = softmax(&x).iter().zip(softmax(&y)).map(|(p, q)| p * (p / q).ln()).sum();
        let (a, b, kl) = measure_pair(&x, &y, 3, &mut vec![0.0; n as usize]);
        assert!((kl - expected).abs() < 1e-13, "{kl} {expected}");
        assert_eq!(measure_pair(&x, &x, 3, &mut vec![0.0; n as usize]).2, 0.0);
        assert_eq!(a, measure(&x, 3, &mut vec![0.0; n as usize]));
        assert_eq!(b, measure(&y, 3, &mut vec![0.0; n as usize]));
    }
}

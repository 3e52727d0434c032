//! One temperature for all logits: how much of the miscalibration is mere over- or underconfidence.

use serde::Serialize;

use super::sample::{exp_not_above_zero, greatest, measure};

/// Most logits that a fit holds; of larger sets evenly spaced rows are taken.
pub const MOST_LOGITS: u64 = 1 << 22;

/// Rows between one that is kept and the next, so that at most [`MOST_LOGITS`] are.
pub fn stride(rows: u64, classes: usize) -> u64 {
    rows.saturating_mul(classes as u64).div_ceil(MOST_LOGITS).max(1)
}

/// The temperature T that makes softmax(logits / T) likeliest (Guo et al. 2017). Above 1 the model
/// is overconfident.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// T, from 0.001 to 1000; a bound means that there is no best one.
    pub temperature: f64,
    /// Mean negative log-likelihood of the rows used, as they are.
    pub nll_before: f64,
    /// The same after dividing by T.
    pub nll_after: f64,
    /// Rows used.
    pub samples: u64,
}

/// Bounds of 1/T: a model that is always right wants T = 0, one that knows nothing T = ∞.
const LEAST: f64 = 1e-3;
const MOST: f64 = 1e3;

/// Fits T to rows of `classes` logits: Newton's method on β = 1/T, in which the mean loss is
/// convex, kept inside a bracket.
///
/// None without rows.
pub fn fit(logits: &[f32], labels: &[u32], classes: usize) -> Option<Temperature> {
    if labels.is_empty() || classes == 0 {
        return None;
    }
    let mut exps = vec![0.0; classes];
    let nll_before = logits
        .chunks_exact(classes)
        .zip(labels)
        .map(|(row, &label)| measure(row, label, &mut exps).nll)
        .sum::<f64>()
        / labels.len() as f64;
    let (mut low, mut high) = (LEAST, MOST);
    let slope_at = |beta| at(beta, logits, labels, classes).1;
    let mut beta = 1.0;
    if slope_at(1.0) < 0.0 && slope_at(MOST) <= 0.0 {
        beta = MOST;
    } else if slope_at(1.0) > 0.0 && slope_at(LEAST) >= 0.0 {
        beta = LEAST;
    }
    for _ in 0..60 {
        let (_, slope, curvature) = at(beta, logits, labels, classes);
        if slope == 0.0 || beta == MOST || beta == LEAST {
            break;
        }
        if slope > 0.0 {
            high = beta
        } else {
            low = beta
        }
        let newton = beta - slope / curvature;
        let next = if newton > low && newton < high { newton } else { (low * high).sqrt() };
        let done = (next / beta - 1.0).abs() < 1e-12;
        beta = next;
        if done {
            break;
        }
    }
    let nll_after = at(beta, logits, labels, classes).0;
    Some(Temperature { temperature: 1.0 / beta, nll_before, nll_after, samples: labels.len() as u64 })
}

/// Mean loss at β, and its first two derivatives: E(x) − x(label) and Var(x) under softmax(β x).
fn at(beta: f64, logits: &[f32], labels: &[u32], classes: usize) -> (f64, f64, f64) {
    let (mut loss, mut slope, mut curvature) = (0.0, 0.0, 0.0);
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let top = f64::from(greatest(row));
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for &x in row {
            let x = f64::from(x) - top;
            let e = exp_not_above_zero(beta * x);
            sum += e;
            first += e * x;
            second += e * x * x;
        }
        let own = row.get(label as usize).map_or(0.0, |&x| f64::from(x) - top);
        let mean = first / sum;
        loss += sum.ln() - beta * own;
        slope += mean - own;
        curvature += second / sum - mean * mean;
    }
    let n = labels.len() as f64;
    (loss / n, slope / n, curvature / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_in_closed_form() {
        // Logits (a, 0), three of four right: the likeliest probability is 3/4, so a/T = ln 3.
        let logits: Vec<f32> = [5.0f32, 0.0].repeat(4);
        let t = fit(&logits, &[0, 0, 0, 1], 2).unwrap();
        assert!((t.temperature - 5.0 / 3f64.ln()).abs() < 1e-9, "{t:?}");
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((t.nll_after - entropy).abs() < 1e-12 && t.nll_before > t.nll_after);
        // Always right: as cold as it goes. Equal logits: nothing to fit.
        assert!(fit(&logits, &[0; 4], 2).unwrap().temperature < 0.01);
        assert_eq!(fit(&[0.0; 4], &[0, 1], 2).unwrap().nll_after, 2f64.ln());
        assert_eq!(fit(&[], &[], 2), None);
    }

    #[test]
    fn large_sets_are_thinned() {
        assert_eq!((stride(360, 10), stride(1_000_000, 1000)), (1, 239));
    }
}

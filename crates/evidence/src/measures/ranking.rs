//! Does the probability of a class rank its samples above the others?

use serde::Serialize;

use super::sample::greatest;

/// Most probabilities that are ranked; of larger sets evenly spaced rows are taken.
pub const MOST_SCORES: usize = 1 << 20;

/// Area under the ROC curve: the chance that a sample of a class gets a higher probability of it
/// than a sample of another, ties counting half.
///
/// Of two classes it is that of class 1. Of more it is one-vs-rest, averaged over the classes with
/// equal weight (macro); scikit-learn's `roc_auc_score(..., multi_class="ovr", average="macro")`
/// where every class has samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Auroc {
    /// The area.
    #[serde(rename = "auroc")]
    pub value: f64,
    /// Classes that it is of: those that some samples have and some have not.
    #[serde(rename = "auroc_classes")]
    pub classes: usize,
    /// Samples whose probabilities were ranked.
    #[serde(rename = "auroc_samples")]
    pub samples: usize,
    /// The most that it scatters (standard deviation) around 1/2 if the probabilities do not depend
    /// on the label: the mean over classes of √((n + 1) / (12 m (n − m))), m of n samples being of
    /// the class (Mann and Whitney 1947).
    #[serde(skip)]
    pub chance_sd: f64,
}

/// Measures rows of `classes` finite logits.
///
/// None where no class tells samples apart: of one class, or if all have one label.
pub fn auroc(logits: &[f32], labels: &[u32], classes: usize) -> Option<Auroc> {
    if classes < 2 || labels.is_empty() {
        return None;
    }
    let stride = (labels.len() * classes).div_ceil(MOST_SCORES).max(1);
    let rows: Vec<(&[f32], u32)> =
        logits.chunks_exact(classes).zip(labels.iter().copied()).step_by(stride).collect();
    let sums: Vec<(f64, f64)> = rows.iter().map(|(row, _)| top_and_log_sum(row)).collect();
    // Of two classes both have the same area.
    let ranked = if classes == 2 { 1..2 } else { 0..classes };
    let mut scores = Vec::with_capacity(rows.len());
    let (mut areas, mut deviations, mut measured) = (0.0, 0.0, 0);
    for class in ranked {
        scores.clear();
        // The logarithm of the probability. Rows whose logits differ by a constant tie: the
        // greatest is taken away first, which is exact.
        scores.extend(rows.iter().zip(&sums).map(|((row, label), (top, log_sum))| {
            (f64::from(row[class]) - top - log_sum, *label == class as u32)
        }));
        if let Some(area) = area(&mut scores) {
            let (n, m) = (rows.len() as f64, scores.iter().filter(|s| s.1).count() as f64);
            areas += area;
            deviations += ((n + 1.0) / (12.0 * m * (n - m))).sqrt();
            measured += 1;
        }
    }
    (measured > 0).then(|| Auroc {
        value: areas / measured as f64,
        classes: measured,
        samples: rows.len(),
        chance_sd: deviations / measured as f64,
    })
}

/// The greatest logit, and log Σ exp of how far the logits lie below it.
fn top_and_log_sum(row: &[f32]) -> (f64, f64) {
    let top = f64::from(greatest(row));
    (top, row.iter().map(|&x| (f64::from(x) - top).exp()).sum::<f64>().ln())
}

/// The area of scores, each with whether it is of the class; none if all or none are.
fn area(scores: &mut [(f64, bool)]) -> Option<f64> {
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut of_class, mut wins) = (0.0, 0.0, 0.0);
    for equals in scores.chunk_by(|a, b| a.0 == b.0) {
        let own = equals.iter().filter(|s| s.1).count() as f64;
        let others = equals.len() as f64 - own;
        wins += own * (below + others / 2.0);
        of_class += own;
        below += others;
    }
    (of_class > 0.0 && below > 0.0).then(|| wins / (of_class * below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Of class 1: 3 and 1; of class 0: 2 and 1: pairs won 1 + 1 + 0 + ½ of four.
        let logits = [0.0f32, 3.0, 0.0, 1.0, 0.0, 2.0, 0.0, 1.0];
        let a = auroc(&logits, &[1, 1, 0, 0], 2).unwrap();
        assert_eq!((a.value, a.classes, a.samples), (2.5 / 4.0, 1, 4));
        assert_eq!(a.chance_sd, (5.0f64 / 48.0).sqrt());
        assert_eq!(auroc(&logits, &[1; 4], 2), None, "one label alone");
        assert_eq!(auroc(&[1.0; 4], &[0; 4], 1), None);
        // A class that no sample has is left out of the mean.
        let three = auroc(&[2.0, 0.0, 0.0, 0.0, 2.0, 0.0], &[0, 1], 3).unwrap();
        assert_eq!((three.value, three.classes), (1.0, 2));
    }

    #[test]
    fn large_sets_are_thinned() {
        let rows = MOST_SCORES / 2 + 1;
        let labels: Vec<u32> = (0..rows as u32).map(|i| i / 2 % 2).collect();
        let logits: Vec<f32> = labels.iter().flat_map(|&l| [0.0, l as f32]).collect();
        let a = auroc(&logits, &labels, 2).unwrap();
        assert_eq!((a.value, a.samples), (1.0, rows.div_ceil(2)));
    }
}

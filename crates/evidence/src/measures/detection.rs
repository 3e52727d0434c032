//! Does a score tell foreign samples (out of distribution) from the model's own?

use serde::Serialize;

use super::ranking::{Score, Wins};

/// How well a score that is high for foreign samples tells them from own ones. Foreign is the
/// positive class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// Area under the ROC curve: the chance that a foreign sample scores above an own one, ties
    /// counting half.
    pub auroc: f64,
    /// Average precision: Σ (recall gained at a threshold) × (precision there).
    pub aupr: f64,
    /// Share of own samples that are flagged at the highest threshold that flags at least 95 % of
    /// foreign ones.
    pub fpr_at_95: f64,
}

/// Measures scores. For maximum softmax pass −confidence, for energy the energy
/// ([`super::Sample`]): both are then high for foreign samples.
///
/// None if either side is empty or a score is NaN. Takes time n log n and holds all scores.
pub fn detection(own: &[f64], foreign: &[f64]) -> Option<Detection> {
    if own.is_empty() || foreign.is_empty() || own.iter().chain(foreign).any(|x| x.is_nan()) {
        return None;
    }
    let score = |of_class| move |&value: &f64| Score { value, of_class, part: 0 };
    let mut all: Vec<Score> = own.iter().map(score(false)).chain(foreign.iter().map(score(true))).collect();
    let auroc = Wins::of(&mut all, 1).area()?;
    let (negatives, positives) = (own.len() as f64, foreign.len() as f64);
    let (mut tp, mut fp) = (0.0, 0.0);
    let (mut precision_sum, mut fpr_at_95) = (0.0, None);
    // One threshold at a time, from the greatest: equal scores are flagged together.
    for equals in all.chunk_by(|a, b| a.value == b.value).rev() {
        let new_tp = equals.iter().filter(|s| s.of_class).count() as f64;
        tp += new_tp;
        fp += equals.len() as f64 - new_tp;
        precision_sum += new_tp * tp / (tp + fp);
        if fpr_at_95.is_none() && tp >= 0.95 * positives {
            fpr_at_95 = Some(fp / negatives);
        }
    }
    Some(Detection { auroc, aupr: precision_sum / positives, fpr_at_95: fpr_at_95.unwrap_or(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Foreign 3, 1; own 2, 1: pairs won 1 + 1 + 0 + ½ of four.
        let d = detection(&[2.0, 1.0], &[3.0, 1.0]).unwrap();
        assert_eq!((d.auroc, d.aupr, d.fpr_at_95), (2.5 / 4.0, (1.0 + 0.5) / 2.0, 1.0));
        assert_eq!(detection(&[], &[1.0]), None);
        assert_eq!(detection(&[f64::NAN], &[1.0]), None);
    }
}

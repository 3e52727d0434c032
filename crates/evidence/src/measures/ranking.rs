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
    /// The share of the ranked samples that a sample of the rarest class counts among: one that
    /// falls from the top to the bottom lowers the area by 1/(`rarest` · `samples`).
    #[serde(skip)]
    pub rarest: f64,
}

/// Parts of the samples that are left out in turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeftOut {
    /// Samples of each part whose probabilities were ranked.
    pub samples: Vec<f64>,
    /// The area without each part; none where no class tells the other samples apart.
    pub without: Vec<Option<f64>>,
}

/// Measures rows of `classes` finite logits.
///
/// None where no class tells samples apart: of one class, or if all have one label.
pub fn auroc(logits: &[f32], labels: &[u32], classes: usize) -> Option<Auroc> {
    Some(auroc_by_parts(logits, labels, classes, 1, |_| 0)?.0)
}

/// The same, and without each of `parts` parts of the rows: `part_of` tells that of a row.
pub fn auroc_by_parts(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    parts: usize,
    part_of: impl Fn(usize) -> usize,
) -> Option<(Auroc, LeftOut)> {
    if classes < 2 || labels.is_empty() {
        return None;
    }
    let stride = (labels.len() * classes).div_ceil(MOST_SCORES).max(1);
    let rows: Vec<(&[f32], u32)> =
        logits.chunks_exact(classes).zip(labels.iter().copied()).step_by(stride).collect();
    let sums: Vec<(f64, f64)> = rows.iter().map(|(row, _)| top_and_log_sum(row)).collect();
    let part_of: Vec<usize> = (0..rows.len()).map(|row| part_of(row * stride)).collect();
    // Of two classes both have the same area.
    let ranked = if classes == 2 { 1..2 } else { 0..classes };
    let mut scores = Vec::with_capacity(rows.len());
    let (mut areas, mut deviations, mut measured) = (0.0, 0.0, 0u32);
    let mut without = vec![(0.0, 0.0); parts];
    let mut fewest = f64::INFINITY;
    for class in ranked {
        scores.clear();
        // The logarithm of the probability. Rows whose logits differ by a constant tie: the
        // greatest is taken away first, which is exact.
        scores.extend(rows.iter().zip(&sums).zip(&part_of).map(|(((row, label), (top, log_sum)), &part)| {
            let value = f64::from(row[class]) - top - log_sum;
            Score { value, of_class: *label == class as u32, part }
        }));
        let wins = Wins::of(&mut scores, parts);
        if let Some(area) = wins.area() {
            let (n, m) = (rows.len() as f64, wins.own.iter().sum::<f64>());
            areas += area;
            fewest = fewest.min(m.min(n - m));
            deviations += ((n + 1.0) / (12.0 * m * (n - m))).sqrt();
            measured += 1;
        }
        for (part, (sum, classes)) in without.iter_mut().enumerate() {
            if let Some(area) = wins.area_without(part) {
                *sum += area;
                *classes += 1.0;
            }
        }
    }
    let mut samples = vec![0.0; parts];
    part_of.iter().for_each(|part| samples[*part] += 1.0);
    let without = without.into_iter().map(|(sum, classes)| (classes > 0.0).then(|| sum / classes)).collect();
    let auroc = Auroc {
        value: areas / f64::from(measured),
        classes: measured as usize,
        samples: rows.len(),
        chance_sd: deviations / f64::from(measured),
        rarest: (fewest * f64::from(measured) / rows.len() as f64).min(1.0),
    };
    (measured > 0).then_some((auroc, LeftOut { samples, without }))
}

/// The greatest logit, and log Σ exp of how far the logits lie below it.
fn top_and_log_sum(row: &[f32]) -> (f64, f64) {
    let top = f64::from(greatest(row));
    (top, row.iter().map(|&x| (f64::from(x) - top).exp()).sum::<f64>().ln())
}

/// A score, whether its sample is of the class, and the part that it is in.
pub(super) struct Score {
    pub value: f64,
    pub of_class: bool,
    pub part: usize,
}

/// How often samples of a class score above others, ties counting half, in all pairs: by the part
/// of either, so that parts can be left out without ranking again.
pub(super) struct Wins {
    all: f64,
    /// Samples of the class in each part, and others.
    own: Vec<f64>,
    others: Vec<f64>,
    /// Pairs won whose sample of the class is in the part; whose other one is; and both.
    by_own: Vec<f64>,
    by_others: Vec<f64>,
    by_both: Vec<f64>,
}

impl Wins {
    /// Sorts scores by their value, and counts.
    pub fn of(scores: &mut [Score], parts: usize) -> Wins {
        scores.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
        let zeros = || vec![0.0; parts];
        let (mut own, mut others) = (zeros(), zeros());
        for s in scores.iter() {
            if s.of_class { own[s.part] += 1.0 } else { others[s.part] += 1.0 }
        }
        let (mut all, mut by_own, mut by_others, mut by_both) = (0.0, zeros(), zeros(), zeros());
        // What lies below, and what lies above or is equal.
        let (mut below, mut below_of, mut above) = (0.0, zeros(), own.iter().sum::<f64>());
        for equals in scores.chunk_by(|a, b| a.value == b.value) {
            let own_here = equals.iter().filter(|s| s.of_class).count() as f64;
            let others_here = equals.len() as f64 - own_here;
            above -= own_here;
            // Others that are equal are half below.
            equals.iter().filter(|s| !s.of_class).for_each(|s| below_of[s.part] += 0.5);
            for s in equals {
                if s.of_class {
                    let won = below + others_here / 2.0;
                    all += won;
                    by_own[s.part] += won;
                    by_both[s.part] += below_of[s.part];
                } else {
                    by_others[s.part] += above + own_here / 2.0;
                }
            }
            equals.iter().filter(|s| !s.of_class).for_each(|s| below_of[s.part] += 0.5);
            below += others_here;
        }
        Wins { all, own, others, by_own, by_others, by_both }
    }

    /// The area; none if all samples or none are of the class.
    pub fn area(&self) -> Option<f64> {
        let (own, others) = (self.own.iter().sum::<f64>(), self.others.iter().sum::<f64>());
        (own > 0.0 && others > 0.0).then(|| self.all / (own * others))
    }

    /// The same without a part.
    fn area_without(&self, part: usize) -> Option<f64> {
        let own = self.own.iter().sum::<f64>() - self.own[part];
        let others = self.others.iter().sum::<f64>() - self.others[part];
        let won = self.all - self.by_own[part] - self.by_others[part] + self.by_both[part];
        (own > 0.0 && others > 0.0).then(|| won / (own * others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    #[test]
    fn by_hand() {
        // Of class 1: 3 and 1; of class 0: 2 and 1: pairs won 1 + 1 + 0 + ½ of four.
        let logits = [0.0f32, 3.0, 0.0, 1.0, 0.0, 2.0, 0.0, 1.0];
        let a = auroc(&logits, &[1, 1, 0, 0], 2).unwrap();
        assert_eq!((a.value, a.classes, a.samples), (2.5 / 4.0, 1, 4));
        assert_eq!((a.chance_sd, a.rarest), ((5.0f64 / 48.0).sqrt(), 0.5));
        assert_eq!(auroc(&logits, &[1; 4], 2), None, "one label alone");
        assert_eq!(auroc(&[1.0; 4], &[0; 4], 1), None);
        // A class that no sample has is left out of the mean.
        let three = auroc(&[2.0, 0.0, 0.0, 0.0, 2.0, 0.0], &[0, 1], 3).unwrap();
        assert_eq!((three.value, three.classes), (1.0, 2));
    }

    #[test]
    fn without_a_part_it_is_that_of_the_others() {
        // Coarse logits, so that many tie, in three classes and five parts.
        let draws = Draws::new(91, 0);
        let n = 60;
        let labels: Vec<u32> = (0..n).map(|i| draws.below(i, 3) as u32).collect();
        let logits: Vec<f32> = (0..3 * n).map(|i| draws.below(1000 + i, 4) as f32).collect();
        let part = |row: usize| row * 7 % 5;
        let (all, left_out) = auroc_by_parts(&logits, &labels, 3, 5, part).unwrap();
        assert_eq!(Some(all), auroc(&logits, &labels, 3));
        assert_eq!(left_out.samples, [12.0; 5]);
        for (out, without) in left_out.without.iter().enumerate() {
            let rows = || (0..labels.len()).filter(|row| part(*row) != out);
            let labels: Vec<u32> = rows().map(|row| labels[row]).collect();
            let logits: Vec<f32> = rows().flat_map(|row| logits[3 * row..3 * row + 3].to_vec()).collect();
            let alone = auroc(&logits, &labels, 3).unwrap().value;
            assert!((without.unwrap() - alone).abs() < 1e-12, "{out}: {without:?}, {alone}");
        }
        // Without the one part that has both classes there is nothing to rank.
        let left_out = auroc_by_parts(&[0.0, 1.0, 0.0, 2.0], &[0, 1], 2, 2, |_| 1).unwrap().1;
        assert_eq!(left_out.without, [Some(1.0), None]);
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

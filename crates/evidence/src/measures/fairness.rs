//! How differently a model treats groups of samples: gaps of accuracy, of answers and of errors.

use serde::Serialize;

use super::ConfusionMatrix;

/// Groups with fewer samples are left out of gaps: theirs move by points with one answer.
pub const LEAST_SAMPLES: u64 = 30;

/// Gaps between the groups of one column, over groups of at least [`LEAST_SAMPLES`] samples.
///
/// In the definitions of Fairlearn (`demographic_parity_difference`, `equalized_odds_difference`,
/// between groups), which are of two classes: there they are of class 1. Of more they are taken of
/// each class against the rest, and the greatest counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FairnessGaps {
    /// Groups compared.
    pub groups: usize,
    /// The group with the least accuracy.
    pub worst_group: String,
    /// Its accuracy.
    pub worst_accuracy: f64,
    /// The greatest accuracy less the least.
    pub accuracy_gap: f64,
    /// The greatest difference between groups in how often a class is answered (demographic
    /// parity).
    pub parity_gap: f64,
    /// The greatest difference between groups in how often samples of a class are found, or others
    /// taken for it (equalised odds). None where no class can be compared: labels are needed in two
    /// groups.
    pub odds_gap: Option<f64>,
}

/// Measures the answers of a model in each group. None with fewer than two groups of that size, and
/// where each of them has samples of one class alone: then groups are classes.
pub fn gaps(names: &[String], groups: &[ConfusionMatrix]) -> Option<FairnessGaps> {
    let large: Vec<(usize, &ConfusionMatrix)> =
        groups.iter().enumerate().filter(|(_, g)| g.samples() >= LEAST_SAMPLES).collect();
    let one_class = |g: &ConfusionMatrix| g.labels().iter().filter(|n| **n > 0).count() < 2;
    if large.len() < 2 || large.iter().all(|(_, g)| one_class(g)) {
        return None;
    }
    let share = |of: u64, all: u64| (all > 0).then(|| of as f64 / all as f64);
    let accuracy = |g: &ConfusionMatrix| g.right().iter().sum::<u64>() as f64 / g.samples() as f64;
    let accuracies: Vec<f64> = large.iter().map(|(_, g)| accuracy(g)).collect();
    let worst = (0..large.len()).fold(0, |w, i| if accuracies[i] < accuracies[w] { i } else { w });
    let (mut parity, mut odds) = (0.0f64, None::<f64>);
    let classes = large[0].1.labels().len();
    // Of two classes the rates of one are those of the other.
    for class in if classes == 2 { 1..2 } else { 0..classes } {
        let answered = |g: &ConfusionMatrix| share(g.answers()[class], g.samples());
        let found = |g: &ConfusionMatrix| share(g.right()[class], g.labels()[class]);
        let taken = |g: &ConfusionMatrix| {
            share(g.answers()[class] - g.right()[class], g.samples() - g.labels()[class])
        };
        let between = |rate: &dyn Fn(&ConfusionMatrix) -> Option<f64>| {
            let rates: Vec<f64> = large.iter().filter_map(|(_, g)| rate(g)).collect();
            (rates.len() > 1).then(|| spread(&rates))
        };
        parity = parity.max(between(&answered).unwrap_or(0.0));
        odds = [odds, between(&found), between(&taken)].into_iter().flatten().reduce(f64::max);
    }
    Some(FairnessGaps {
        groups: large.len(),
        worst_group: names.get(large[worst].0).cloned().unwrap_or_default(),
        worst_accuracy: accuracies[worst],
        accuracy_gap: spread(&accuracies),
        parity_gap: parity,
        odds_gap: odds,
    })
}

/// The greatest less the least.
fn spread(values: &[f64]) -> f64 {
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    greatest - values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group from (label, answer, times).
    fn group(classes: usize, counts: &[(u32, u32, usize)]) -> ConfusionMatrix {
        let mut g = ConfusionMatrix::sums_alone(classes);
        counts.iter().for_each(|&(l, a, n)| (0..n).for_each(|_| g.push(l, a)));
        g
    }

    fn of(groups: &[ConfusionMatrix]) -> Option<FairnessGaps> {
        gaps(&["a", "b", "c"].map(String::from), groups)
    }

    #[test]
    fn two_classes_by_hand() {
        // Of 40: found 15 of 20, taken 5 of 20, answered 20. Of 50: found 8 of 10, taken 4 of 40,
        // answered 12. The third is too small to count.
        let north = group(2, &[(1, 1, 15), (1, 0, 5), (0, 1, 5), (0, 0, 15)]);
        let south = group(2, &[(1, 1, 8), (1, 0, 2), (0, 1, 4), (0, 0, 36)]);
        let few = group(2, &[(1, 0, 29)]);
        let g = of(&[south, north, few]).unwrap();
        assert_eq!((g.groups, g.worst_group.as_str(), g.worst_accuracy), (2, "b", 30.0 / 40.0));
        assert!((g.accuracy_gap - (44.0 / 50.0 - 30.0 / 40.0)).abs() < 1e-15);
        assert!((g.parity_gap - (20.0 / 40.0 - 12.0 / 50.0)).abs() < 1e-15);
        // Taken: 0.25 − 0.1; found: 0.8 − 0.75.
        assert!((g.odds_gap.unwrap() - 0.15).abs() < 1e-15);
    }

    #[test]
    fn of_more_classes_the_greatest_gap_counts() {
        let a = group(3, &[(0, 0, 10), (1, 1, 10), (2, 2, 10)]);
        let b = group(3, &[(0, 0, 10), (1, 1, 10), (2, 1, 10)]);
        let g = of(&[a.clone(), b]).unwrap();
        assert_eq!((g.parity_gap, g.odds_gap), (20.0 / 30.0 - 10.0 / 30.0, Some(1.0)));
        assert_eq!(of(std::slice::from_ref(&a)), None, "one group alone");
        // Groups that are classes have nothing to compare.
        assert_eq!(of(&[group(3, &[(0, 0, 30)]), group(3, &[(1, 0, 30)])]), None);
        assert!(of(&[a, group(3, &[(1, 0, 30)])]).is_some());
    }
}

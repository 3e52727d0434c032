//! How far a measure would move with other examples that is no mean over them: parts of the
//! examples are left out in turn.

use crate::buckets::{BucketSums, part};
use crate::measures::ranking::LeftOut;
use crate::measures::{Calibration, ConfusionMatrix, Sample, Sums};

/// Parts that are left out in turn.
pub const FOLDS: usize = 64;

/// The part that a bucket of examples is in.
pub fn fold_of(bucket: usize) -> usize {
    part(bucket, FOLDS)
}

/// Most classes of which the answers are kept by part: 3 MiB.
const MOST_CLASSES: usize = 1024;

/// What a reference and a candidate answer in each part of the examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folds {
    calibration: Vec<[Calibration; 2]>,
    /// Empty with too many classes.
    answers: Vec<[ConfusionMatrix; 2]>,
}

impl Folds {
    /// Empty ones of so many classes.
    pub fn new(classes: usize) -> Folds {
        let sums = || std::array::from_fn(|_| ConfusionMatrix::sums_alone(classes));
        let kept = if classes <= MOST_CLASSES { FOLDS } else { 0 };
        Folds { calibration: vec![Default::default(); FOLDS], answers: (0..kept).map(|_| sums()).collect() }
    }

    /// Adds an example of a bucket.
    pub fn push(&mut self, bucket: usize, label: u32, models: [&Sample; 2]) {
        let fold = fold_of(bucket);
        for (sums, s) in self.calibration[fold].iter_mut().zip(models) {
            sums.push(s.confidence, s.correct());
        }
        for (sums, s) in self.answers.get_mut(fold).into_iter().flatten().zip(models) {
            sums.push(label, s.predicted);
        }
    }

    /// Of a measure of calibration: the pseudo-values of the jackknife.
    pub fn of_calibration(&self, measure: fn(&Calibration) -> f64) -> BucketSums {
        pseudo_values(&self.calibration, measure)
    }

    /// Of a measure of answers by class; none with too many classes.
    pub fn of_answers(&self, measure: fn(&ConfusionMatrix) -> f64) -> Option<BucketSums> {
        (!self.answers.is_empty()).then(|| pseudo_values(&self.answers, measure))
    }
}

fn pseudo_values<T: Sums>(parts: &[[T; 2]], measure: fn(&T) -> f64) -> BucketSums {
    let mut whole = parts.first().cloned().unwrap_or_default();
    for part in parts.iter().skip(1) {
        whole.iter_mut().zip(part).for_each(|(whole, part)| whole.add(part));
    }
    let of = |[a, b]: &[T; 2]| [measure(a), measure(b)];
    let filled = parts.iter().filter(|part| part[0].samples() > 0);
    jackknife(
        of(&whole),
        filled.map(|part| {
            let mut others = whole.clone();
            others.iter_mut().zip(part).for_each(|(others, part)| others.subtract(part));
            (part[0].samples() as f64, of(&others))
        }),
    )
}

/// Of the areas under the ROC curve of a reference and a candidate, from those without each part.
/// None where no class tells the other samples apart without some part.
pub fn of_auroc(all: [f64; 2], [a, b]: [&LeftOut; 2]) -> Option<BucketSums> {
    let each = a.samples.iter().zip(a.without.iter().zip(&b.without));
    let filled = each.filter(|(samples, _)| **samples > 0.0);
    let parts: Option<Vec<_>> = filled.map(|(&n, (a, b))| Some((n, [(*a)?, (*b)?]))).collect();
    Some(jackknife(all, parts?.into_iter()))
}

/// The jackknife's pseudo-values of a measure, times the examples of their part: as sums of buckets
/// they have the spread that the measure has over examples (Tukey 1958; parts of unequal size as in
/// Busing, Meijer and van der Leeden, Statistics and Computing 9, 1999). `all` are the reference's
/// and the candidate's values, and each part has its examples and the values without it.
fn jackknife(all: [f64; 2], parts: impl Iterator<Item = (f64, [f64; 2])> + Clone) -> BucketSums {
    let n: f64 = parts.clone().map(|(size, _)| size).sum();
    let of = |[a, b]: [f64; 2]| [a, b - a];
    let all = of(all);
    let mut sums = BucketSums::default();
    for (size, without) in parts {
        let without = of(without);
        let pseudo = |i: usize| n * all[i] - (n - size) * without[i];
        sums.counts.push(size);
        sums.references.push(pseudo(0));
        sums.differences.push(pseudo(1));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a mean over examples the pseudo-values are the values themselves.
    #[test]
    fn pseudo_values_of_a_mean_are_its_values() {
        let mut folds = Folds::new(2);
        for i in 0..200usize {
            let sample = |right: bool| Sample {
                predicted: u32::from(right),
                rank: u32::from(!right),
                confidence: 0.9,
                nll: 0.1,
                brier: 0.1,
                energy: 0.0,
            };
            folds.push(i, 1, [&sample(i % 10 != 0), &sample(i % 5 != 0)]);
        }
        // With one class the balanced accuracy is the accuracy.
        let sums = folds.of_answers(|m| m.balanced_accuracy().0).unwrap();
        let mean = sums.differences.iter().sum::<f64>() / sums.examples();
        assert!((mean + 0.1).abs() < 1e-12 && sums.examples() == 200.0, "{mean}");
        // Each part's sum is a whole number of answers.
        assert!(sums.differences.iter().all(|d| (d - d.round()).abs() < 1e-9), "{:?}", sums.differences);
    }
}

//! How far a measure would move with other examples that is no mean over them: parts of the
//! examples are left out in turn.

use crate::buckets::{BucketSums, part};
use crate::measures::Calibration;

/// Parts that are left out in turn.
const FOLDS: usize = 64;

/// Calibration of a reference and a candidate in each of [`FOLDS`] parts of the examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Folds(Vec<[Calibration; 2]>);

impl Default for Folds {
    fn default() -> Folds {
        Folds(vec![Default::default(); FOLDS])
    }
}

impl Folds {
    /// Adds an example of a bucket.
    pub fn push(&mut self, bucket: usize, reference: (f64, bool), candidate: (f64, bool)) {
        let [a, b] = &mut self.0[part(bucket, FOLDS)];
        a.push(reference.0, reference.1);
        b.push(candidate.0, candidate.1);
    }

    /// The jackknife's pseudo-values of a measure of calibration, times the examples of their part:
    /// as sums of buckets they have the spread that the measure has over examples (Tukey 1958;
    /// parts of unequal size as in Busing, Meijer and van der Leeden, Statistics and Computing 9,
    /// 1999).
    pub fn pseudo_values(&self, measure: fn(&Calibration) -> f64) -> BucketSums {
        let mut whole = [Calibration::default(), Calibration::default()];
        for part in &self.0 {
            whole.iter_mut().zip(part).for_each(|(whole, part)| whole.add(part));
        }
        let of = |[a, b]: &[Calibration; 2]| [measure(a), measure(b) - measure(a)];
        let (all, n) = (of(&whole), whole[0].samples() as f64);
        let mut sums = BucketSums::default();
        for part in self.0.iter().filter(|part| part[0].samples() > 0) {
            let mut others = whole.clone();
            others.iter_mut().zip(part).for_each(|(others, part)| others.subtract(part));
            let (size, without) = (part[0].samples() as f64, of(&others));
            let pseudo = |i: usize| n * all[i] - (n - size) * without[i];
            sums.counts.push(size);
            sums.references.push(pseudo(0));
            sums.differences.push(pseudo(1));
        }
        sums
    }
}

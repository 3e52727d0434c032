//! Where a difference scatters over seeds and over examples at once: the standard error of its
//! mean for other seeds *and* other examples.
//!
//! Model of crossed random effects: of seed s and example i the difference is
//! d(s, i) = mean + seed(s) + example(i) + rest(s, i), where `example` is what the candidate does
//! to an example whatever the seed. Averaged over S seeds and n examples its variance is
//! σ²(seed)/S + σ²(example)/n + σ²(rest)/(S·n), and each part is estimated by the method of
//! moments, as for two-way tables (Searle, Casella and McCulloch, *Variance Components*, 1992).
//! The t-test over seeds estimates the first and last part alone: it takes the test set as given.

use serde::Serialize;

use crate::buckets::BucketSums;
use crate::tail::Part;

/// Variances of a mean over seeds and examples, by what they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Components {
    /// Of the mean, from the scatter of seeds on these examples: σ²(seed)/S + σ²(rest)/(S·n). Zero
    /// for one seed.
    pub seeds: f64,
    /// Of the mean, from what all seeds do to the same examples: σ²(example)/n. For one pair of
    /// models all scatter of its examples.
    pub examples: f64,
    /// Of the mean, from what is left: σ²(rest)/(S·n). Zero for one seed.
    pub rest: f64,
}

/// A mean's standard error for other seeds and examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossed {
    /// Where it comes from.
    pub components: Components,
    /// Degrees of freedom of the part of seeds; zero for one seed.
    of_seeds: f64,
    /// Degrees of freedom of the part of examples.
    of_examples: f64,
}

/// Degrees of freedom of what all of several seeds do to the same examples, from `buckets` buckets
/// of them. It is the scatter of the buckets' means less what is left of each seed, so it scatters
/// more than such means do: half of their degrees hold α from five buckets on.
pub(crate) fn degrees_of_examples(buckets: f64) -> f64 {
    (buckets - 1.0) / 2.0
}

impl Crossed {
    /// The standard error.
    pub fn error(&self) -> f64 {
        (self.components.seeds + self.components.examples).sqrt()
    }

    /// Of seeds, and of examples.
    pub(crate) fn parts(&self) -> [Part; 2] {
        [
            Part { variance: self.components.seeds, degrees: self.of_seeds },
            Part { variance: self.components.examples, degrees: self.of_examples },
        ]
    }

    /// Of the mean of `sign` · (candidate − reference) − `share` · reference, from each seed's sums
    /// in buckets of the same examples. Of unequal buckets the spread is that of a ratio (Cochran,
    /// *Sampling Techniques*, 1977, 6.4). None for fewer than two buckets with examples, and where
    /// the seeds' buckets do not hold as many.
    pub fn of(seeds: &[&BucketSums], sign: f64, share: f64) -> Option<Crossed> {
        let counts = &seeds.first()?.counts;
        if seeds.iter().any(|sums| sums.counts != *counts) {
            return None;
        }
        let values = |sums: &&BucketSums| -> Vec<f64> {
            let both = sums.differences.iter().zip(&sums.references);
            both.map(|(d, r)| sign * d - share * r).collect()
        };
        let values: Vec<Vec<f64>> = seeds.iter().map(values).collect();
        Crossed::of_values(counts, &values)
    }

    fn of_values(counts: &[f64], seeds: &[Vec<f64>]) -> Option<Crossed> {
        let n: f64 = counts.iter().sum();
        let filled = counts.iter().filter(|c| **c > 0.0).count();
        let s = seeds.len() as f64;
        if filled < 2 {
            return None;
        }
        let means: Vec<f64> = seeds.iter().map(|sums| sums.iter().sum::<f64>() / n).collect();
        let mean = means.iter().sum::<f64>() / s;
        let buckets = filled as f64 / (filled as f64 - 1.0) / (n * n);
        // What the mean over seeds of a bucket is beyond its share, and what is left of each seed.
        let (mut over_examples, mut left) = (0.0, 0.0);
        for (bucket, count) in counts.iter().enumerate() {
            let common = seeds.iter().map(|sums| sums[bucket]).sum::<f64>() / s - mean * count;
            over_examples += common * common;
            for (sums, of_seed) in seeds.iter().zip(&means) {
                left += (sums[bucket] - of_seed * count - common).powi(2);
            }
        }
        let over_examples = over_examples * buckets;
        if seeds.len() == 1 {
            let components = Components { examples: over_examples, ..Components::default() };
            return Some(Crossed { components, of_seeds: 0.0, of_examples: filled as f64 - 1.0 });
        }
        let rest = left * buckets / (s - 1.0) / s;
        let over_seeds = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (s - 1.0) / s;
        let examples = (over_examples - rest).max(0.0);
        let components = Components { seeds: over_seeds, examples, rest };
        Some(Crossed { components, of_seeds: s - 1.0, of_examples: degrees_of_examples(filled as f64) })
    }
}

//! Two-level bootstrap: seeds are drawn with replacement, and then examples.
//!
//! It answers another question than the t-test over seeds: how far the mean difference could be
//! from the one on *all* examples of which the test set is a sample, over all seeds. Where every
//! seed was measured on the same examples their effects are crossed, and one draw of examples
//! serves all seeds (the pigeonhole bootstrap, Owen 2007); otherwise each drawn seed draws examples
//! of its own (Davison and Hinkley 1997, 3.8). Percentile intervals over few seeds are somewhat
//! narrow (by √((S − 1)/S)): they are reported beside the verdict and do not decide it.
//!
//! Memory is bounded: examples beyond [`BUCKETS`] share buckets at random, and whole buckets are
//! drawn, which estimates the same variance.

use serde::Serialize;

use crate::draws::Draws;
use crate::stats::{CONFIDENCE, mean_sd};

/// Most resampling units of examples.
pub const BUCKETS: usize = 2048;

/// Resamples.
pub const REPLICATES: usize = 2000;

/// The bucket of an example among `examples`: its own while there are few.
pub fn bucket(example: u64, examples: u64) -> usize {
    if examples <= BUCKETS as u64 {
        example as usize
    } else {
        Draws::new(BUCKET_SEED, 0).below(example, BUCKETS)
    }
}

const BUCKET_SEED: u64 = 0x6275_636b_6574;

/// Whether the seeds were measured on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Examples {
    /// One test set for all seeds.
    Shared,
    /// A test set for each seed.
    OfEachSeed,
}

/// Sums over the examples in each bucket, of one seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeedSums {
    /// Examples in each bucket.
    pub counts: Vec<f64>,
    /// For each metric, the sum of candidate − reference in each bucket.
    pub differences: Vec<Vec<f64>>,
}

/// A bootstrap interval of a mean difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 5 % quantile of the resampled means.
    pub lower: f64,
    /// 95 % quantile of the resampled means.
    pub upper: f64,
    /// Standard deviation of the resampled means.
    pub sd: f64,
}

/// An interval for each metric. Equal arguments give equal bits.
///
/// Empty without seeds, or where seeds do not have the same metrics and buckets (as many, for
/// [`Examples::Shared`]), or if a seed has no examples.
pub fn two_level(seeds: &[SeedSums], examples: Examples, seed: u64) -> Vec<Interval> {
    let metrics = seeds.first().map_or(0, |s| s.differences.len());
    let fits = |s: &SeedSums| {
        let buckets = s.counts.len();
        s.counts.iter().sum::<f64>() > 0.0
            && s.differences.len() == metrics
            && s.differences.iter().all(|d| d.len() == buckets)
            && (examples == Examples::OfEachSeed || buckets == seeds[0].counts.len())
    };
    if !seeds.iter().all(fits) {
        return Vec::new();
    }
    let mut means = vec![Vec::with_capacity(REPLICATES); metrics];
    let mut weights = Vec::new();
    for replicate in 0..REPLICATES as u64 {
        let drawn = Draws::new(seed, 2 * replicate);
        let mut sums = vec![0.0; metrics];
        for j in 0..seeds.len() {
            let of = &seeds[drawn.below(j as u64, seeds.len())];
            let stream = match examples {
                Examples::Shared => 0,
                Examples::OfEachSeed => j as u64,
            };
            if j == 0 || examples == Examples::OfEachSeed {
                draw(&mut weights, of.counts.len(), Draws::new(seed ^ (stream << 32), 2 * replicate + 1));
            }
            let count = dot(&weights, &of.counts);
            if count > 0.0 {
                for (sum, differences) in sums.iter_mut().zip(&of.differences) {
                    *sum += dot(&weights, differences) / count;
                }
            }
        }
        for (means, sum) in means.iter_mut().zip(sums) {
            means.push(sum / seeds.len() as f64);
        }
    }
    means.into_iter().map(interval).collect()
}

/// How often each of `n` buckets is drawn in `n` draws.
fn draw(weights: &mut Vec<f64>, n: usize, draws: Draws) {
    weights.clear();
    weights.resize(n, 0.0);
    for block in 0..n.div_ceil(4) {
        for &i in draws.four(block as u64, n).iter().take(n - 4 * block) {
            weights[i] += 1.0;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn interval(mut means: Vec<f64>) -> Interval {
    let sd = mean_sd(&means).and_then(|m| m.1).unwrap_or(0.0);
    means.sort_by(f64::total_cmp);
    let at = |q: f64| means[((means.len() - 1) as f64 * q).round() as usize];
    Interval { lower: at(1.0 - CONFIDENCE), upper: at(CONFIDENCE), sd }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    fn population_variance(x: &[f64]) -> f64 {
        mean_sd(x).unwrap().1.unwrap().powi(2) * (x.len() - 1) as f64 / x.len() as f64
    }

    /// Differences a(s) + b(i): the variance of the resampled mean is known exactly. Its standard
    /// deviation is estimated from 2000 replicates, so to 1/√(2·2000) = 1.6 % at one deviation;
    /// five are allowed.
    #[test]
    fn the_spread_is_that_of_the_formula() {
        let normals = Draws::new(4, 0);
        let (a, b): (Vec<f64>, Vec<f64>) = (
            (0..12).map(|i| 0.3 * normals.normal(i)).collect(),
            (0..150).map(|i| 2.0 * normals.normal(1000 + i)).collect(),
        );
        let seeds: Vec<SeedSums> = a
            .iter()
            .map(|a| SeedSums {
                counts: vec![1.0; b.len()],
                differences: vec![b.iter().map(|b| a + b).collect()],
            })
            .collect();
        let (va, vb) = (population_variance(&a) / 12.0, population_variance(&b) / 150.0);
        for (examples, variance) in [(Examples::Shared, va + vb), (Examples::OfEachSeed, va + vb / 12.0)] {
            let found = two_level(&seeds, examples, 7)[0];
            assert!(
                (found.sd / variance.sqrt() - 1.0).abs() < 5.0 * 0.016,
                "{examples:?}: {found:?}, {variance}"
            );
            let mean = a.iter().sum::<f64>() / 12.0 + b.iter().sum::<f64>() / 150.0;
            assert!(found.lower < mean && mean < found.upper);
            assert_eq!(found, two_level(&seeds, examples, 7)[0]);
        }
    }

    /// Twenty thousand examples in 2048 buckets: the spread is that of single examples, to the
    /// error of estimating a standard deviation from 2048 numbers and 2000 replicates, 1/√(2·2048)
    /// and 1/√(2·2000); five of both.
    #[test]
    fn buckets_estimate_the_same_spread() {
        let n = 20_000u64;
        let normals = Draws::new(5, 0);
        let mut sums = SeedSums { counts: vec![0.0; BUCKETS], differences: vec![vec![0.0; BUCKETS]] };
        let mut all = Vec::new();
        for i in 0..n {
            // Sorted blocks with different means: an order that a stride would be fooled by.
            let x = normals.normal(i) + (i / 1000 % 2) as f64 * 3.0;
            all.push(x);
            sums.counts[bucket(i, n)] += 1.0;
            sums.differences[0][bucket(i, n)] += x;
        }
        let expected = (population_variance(&all) / n as f64).sqrt();
        let found = two_level(&[sums], Examples::Shared, 1)[0];
        assert!((found.sd / expected - 1.0).abs() < 5.0 * 0.0225, "{found:?}, {expected}");
        assert!((0..100).all(|i| bucket(i, 100) == i as usize));
    }

    #[test]
    fn nothing_is_said_of_what_does_not_fit() {
        let one = SeedSums { counts: vec![1.0; 3], differences: vec![vec![0.0; 3]] };
        let other = SeedSums { counts: vec![1.0; 2], differences: vec![vec![0.0; 2]] };
        assert!(two_level(&[], Examples::Shared, 0).is_empty());
        assert!(two_level(&[one.clone(), other.clone()], Examples::Shared, 0).is_empty());
        assert_eq!(two_level(&[one, other], Examples::OfEachSeed, 0).len(), 1);
        assert!(two_level(&[SeedSums::default()], Examples::Shared, 0).is_empty());
    }
}

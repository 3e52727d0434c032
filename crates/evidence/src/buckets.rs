//! Sums over examples in buckets: what of one pass over the files is kept to estimate how far a
//! mean would move with other examples.
//!
//! While there are few examples, each has its own bucket. More share buckets at random, and whole
//! buckets stand for examples: that estimates the same variance, in bounded memory. Examples that
//! belong together (windows of one text, pictures of one patient) share a bucket.

use serde::Serialize;

use crate::draws::Draws;

/// Most buckets of all examples.
pub const BUCKETS: usize = 2048;

/// Most buckets of a group's examples.
pub const GROUP_BUCKETS: usize = 256;

/// Which bucket of `buckets` an example, or what it belongs to, falls into: its own while
/// `all` fit.
pub fn bucket(index: u64, all: u64, buckets: usize) -> usize {
    if all <= buckets as u64 { index as usize } else { Draws::new(BUCKET_SEED, 0).below(index, buckets) }
}

/// Which of `parts` a bucket falls into, for leaving parts out in turn.
pub fn part(bucket: usize, parts: usize) -> usize {
    Draws::new(BUCKET_SEED, 1).below(bucket as u64, parts)
}

const BUCKET_SEED: u64 = 0x6275_636b_6574;

/// Whether the seeds were measured on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TestSets {
    /// One test set for all seeds.
    Shared,
    /// A test set for each seed.
    OfEachSeed,
}

/// Sums over the examples of each bucket, of one metric of one seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketSums {
    /// Examples in each bucket.
    pub counts: Vec<f64>,
    /// Sum of candidate − reference in each.
    pub differences: Vec<f64>,
    /// Sum of the reference's values in each.
    pub references: Vec<f64>,
    /// Examples whose difference is above zero.
    pub raised: u64,
    /// Examples whose difference is below zero.
    pub lowered: u64,
}

impl BucketSums {
    /// Empty sums of `buckets` buckets.
    pub fn new(buckets: usize) -> BucketSums {
        let zeros = vec![0.0; buckets];
        BucketSums {
            counts: zeros.clone(),
            differences: zeros.clone(),
            references: zeros,
            raised: 0,
            lowered: 0,
        }
    }

    /// Adds an example's reference value, and how far the candidate's lies above it.
    pub fn push(&mut self, bucket: usize, reference: f64, difference: f64) {
        self.counts[bucket] += 1.0;
        self.differences[bucket] += difference;
        self.references[bucket] += reference;
        self.raised += u64::from(difference > 0.0);
        self.lowered += u64::from(difference < 0.0);
    }

    /// Examples.
    pub fn examples(&self) -> f64 {
        self.counts.iter().sum()
    }
}

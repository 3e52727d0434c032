//! Which samples make up which batch: a function of (seed, attempt) and nothing else, so that a run
//! can stop and resume.

use crate::batch::Draw;
use crate::draws::{DrawPurpose, Stream};
use crate::error::{DataError, Role};

/// Draws train batches without replacement, in a new order every epoch; what is left over at the
/// end of an epoch is dropped.
///
/// ```
/// # use halfstep_data::Sampler;
/// let mut sampler = Sampler::new(10, 4, 7)?;
/// let first = sampler.batch(0).1.to_vec();
/// sampler.batch(5); // any attempt, in any order
/// assert_eq!(sampler.batch(0).1, first);
/// # Ok::<(), halfstep_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    batch: usize,
    seed: u64,
    epoch: Option<u32>,
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler of batches of `batch` out of `samples`.
    ///
    /// # Errors
    /// A batch of 0, or larger than the samples.
    pub fn new(samples: usize, batch: usize, seed: u64) -> Result<Self, DataError> {
        check_batch(samples, batch, Role::Train)?;
        let order = (0..index_count(samples, Role::Train)?).collect();
        Ok(Sampler { batch, seed, epoch: None, order })
    }

    /// Whole batches in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.order.len() / self.batch
    }

    /// The samples of an attempt (the count of steps tried, skipped ones included), and the key of
    /// their random changes. Allocates nothing; shuffles when the epoch changes. Epochs are counted
    /// in 32 bits and start again after the last.
    pub fn batch(&mut self, attempt: u64) -> (Draw, &[u32]) {
        let steps = self.steps_per_epoch() as u64;
        let (epoch, step) = ((attempt / steps) as u32, (attempt % steps) as usize);
        if self.epoch != Some(epoch) {
            // From the identity, not from the last order: an epoch's order must not depend on the
            // ones before it.
            (0u32..).zip(&mut self.order).for_each(|(i, slot)| *slot = i);
            Stream::new(self.seed, DrawPurpose::Shuffle, epoch, 0).shuffle(&mut self.order);
            self.epoch = Some(epoch);
        }
        (Draw::Random { seed: self.seed, epoch }, &self.order[step * self.batch..][..self.batch])
    }
}

/// Goes through samples once, in order. Batches have one size, as programs do: the last is filled
/// up with copies of the last sample, which are not to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOrder {
    samples: u32,
    batch: usize,
}

impl InOrder {
    /// Batches of `batch`, which may be more than there are samples.
    ///
    /// # Errors
    /// A batch of 0, or no samples.
    pub fn new(samples: usize, batch: usize) -> Result<Self, DataError> {
        if batch == 0 {
            return Err(DataError::ZeroBatch);
        }
        if samples == 0 {
            return Err(DataError::Empty { what: "the test data".to_owned(), unit: "sample" });
        }
        Ok(InOrder { samples: index_count(samples, Role::Test)?, batch })
    }

    /// Number of batches, the last one possibly in part.
    pub fn steps(&self) -> usize {
        (self.samples as usize).div_ceil(self.batch)
    }

    /// Writes the samples of batch `step` and returns how many of them count.
    ///
    /// # Errors
    /// `out` must hold a batch, and `step` be less than [`steps`](Self::steps).
    pub fn batch(&self, step: usize, out: &mut [u32]) -> Result<usize, DataError> {
        if out.len() != self.batch {
            let (expected, found) = (format!("{} indices", self.batch), format!("{}", out.len()));
            return Err(DataError::Buffer { buffer: "index", expected, found });
        }
        let start = step as u64 * self.batch as u64;
        if start >= u64::from(self.samples) {
            let index = u32::try_from(start).unwrap_or(u32::MAX);
            return Err(DataError::NoSuchSample { index, samples: self.samples as usize, role: Role::Test });
        }
        let start = start as u32;
        (0u32..)
            .zip(out.iter_mut())
            .for_each(|(i, slot)| *slot = start.saturating_add(i).min(self.samples - 1));
        Ok(self.batch.min((self.samples - start) as usize))
    }
}

pub(crate) fn check_batch(samples: usize, batch: usize, role: Role) -> Result<(), DataError> {
    match batch {
        0 => Err(DataError::ZeroBatch),
        _ if batch > samples => Err(DataError::BatchTooLarge { batch, samples, role }),
        _ => Ok(()),
    }
}

fn index_count(samples: usize, role: Role) -> Result<u32, DataError> {
    u32::try_from(samples)
        .map_err(|_| DataError::TooManySamples { what: format!("the {role} data"), found: samples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_epoch_is_a_permutation(samples in 1usize..300, seed: u64, epoch in 0u64..1_000_000) {
            let mut sampler = Sampler::new(samples, 1, seed).unwrap();
            let mut seen: Vec<u32> =
                (0..samples as u64).map(|step| sampler.batch(epoch * samples as u64 + step).1[0]).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..samples as u32).collect::<Vec<_>>());
        }

        #[test]
        fn a_batch_has_no_sample_twice_and_depends_on_seed_and_attempt_only(
            samples in 1usize..200, part in 0.01f64..1.0, seed: u64, attempt in 0u64..10_000, before in 0u64..10_000,
        ) {
            let batch = ((samples as f64 * part) as usize).max(1);
            let mut fresh = Sampler::new(samples, batch, seed).unwrap();
            let mut used = fresh.clone();
            used.batch(before);
            let (draw, indices) = fresh.batch(attempt);
            prop_assert_eq!((draw, indices), used.batch(attempt));
            let distinct: std::collections::HashSet<_> = indices.iter().collect();
            prop_assert_eq!(distinct.len(), batch);
        }

        #[test]
        fn in_order_counts_every_sample_once(samples in 1usize..300, batch in 1usize..50) {
            let order = InOrder::new(samples, batch).unwrap();
            let mut seen = Vec::new();
            let mut out = vec![0; batch];
            for step in 0..order.steps() {
                let valid = order.batch(step, &mut out).unwrap();
                prop_assert!(out.iter().all(|&i| (i as usize) < samples));
                seen.extend_from_slice(&out[..valid]);
            }
            prop_assert_eq!(seen, (0..samples as u32).collect::<Vec<_>>());
            prop_assert!(order.batch(order.steps(), &mut out).is_err());
        }
    }

    #[test]
    fn epochs_and_seeds_give_different_orders() {
        let order = |seed, epoch| Sampler::new(100, 100, seed).unwrap().batch(epoch).1.to_vec();
        assert_ne!(order(0, 0), order(0, 1));
        assert_ne!(order(0, 0), order(1, 0));
    }

    /// The order of a seed is part of what a run means. The expected order is from a second
    /// implementation, in Python.
    #[test]
    fn golden_order() {
        assert_eq!(Sampler::new(10, 10, 42).unwrap().batch(3).1, [0, 4, 9, 3, 6, 2, 1, 8, 7, 5]);
    }

    #[test]
    fn impossible_batches_are_refused() {
        let error = Sampler::new(10, 11, 0).unwrap_err().to_string();
        assert_eq!(error, "a batch of 11 is larger than the 10 train samples; choose a batch of at most 10");
        assert!(matches!(Sampler::new(10, 0, 0), Err(DataError::ZeroBatch)));
        assert!(matches!(Sampler::new(0, 1, 0), Err(DataError::BatchTooLarge { .. })));
        assert!(InOrder::new(5, 4).unwrap().batch(0, &mut [0; 3]).is_err());
    }
}

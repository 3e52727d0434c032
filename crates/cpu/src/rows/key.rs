//! What the random numbers of a step are drawn from.

/// The key of a step's draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// The run's seed.
    pub seed: u64,
    /// Number of the training step, skipped ones counted.
    pub attempt: u32,
    /// Number of the first sample in the whole batch.
    pub first_sample: u32,
}

impl From<[i32; 4]> for Key {
    /// From the words of a graph's key: the seed, low word first, the attempt and the number of the
    /// first sample.
    fn from([low, high, attempt, first_sample]: [i32; 4]) -> Key {
        let seed = u64::from(low as u32) | u64::from(high as u32) << 32;
        Key { seed, attempt: attempt as u32, first_sample: first_sample as u32 }
    }
}

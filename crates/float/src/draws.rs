//! The random numbers of stochastic rounding: each is a function of what is rounded, and of nothing
//! else.

use crate::philox::Philox;

/// Random words for the elements of one tensor in one step.
///
/// Four neighbouring elements share a Philox4x32-10 block whose key is the seed and whose counter
/// is (operation, attempt, high and low half of element / 4): independent of tiles, threads and
/// order, and the same after a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draws {
    /// The run's seed.
    pub seed: u64,
    /// Number of the training step, skipped ones counted.
    pub attempt: u32,
    /// Stable number of the operation that rounds.
    pub op: u32,
}

impl Draws {
    /// The word of element `element`.
    #[inline(always)]
    pub fn word(self, element: u64) -> u32 {
        Philox::new(self.seed).block(self.counter(element / 4))[(element % 4) as usize]
    }

    /// The words of the elements from `first` on.
    #[inline(always)]
    pub fn fill(self, first: u64, words: &mut [u32]) {
        let lead = ((4 - first % 4) % 4).min(words.len() as u64) as usize;
        let (head, rest) = words.split_at_mut(lead);
        for (i, word) in (first..).zip(head) {
            *word = self.word(i);
        }
        let block = (first + lead as u64) / 4;
        // As many lanes as vectorise well, then few, for the sake of short slices: the blocks of
        // block-scaled forms.
        let (many, rest) = rest.split_at_mut(rest.len() / 64 * 64);
        let (few, rest) = rest.split_at_mut(rest.len() / 16 * 16);
        let after_many = block + many.len() as u64 / 4;
        let after_few = after_many + few.len() as u64 / 4;
        self.fill_lanes::<16>(block, many);
        self.fill_lanes::<4>(after_many, few);
        for (i, word) in (4 * after_few..).zip(rest) {
            *word = self.word(i);
        }
    }

    /// The words of `N` blocks at a time, from `block` on; `words` is a multiple of 4·`N` long.
    #[inline(always)]
    fn fill_lanes<const N: usize>(self, block: u64, words: &mut [u32]) {
        let philox = Philox::new(self.seed);
        for (part, words) in words.chunks_exact_mut(4 * N).enumerate() {
            let numbers: [u64; N] = std::array::from_fn(|lane| block + (part * N + lane) as u64);
            let [d0, d1, d2, d3] = philox.blocks([
                [self.op; N],
                [self.attempt; N],
                numbers.map(|b| (b >> 32) as u32),
                numbers.map(|b| b as u32),
            ]);
            for (lane, four) in words.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&[d0[lane], d1[lane], d2[lane], d3[lane]]);
            }
        }
    }

    #[inline(always)]
    fn counter(self, block: u64) -> [u32; 4] {
        [self.op, self.attempt, (block >> 32) as u32, block as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws { seed: 0x1234_5678_9abc_def0, attempt: 17, op: 3 };

    /// Any part of any tensor has the same words, also where the number of the block passes 2^32.
    #[test]
    fn parts_agree_with_the_whole() {
        for start in [0, 5, (1u64 << 34) - 7] {
            for length in [0, 1, 3, 31, 32, 33, 200] {
                let mut words = vec![0; length];
                DRAWS.fill(start, &mut words);
                for (i, &word) in (start..).zip(&words) {
                    assert_eq!(word, DRAWS.word(i), "element {i} of {length} from {start}");
                }
            }
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let word = |d: Draws| d.word(9);
        assert_ne!(word(DRAWS), word(Draws { attempt: 18, ..DRAWS }));
        assert_ne!(word(DRAWS), word(Draws { op: 4, ..DRAWS }));
        assert_ne!(word(DRAWS), word(Draws { seed: 0, ..DRAWS }));
        assert_ne!(word(DRAWS), DRAWS.word(10));
    }
}

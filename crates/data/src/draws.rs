//! Streams of draws, each for one purpose.
//!
//! A draw is a pure function of (seed, purpose, epoch, index, position), so that it does not depend
//! on the order in which samples are visited, on the number of threads, or on where a run was
//! resumed.

use halfstep_float::Philox;

/// What a stream is drawn for; different purposes never share draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrawPurpose {
    Shuffle = 1,
    Split = 2,
    Limit = 3,
    Augment = 4,
    Window = 5,
    Validation = 6,
}

/// The draws that belong to one (seed, purpose, epoch, index).
pub(crate) struct Stream {
    philox: Philox,
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Stream {
    pub(crate) fn new(seed: u64, purpose: DrawPurpose, epoch: u32, index: u32) -> Self {
        Stream {
            philox: Philox::new(seed),
            counter: [0, index, epoch, purpose as u32],
            words: [0; 4],
            used: 4,
        }
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = self.philox.block(self.counter);
            // 2^32 blocks of four words: no caller draws more from one stream.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in `0..bound`, without bias (Lemire, "Fast random integer generation in an
    /// interval", 2019).
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        debug_assert!(bound > 0);
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Fisher–Yates: every order equally likely.
    pub(crate) fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_close_to_uniform() {
        // 60,000 draws over 6 cells: chi-square with 5 degrees of freedom exceeds 30 with
        // probability about 1.5e-5, and the seed is fixed.
        let mut stream = Stream::new(7, DrawPurpose::Shuffle, 0, 0);
        let mut cells = [0u32; 6];
        for _ in 0..60_000 {
            cells[stream.below(6) as usize] += 1;
        }
        let chi: f64 = cells.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 30.0, "chi-square {chi}, cells {cells:?}");
    }

    #[test]
    fn purposes_epochs_and_indices_do_not_share_draws() {
        let draw = |seed, purpose, epoch, index| Stream::new(seed, purpose, epoch, index).next_u32();
        let all = [
            draw(0, DrawPurpose::Shuffle, 0, 0),
            draw(1, DrawPurpose::Shuffle, 0, 0),
            draw(1 << 32, DrawPurpose::Shuffle, 0, 0),
            draw(0, DrawPurpose::Augment, 0, 0),
            draw(0, DrawPurpose::Shuffle, 1, 0),
            draw(0, DrawPurpose::Shuffle, 0, 1),
        ];
        let distinct: std::collections::HashSet<u32> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}

//! Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//!
//! A draw is a pure function of (seed, purpose, epoch, index, position), so that it does not depend on the order in which
//! samples are visited, on the number of threads, or on where a run was resumed.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a stream is drawn for; different purposes never share draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Shuffle = 1,
    Split = 2,
    Limit = 3,
    Augment = 4,
    Window = 5,
}

fn block(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

/// The draws that belong to one (seed, purpose, epoch, index).
pub(crate) struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, epoch: u32, index: u32) -> Self {
        Stream {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, index, epoch, purpose as u32],
            words: [0; 4],
            used: 4,
        }
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = block(self.counter, self.key);
            // 2^32 blocks of four words: no caller draws more from one stream.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in `0..bound`, without bias (Lemire, "Fast random integer generation in an interval", 2019).
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

    /// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn below_is_close_to_uniform() {
        // 60,000 draws over 6 cells: chi-square with 5 degrees of freedom exceeds 30 with probability about 1.5e-5,
        // and the seed is fixed.
        let mut stream = Stream::new(7, Purpose::Shuffle, 0, 0);
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
            draw(0, Purpose::Shuffle, 0, 0),
            draw(1, Purpose::Shuffle, 0, 0),
            draw(1 << 32, Purpose::Shuffle, 0, 0),
            draw(0, Purpose::Augment, 0, 0),
            draw(0, Purpose::Shuffle, 1, 0),
            draw(0, Purpose::Shuffle, 0, 1),
        ];
        let distinct: std::collections::HashSet<u32> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}

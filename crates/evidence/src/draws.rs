//! Random numbers for resampling, noise and simulation, keyed by (seed, stream, index): the same on
//! every machine, in any order.

use halfstep_float::{Philox, unit_f64};

/// A stream of numbers: index `i` is always the same one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    generator: Philox,
    stream: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64, stream: u64) -> Draws {
        Draws { generator: Philox::new(seed), stream }
    }

    fn block(&self, i: u64) -> [u32; 4] {
        let counter = [i as u32, (i >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        self.generator.block(counter)
    }

    /// The `i`th integer below `n`, by the high half of a product: for n up to 2^20 no number is
    /// preferred by more than 2^-12 of its share.
    pub(crate) fn below(&self, i: u64, n: usize) -> usize {
        ((u64::from(self.generator.word(self.stream, i)) * n as u64) >> 32) as usize
    }

    /// The `i`th standard normal number, by Box and Muller.
    pub(crate) fn normal(&self, i: u64) -> f64 {
        let [a, b, c, d] = self.block(i);
        let radius = (-2.0 * (1.0 - unit_f64(a, b)).ln()).sqrt();
        radius * (std::f64::consts::TAU * unit_f64(c, d)).cos()
    }
}

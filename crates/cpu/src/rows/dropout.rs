//! Dropout with a mask that depends on its key alone.
//!
//! Four neighbouring elements of a sample share one Philox4x32-10 block whose key is the seed and
//! whose counter is (operation, attempt, sample, block), so the mask is the same however the work
//! is divided, and the backward pass draws it again instead of storing it.

use halfstep_float::Philox;

use super::key::Key;
use super::storage::TILE;

/// Which elements of a tensor of samples are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    philox: Philox,
    op: u32,
    attempt: u32,
    first_sample: u32,
    per_sample: usize,
    /// An element is dropped if its 32 bits are below this: probability exact to 2^-32.
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// The mask of dropout number `op` with this rate, at least 0 and below 1, over samples of
    /// `per_sample` elements.
    #[inline(always)]
    pub(crate) fn new(rate: f32, key: Key, op: u32, per_sample: usize) -> Mask {
        Mask {
            philox: Philox::new(key.seed),
            op,
            attempt: key.attempt,
            first_sample: key.first_sample,
            per_sample,
            threshold: (f64::from(rate) * 4_294_967_296.0) as u32,
            scale: (1.0 / (1.0 - f64::from(rate))) as f32,
        }
    }

    /// The factor of each element from `start` on: zero where it is dropped.
    #[inline(always)]
    fn factors(&self, start: usize, to: &mut [f32]) {
        let (mut at, mut done) = (start, 0);
        while done < to.len() {
            let (sample, element) = (at / self.per_sample, at % self.per_sample);
            let n = (self.per_sample - element).min(to.len() - done);
            self.sample(self.first_sample.wrapping_add(sample as u32), element, &mut to[done..done + n]);
            (at, done) = (at + n, done + n);
        }
    }

    /// The same inside one sample.
    #[inline(always)]
    fn sample(&self, sample: u32, element: usize, to: &mut [f32]) {
        let factor = |word: u32| if word < self.threshold { 0.0 } else { self.scale };
        let draw = |block: usize| self.philox.block([self.op, self.attempt, sample, block as u32]);
        let mut block = element / 4;
        // Up to the next whole block.
        let head = ((4 - element % 4) % 4).min(to.len());
        let (head, rest) = to.split_at_mut(head);
        if !head.is_empty() {
            head.iter_mut().zip(&draw(block)[element % 4..]).for_each(|(to, &word)| *to = factor(word));
            block += 1;
        }
        let (blocks, tail) = rest.as_chunks_mut::<4>();
        for to in blocks {
            *to = draw(block).map(factor);
            block += 1;
        }
        if !tail.is_empty() {
            tail.iter_mut().zip(draw(block)).for_each(|(to, word)| *to = factor(word));
        }
    }

    /// y = x·factor for the elements from `start` on; at most [`TILE`].
    #[inline(always)]
    pub(crate) fn apply(&self, start: usize, xs: &[f32], ys: &mut [f32]) {
        let mut factors = [0.0; TILE];
        let factors = &mut factors[..ys.len()];
        self.factors(start, factors);
        for ((y, &x), &factor) in ys.iter_mut().zip(xs).zip(&*factors) {
            // Not a product: a dropped infinity is 0, not NaN.
            *y = if factor == 0.0 { 0.0 } else { x * factor };
        }
    }
}

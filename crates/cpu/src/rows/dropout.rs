//! Dropout with a mask that depends on its key alone.
//!
//! Four neighbouring elements of a sample share one Philox4x32-10 block whose key is the seed and whose counter is
//! (operation, attempt, sample, block), so the mask is the same however the work is divided, and the backward pass
//! draws it again instead of storing it.

use halfstep_float::Philox;

use super::grid::tiles;
use super::storage::{Dst, Src, TILE};
use super::{Body, Caps, Grid, RowError, SharedDst, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// What a mask is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DropKey {
    /// The run's seed.
    pub seed: u64,
    /// Stable number of this dropout in the model.
    pub op: u32,
    /// Number of the training step, skipped ones counted.
    pub attempt: u32,
}

impl DropKey {
    /// From the words of a step's key (the seed, low word first, the attempt, the number of the first sample) and the
    /// number of a dropout: the key, and the number of the first sample.
    pub fn unpack([low, high, attempt, first_sample]: [i32; 4], op: u32) -> (DropKey, u32) {
        let seed = u64::from(low as u32) | u64::from(high as u32) << 32;
        (DropKey { seed, op, attempt: attempt as u32 }, first_sample as u32)
    }
}

/// y = x/(1 − rate) where an element is kept, 0 where it is dropped. The derivative is the same on the gradient.
#[derive(Debug)]
pub struct Dropout<'a> {
    /// Probability that an element is dropped: at least 0, below 1.
    pub rate: f32,
    /// What the mask is drawn from.
    pub key: DropKey,
    /// Number of samples: the first dimension.
    pub samples: usize,
    /// Elements of a sample.
    pub per_sample: usize,
    /// Number of the first sample in the whole batch.
    pub first_sample: u32,
    /// `[samples, per_sample]`.
    pub x: Src<'a>,
    /// `[samples, per_sample]`.
    pub y: Dst<'a>,
}

impl Dropout<'_> {
    /// Computes y.
    ///
    /// # Errors
    /// If a length differs from what the shape says, or the rate is not in [0, 1).
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Dropout { rate, key, samples, per_sample, first_sample, x, y } = self;
        check_len("x", samples * per_sample, x.len())?;
        check_len("y", samples * per_sample, y.len())?;
        if !(0.0..1.0).contains(&rate) {
            return Err(RowError::Shape { what: "rate", why: "it must be at least 0 and below 1" });
        }
        let mask = Mask::new(rate, key, first_sample, per_sample);
        let y = SharedDst::new(y);
        let grid = Grid::new(per_sample, TILE);
        pool.for_each(samples * grid.chunks(), &|_, chunk| {
            let (sample, range) = (chunk / grid.chunks(), grid.range(chunk % grid.chunks()));
            let elements = sample * per_sample + range.start..sample * per_sample + range.end;
            // SAFETY: chunks are disjoint.
            let y = unsafe { y.part(elements.clone()) };
            dispatch(isa, Part { mask, first: elements.start, x: x.slice(elements), y });
        });
        Ok(())
    }
}

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
    /// The mask of a dropout with this rate, at least 0 and below 1, over samples of `per_sample` elements.
    #[inline(always)]
    pub(crate) fn new(rate: f32, key: DropKey, first_sample: u32, per_sample: usize) -> Mask {
        Mask {
            philox: Philox::new(key.seed),
            op: key.op,
            attempt: key.attempt,
            first_sample,
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

struct Part<'a> {
    mask: Mask,
    /// Position of the first element in the whole.
    first: usize,
    x: Src<'a>,
    y: Dst<'a>,
}

impl Body for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let mut buffers = [[0.0; TILE]; 2];
        let [x_buffer, y_buffer] = &mut buffers;
        for tile in tiles(self.x.len(), TILE) {
            let start = self.first + tile.start;
            let xs = self.x.view::<C>(tile.clone(), x_buffer);
            let mask = &self.mask;
            self.y.write::<C>(tile, y_buffer, |ys| mask.apply(start, xs, ys));
        }
    }
}

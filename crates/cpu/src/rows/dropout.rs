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
        // An element is dropped if its 32 bits are below this: probability exact to 2^-32.
        let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
        let scale = (1.0 / (1.0 - f64::from(rate))) as f32;
        let y = SharedDst::new(y);
        let grid = Grid::new(per_sample, TILE);
        pool.for_each(samples * grid.chunks(), &|_, chunk| {
            let (sample, range) = (chunk / grid.chunks(), grid.range(chunk % grid.chunks()));
            let elements = sample * per_sample + range.start..sample * per_sample + range.end;
            // SAFETY: chunks are disjoint.
            let y = unsafe { y.part(elements.clone()) };
            let counter = [key.op, key.attempt, first_sample.wrapping_add(sample as u32)];
            let draw = Draw { philox: Philox::new(key.seed), counter, threshold, scale };
            dispatch(isa, Part { draw, first: range.start, x: x.slice(elements), y });
        });
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Draw {
    philox: Philox,
    counter: [u32; 3],
    threshold: u32,
    scale: f32,
}

struct Part<'a> {
    draw: Draw,
    /// Position of the first element in its sample; a multiple of the tile.
    first: usize,
    x: Src<'a>,
    y: Dst<'a>,
}

impl Body for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let Draw { philox, counter: [op, attempt, sample], threshold, scale } = self.draw;
        let (mut factors, mut buffers) = ([0.0; TILE], [[0.0; TILE]; 2]);
        let [x_buffer, y_buffer] = &mut buffers;
        for tile in tiles(self.x.len(), TILE) {
            let first = ((self.first + tile.start) / 4) as u32;
            let (blocks, _) = factors.as_chunks_mut::<4>();
            for (i, block) in blocks[..tile.len().div_ceil(4)].iter_mut().enumerate() {
                let words = philox.block([op, attempt, sample, first.wrapping_add(i as u32)]);
                for (factor, word) in block.iter_mut().zip(words) {
                    *factor = if word < threshold { 0.0 } else { scale };
                }
            }
            let xs = self.x.view::<C>(tile.clone(), x_buffer);
            let factors = &factors;
            self.y.write::<C>(tile, y_buffer, |ys| {
                for ((y, &x), &factor) in ys.iter_mut().zip(xs).zip(factors) {
                    // Not a product: a dropped infinity is 0, not NaN.
                    *y = if factor == 0.0 { 0.0 } else { x * factor };
                }
            });
        }
    }
}

//! State of an update as it is kept: widened to f32 tile by tile, and rounded when it is put back.

use std::ops::Range;

use halfstep_float::blocks::{DYNAMIC_BLOCK, DynamicMap};
use halfstep_float::{Draws, Format, Overflow, SliceRounding, bf16_from_f32, f32_from_bf16, f32_to_codes16};

use super::{RowError, SharedSlice, check_len};

/// State of an update in one of the ways to keep it: `F` of f32 values, `H` of 16-bit codes, `B` of
/// 8-bit codes.
#[derive(Debug)]
pub enum State<F, H, B> {
    /// f32 elements, updated where they are.
    F32(F),
    /// bf16 codes, rounded to nearest even.
    Bf16(H),
    /// bf16 codes, rounded up or down by a draw for each element.
    Stochastic(H, Draws),
    /// bf16 codes, rounded to nearest even, and those of what that left over.
    Compensated(H, H),
    /// Codes of a dynamic map, and the largest magnitude of each [`DYNAMIC_BLOCK`] elements.
    Blocks(DynamicMap, B, F),
}

/// A tensor of state.
pub type Kept<'a> = State<&'a mut [f32], &'a mut [u16], &'a mut [u8]>;

/// A [`Kept`] of which several threads update disjoint parts.
pub(crate) type SharedKept<'a> = State<SharedSlice<'a, f32>, SharedSlice<'a, u16>, SharedSlice<'a, u8>>;

impl Kept<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Kept::F32(x) => x.len(),
            Kept::Bf16(x) | Kept::Stochastic(x, _) | Kept::Compensated(x, _) => x.len(),
            Kept::Blocks(_, codes, _) => codes.len(),
        }
    }

    /// An error unless there are `len` elements, and of what belongs to them as many as there
    /// should be.
    pub(crate) fn check(&self, what: &'static str, len: usize) -> Result<(), RowError> {
        check_len(what, len, self.len())?;
        match self {
            Kept::F32(_) | Kept::Bf16(_) | Kept::Stochastic(..) => Ok(()),
            Kept::Compensated(_, over) => check_len("the compensation", len, over.len()),
            Kept::Blocks(_, _, scales) => {
                check_len("the largest magnitudes", len.div_ceil(DYNAMIC_BLOCK), scales.len())
            }
        }
    }
}

impl<'a> SharedKept<'a> {
    pub fn new(kept: Kept<'a>) -> SharedKept<'a> {
        match kept {
            Kept::F32(x) => SharedKept::F32(SharedSlice::new(x)),
            Kept::Bf16(x) => SharedKept::Bf16(SharedSlice::new(x)),
            Kept::Stochastic(x, draws) => SharedKept::Stochastic(SharedSlice::new(x), draws),
            Kept::Compensated(x, over) => {
                SharedKept::Compensated(SharedSlice::new(x), SharedSlice::new(over))
            }
            Kept::Blocks(map, codes, scales) => {
                SharedKept::Blocks(map, SharedSlice::new(codes), SharedSlice::new(scales))
            }
        }
    }

    /// The elements of `range`, which begins at a multiple of [`DYNAMIC_BLOCK`].
    ///
    /// # Safety
    /// No other part in use at the same time overlaps `range`, which ends at such a multiple or
    /// with the tensor.
    pub unsafe fn part(&self, range: Range<usize>) -> Part<'a> {
        let first = range.start;
        debug_assert!(first.is_multiple_of(DYNAMIC_BLOCK), "parts are whole blocks");
        let blocks = first / DYNAMIC_BLOCK..range.end.div_ceil(DYNAMIC_BLOCK);
        // SAFETY: the caller's promise, passed on; ranges of whole blocks are disjoint where ranges
        // are.
        let kept = unsafe {
            match self {
                SharedKept::F32(x) => Kept::F32(x.part(range)),
                SharedKept::Bf16(x) => Kept::Bf16(x.part(range)),
                SharedKept::Stochastic(x, draws) => Kept::Stochastic(x.part(range), *draws),
                SharedKept::Compensated(x, over) => {
                    Kept::Compensated(x.part(range.clone()), over.part(range))
                }
                SharedKept::Blocks(map, codes, scales) => {
                    Kept::Blocks(*map, codes.part(range), scales.part(blocks))
                }
            }
        };
        Part { kept, first }
    }
}

/// Some elements of a [`Kept`].
pub(crate) struct Part<'a> {
    kept: Kept<'a>,
    /// Number of the first in its tensor.
    first: usize,
}

impl Part<'_> {
    /// The numbers of `tile`, in place or in `buffer`, to be updated. A tile is made of whole
    /// blocks.
    #[inline(always)]
    pub fn load<'b>(&'b mut self, tile: Range<usize>, buffer: &'b mut [f32]) -> &'b mut [f32] {
        let buffer = &mut buffer[..tile.len()];
        match &mut self.kept {
            Kept::F32(x) => return &mut x[tile],
            Kept::Bf16(x) | Kept::Stochastic(x, _) => {
                buffer.iter_mut().zip(&x[tile]).for_each(|(y, &x)| *y = f32_from_bf16(x));
            }
            Kept::Compensated(x, over) => {
                for (y, (&x, &over)) in buffer.iter_mut().zip(x[tile.clone()].iter().zip(&over[tile])) {
                    *y = f32_from_bf16(x) + f32_from_bf16(over);
                }
            }
            Kept::Blocks(map, codes, scales) => {
                let scales = scales[tile.start / DYNAMIC_BLOCK..].iter();
                let codes = codes[tile].chunks(DYNAMIC_BLOCK);
                for ((y, codes), &scale) in buffer.chunks_mut(DYNAMIC_BLOCK).zip(codes).zip(scales) {
                    map.decode(codes, scale, y);
                }
            }
        }
        buffer
    }

    /// Rounds what [`Part::load`] gave and the update has made of it. In f32, it is there.
    #[inline(always)]
    pub fn store(&mut self, tile: Range<usize>, buffer: &[f32]) {
        let first = self.first + tile.start;
        let buffer = &buffer[..tile.len()];
        match &mut self.kept {
            Kept::F32(_) => {}
            Kept::Bf16(x) => {
                x[tile].iter_mut().zip(buffer).for_each(|(x, &y)| *x = bf16_from_f32(y));
            }
            Kept::Stochastic(x, draws) => {
                let rounding = SliceRounding::Stochastic { draws: *draws, first: first as u64 };
                f32_to_codes16(Format::Bf16, rounding, Overflow::NonFinite, buffer, &mut x[tile]);
            }
            Kept::Compensated(x, over) => {
                for ((x, over), &y) in x[tile.clone()].iter_mut().zip(&mut over[tile]).zip(buffer) {
                    *x = bf16_from_f32(y);
                    *over = bf16_from_f32(y - f32_from_bf16(*x));
                }
            }
            Kept::Blocks(map, codes, scales) => {
                let scales = scales[tile.start / DYNAMIC_BLOCK..].iter_mut();
                let codes = codes[tile].chunks_mut(DYNAMIC_BLOCK);
                for ((y, codes), scale) in buffer.chunks(DYNAMIC_BLOCK).zip(codes).zip(scales) {
                    *scale = map.encode(y, codes);
                }
            }
        }
    }
}

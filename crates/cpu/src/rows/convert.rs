//! Tensors copied to another storage format.

use super::grid::tiles;
use super::storage::{Dst, Src, TILE};
use super::{Body, Caps, Grid, RowError, SharedDst, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Copies `src` to `dst`, rounding to its format (ties to even).
///
/// # Errors
/// If the lengths differ.
pub fn convert(isa: Isa, pool: &Pool, src: Src<'_>, dst: Dst<'_>) -> Result<(), RowError> {
    check_len("dst", src.len(), dst.len())?;
    let grid = Grid::new(src.len(), 16 * TILE);
    let dst = SharedDst::new(dst);
    pool.for_each(grid.chunks(), &|_, chunk| {
        let range = grid.range(chunk);
        // SAFETY: chunks are disjoint and each runs once.
        let to = unsafe { dst.part(range.clone()) };
        dispatch(isa, Convert { from: src.slice(range), to });
    });
    Ok(())
}

struct Convert<'a> {
    from: Src<'a>,
    to: Dst<'a>,
}

impl Body for Convert<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let mut buffer = [0.0; TILE];
        for range in tiles(self.from.len(), TILE) {
            match &mut self.to {
                Dst::F32(to) => self.from.load::<C>(range.start, &mut to[range]),
                to => {
                    let values = self.from.view::<C>(range.clone(), &mut buffer);
                    to.store::<C>(range.start, values);
                }
            }
        }
    }
}

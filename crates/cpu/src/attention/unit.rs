//! What multiplies blocks: vectors or tiles.

use super::{HeadShape, backward, forward, tiles};
use crate::gemm::{ProductFormat, TileUnit, with_tiles};
use crate::isa::Isa;
use crate::rows::dispatch;

/// Products of packed tiles, or f32 products on any processor.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a>(pub Option<&'a dyn TileUnit>);

impl Unit<'_> {
    /// f32 elements of scratch that a worker needs for a forward head.
    pub fn forward_len(self, shape: &HeadShape) -> usize {
        self.0.map_or_else(|| forward::vector_len(shape), |tiles| tiles::forward_len(tiles, shape))
    }

    /// f32 elements of scratch that a worker needs for a backward head, without the gradients of
    /// the queries.
    pub fn backward_len(self, shape: &HeadShape) -> usize {
        self.0.map_or_else(|| backward::vector_len(shape), |tiles| tiles::backward_len(tiles, shape))
    }

    /// Computes a head.
    pub fn forward(self, isa: Isa, head: forward::Head<'_>) {
        match self.0 {
            None => dispatch(isa, forward::OnVectors(head)),
            Some(unit) => dispatch(isa, tiles::Forward { unit, head }),
        }
    }

    /// Computes the gradients of a head.
    pub fn backward(self, isa: Isa, head: backward::Head<'_>) {
        match self.0 {
            None => dispatch(isa, backward::OnVectors(head)),
            Some(unit) => dispatch(isa, tiles::Backward { unit, head }),
        }
    }
}

/// Calls `f` with what multiplies on this instruction set in a compute format.
pub(super) fn with_unit<T>(isa: Isa, compute: ProductFormat, f: impl FnOnce(Unit<'_>) -> T) -> T {
    with_tiles!(isa, compute, tiles => f(Unit(Some(&tiles))), else f(Unit(None)))
}

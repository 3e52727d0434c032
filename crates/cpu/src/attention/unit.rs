//! What multiplies blocks: vectors or tiles.

use super::{HeadShape, backward, forward, tiles};
use crate::gemm::TileUnit;
use crate::isa::Isa;
use crate::rows::dispatch;

/// A way to compute a head.
pub(super) trait Unit: Copy + Sync {
    /// f32 elements of scratch that a worker needs for a forward head.
    fn forward_len(self, shape: &HeadShape) -> usize;
    /// f32 elements of scratch that a worker needs for a backward head, without the gradients of
    /// the queries.
    fn backward_len(self, shape: &HeadShape) -> usize;
    /// Computes a head.
    fn forward(self, isa: Isa, head: forward::Head<'_>);
    /// Computes the gradients of a head.
    fn backward(self, isa: Isa, head: backward::Head<'_>);
}

/// f32 products on any processor.
#[derive(Clone, Copy)]
pub(super) struct Vectors;

impl Unit for Vectors {
    fn forward_len(self, shape: &HeadShape) -> usize {
        forward::vector_len(shape)
    }
    fn backward_len(self, shape: &HeadShape) -> usize {
        backward::vector_len(shape)
    }
    fn forward(self, isa: Isa, head: forward::Head<'_>) {
        dispatch(isa, forward::OnVectors(head));
    }
    fn backward(self, isa: Isa, head: backward::Head<'_>) {
        dispatch(isa, backward::OnVectors(head));
    }
}

/// Products of packed tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a>(pub &'a dyn TileUnit);

impl Unit for Tiles<'_> {
    fn forward_len(self, shape: &HeadShape) -> usize {
        tiles::forward_len(self.0, shape)
    }
    fn backward_len(self, shape: &HeadShape) -> usize {
        tiles::backward_len(self.0, shape)
    }
    fn forward(self, isa: Isa, head: forward::Head<'_>) {
        dispatch(isa, tiles::Forward { unit: self.0, head });
    }
    fn backward(self, isa: Isa, head: backward::Head<'_>) {
        dispatch(isa, tiles::Backward { unit: self.0, head });
    }
}

/// Runs `$body` with `$unit` bound to what multiplies on this instruction set in a compute format.
macro_rules! with_unit {
    ($isa:expr, $compute:expr, $unit:ident => $body:expr) => {
        $crate::gemm::with_tiles!($isa, $compute, engine => {
            let $unit = $crate::attention::unit::Tiles(&engine);
            $body
        }, else {
            let $unit = $crate::attention::unit::Vectors;
            $body
        })
    };
}
pub(super) use with_unit;

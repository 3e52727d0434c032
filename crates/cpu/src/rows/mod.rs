//! Kernels that work through tensors row by row or tile by tile: everything but products of
//! matrices.
//!
//! Every kernel is a struct of named arguments with a `run` method. Tensors are dense and
//! row-major, and floats may be stored as f32, bf16 or f16 ([`storage`]): a kernel converts a tile
//! that fits in the first-level cache to f32, computes in f32 and rounds once when it stores. Work
//! is divided by the shape alone and every sum has a fixed order, so the bits of a result do not
//! depend on the number of threads. Nothing allocates; what a kernel needs besides its operands is
//! given as `scratch`, whose contents do not matter.

pub mod argmax;
mod body;
pub mod convert;
pub mod dropout;
pub mod elementwise;
pub mod gather;
mod grid;
pub mod kept;
pub mod key;
pub mod loss;
pub mod math;
pub mod norm;
pub mod optim;
pub mod permute;
pub mod pool2d;
pub mod quantise;
pub mod reduce;
mod shared;
pub mod softmax;
pub mod storage;
mod sum;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::support;

pub(crate) use body::{Base, Body, Caps, dispatch, fma};
pub(crate) use grid::Grid;
pub(crate) use math::exp_normal;
pub(crate) use shared::{SharedDst, SharedSlice};
pub(crate) use sum::dot;

/// What does not fit together in the arguments of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A slice has another length than its shape says.
    #[error("{what} has {actual} elements; its shape needs {expected}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// What the shape needs.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// A shape, a stride or an axis is impossible.
    #[error("{what}: {why}")]
    Shape {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// `actual`, or the error that says what was expected.
pub(crate) fn check_len(what: &'static str, expected: usize, actual: usize) -> Result<(), RowError> {
    if expected == actual { Ok(()) } else { Err(RowError::Length { what, expected, actual }) }
}

/// Scratch may be longer than is needed.
pub(crate) fn check_scratch(needed: usize, actual: usize) -> Result<(), RowError> {
    if actual >= needed {
        Ok(())
    } else {
        Err(RowError::Length { what: "scratch", expected: needed, actual })
    }
}

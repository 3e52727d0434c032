//! Opcodes of Tensor Cores and of bulk copies.

mod decode;
mod execute;
pub(crate) mod matrix;
pub(crate) mod mma;
mod op;
#[cfg(test)]
mod tests;

pub(crate) use decode::{claims, decode};
pub(crate) use execute::execute;
pub(crate) use op::TensorOp;

//! Opcodes of Tensor Cores and of bulk copies.

mod decode;
mod execute;
mod matrix;
mod op;

pub(crate) use decode::{claims, decode};
pub(crate) use execute::execute;
pub(crate) use op::TensorOp;

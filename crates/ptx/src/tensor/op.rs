//! The operations of this module, decoded.

/// A decoded operation.
#[derive(Clone, Debug)]
pub(crate) enum TensorOp {}

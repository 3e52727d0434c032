//! The operations of this module, decoded.

use crate::machine::R32;
use crate::products::Mma;
use crate::resolve::Address;

/// A decoded operation.
#[derive(Clone, Debug)]
pub(crate) enum TensorOp {
    /// `ldmatrix` of as many matrices as registers.
    LoadMatrix(MatrixMove),
    /// `stmatrix`.
    StoreMatrix(MatrixMove),
    /// `movmatrix.trans`.
    Transpose { to: R32, from: R32 },
    /// `mma.sync`.
    Multiply(Box<Fragments>),
}

/// Matrices between shared memory and registers.
#[derive(Clone, Debug)]
pub(crate) struct MatrixMove {
    pub registers: Vec<R32>,
    pub address: Address,
    pub transposed: bool,
    /// The address is generic: the opcode names no space.
    pub generic: bool,
}

/// `mma.sync` and its registers.
#[derive(Clone, Debug)]
pub(crate) struct Fragments {
    pub shape: Mma,
    pub d: Vec<R32>,
    pub a: Vec<R32>,
    pub b: Vec<R32>,
    pub c: Vec<R32>,
}

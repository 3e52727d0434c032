//! Products of Tensor Cores as pure functions of registers and bytes.

mod dots;
mod mma;
#[cfg(test)]
mod tests;
mod wgmma;

pub(crate) use dots::{Accumulator, Arithmetic, Multiplicand, Types};
pub(crate) use mma::Mma;
pub(crate) use wgmma::{Descriptor, GroupMma, Major};

/// A register of 32 bits: a value for each lane.
pub(crate) type Lanes = [u32; 32];

//! CPU kernels and the executor of a planned program.

pub mod amx;
pub mod isa;

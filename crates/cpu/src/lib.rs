//! CPU kernels and the executor of a planned program.

pub mod amx;
pub mod attention;
pub mod conv;
mod engine;
pub mod gemm;
pub mod isa;
mod lower;
mod memory;
pub mod pool;
mod program;
pub mod roofline;
pub mod rows;

pub use engine::{CpuEngine, Fusion};
pub use program::CpuProgram;

//! CPU kernels and the executor of a planned program.

pub mod amx;
pub mod attention;
pub mod conv;
mod describe;
mod engine;
pub mod gemm;
pub mod host;
pub mod isa;
mod lower;
mod machine;
mod memory;
pub mod pool;
mod program;
mod region;
pub mod roofline;
pub mod rows;
mod state;

pub use engine::{CpuEngine, Fusion};
pub use program::CpuProgram;

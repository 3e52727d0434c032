//! CPU kernels and the executor of a planned program.

mod amx;
mod attention;
mod bench;
mod conv;
mod describe;
mod elements;
mod engine;
mod gemm;
pub mod host;
pub mod isa;
mod lower;
mod machine;
mod memory;
mod pool;
mod program;
mod region;
mod roofline;
mod rows;
mod state;

pub use bench::random_product;
pub use engine::CpuEngine;
pub use gemm::ProductFormat;
pub use roofline::Roofline;

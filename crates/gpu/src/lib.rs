//! NVIDIA GPUs as an engine: CUDA kernels of our own, and the lowering of a planned program to
//! launches of them.
//!
//! A program becomes [`command::Commands`]: plain data, in which each launch declares what it reads
//! and writes. A [`device::Device`] compiles the kernels and runs the commands.

#![deny(unsafe_code)]

mod architecture;
pub mod cache;
pub mod command;
pub mod compile;
pub mod cuda;
pub mod device;
pub mod find;
mod module;

pub use architecture::Architecture;
pub use module::{Module, OPTIONS};

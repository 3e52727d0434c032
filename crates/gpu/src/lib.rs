//! NVIDIA GPUs as an engine: CUDA kernels of our own, and the lowering of a planned program to
//! launches of them.
//!
//! A program becomes [`command::Commands`]: plain data, in which each launch declares what it reads
//! and writes. A [`device::Device`] compiles the kernels and runs the commands.

#![deny(unsafe_code)]

mod allowance;
mod architecture;
pub mod cache;
mod chain;
mod choice;
pub mod command;
pub mod compile;
pub mod cuda;
mod cuda_device;
mod describe;
pub mod device;
mod engine;
pub mod find;
mod kernels;
mod lower;
mod module;
mod paper;
#[cfg(feature = "simulator")]
pub mod predict;
mod program;
#[cfg(feature = "simulator")]
mod sim;
mod staging;
mod state;
mod stored;
pub mod survey;

pub use architecture::{Architecture, ArchitectureError};
pub use choice::{ChoiceError, GpuChoice, UuidError, UuidPrefix};
pub use cuda_device::CudaDevice;
pub use engine::GpuEngine;
pub use module::{Module, OPTIONS};
#[cfg(feature = "simulator")]
pub use sim::SimulatedDevice;

//! A simulated GPU: runs CUDA kernels from the PTX that NVRTC or `nvcc` makes of them, and checks
//! every access on the way. It needs no GPU, no driver and no CUDA library.
//!
//! # How it is built
//!
//! Each layer uses only those above it.
//!
//! | module | is about |
//! |---|---|
//! | [`fault`](Fault) | what is reported: errors of loading, of a launch, and faults of a kernel |
//! | `syntax` | PTX text to a syntax tree; knows no opcodes |
//! | `formats`, `arith` | scalar arithmetic as PTX defines it, as pure functions |
//! | [`summation`](Summation), [`capability`](Capability) | how Tensor Cores add, by architecture |
//! | `products` | products of Tensor Cores as pure functions of registers and bytes |
//! | `memory` | global, shared and local bytes; which were written; who touched them last |
//! | `machine` | what an instruction changes: the registers of a warp, the state of its block |
//! | `resolve` | names to register numbers, constants and addresses, for one kernel |
//! | `tensor` | Tensor Cores and bulk copies: decoding and execution of their opcodes |
//! | `op`, `decode` | typed instructions, and the table from opcodes to them |
//! | `execute` | runs instructions, warps, blocks and launches |
//! | `module`, `launch`, `simulator` | the public interface |
//! | [`mutations`] | changes to a kernel, and which of them a run notices |
//!
//! A warp has 32 lanes in lock step. A register is an array of 32 values, one for each lane;
//! registers of up to 32 bits, of 64 bits and predicates lie in three files. Immediates and special
//! registers are registers as well, filled before a block starts. An opcode of pure arithmetic
//! becomes a function of whole registers, chosen at load; what is left for execution is to call it.
//!
//! Where lanes part, those with the lowest program counter go on; they join where counters meet.
//! Each lane of a warp waits by itself at barriers.
//!
//! # Extension points
//!
//! `tensor::decode` is asked for every opcode that it `claims`, with the syntax of the instruction
//! and a `Resolver`; it returns a `TensorOp`. `tensor::execute` gets that operation, the warp, its
//! block and the mask of active lanes, and returns a `Flow`: go on, or try the same instruction
//! again when something else has happened (a wait). Memory is reached through the block alone
//! (`Block::shared_load`, `Block::global_load`, …), which checks bounds, alignment, written bytes
//! and races. Execution calls `tensor::deliver` when every warp of a block waits,
//! `tensor::waiting` for the report if that brought nothing, and `tensor::end` when a block ends.
//! A block whose kernel has an operation `through_proxy` keeps `Shared::proxy`.
#![forbid(unsafe_code)]

mod arith;
mod capability;
mod decode;
mod execute;
mod fault;
pub mod formats;
mod launch;
mod machine;
mod memory;
mod module;
pub mod mutations;
mod op;
mod products;
mod resolve;
mod simulator;
mod summation;
mod swizzle;
mod syntax;
mod tensor;
mod tensor_map;
mod types;

pub use capability::Capability;
pub use fault::{Access, Cause, Fault, LoadError, LoadProblem, Place, Space};
pub use launch::{Argument, Launch, LaunchError, Region};
pub use machine::{Counts, Kind, Watch};
pub use module::Module;
pub use simulator::{Arrival, Checks, MemoryError, Options, Simulator};
pub use summation::Summation;
pub use swizzle::Swizzle;
pub use tensor_map::{TENSOR_MAP_BYTES, TensorMap, TensorMapError};

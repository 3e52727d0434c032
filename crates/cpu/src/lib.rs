//! The CPU as an engine: kernels for each instruction set, and the executor of a planned program.
//!
//! A program reaches this crate as a [`Plan`](halfstep_graph::Plan): every value has a storage type
//! and a place, and operations are in groups. [`CpuEngine`] turns each group into a step (`lower`):
//! a closure over spans of the arena and a prepared kernel. Running the program calls the steps in
//! order. Nothing is allocated then, and `memory` checks every borrow of the arena against the
//! others, so that a wrong plan is a panic and never a data race.
//!
//! Kernels are in two families. Row kernels (`rows`) convert a tile of any storage type to f32 in
//! the first-level cache, compute in f32, and round once when they store; they are plain Rust,
//! compiled once for each instruction set. Matrix products (`gemm`), convolutions and attention
//! pack their operands into panels and run a micro-kernel over them; an epilogue is applied to each
//! block of the result while it is in cache. [`isa`] says which instruction sets there are, and
//! which one a process uses.
//!
//! Results do not depend on the number of threads: the shapes alone decide how work is divided, and
//! every sum has one order.
//!
//! # Example
//!
//! A product of bf16 values with f32 accumulation, from graph to result:
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use halfstep_cpu::{CpuEngine, isa::Isa};
//! use halfstep_graph::engine::{Engine, HostSlice};
//! use halfstep_graph::precision::{Policy, assign};
//! use halfstep_graph::{Graph, ValueType, fuse, plan};
//!
//! let mut graph = Graph::new();
//! let x = graph.input("x", ValueType::f32([2, 3].into()));
//! let w = graph.input("w", ValueType::f32([3, 2].into()));
//! let y = graph.matmul(x, w, false, false)?;
//! graph.add_output("y", y);
//!
//! // Precision is a pass: it inserts the casts of both operands.
//! let (graph, _) = assign(&graph, &Policy::named("bf16")?);
//! let engine = CpuEngine::new(Isa::from_env()?, NonZeroUsize::MIN);
//! let plan = plan(fuse(&graph), engine.target());
//! let mut state = engine.new_state(&plan.graph.slots)?;
//! let mut program = engine.compile(&plan, &state)?;
//!
//! let x = HostSlice::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! let w = HostSlice::F32(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
//! program.run(&mut state, &[("x", x), ("w", w)])?;
//! assert_eq!(program.read("y")?.f32(), [4.0, 5.0, 10.0, 11.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

//! Halfstep trains neural nets in mixed precision on the processors people have, and shows with
//! evidence whether the low-precision model is as good as the f32 one.
//!
//! This crate is the library's front door: it re-exports the crates that do the work and chooses an
//! engine. The program `halfstep` is built on nothing else.
//!
//! | module | what it is for |
//! |---|---|
//! | [`float`] | number formats, rounding, conversion |
//! | [`graph`] | the program of a step and the passes over it |
//! | [`cpu`] | kernels and the engine for processors |
//! | [`gpu`] | kernels and the engine for GPUs of NVIDIA |
//! | [`nn`] | layers and models |
//! | [`data`] | data sets and preprocessing |
//! | [`train`] | recipes, the step, the loop, run directories |
//! | [`evidence`] | comparison, statistics, reports |
//! | [`stress`] | measures of trained models under stress |
//!
//! Two precisions side by side:
//!
//! ```
//! use halfstep::EngineRequest;
//! use halfstep::train::recipe::Recipe;
//! use halfstep::train::train_loop::Unwatched;
//!
//! let text = r#"
//!     [data]
//!     kind = "bundled"
//!     name = "digits"
//!     [model]
//!     kind = "mlp"
//!     hidden = [32]
//!     [train]
//!     epochs = 1
//!     batch = 32
//! "#;
//! let experiment = Recipe::parse("digits", text, std::path::Path::new("."))?.prepare()?;
//! let engine = halfstep::engine(EngineRequest::default())?;
//! for precision in ["fp32", "bf16"] {
//!     let run = experiment.run(engine.as_ref(), precision, 0, &mut Unwatched)?;
//!     println!("{precision}: {:?}", run.record.evaluations.last());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub use halfstep_cpu as cpu;
pub use halfstep_data as data;
pub use halfstep_evidence as evidence;
pub use halfstep_float as float;
pub use halfstep_gpu as gpu;
pub use halfstep_graph as graph;
pub use halfstep_nn as nn;
pub use halfstep_stress as stress;
pub use halfstep_train as train;

mod cache_folder;
mod choose;
#[cfg(feature = "mpi")]
pub mod mpi;
mod numerics;

pub use cache_folder::{cache_folder, kernel_cache};
pub use choose::{
    DeviceError, DeviceRequest, EngineRequest, MemoryLimit, MemoryLimitError, Taken, engine, engine_of_rank,
    planning_engine, planning_gpu,
};
pub use numerics::{numerics_maps, numerics_page};

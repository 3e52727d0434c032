//! Recipes, the training step and the loop around it.
//!
//! Begin with [`step`]: it puts model, loss, gradients, loss scaling and the optimiser's update
//! into one graph. [`stages`] runs the passes over it (precision, recomputation, fusion, memory
//! plan), and a [`session::Session`] owns the compiled programs and their state on one engine. A
//! step is a transaction: if a gradient is not finite, weights, moments and statistics keep their
//! bits, and only the loss scale changes.
//!
//! [`recipe`] reads the TOML file that describes a run, [`train_loop`] carries it out, [`run_dir`],
//! [`run_log`] and [`checkpoint`] keep what it leaves, each file whole or not at all. A step that
//! fails is repeated by the [`doctor`]; [`lint`] warns before the first one; [`tune`] searches the
//! cheapest precision for each operation.
//!
//! # Example
//!
//! A perceptron that learns in bf16 whether the first of two numbers is the larger one:
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use halfstep_cpu::{CpuEngine, isa::Isa};
//! use halfstep_graph::engine::HostSlice;
//! use halfstep_graph::precision::Policy;
//! use halfstep_nn::{InputSpec, MlpSpec, ModelSpec};
//! use halfstep_train::session::{Session, SessionSpec};
//!
//! let engine = CpuEngine::new(Isa::from_env()?, NonZeroUsize::MIN);
//! let input = InputSpec::Features { width: 2 };
//! let model = ModelSpec::Mlp(MlpSpec { hidden: vec![8] }).build(&input, 2)?;
//! let policy = Policy::named("bf16")?;
//! let spec = SessionSpec::new(&policy, 4, 0); // batches of 4 samples, seed 0
//! let mut session = Session::new(&engine, model.as_ref(), &input, &policy, &spec)?;
//!
//! let x = HostSlice::F32(&[0.1, 0.9, 0.8, 0.3, 0.4, 0.6, 0.7, 0.2]); // 4 samples of 2 numbers
//! let first = session.step(x, &[0, 1, 0, 1], 0.01)?;
//! for _ in 0..50 {
//!     session.step(x, &[0, 1, 0, 1], 0.01)?;
//! }
//! let last = session.step(x, &[0, 1, 0, 1], 0.01)?;
//! assert!(last.committed && last.loss < 0.5 * first.loss);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod callbacks;
pub mod change;
pub mod checkpoint;
pub mod doctor;
pub mod examination;
pub mod files;
pub mod import;
pub mod init;
pub mod lint;
mod loader;
pub mod memory;
pub mod metrics;
pub mod optimiser;
pub mod predictor;
pub mod probe;
mod ranks;
pub mod recipe;
pub mod run_dir;
pub mod run_log;
pub mod samples;
pub mod scaler;
pub mod schedule;
pub mod session;
pub mod setting;
pub mod stages;
pub mod statements;
pub mod step;
pub mod step_options;
pub mod train_loop;
pub mod tune;

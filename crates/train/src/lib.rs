//! Recipes, the training step and the loop.

#![forbid(unsafe_code)]

pub mod callbacks;
pub mod checkpoint;
pub mod doctor;
pub mod files;
pub mod import;
pub mod init;
pub mod lint;
mod loader;
pub mod memory;
pub mod metrics;
pub mod optimiser;
pub mod probe;
mod ranks;
pub mod recipe;
pub mod run_dir;
pub mod run_log;
pub mod scaler;
pub mod schedule;
pub mod session;
pub mod setting;
pub mod stages;
pub mod step;
pub mod step_options;
pub mod train_loop;
pub mod tune;

//! Integration tests in one program, which is linked once.

#![allow(clippy::print_stdout, clippy::print_stderr)] // of tests

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod checkpoints;
mod doctor;
mod doctor_casts;
mod doctor_run;
mod fp16_underflow;
mod golden_torch;
mod import;
mod learning;
mod low_state;
mod memory;
mod models;
mod narrow;
mod planted;
mod predictor;
mod ranks;
mod scaler_torch;
mod session;
mod step_options;
mod supports;
mod transaction;
mod tune;

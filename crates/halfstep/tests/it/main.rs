//! Integration tests in one program, which is linked once.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
#[cfg(target_os = "linux")]
mod bounds;
mod claims;
mod compare;
mod doctor;
mod eval;
mod gpu;
mod held_out;
mod import;
mod numbers;
#[cfg(target_os = "linux")]
mod output;
mod plan;
mod recipe_errors;
mod resume;
mod stress;
mod tune;
mod verdict;
mod workflow;

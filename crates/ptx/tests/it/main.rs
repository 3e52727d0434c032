//! Tests of the simulated GPU as a whole.

mod instructions;
mod kernels;

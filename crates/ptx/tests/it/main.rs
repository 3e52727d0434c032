//! Tests of the simulated GPU as a whole.

mod integers;
mod kernels;
mod single;

//! Tests of the simulated GPU as a whole.

mod floats;
mod integers;
mod kernels;
mod single;

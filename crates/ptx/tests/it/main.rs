//! Tests of the simulated GPU as a whole; `scripts/make_ptx.py` makes the PTX of kernels.

mod clean;
mod floats;
mod formats;
mod harness;
mod integers;
mod kernels;
mod numbers;
mod planted;
mod single;

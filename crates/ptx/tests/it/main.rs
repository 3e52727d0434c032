//! Tests of the simulated GPU as a whole; `scripts/make_ptx.py` makes the PTX of kernels.

mod asynchronous;
mod changed;
mod clean;
mod faults;
mod floats;
mod formats;
mod hardware;
mod harness;
mod integers;
mod mutations;
mod narrow;
mod numbers;
mod planted;
mod programs;
mod single;
mod texts;
mod watched;
mod written;

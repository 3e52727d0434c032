//! The row kernels against f64, on every instruction set here, with one to three threads.

mod data;
mod elementwise;
mod loss;
mod math;
mod moves;
mod norm;
mod optim;
mod pool2d;
mod reduce;
pub(crate) mod support;

//! Integration tests in one program, which is linked once.

mod golden;
mod planted;
mod robustness;

//! Integration tests in one program, which is linked once.

mod catalogue;
mod claims;
mod classes;
mod gates;
mod golden;
mod planted;
mod robustness;
mod robustness_claims;

//! Functions of NVIDIA's driver and of its compiler, by safe functions: the only code of this crate
//! that is unsafe.
//!
//! Nothing of CUDA is needed to build: both libraries are opened while the program runs
//! ([`Library`]), and what is called is declared here by hand, as CUDA's headers have it.

#![allow(unsafe_code)]

mod library;
pub mod nvrtc;

pub use library::{Library, LibraryError};

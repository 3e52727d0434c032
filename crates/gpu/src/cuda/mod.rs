//! Functions of NVIDIA's driver and of its compiler, by safe functions: the only code of this crate
//! that is unsafe.
//!
//! Nothing of CUDA is needed to build: both libraries are opened while the program runs
//! ([`Library`]), and what is called is declared here by hand, as CUDA's headers have it.
//!
//! A [`Driver`] shows [`Gpu`]s; a [`CudaContext`] is one in use. Memory of it is checked by address
//! and length before it is copied; what a [`CudaGraph`] uses lives as long as the graph.

#![allow(unsafe_code)]

mod calls;
mod context;
mod driver;
mod error;
mod graph;
mod library;
mod module;
pub mod nvrtc;
mod stream;
mod version;

pub use context::{CudaContext, DeviceMemory};
pub use driver::{Driver, Gpu};
pub use error::CudaError;
pub use graph::{CopyPlace, CudaGraph, CudaGraphBuilder, GraphNode};
pub use library::{Library, LibraryError};
pub use module::{CudaModule, Function, KernelLaunch};
pub use stream::{CudaEvent, PinnedMemory, Stream};
pub use version::CudaVersion;

#[cfg(test)]
mod tests {
    use super::{calls, nvrtc};

    /// `scripts/golden_cuda.py` made the list of bindings that are generated from NVIDIA's headers.
    #[test]
    fn functions_are_declared_as_the_headers_have_them() {
        let ours = [calls::Queries::signatures(), calls::Calls::signatures(), nvrtc::Functions::signatures()];
        let theirs: Vec<&str> = include_str!("signatures.txt").lines().collect();
        assert_eq!(ours.concat(), theirs);
    }
}

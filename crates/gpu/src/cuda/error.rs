//! What the driver says when it fails.

use super::calls::{NO_DEVICE, OUT_OF_MEMORY, Status};
use super::library::LibraryError;

/// Why the driver did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// Its library cannot be used.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A function of it failed. Where kernels run, it may tell of one that was launched before.
    #[error("{function} failed: {name} ({text})")]
    Call {
        /// The function.
        function: &'static str,
        /// The number of the error.
        status: u32,
        /// The driver's name for it, such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        /// The driver's words for it.
        text: String,
    },
    /// Memory that is not allocated.
    #[error("{bytes} bytes at {address:#x} are not in one allocation of the device")]
    Range {
        /// The first byte.
        address: u64,
        /// How many.
        bytes: usize,
    },
    /// Code that is none.
    #[error("{module}: {reason}")]
    Module {
        /// Its name.
        module: String,
        /// What it lacks.
        reason: String,
    },
}

impl CudaError {
    /// Whether memory was lacking: nothing is lost then.
    pub fn is_out_of_memory(&self) -> bool {
        self.status() == Some(OUT_OF_MEMORY)
    }

    /// Whether there is a driver, but no GPU that it shows to this process.
    pub fn is_no_device(&self) -> bool {
        self.status() == Some(NO_DEVICE)
    }

    /// The driver's number for it, if it is from the driver.
    pub fn status(&self) -> Option<u32> {
        match self {
            CudaError::Call { status, .. } => Some(*status),
            CudaError::Library(_) | CudaError::Range { .. } | CudaError::Module { .. } => None,
        }
    }

    pub(super) fn call(function: &'static str, status: Status, name: String, text: String) -> CudaError {
        CudaError::Call { function, status, name, text }
    }
}

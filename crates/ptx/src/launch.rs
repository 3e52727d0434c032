//! Launches: what runs, on how many threads, and what of memory it may touch.

use crate::fault::Fault;
use crate::memory::{Span, Touch};

/// A range of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address of its first byte.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// 4 bytes.
    U32(u32),
    /// 4 bytes.
    I32(i32),
    /// 8 bytes, an address for instance.
    U64(u64),
    /// 8 bytes.
    I64(i64),
    /// 4 bytes.
    F32(f32),
    /// 8 bytes.
    F64(f64),
    /// A structure, or a value of another size.
    Bytes(Vec<u8>),
}

impl Argument {
    /// The bytes as they are passed.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Argument::U32(value) => value.to_le_bytes().to_vec(),
            Argument::I32(value) => value.to_le_bytes().to_vec(),
            Argument::U64(value) => value.to_le_bytes().to_vec(),
            Argument::I64(value) => value.to_le_bytes().to_vec(),
            Argument::F32(value) => value.to_le_bytes().to_vec(),
            Argument::F64(value) => value.to_le_bytes().to_vec(),
            Argument::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A launch of a kernel. It may touch nothing but the regions that it declares, and the variables
/// of its module.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub(crate) kernel: String,
    pub(crate) blocks: [u32; 3],
    pub(crate) threads: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) spans: Vec<Span>,
    pub(crate) only: Option<Vec<u32>>,
}

impl Launch {
    /// A launch of `blocks` blocks of `threads` threads each, by axis x, y, z.
    pub fn new(kernel: impl Into<String>, blocks: [u32; 3], threads: [u32; 3]) -> Launch {
        Launch {
            kernel: kernel.into(),
            blocks,
            threads,
            shared_bytes: 0,
            arguments: Vec::new(),
            spans: Vec::new(),
            only: None,
        }
    }

    /// Adds `bytes` bytes of dynamic shared memory to each block.
    pub fn shared(mut self, bytes: u32) -> Launch {
        self.shared_bytes = bytes;
        self
    }

    /// Runs these blocks of the grid alone, by their numbers: x first, then y, then z. For counts
    /// of a launch whose blocks all do alike; numbers beyond the grid are left out.
    pub fn only(mut self, blocks: Vec<u32>) -> Launch {
        self.only = Some(blocks);
        self
    }

    /// Appends an argument.
    pub fn argument(mut self, argument: Argument) -> Launch {
        self.arguments.push(argument);
        self
    }

    /// Appends the address of a region as an argument, and lets the launch read it.
    pub fn input(self, region: Region) -> Launch {
        self.argument(Argument::U64(region.address)).reads(region)
    }

    /// Appends the address of a region as an argument, and lets the launch write it.
    pub fn output(self, region: Region) -> Launch {
        self.argument(Argument::U64(region.address)).writes(region)
    }

    /// Lets the launch read a region.
    pub fn reads(mut self, region: Region) -> Launch {
        self.spans.push(span(region, Touch { read: true, write: false }));
        self
    }

    /// Lets the launch write a region.
    pub fn writes(mut self, region: Region) -> Launch {
        self.spans.push(span(region, Touch { read: false, write: true }));
        self
    }
}

fn span(region: Region, touch: Touch) -> Span {
    Span { address: region.address, bytes: region.bytes, touch }
}

/// Why a launch did not run to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The kernel did what no kernel may do.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
    /// The module has no kernel of this name.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// The arguments are not those of the kernel.
    #[error("kernel `{kernel}`: {why}")]
    Arguments {
        /// The kernel's name.
        kernel: String,
        /// What does not fit.
        why: String,
    },
    /// Blocks that no GPU runs, or that the kernel was not compiled for.
    #[error("kernel `{kernel}`: {why}")]
    Shape {
        /// The kernel's name.
        kernel: String,
        /// What does not fit.
        why: String,
    },
    /// A declared region is not in an allocation.
    #[error("{bytes} bytes at {address:#x} are not in one allocation of the device")]
    Region {
        /// Its address.
        address: u64,
        /// Its size.
        bytes: u64,
    },
}

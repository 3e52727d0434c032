//! What runs commands: a GPU behind its driver, or a simulated one.

use std::fmt;
use std::time::Duration;

use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;

use crate::architecture::Architecture;
use crate::command::{Bases, Commands};
use crate::cuda::Gpu;

/// What is known of a device before anything runs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Maker and model, as reports have it.
    pub name: String,
    /// What code is compiled for.
    pub architecture: Architecture,
    /// Multiprocessors. Results do not depend on it.
    pub multiprocessors: u32,
    /// The most bytes of shared memory that a block can have.
    pub shared_bytes: usize,
    /// Bytes of memory in all.
    pub memory_bytes: usize,
}

impl Facts {
    /// Of a GPU that the driver shows.
    pub fn of(gpu: &Gpu) -> Facts {
        let (major, minor) = gpu.capability;
        Facts {
            name: gpu.name.clone(),
            architecture: Architecture::of_device(major, minor),
            multiprocessors: gpu.multiprocessors,
            shared_bytes: gpu.shared_bytes,
            memory_bytes: gpu.memory_bytes,
        }
    }

    /// Of some GPU of this architecture, none of which is at hand: what all of them have in common,
    /// which is what programs are planned by.
    pub fn of_architecture(architecture: Architecture) -> Facts {
        Facts {
            name: "no GPU at hand".into(),
            architecture,
            multiprocessors: 1,
            shared_bytes: architecture.shared_bytes(),
            memory_bytes: 0,
        }
    }
}

/// Memory of a device, which is freed when this is dropped.
pub struct Buffer {
    address: u64,
    bytes: usize,
    /// Frees it.
    _owner: Box<dyn Send + Sync>,
}

impl Buffer {
    /// Memory at this address of the device, which `owner` frees when it is dropped.
    pub fn new(address: u64, bytes: usize, owner: Box<dyn Send + Sync>) -> Buffer {
        Buffer { address, bytes, _owner: owner }
    }

    /// The device's address of the first byte, a multiple of 256.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.address)
    }
}

/// A device that programs are recorded for.
pub trait Device: Send + Sync {
    /// What it is.
    fn facts(&self) -> &Facts;

    /// What decides its results besides sources and architecture, for
    /// [`EngineIdentity`](halfstep_graph::engine_info::EngineIdentity): a name of the kind of
    /// device, and the version of the compiler of its kernels.
    fn compiler(&self) -> String;

    /// Memory that may still be taken.
    fn free_memory(&self) -> Option<FreeMemory>;

    /// Takes memory, of no particular content; of no bytes too.
    ///
    /// # Errors
    /// There is not so much.
    fn alloc(&self, bytes: usize) -> Result<Buffer, EngineError>;

    /// Sets all bytes of `buffer` to zero, once all that was launched has ended.
    ///
    /// # Errors
    /// The device failed.
    fn clear(&self, buffer: &Buffer) -> Result<(), EngineError>;

    /// Copies bytes to this address, once all that was launched has ended.
    ///
    /// # Errors
    /// The device failed.
    fn write(&self, to: u64, from: &[u8]) -> Result<(), EngineError>;

    /// Copies bytes from this address, once all that was launched has ended.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), EngineError>;

    /// Compiles the modules of `commands`, where that was not done before, and makes one thing to
    /// launch of them, over regions that begin at `bases` and stay there.
    ///
    /// # Errors
    /// A module does not compile; not enough memory; the device failed.
    fn record(&self, commands: &Commands, bases: &Bases) -> Result<Box<dyn Recording>, EngineError>;
}

/// Commands that are ready to be launched any number of times.
pub trait Recording: Send {
    /// Lets `fill` write the bytes of an input, by position, for the next launch. They are not in
    /// the device's region before that: a launch that is under way keeps its own.
    ///
    /// # Errors
    /// The device failed.
    fn stage(&mut self, input: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), EngineError>;

    /// Whether an input was staged since the last launch with bytes of which `is` holds.
    ///
    /// # Errors
    /// The device failed.
    fn is_staged(&self, input: usize, is: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool, EngineError>;

    /// Begins to copy what was staged since the last launch to the device, where the inputs have a
    /// place for that, and returns: the launch may be under way meanwhile.
    ///
    /// # Errors
    /// The device failed.
    fn copy_ahead(&mut self) -> Result<(), EngineError>;

    /// Starts the commands on the inputs that were staged and returns at once. An input that was
    /// not staged since the last launch has no particular value.
    ///
    /// # Errors
    /// The device failed.
    fn launch(&mut self) -> Result<(), EngineError>;

    /// Returns when the last launch has ended.
    ///
    /// # Errors
    /// The device failed; says at which command, where that is known.
    fn wait(&mut self) -> Result<(), EngineError>;

    /// Copies an output of the last launch, by position, once it has ended. Those of a few bytes
    /// are on the host by then.
    ///
    /// # Errors
    /// The device failed.
    fn output(&self, output: usize, to: &mut [u8]) -> Result<(), EngineError>;

    /// Launches and waits, one command after another: the time that each took. None where the
    /// device has no clock.
    ///
    /// # Errors
    /// The device failed.
    fn launch_measured(&mut self) -> Result<Option<Vec<Duration>>, EngineError>;
}

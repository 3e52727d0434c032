//! The simulated device: memory, and how kernels run.

use std::collections::HashMap;

use crate::execute::{Grid, run};
use crate::launch::{Argument, Launch, LaunchError, Region};
use crate::machine::{Counts, Settings, Watch};
use crate::memory::{Bytes, Global, LaunchMemory};
use crate::module::Module;
use crate::op::Program;
use crate::products::Arithmetic;
use crate::summation::Summation;

/// Most threads of a block.
const THREADS: u32 = 1024;
/// Most shared memory of a block: that of compute capability 9.0.
const SHARED_BYTES: u32 = 227 * 1024;
/// Most bytes of an allocation.
const ALLOCATION: usize = 1 << 32;

/// When asynchronous copies and products arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// When they are asked for.
    Early,
    /// When they are waited for, or when nothing else can happen.
    Late,
}

/// What is looked for besides results. Bounds, alignment and misuse are always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Accesses in no order, in shared memory and between blocks.
    pub races: bool,
    /// Reads of bytes of memory that nothing was written to.
    pub never_written: bool,
}

/// How kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is looked for.
    pub checks: Checks,
    /// When asynchronous copies and products arrive.
    pub arrival: Arrival,
    /// Draws the order of blocks, and of warps and the lengths of their turns; without a seed, both
    /// go in ascending order and warps run until they wait.
    pub seed: Option<u64>,
    /// How Tensor Cores add.
    pub summation: Summation,
    /// Warp instructions after which a launch is given up.
    pub limit: u64,
}

impl Default for Options {
    /// All checks, late arrival, ascending order, truncated sums, 2^36 instructions.
    fn default() -> Options {
        Options {
            checks: Checks { races: true, never_written: true },
            arrival: Arrival::Late,
            seed: None,
            summation: Summation::Truncated,
            limit: 1 << 36,
        }
    }
}

/// Why memory of the device could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// An allocation of no bytes, or above 4 GiB.
    #[error("an allocation of {bytes} bytes: 1 to 2^32 are possible")]
    Size {
        /// Its size.
        bytes: usize,
    },
    /// Bytes that are in no allocation.
    #[error("{bytes} bytes at {address:#x} are not in one allocation of the device")]
    NotAllocated {
        /// Their address.
        address: u64,
        /// Their number.
        bytes: usize,
    },
}

/// A simulated GPU: memory, and the variables of modules that ran on it.
#[derive(Debug)]
pub struct Simulator {
    /// How kernels run; may be changed between launches.
    pub options: Options,
    global: Global,
    /// `.global` variables by module.
    variables: HashMap<u64, Bytes>,
}

impl Simulator {
    /// A device without allocations.
    pub fn new(options: Options) -> Simulator {
        Simulator { options, global: Global::new(), variables: HashMap::new() }
    }

    /// Allocates memory that nothing was written to. Its address is a multiple of 2^32, and is
    /// never given again.
    ///
    /// # Errors
    ///
    /// The size is 0, or above 4 GiB.
    pub fn allocate(&mut self, bytes: usize) -> Result<Region, MemoryError> {
        if bytes == 0 || bytes > ALLOCATION {
            return Err(MemoryError::Size { bytes });
        }
        let address = self.global.allocate(Bytes::new(bytes));
        Ok(Region { address, bytes: bytes as u64 })
    }

    /// Allocates memory with these bytes.
    ///
    /// # Errors
    ///
    /// As [`Simulator::allocate`].
    pub fn allocate_from(&mut self, bytes: &[u8]) -> Result<Region, MemoryError> {
        let region = self.allocate(bytes.len())?;
        self.write(region.address, bytes)?;
        Ok(region)
    }

    /// Frees the allocation at an address.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        match self.global.free(address) {
            true => Ok(()),
            false => Err(MemoryError::NotAllocated { address, bytes: 0 }),
        }
    }

    fn find(&mut self, address: u64, bytes: usize) -> Result<(&mut Bytes, usize), MemoryError> {
        let missing = MemoryError::NotAllocated { address, bytes };
        let (held, at) = self.global.find(address).ok_or(missing)?;
        if held.data.len() - at < bytes { Err(missing) } else { Ok((held, at)) }
    }

    /// Writes bytes of an allocation.
    ///
    /// # Errors
    ///
    /// They are not in one.
    pub fn write(&mut self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        let (held, at) = self.find(address, from.len())?;
        held.store(at, from);
        Ok(())
    }

    /// Reads bytes of an allocation; those that were never written are 0xcd.
    ///
    /// # Errors
    ///
    /// They are not in one.
    pub fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        let (held, at) = self.find(address, to.len())?;
        to.copy_from_slice(&held.data[at..at + to.len()]);
        Ok(())
    }

    /// The bytes of a region.
    ///
    /// # Errors
    ///
    /// It is not in one allocation.
    pub fn bytes(&mut self, region: Region) -> Result<Vec<u8>, MemoryError> {
        let bytes = region.bytes as usize;
        let (held, at) = self.find(region.address, bytes)?;
        Ok(held.data[at..at + bytes].to_vec())
    }

    /// Whether every byte of a region was written, by the host or a kernel.
    ///
    /// # Errors
    ///
    /// It is not in one allocation.
    pub fn is_written(&mut self, region: Region) -> Result<bool, MemoryError> {
        let bytes = region.bytes as usize;
        let (held, at) = self.find(region.address, bytes)?;
        Ok(held.written.all(at, bytes))
    }

    /// Counts bytes of a region as never written, so that a kernel that reads them before it writes
    /// them is found.
    ///
    /// # Errors
    ///
    /// It is not in one allocation.
    pub fn forget(&mut self, region: Region) -> Result<(), MemoryError> {
        let bytes = region.bytes as usize;
        let (held, at) = self.find(region.address, bytes)?;
        held.written.unset(at, bytes);
        Ok(())
    }

    /// Runs a launch to its end.
    ///
    /// # Errors
    ///
    /// The launch does not fit the kernel, or the kernel's first fault.
    pub fn launch(&mut self, module: &Module, launch: &Launch) -> Result<Counts, LaunchError> {
        self.run(module, launch, None)
    }

    /// Runs a launch to its end, and lets `watch` know each instruction.
    ///
    /// # Errors
    ///
    /// As [`Simulator::launch`].
    pub fn launch_watched(
        &mut self,
        module: &Module,
        launch: &Launch,
        watch: &mut dyn Watch,
    ) -> Result<Counts, LaunchError> {
        self.run(module, launch, Some(watch))
    }

    fn run(
        &mut self,
        module: &Module,
        launch: &Launch,
        watch: Option<&mut dyn Watch>,
    ) -> Result<Counts, LaunchError> {
        let found = module.programs.iter().find(|program| program.name == launch.kernel);
        let program = found.ok_or_else(|| LaunchError::NoKernel(launch.kernel.clone()))?;
        let arguments = arguments(program, &launch.arguments)?;
        check_shape(program, launch)?;
        for span in &launch.spans {
            let inside = self.find(span.address, span.bytes as usize).is_ok();
            if !inside {
                return Err(LaunchError::Region { address: span.address, bytes: span.bytes });
            }
        }
        let Options { checks, arrival, seed, summation, limit } = self.options;
        let arithmetic = Arithmetic { summation, capability: module.capability() };
        let settings = Settings {
            late: arrival == Arrival::Late,
            races: checks.races,
            never_written: checks.never_written,
            arithmetic,
        };
        let grid = Grid {
            blocks: launch.blocks,
            threads: launch.threads,
            dynamic_shared: launch.shared_bytes,
            arguments: &arguments,
            constants: &module.layout.constants,
            settings,
            seed,
            limit,
            only: launch.only.as_deref(),
        };
        if !module.layout.globals.is_empty() {
            let held = self.variables.remove(&module.number);
            let held = held.unwrap_or_else(|| Bytes::of(module.layout.globals.clone()));
            *self.global.variables() = Some(held);
        }
        let granule = checks.races.then_some(program.granules[1]);
        let mut memory = LaunchMemory::new(&mut self.global, &launch.spans, granule);
        let result = run(program, &grid, &mut memory, watch);
        if let Some(held) = self.global.variables().take() {
            self.variables.insert(module.number, held);
        }
        Ok(result?)
    }
}

/// The bytes of all arguments, each at its offset.
fn arguments(program: &Program, arguments: &[Argument]) -> Result<Vec<u8>, LaunchError> {
    let wrong = |why: String| LaunchError::Arguments { kernel: program.name.clone(), why };
    let (takes, has) = (program.parameters.len(), arguments.len());
    if takes != has {
        return Err(wrong(format!("it takes {takes} arguments, and the launch has {has}")));
    }
    let mut all = vec![0; program.parameter_bytes as usize];
    for (at, (argument, (offset, size))) in arguments.iter().zip(&program.parameters).enumerate() {
        let bytes = argument.bytes();
        if bytes.len() != *size as usize {
            let has = bytes.len();
            return Err(wrong(format!("argument {at} has {has} bytes, and the parameter {size}")));
        }
        all[*offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(all)
}

fn check_shape(program: &Program, launch: &Launch) -> Result<(), LaunchError> {
    let wrong = |why: String| Err(LaunchError::Shape { kernel: program.name.clone(), why });
    let product = |n: [u32; 3]| n.iter().try_fold(1u32, |all, n| all.checked_mul(*n));
    let threads = product(launch.threads).unwrap_or(u32::MAX);
    if threads == 0 || threads > THREADS {
        return wrong(format!("{threads} threads in a block: 1 to {THREADS} are possible"));
    }
    if product(launch.blocks).is_none_or(|blocks| blocks == 0 || blocks >= 1 << 31) {
        return wrong("the number of blocks is not between 1 and 2^31".to_string());
    }
    if program.required_threads.is_some_and(|required| required != launch.threads) {
        return wrong(format!("its `.reqntid` is {:?}", program.required_threads.unwrap_or_default()));
    }
    if let Some(most) = program.most_threads.filter(|most| threads > *most) {
        return wrong(format!("{threads} threads in a block; its `.maxntid` allows {most}"));
    }
    let shared = program.shared_bytes.saturating_add(launch.shared_bytes);
    if shared > SHARED_BYTES {
        return wrong(format!("{shared} bytes of shared memory in a block; {SHARED_BYTES} is the most"));
    }
    Ok(())
}

//! The choice of an engine.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, IsaError};
use halfstep_gpu::survey::{self, DriverError, Traces};
use halfstep_gpu::{ChoiceError, GpuChoice};
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::Engine;

/// The device that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceRequest {
    /// The best one there is: the CPU.
    #[default]
    Auto,
    /// The CPU, with the best instruction set it has or the one that `HALFSTEP_ISA` names.
    Cpu,
    /// A GPU of NVIDIA.
    Gpu(GpuChoice),
}

/// Why there is no engine for the device that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("there is no device `{given}`; there are: {}", DeviceRequest::NAMES)]
    Unknown {
        /// The name.
        given: String,
    },
    /// There is no GPU to use.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// It is none of the GPUs, or too old.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// There is a GPU, and no engine for it.
    #[error("the engine for GPUs does not run yet: take `--device cpu`; found: {found}")]
    NotYet {
        /// The GPU and the driver.
        found: String,
    },
    /// `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

impl DeviceRequest {
    /// What `--device` takes.
    pub const NAMES: &str = "auto, cpu, cuda, cuda:N, and the UUID of a GPU";
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceRequest::Auto => f.write_str("auto"),
            DeviceRequest::Cpu => f.write_str("cpu"),
            DeviceRequest::Gpu(choice) => choice.fmt(f),
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<DeviceRequest, DeviceError> {
        let unknown = || DeviceError::Unknown { given: name.to_string() };
        match name {
            "auto" => Ok(DeviceRequest::Auto),
            "cpu" => Ok(DeviceRequest::Cpu),
            "cuda" => Ok(DeviceRequest::Gpu(GpuChoice::Any)),
            _ => match name.strip_prefix("cuda:") {
                Some(n) => n.parse().map(GpuChoice::Ordinal).map_err(|_| unknown()),
                None => name.parse().map(GpuChoice::Uuid).map_err(|_| unknown()),
            }
            .map(DeviceRequest::Gpu),
        }
    }
}

/// The engine that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineRequest {
    /// What it computes on.
    pub device: DeviceRequest,
    /// Threads of the CPU; none for as many as this process may use.
    pub threads: Option<NonZeroUsize>,
}

impl EngineRequest {
    /// The number of threads: as asked for, or as many as this process may use.
    pub fn threads(self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all)
    }

    /// Why it is the CPU that is used where a GPU was found and none was asked for; none elsewhere.
    pub fn why_cpu(self) -> Option<String> {
        if self.device != DeviceRequest::Auto || !Traces::under(Path::new("/")).any() {
            return None;
        }
        let reason = match found(GpuChoice::Any) {
            Ok(found) => format!("the engine for GPUs does not run yet (found: {found})"),
            Err(error) => error.to_string(),
        };
        Some(format!("computing on the CPU: {reason}"))
    }

    /// The same request for so many threads.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> EngineRequest {
        EngineRequest { threads: Some(threads), ..self }
    }
}

/// An engine.
///
/// # Errors
/// The device cannot be used.
pub fn engine(request: EngineRequest) -> Result<Box<dyn Engine>, DeviceError> {
    Ok(Box::new(cpu(request)?))
}

/// [`engine`], as one of several ranks that share each training step.
///
/// # Errors
/// As there.
pub fn engine_of_rank(
    request: EngineRequest,
    ranks: Arc<Communicator>,
) -> Result<Box<dyn Engine>, DeviceError> {
    Ok(Box::new(cpu(request)?.with_communicator(ranks)))
}

/// [`engine`], whose plans are those of one of so many ranks: to look at, not to run.
///
/// # Errors
/// As there.
pub fn planning_engine(request: EngineRequest, ranks: NonZeroUsize) -> Result<Box<dyn Engine>, DeviceError> {
    Ok(Box::new(cpu(request)?.planning_for(ranks)))
}

fn cpu(request: EngineRequest) -> Result<CpuEngine, DeviceError> {
    match request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(CpuEngine::new(Isa::from_env()?, request.threads())),
        DeviceRequest::Gpu(choice) => Err(DeviceError::NotYet { found: found(choice)? }),
    }
}

/// The GPU that is meant and its driver, for a sentence.
fn found(choice: GpuChoice) -> Result<String, DeviceError> {
    let driver = survey::driver()?;
    let gpu = choice.of(&driver.gpus)?;
    let (major, minor) = gpu.capability;
    let version = driver.driver.version();
    Ok(format!("{} (compute capability {major}.{minor}, driver of CUDA {version})", gpu.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_name_and_others_are_told_of_those_there_are() {
        let uuid = "GPU-8d3a0000-0000-0000-0000-000000000001";
        for name in ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "GPU-8d3a", uuid] {
            assert_eq!(name.parse::<DeviceRequest>().unwrap().to_string(), name);
        }
        for name in ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "GPU-", "GPU-q"] {
            let error = name.parse::<DeviceRequest>().unwrap_err();
            let known = "there are: auto, cpu, cuda, cuda:N, and the UUID of a GPU";
            assert_eq!(error.to_string(), format!("there is no device `{name}`; {known}"));
        }
    }
}

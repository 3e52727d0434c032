//! The choice of an engine.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, IsaError};
use halfstep_gpu::compile::{CompileProgress, Compiler};
use halfstep_gpu::cuda::CudaError;
use halfstep_gpu::cuda::nvrtc::NvrtcError;
use halfstep_gpu::find::{self, FindError};
use halfstep_gpu::survey::{self, DriverError, Traces};
use halfstep_gpu::{ChoiceError, CudaDevice, GpuChoice, GpuEngine};
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::Engine;

use crate::cache_folder::{cache_folder, kernel_cache};

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
    /// There is a GPU, and nothing that compiles kernels for it.
    #[error(transparent)]
    Compiler(#[from] FindError),
    /// Nothing can be compiled.
    #[error("kernels for the GPU cannot be compiled: {0}")]
    Kernels(#[from] NvrtcError),
    /// The GPU cannot be used: another process may have it for itself.
    #[error("`{gpu}` cannot be used: {error}")]
    Gpu {
        /// Its model.
        gpu: String,
        /// What the driver says.
        error: CudaError,
    },
    /// `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Ranks that compute on GPUs.
    #[error("ranks share a step on CPUs alone: take `--device cpu`")]
    Ranks,
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
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineRequest {
    /// What it computes on.
    pub device: DeviceRequest,
    /// Threads of the CPU; none for as many as this process may use.
    pub threads: Option<NonZeroUsize>,
    /// Is notified while kernels are compiled for a GPU, which takes seconds the first time.
    pub compiling: Option<fn(CompileProgress)>,
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
        let reason = match usable(GpuChoice::Any) {
            Ok(gpu) => format!("{UNPROVEN}; `--device cuda` takes {gpu}"),
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

/// Why no GPU is taken unless it is asked for.
pub const UNPROVEN: &str = "the engine for GPUs has been tested on a simulated GPU, and on no real one yet";

/// An engine.
///
/// # Errors
/// The device cannot be used.
pub fn engine(request: EngineRequest) -> Result<Box<dyn Engine>, DeviceError> {
    match request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(Box::new(cpu(request)?)),
        DeviceRequest::Gpu(choice) => Ok(Box::new(gpu(choice, request.compiling)?)),
    }
}

/// [`engine`], as one of several ranks that share each training step.
///
/// # Errors
/// As there; ranks compute on CPUs.
pub fn engine_of_rank(
    request: EngineRequest,
    ranks: Arc<Communicator>,
) -> Result<Box<dyn Engine>, DeviceError> {
    match request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(Box::new(cpu(request)?.with_communicator(ranks))),
        DeviceRequest::Gpu(_) => Err(DeviceError::Ranks),
    }
}

/// [`engine`], whose plans are those of one of so many ranks: to look at, not to run.
///
/// # Errors
/// As there.
pub fn planning_engine(request: EngineRequest, ranks: NonZeroUsize) -> Result<Box<dyn Engine>, DeviceError> {
    match request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(Box::new(cpu(request)?.planning_for(ranks))),
        DeviceRequest::Gpu(_) if ranks.get() > 1 => Err(DeviceError::Ranks),
        DeviceRequest::Gpu(_) => engine(request),
    }
}

fn cpu(request: EngineRequest) -> Result<CpuEngine, DeviceError> {
    Ok(CpuEngine::new(Isa::from_env()?, request.threads()))
}

fn gpu(choice: GpuChoice, compiling: Option<fn(CompileProgress)>) -> Result<GpuEngine, DeviceError> {
    let found = survey::driver()?;
    let gpu = choice.of(&found.gpus)?;
    let nvrtc = find::nvrtc(Some(found.driver.version().major))?;
    let compiler = Compiler::new(nvrtc, cache_folder().map(|folder| kernel_cache(&folder)))?;
    let progress = Box::new(move |progress| compiling.map_or((), |notify| notify(progress)));
    let device = CudaDevice::open(&found.driver, gpu, compiler, progress);
    let device = device.map_err(|error| DeviceError::Gpu { gpu: gpu.name.clone(), error })?;
    Ok(GpuEngine::new(Arc::new(device)))
}

/// The GPU that is meant, for a sentence, if it can be used.
fn usable(choice: GpuChoice) -> Result<String, DeviceError> {
    let found = survey::driver()?;
    let gpu = choice.of(&found.gpus)?;
    let (major, minor) = gpu.capability;
    Ok(format!(
        "{} (compute capability {major}.{minor}, driver of CUDA {})",
        gpu.name,
        found.driver.version()
    ))
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

//! The choice of an engine.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, IsaError};
use halfstep_gpu::compile::{CompileProgress, Compiler};
use halfstep_gpu::cuda::nvrtc::NvrtcError;
use halfstep_gpu::cuda::{CudaError, Gpu};
use halfstep_gpu::device::Facts;
use halfstep_gpu::find::{self, FindError};
use halfstep_gpu::survey::{self, DriverError, DriverFound, Traces};
use halfstep_gpu::{Architecture, ChoiceError, CudaDevice, GpuChoice, GpuEngine};
use halfstep_graph::ByteSize;
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::{Engine, EngineError};

use crate::cache_folder::{cache_folder, kernel_cache};

/// The device that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceRequest {
    /// The first GPU that can be used; the CPU where there is none.
    #[default]
    Auto,
    /// The CPU, with the best instruction set it has or the one that `HALFSTEP_ISA` names.
    Cpu,
    /// A GPU of NVIDIA.
    Gpu(GpuChoice),
    /// Any GPU of this architecture, none of which need be there: to plan for, not to compute on.
    Planned(Architecture),
}

/// How much of a GPU's memory may be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(ByteSize),
    /// So many hundredths of what it has in all.
    Percent(f64),
}

/// What is no limit of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a number of bytes such as \"20 GB\" nor a share such as 80%, of at most 100%")]
pub struct MemoryLimitError(String);

impl MemoryLimit {
    /// The share of each of so many.
    fn shared_among(self, engines: NonZeroUsize) -> MemoryLimit {
        match self {
            MemoryLimit::Bytes(ByteSize(bytes)) => MemoryLimit::Bytes(ByteSize(bytes / engines)),
            MemoryLimit::Percent(share) => MemoryLimit::Percent(share / engines.get() as f64),
        }
    }

    fn of(self, gpu: &Gpu) -> usize {
        match self {
            MemoryLimit::Bytes(ByteSize(bytes)) => bytes,
            MemoryLimit::Percent(share) => (gpu.memory_bytes as f64 * share / 100.0) as usize,
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryLimit::Bytes(bytes) => bytes.fmt(f),
            MemoryLimit::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = MemoryLimitError;

    fn from_str(text: &str) -> Result<MemoryLimit, MemoryLimitError> {
        let wrong = || MemoryLimitError(text.to_string());
        match text.trim().strip_suffix('%') {
            Some(share) => {
                let share = share.trim().parse::<f64>().ok().filter(|x| *x > 0.0 && *x <= 100.0);
                share.map(MemoryLimit::Percent).ok_or_else(wrong)
            }
            None => text.parse().map(MemoryLimit::Bytes).map_err(|_| wrong()),
        }
    }
}

/// Why there is no engine for the device that is asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// The GPU does not take what is compiled for it.
    #[error(transparent)]
    Code(EngineError),
    /// An architecture was named, which is no device.
    #[error("`{0}` is an architecture to plan for with `plan` and `explain`, and no device to compute on")]
    OnlyPlanned(Architecture),
    /// `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Ranks that compute on GPUs.
    #[error("ranks share a step on CPUs alone: take `--device cpu`")]
    Ranks,
}

impl DeviceRequest {
    /// What `--device` takes.
    pub const NAMES: &str =
        "auto, cpu, cuda, cuda:N, the UUID of a GPU, and, to plan for, an architecture such as sm_90a";
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceRequest::Auto => f.write_str("auto"),
            DeviceRequest::Cpu => f.write_str("cpu"),
            DeviceRequest::Gpu(choice) => choice.fmt(f),
            DeviceRequest::Planned(architecture) => architecture.fmt(f),
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
                Some(n) => n.parse().map(GpuChoice::Ordinal).map(DeviceRequest::Gpu).map_err(|_| unknown()),
                None if name.starts_with("sm_") => {
                    name.parse().map(DeviceRequest::Planned).map_err(|_| unknown())
                }
                None => name.parse().map(GpuChoice::Uuid).map(DeviceRequest::Gpu).map_err(|_| unknown()),
            },
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
    /// How much of a GPU's memory may be taken; none for all that is free.
    pub device_memory: Option<MemoryLimit>,
    /// Is notified while kernels are compiled for a GPU, which takes seconds the first time.
    pub compiling: Option<fn(CompileProgress)>,
}

impl EngineRequest {
    /// The number of threads: as asked for, or as many as this process may use.
    pub fn threads(self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all)
    }

    /// The request with the CPU in place of [`DeviceRequest::Auto`].
    #[must_use]
    pub fn cpu_by_default(self) -> EngineRequest {
        match self.device {
            DeviceRequest::Auto => EngineRequest { device: DeviceRequest::Cpu, ..self },
            _ => self,
        }
    }

    /// The request with a device in place of [`DeviceRequest::Auto`].
    pub fn taken(self) -> Taken {
        self.taken_for(None)
    }

    /// [`taken`](Self::taken) for a run that is resumed, and that the engine of this name began:
    /// the CPU if it was the CPU, and such a GPU rather than another.
    pub fn taken_for(self, began: Option<&str>) -> Taken {
        let cpu = self.cpu_by_default();
        if self.device != DeviceRequest::Auto || !Traces::under(Path::new("/")).any() {
            return cpu.into();
        }
        let on_cpu = |why: String| Taken { why: Some(why), ..cpu.into() };
        match usable(began) {
            Err(error) => on_cpu(format!("computing on the CPU: {error}")),
            Ok((gpu, ..)) if began.is_some_and(|name| !GpuEngine::is_name(name)) => on_cpu(format!(
                "computing on the CPU, on which the run was begun; `--device cuda` takes {gpu} from here on"
            )),
            Ok((gpu, ordinal, device)) => {
                let why = match began {
                    Some(_) => "the run was begun on a GPU",
                    None => "the first GPU that can be used; `--device cpu` takes the CPU",
                };
                Taken {
                    request: EngineRequest {
                        device: DeviceRequest::Gpu(GpuChoice::Ordinal(ordinal)),
                        ..self
                    },
                    why: Some(format!("computing on {gpu}: {why}")),
                    _gpu: Some(device),
                }
            }
        }
    }

    /// The request of each of so many engines that share what is asked for: threads, and what may
    /// be taken of a GPU's memory.
    #[must_use]
    pub fn shared_among(self, engines: NonZeroUsize) -> EngineRequest {
        let threads = NonZeroUsize::new(self.threads().get() / engines).unwrap_or(NonZeroUsize::MIN);
        let device_memory = self.device_memory.map(|limit| limit.shared_among(engines));
        EngineRequest { device_memory, ..self.with_threads(threads) }
    }

    /// The same request for so many threads.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> EngineRequest {
        EngineRequest { threads: Some(threads), ..self }
    }
}

/// What a request came to, and why.
pub struct Taken {
    /// The request, with a device in place of [`DeviceRequest::Auto`].
    pub request: EngineRequest,
    /// What `Auto` took and why, where there is a GPU or a driver; none elsewhere.
    pub why: Option<String>,
    /// The GPU, which stays open: it takes time to open it again.
    _gpu: Option<CudaDevice>,
}

impl From<EngineRequest> for Taken {
    /// The request as it is.
    fn from(request: EngineRequest) -> Taken {
        Taken { request, why: None, _gpu: None }
    }
}

/// An engine.
///
/// # Errors
/// The device cannot be used.
pub fn engine(request: EngineRequest) -> Result<Box<dyn Engine>, DeviceError> {
    let taken = request.taken();
    match taken.request.device {
        DeviceRequest::Gpu(choice) => Ok(Box::new(gpu(choice, request)?)),
        DeviceRequest::Planned(architecture) => Err(DeviceError::OnlyPlanned(architecture)),
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(Box::new(cpu(request)?)),
    }
}

/// [`engine`], as one of several ranks that share each training step.
///
/// # Errors
/// As there; ranks compute on CPUs, which [`DeviceRequest::Auto`] is here.
pub fn engine_of_rank(
    request: EngineRequest,
    ranks: Arc<Communicator>,
) -> Result<Box<dyn Engine>, DeviceError> {
    match request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(Box::new(cpu(request)?.with_communicator(ranks))),
        DeviceRequest::Gpu(_) => Err(DeviceError::Ranks),
        DeviceRequest::Planned(architecture) => Err(DeviceError::OnlyPlanned(architecture)),
    }
}

/// [`engine`], whose plans are those of one of so many ranks: to look at, not to run.
///
/// # Errors
/// As there.
pub fn planning_engine(request: EngineRequest, ranks: NonZeroUsize) -> Result<Box<dyn Engine>, DeviceError> {
    let gpu = match (ranks.get(), request.device) {
        (1, _) => planning_gpu(request)?,
        (_, DeviceRequest::Auto | DeviceRequest::Cpu) => None,
        (_, DeviceRequest::Gpu(_) | DeviceRequest::Planned(_)) => return Err(DeviceError::Ranks),
    };
    Ok(match gpu {
        Some(gpu) => Box::new(gpu),
        None => Box::new(cpu(request)?.planning_for(ranks)),
    })
}

/// The GPU that a request means, to plan for; none where it is the CPU that is meant.
///
/// # Errors
/// There is no such GPU.
pub fn planning_gpu(request: EngineRequest) -> Result<Option<GpuEngine>, DeviceError> {
    let facts = match request.taken().request.device {
        DeviceRequest::Auto | DeviceRequest::Cpu => return Ok(None),
        DeviceRequest::Gpu(choice) => Facts::of(choice.of(&survey::driver()?.gpus)?),
        DeviceRequest::Planned(architecture) => Facts::of_architecture(architecture),
    };
    Ok(Some(GpuEngine::planning(facts)))
}

fn cpu(request: EngineRequest) -> Result<CpuEngine, DeviceError> {
    Ok(CpuEngine::new(Isa::from_env()?, request.threads()))
}

fn gpu(choice: GpuChoice, request: EngineRequest) -> Result<GpuEngine, DeviceError> {
    let found = survey::driver()?;
    let gpu = choice.of(&found.gpus)?;
    let progress = Box::new(move |progress| request.compiling.map_or((), |notify| notify(progress)));
    let mut device = open(&found, gpu, progress)?;
    if let Some(limit) = request.device_memory {
        device = device.with_at_most(limit.of(gpu));
    }
    Ok(GpuEngine::new(Arc::new(device)))
}

fn open(
    found: &DriverFound,
    gpu: &Gpu,
    progress: Box<dyn Fn(CompileProgress) + Send + Sync>,
) -> Result<CudaDevice, DeviceError> {
    let nvrtc = find::nvrtc(Some(found.driver.version().major))?;
    let compiler = Compiler::new(nvrtc, cache_folder().map(|folder| kernel_cache(&folder)))?;
    let device = CudaDevice::open(&found.driver, gpu, compiler, progress);
    device.map_err(|error| DeviceError::Gpu { gpu: gpu.name.clone(), error })
}

/// The first GPU that can be used, or one that an engine of this name has computed on: in words,
/// its number, and itself. It has shown that it takes code.
fn usable(began: Option<&str>) -> Result<(String, u32, CudaDevice), DeviceError> {
    let found = survey::driver()?;
    let same = |gpu: &&Gpu| began == Some(GpuEngine::name_on(&Facts::of(gpu)).as_str());
    let gpu = match found.gpus.iter().find(same) {
        Some(gpu) => gpu,
        None => GpuChoice::Any.of(&found.gpus)?,
    };
    let device = open(&found, gpu, Box::new(|_| {}))?;
    device.check().map_err(DeviceError::Code)?;
    let ((major, minor), cuda) = (gpu.capability, found.driver.version());
    let words = format!(
        "{} (cuda:{}, compute capability {major}.{minor}, driver of CUDA {cuda})",
        gpu.name, gpu.ordinal
    );
    Ok((words, gpu.ordinal, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_name_and_others_are_told_of_those_there_are() {
        let uuid = "GPU-8d3a0000-0000-0000-0000-000000000001";
        for name in ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "GPU-8d3a", uuid, "sm_90a", "sm_80"] {
            assert_eq!(name.parse::<DeviceRequest>().unwrap().to_string(), name);
        }
        for name in ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "GPU-", "GPU-q", "sm_75"] {
            let error = name.parse::<DeviceRequest>().unwrap_err();
            let known = "there are: auto, cpu, cuda, cuda:N, the UUID of a GPU, and, to plan for, an \
                         architecture such as sm_90a";
            assert_eq!(error.to_string(), format!("there is no device `{name}`; {known}"));
        }
    }

    #[test]
    fn engines_that_share_a_request_take_no_more_than_it_allows() {
        let engines = |n| NonZeroUsize::new(n).unwrap();
        let of = |limit, n| {
            let request = EngineRequest { device_memory: Some(limit), ..EngineRequest::default() };
            let shared = request.with_threads(engines(4)).shared_among(engines(n));
            (shared.threads().get(), shared.device_memory.unwrap())
        };
        assert_eq!(of(MemoryLimit::Bytes(ByteSize(1001)), 2), (2, MemoryLimit::Bytes(ByteSize(500))));
        assert_eq!(of(MemoryLimit::Percent(50.0), 2), (2, MemoryLimit::Percent(25.0)));
        assert_eq!(of(MemoryLimit::Percent(50.0), 8), (1, MemoryLimit::Percent(6.25)));
    }

    #[test]
    fn memory_is_limited_in_bytes_and_shares() {
        let read = |text: &str| text.parse::<MemoryLimit>().map_err(|e| e.to_string());
        assert_eq!(read("20 GB"), Ok(MemoryLimit::Bytes(ByteSize(20_000_000_000))));
        assert_eq!(read("80%"), Ok(MemoryLimit::Percent(80.0)));
        assert_eq!(read("12.5 %").unwrap().to_string(), "12.5%");
        for wrong in ["", "%", "0%", "101%", "-5%", "NaN%", "much"] {
            assert!(read(wrong).unwrap_err().starts_with(&format!("`{wrong}` is neither")), "{wrong}");
        }
    }
}

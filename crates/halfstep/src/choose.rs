//! The choice of an engine.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, IsaError};
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
}

/// Why there is no engine for the device that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("there is no device `{given}`; there are: {}", DeviceRequest::ALL.map(|d| d.to_string()).join(", "))]
    Unknown {
        /// The name.
        given: String,
    },
    /// `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

impl DeviceRequest {
    /// Every request, as `--device` takes them.
    pub const ALL: [DeviceRequest; 2] = [DeviceRequest::Auto, DeviceRequest::Cpu];
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceRequest::Auto => "auto",
            DeviceRequest::Cpu => "cpu",
        })
    }
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<DeviceRequest, DeviceError> {
        let named = DeviceRequest::ALL.into_iter().find(|d| d.to_string() == name);
        named.ok_or_else(|| DeviceError::Unknown { given: name.to_string() })
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_name_and_others_are_told_of_those_there_are() {
        for device in DeviceRequest::ALL {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        let error = "tpu".parse::<DeviceRequest>().unwrap_err();
        assert_eq!(error.to_string(), "there is no device `tpu`; there are: auto, cpu");
    }
}

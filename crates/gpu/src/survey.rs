//! What there is of NVIDIA's driver and GPUs on this machine.

use std::path::Path;
use std::sync::Arc;

use crate::cuda::{CudaError, CudaVersion, Driver, Gpu, LibraryError};

/// The environment's name for the file of the driver's library; nothing else is looked for then.
pub const DRIVER_VARIABLE: &str = "HALFSTEP_CUDA_DRIVER";
/// The environment's name for the GPUs that the driver shows to a process.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// What the system's loader finds, and where WSL has it.
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"];
/// The oldest driver whose functions are called.
const OLDEST: CudaVersion = CudaVersion { major: 12, minor: 0 };

/// The driver and the GPUs that it shows: at least one.
#[derive(Debug)]
pub struct DriverFound {
    /// The driver.
    pub driver: Arc<Driver>,
    /// Its GPUs, in its order.
    pub gpus: Vec<Gpu>,
}

/// Why there is no GPU to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// It is not installed, or not where this process sees it.
    #[error("no driver of NVIDIA was found ({}: {reason}){hint}", LIBRARIES[0])]
    Absent {
        /// What the system's loader says.
        reason: String,
        /// Empty, or what to do, behind a semicolon.
        hint: &'static str,
    },
    /// It is installed and fails.
    #[error("NVIDIA's driver cannot be used: {error}{hint}")]
    Broken {
        /// What it says.
        error: CudaError,
        /// Empty, or what to do, behind a semicolon.
        hint: &'static str,
    },
    /// It shows no GPU to this process.
    #[error("NVIDIA's driver (CUDA {version}) shows no GPU{hint}")]
    NoGpu {
        /// The newest CUDA that it knows.
        version: CudaVersion,
        /// Empty, or why, or what to do.
        hint: String,
    },
    /// It lacks functions that are called.
    #[error("NVIDIA's driver knows CUDA {version} and older, and CUDA {OLDEST} is needed: update the driver")]
    TooOld {
        /// The newest CUDA that it knows.
        version: CudaVersion,
    },
}

impl DriverError {
    /// Whether there is a driver at all.
    pub fn is_installed(&self) -> bool {
        !matches!(self, DriverError::Absent { .. })
    }
}

/// What a system shows of a GPU, whether or not its library is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The module of the kernel is loaded.
    pub kernel_module: bool,
    /// Files through which the driver talks to it.
    pub device_files: bool,
    /// Windows gives its GPU to Linux.
    pub wsl: bool,
}

impl Traces {
    /// Of a system whose files are under this folder, which is `/` but for tests.
    pub fn under(root: &Path) -> Traces {
        let there = |path: &str| root.join(path).exists();
        Traces {
            kernel_module: there("proc/driver/nvidia/version"),
            device_files: there("dev/nvidiactl"),
            wsl: there("dev/dxg"),
        }
    }

    /// Whether to look further: that takes time where there are GPUs, and says nothing elsewhere.
    pub fn any(self) -> bool {
        let named = std::env::var_os(DRIVER_VARIABLE).is_some_and(|file| !file.is_empty());
        self.kernel_module || self.device_files || self.wsl || named
    }
}

/// The driver and its GPUs.
///
/// # Errors
/// There is none that can be used.
pub fn driver() -> Result<DriverFound, DriverError> {
    let traces = Traces::under(Path::new("/"));
    let driver = match std::env::var_os(DRIVER_VARIABLE).filter(|file| !file.is_empty()) {
        // A file that was named is there, or it is the name that is wrong.
        Some(file) => Driver::open(file).map_err(broken)?,
        None => installed(traces)?,
    };
    let version = driver.version();
    let gpus = driver.gpus().map_err(broken)?;
    if gpus.is_empty() {
        let hint = no_gpu(traces, std::env::var(VISIBLE).ok());
        return Err(DriverError::NoGpu { version, hint });
    }
    if version < OLDEST {
        return Err(DriverError::TooOld { version });
    }
    Ok(DriverFound { driver, gpus })
}

fn installed(traces: Traces) -> Result<Arc<Driver>, DriverError> {
    let mut reasons = Vec::new();
    for library in LIBRARIES {
        match Driver::open(library) {
            Ok(driver) => return Ok(driver),
            Err(CudaError::Library(LibraryError::Open { reason, .. })) => reasons.push(reason),
            Err(error) => return Err(broken(error)),
        }
    }
    Err(DriverError::Absent { reason: reasons.swap_remove(0), hint: absent(traces) })
}

fn absent(traces: Traces) -> &'static str {
    match traces {
        Traces { wsl: true, .. } => {
            "; under WSL it is the driver of Windows that is used: install NVIDIA's driver there, \
             then `wsl --update`"
        }
        Traces { kernel_module: true, .. } | Traces { device_files: true, .. } => {
            "; its module is loaded, but its library is not there: a container gets it with \
             `--gpus all` (NVIDIA Container Toolkit)"
        }
        _ => "",
    }
}

fn broken(error: CudaError) -> DriverError {
    let hint = match error.status() {
        // CUDA_ERROR_STUB_LIBRARY
        Some(34) => "; this library is only there to link with: take its folder off LD_LIBRARY_PATH",
        // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        Some(803) => {
            "; its library and the module of the kernel are of different versions: restart the \
             machine, or give the container the library of the machine's driver"
        }
        // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
        Some(804) => {
            "; this GPU does not run the library of a newer driver: take the folder `compat` off \
             LD_LIBRARY_PATH"
        }
        Some(_) => "; `nvidia-smi` may say more",
        None => "",
    };
    DriverError::Broken { error, hint }
}

fn no_gpu(traces: Traces, visible: Option<String>) -> String {
    match visible {
        Some(list) => format!(": {VISIBLE} is `{list}`"),
        None if !traces.device_files && !traces.wsl => {
            "; a container gets GPUs with `--gpus all` (NVIDIA Container Toolkit)".into()
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_broken_comes_with_what_to_do() {
        let none = Traces { kernel_module: false, device_files: false, wsl: false };
        assert_eq!(absent(none), "");
        assert!(absent(Traces { kernel_module: true, ..none }).contains("--gpus all"));
        assert!(absent(Traces { wsl: true, ..none }).contains("driver of Windows"));
        assert_eq!(no_gpu(none, Some("".into())), ": CUDA_VISIBLE_DEVICES is ``");
        assert!(no_gpu(none, None).contains("--gpus all"));
        assert_eq!(no_gpu(Traces { device_files: true, ..none }, None), "");
        let old = DriverError::TooOld { version: CudaVersion { major: 11, minor: 4 } };
        assert_eq!(
            old.to_string(),
            "NVIDIA's driver knows CUDA 11.4 and older, and CUDA 12.0 is needed: update the driver"
        );
    }

    #[test]
    fn traces_are_files_of_the_system() {
        let root = tempfile::tempdir().unwrap();
        let none = Traces { kernel_module: false, device_files: false, wsl: false };
        assert_eq!(Traces::under(root.path()), none);
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/dxg"), "").unwrap();
        assert_eq!(Traces::under(root.path()), Traces { wsl: true, ..none });
    }
}

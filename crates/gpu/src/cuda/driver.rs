//! The driver, and the GPUs that it shows to this process.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use super::calls::{Attribute, Calls, NO_DEVICE, Queries, SUCCESS, Status, Uuid};
use super::error::CudaError;
use super::library::{Library, LibraryError};
use super::version::CudaVersion;

/// The open library of the driver, initialised.
pub struct Driver {
    queries: Queries,
    /// Absent in drivers that are too old.
    calls: Result<Calls, LibraryError>,
    library: Library,
    version: CudaVersion,
}

/// What is known of a GPU before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number among those that the driver shows to this process, from 0.
    pub ordinal: u32,
    /// Its model, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// What it is called wherever it is plugged in, such as `GPU-8d3a…`, in lower case.
    pub uuid: String,
    /// Compute capability: (9, 0) is 9.0.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory_bytes: usize,
    /// How many multiprocessors it has.
    pub multiprocessors: u32,
    /// The most bytes of shared memory that a block can have.
    pub shared_bytes: usize,
    /// Bytes of its second-level cache.
    pub l2_bytes: usize,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver of CUDA {} in {}", self.version, self.library.file().display())
    }
}

impl Driver {
    /// The driver of this file or name, initialised.
    ///
    /// # Errors
    /// It cannot be opened, is not the driver, or cannot be initialised. That there is no GPU is no
    /// error here.
    pub fn open(file: impl AsRef<Path>) -> Result<Arc<Driver>, CudaError> {
        let library = Library::open(file)?;
        let queries = Queries::of(&library)?;
        let calls = Calls::of(&library);
        let mut driver = Driver { queries, calls, library, version: CudaVersion { major: 0, minor: 0 } };
        // SAFETY: no argument but a number.
        let status = unsafe { (driver.queries.cuInit)(0) };
        if status != NO_DEVICE {
            driver.check("cuInit", status)?;
        }
        let mut version = 0;
        // SAFETY: a place for one int.
        let status = unsafe { (driver.queries.cuDriverGetVersion)(&mut version) };
        driver.check("cuDriverGetVersion", status)?;
        // 13000 is 13.0.
        let version = version.unsigned_abs();
        driver.version = CudaVersion { major: version / 1000, minor: version % 1000 / 10 };
        Ok(Arc::new(driver))
    }

    /// The newest version of CUDA that it knows.
    pub fn version(&self) -> CudaVersion {
        self.version
    }

    /// The path or name by which it was opened.
    pub fn file(&self) -> &Path {
        self.library.file()
    }

    /// The GPUs that it shows to this process: all, or what `CUDA_VISIBLE_DEVICES` names.
    ///
    /// # Errors
    /// The driver fails.
    pub fn gpus(&self) -> Result<Vec<Gpu>, CudaError> {
        let mut count = 0;
        // SAFETY: a place for one int.
        let status = unsafe { (self.queries.cuDeviceGetCount)(&mut count) };
        // Where it was initialised without a device, it says that it was not initialised.
        if count == 0 && status != SUCCESS {
            return Ok(Vec::new());
        }
        self.check("cuDeviceGetCount", status)?;
        (0..count).map(|ordinal| self.gpu(ordinal)).collect()
    }

    fn gpu(&self, ordinal: c_int) -> Result<Gpu, CudaError> {
        let q = &self.queries;
        let (mut device, mut memory_bytes, mut uuid) = (0, 0, Uuid::default());
        let mut name = [0 as c_char; 256];
        // SAFETY: each is a place for what is written to it; the name is not longer than is said.
        unsafe {
            self.check("cuDeviceGet", (q.cuDeviceGet)(&mut device, ordinal))?;
            let status = (q.cuDeviceGetName)(name.as_mut_ptr(), name.len() as c_int - 1, device);
            self.check("cuDeviceGetName", status)?;
            self.check("cuDeviceTotalMem", (q.cuDeviceTotalMem_v2)(&mut memory_bytes, device))?;
            self.check("cuDeviceGetUuid", (q.cuDeviceGetUuid_v2)(&mut uuid, device))?;
        }
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: a place for one int.
            let status = unsafe { (q.cuDeviceGetAttribute)(&mut value, attribute, device) };
            self.check("cuDeviceGetAttribute", status).map(|()| value.unsigned_abs())
        };
        // SAFETY: the last of its bytes is zero, for one less was given to the driver.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Gpu {
            ordinal: ordinal.unsigned_abs(),
            name,
            uuid: uuid.to_string(),
            capability: (attribute(Attribute::CapabilityMajor)?, attribute(Attribute::CapabilityMinor)?),
            memory_bytes,
            multiprocessors: attribute(Attribute::Multiprocessors)?,
            shared_bytes: attribute(Attribute::SharedBytesOfBlock)? as usize,
            l2_bytes: attribute(Attribute::L2Bytes)? as usize,
        })
    }

    /// The functions that use a device.
    pub(super) fn calls(&self) -> Result<&Calls, CudaError> {
        self.calls.as_ref().map_err(|e| CudaError::Library(e.clone()))
    }

    /// An error unless a function returned success.
    pub(super) fn check(&self, function: &'static str, status: Status) -> Result<(), CudaError> {
        if status == SUCCESS {
            return Ok(());
        }
        let text = |of: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text = ptr::null();
            // SAFETY: a place for one pointer.
            let known = unsafe { of(status, &mut text) } == SUCCESS && !text.is_null();
            // SAFETY: the driver gave a text of its own that is never freed.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = text(self.queries.cuGetErrorName).unwrap_or_else(|| format!("error {status}"));
        let text = text(self.queries.cuGetErrorString).unwrap_or_else(|| "unknown to this driver".into());
        Err(CudaError::call(function, status, name, text))
    }
}

/// As NVIDIA's tools write it.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU")?;
        for (i, byte) in self.bytes.iter().enumerate() {
            let dash = if matches!(i, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

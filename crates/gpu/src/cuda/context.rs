//! A GPU in use: its context, which all threads of this process share, and its memory.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::calls::{Address, Calls, Handle};
use super::driver::{Driver, Gpu};
use super::error::CudaError;

/// The primary context of a GPU, retained until this is dropped.
pub struct CudaContext {
    driver: Arc<Driver>,
    device: c_int,
    handle: Handle,
    /// Device memory that is allocated: bytes by the first address.
    allocations: Mutex<BTreeMap<Address, usize>>,
}

// SAFETY: a context may be current in any number of threads; the driver's functions may be called
// from several threads at once.
unsafe impl Send for CudaContext {}
// SAFETY: as above.
unsafe impl Sync for CudaContext {}

impl fmt::Debug for CudaContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "context of device {}", self.device)
    }
}

impl CudaContext {
    /// The context of a GPU.
    ///
    /// # Errors
    /// The driver is too old, or refuses: such as where another process has the GPU for itself.
    pub fn of(driver: &Arc<Driver>, gpu: &Gpu) -> Result<Arc<CudaContext>, CudaError> {
        let calls = driver.calls()?;
        // A GPU's handle is its ordinal, which `cuDeviceGet` returned when it was listed.
        let (device, mut handle) = (gpu.ordinal as c_int, ptr::null_mut());
        // SAFETY: a place for one handle.
        driver.check("cuDevicePrimaryCtxRetain", unsafe {
            (calls.cuDevicePrimaryCtxRetain)(&mut handle, device)
        })?;
        let allocations = Mutex::new(BTreeMap::new());
        Ok(Arc::new(CudaContext { driver: driver.clone(), device, handle, allocations }))
    }

    /// The functions, once the context is current in this thread: all that follow need that, and
    /// which thread calls is not known.
    pub(super) fn enter(&self) -> Result<&Calls, CudaError> {
        let calls = self.driver.calls()?;
        // SAFETY: the context is retained as long as this lives.
        self.check("cuCtxSetCurrent", unsafe { (calls.cuCtxSetCurrent)(self.handle) })?;
        Ok(calls)
    }

    pub(super) fn check(&self, function: &'static str, status: u32) -> Result<(), CudaError> {
        self.driver.check(function, status)
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// Waits until all that was launched has ended.
    ///
    /// # Errors
    /// Something that was launched failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let calls = self.enter()?;
        // SAFETY: no arguments.
        self.check("cuCtxSynchronize", unsafe { (calls.cuCtxSynchronize)() })
    }

    /// Bytes of the GPU's memory that are free.
    ///
    /// # Errors
    /// The driver fails.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let calls = self.enter()?;
        let (mut free, mut all) = (0, 0);
        // SAFETY: places for two sizes.
        self.check("cuMemGetInfo", unsafe { (calls.cuMemGetInfo_v2)(&mut free, &mut all) })?;
        Ok(free)
    }

    /// Takes memory of the GPU, of no particular content.
    ///
    /// # Errors
    /// There is not so much.
    pub fn allocate(self: &Arc<CudaContext>, bytes: usize) -> Result<DeviceMemory, CudaError> {
        let calls = self.enter()?;
        // The driver has no memory of no bytes.
        let (bytes, mut address) = (bytes.max(1), 0);
        // SAFETY: a place for one address.
        self.check("cuMemAlloc", unsafe { (calls.cuMemAlloc_v2)(&mut address, bytes) })?;
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner).insert(address, bytes);
        Ok(DeviceMemory { context: self.clone(), address })
    }

    /// Sets bytes to zero once all that was launched has ended; they are when this returns.
    ///
    /// # Errors
    /// They are not in one allocation; the driver fails.
    pub fn clear(&self, address: Address, bytes: usize) -> Result<(), CudaError> {
        self.inside(address, bytes)?;
        self.synchronize()?;
        let calls = self.enter()?;
        // SAFETY: the bytes lie in one allocation.
        self.check("cuMemsetD8", unsafe { (calls.cuMemsetD8_v2)(address, 0, bytes) })?;
        // It may be under way, and streams do not wait for it.
        self.synchronize()
    }

    /// Copies bytes to the GPU once all that was launched has ended; they are there when this
    /// returns.
    ///
    /// # Errors
    /// They do not fit one allocation; the driver fails.
    pub fn write(&self, to: Address, from: &[u8]) -> Result<(), CudaError> {
        if from.is_empty() {
            return Ok(());
        }
        self.inside(to, from.len())?;
        self.synchronize()?;
        let calls = self.enter()?;
        // SAFETY: the host's bytes are borrowed, and the device's lie in one allocation.
        let status = unsafe { (calls.cuMemcpyHtoD_v2)(to, from.as_ptr().cast(), from.len()) };
        self.check("cuMemcpyHtoD", status)?;
        // The driver returns when it has read the bytes, before they are on the GPU.
        self.synchronize()
    }

    /// Copies bytes from the GPU once all that was launched has ended.
    ///
    /// # Errors
    /// They are not in one allocation; the driver fails.
    pub fn read(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError> {
        if to.is_empty() {
            return Ok(());
        }
        self.inside(from, to.len())?;
        self.synchronize()?;
        let calls = self.enter()?;
        // SAFETY: the host's bytes are borrowed for this alone, and the device's lie in one
        // allocation.
        let status = unsafe { (calls.cuMemcpyDtoH_v2)(to.as_mut_ptr().cast(), from, to.len()) };
        self.check("cuMemcpyDtoH", status)
    }

    /// An error unless these bytes lie in one allocation.
    pub(super) fn inside(&self, address: Address, bytes: usize) -> Result<(), CudaError> {
        let allocations = self.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        let before = allocations.range(..=address).next_back();
        let fits = before.is_some_and(|(first, size)| {
            let offset = (address - first) as usize;
            offset <= *size && bytes <= size - offset
        });
        if fits { Ok(()) } else { Err(CudaError::Range { address, bytes }) }
    }
}

impl Drop for CudaContext {
    fn drop(&mut self) {
        if let Ok(calls) = self.driver.calls() {
            // SAFETY: retained once by this. All that was made in it holds it, so is gone. What is
            // returned cannot be acted on.
            let _ = unsafe { (calls.cuDevicePrimaryCtxRelease_v2)(self.device) };
        }
    }
}

/// Memory of a GPU, freed when this is dropped.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<CudaContext>,
    address: Address,
}

impl DeviceMemory {
    /// The address of the first byte, a multiple of 256.
    pub fn address(&self) -> Address {
        self.address
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let mut allocations = self.context.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        allocations.remove(&self.address);
        if let Ok(calls) = self.context.enter() {
            // SAFETY: allocated by this alone. The driver waits for what is under way. Where the
            // GPU has failed, all its memory is gone, and the error was said before.
            let _ = unsafe { (calls.cuMemFree_v2)(self.address) };
        }
    }
}

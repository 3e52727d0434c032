//! The order in which a GPU does things, points in it, and memory of the host that it copies from
//! and to by itself.

use std::fmt;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::{Address, Handle, STREAM_NON_BLOCKING};
use super::context::CudaContext;
use super::error::CudaError;
use super::module::KernelLaunch;

/// What is put into a stream is done in that order.
pub struct Stream {
    context: Arc<CudaContext>,
    handle: Handle,
}

// SAFETY: the driver's functions may be called from any thread, several at once.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of its own.
    ///
    /// # Errors
    /// The driver fails.
    pub fn new(context: &Arc<CudaContext>) -> Result<Stream, CudaError> {
        let calls = context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle.
        let status = unsafe { (calls.cuStreamCreate)(&mut handle, STREAM_NON_BLOCKING) };
        context.check("cuStreamCreate", status)?;
        Ok(Stream { context: context.clone(), handle })
    }

    /// Waits until all that is in it has ended.
    ///
    /// # Errors
    /// Something in it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let calls = self.context.enter()?;
        // SAFETY: the stream lives as long as this.
        let status = unsafe { (calls.cuStreamSynchronize)(self.handle) };
        self.context.check("cuStreamSynchronize", status)
    }

    /// Lets what is put into it from now on wait for a point in another stream.
    ///
    /// # Errors
    /// Something before that failed.
    pub fn wait_for(&self, event: &CudaEvent) -> Result<(), CudaError> {
        let calls = self.context.enter()?;
        // SAFETY: both live.
        let status = unsafe { (calls.cuStreamWaitEvent)(self.handle, event.handle, 0) };
        self.context.check("cuStreamWaitEvent", status)
    }

    /// Puts a kernel into it.
    ///
    /// # Errors
    /// The driver refuses it, or something before it failed.
    pub fn launch(&self, launch: KernelLaunch<'_>) -> Result<(), CudaError> {
        let calls = self.context.enter()?;
        let ([x, y, z], mut bytes) = (launch.grid, 0);
        let mut extra = launch.extra(&mut bytes);
        // SAFETY: the function's module is loaded, for it holds it. The driver reads as many
        // parameters as is said, before it returns, and does not write them.
        let status = unsafe {
            (calls.cuLaunchKernel)(
                launch.function.handle(),
                x,
                y,
                z,
                launch.block,
                1,
                1,
                launch.shared_bytes,
                self.handle,
                ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        };
        self.context.check("cuLaunchKernel", status)
    }

    /// Puts a copy within the GPU's memory into it.
    ///
    /// # Errors
    /// The bytes are not in one allocation; something before it failed.
    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        self.context.inside(to, bytes)?;
        self.context.inside(from, bytes)?;
        let calls = self.context.enter()?;
        // SAFETY: both are in allocations of the device.
        let status = unsafe { (calls.cuMemcpyDtoDAsync_v2)(to, from, bytes, self.handle) };
        self.context.check("cuMemcpyDtoDAsync", status)
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(calls) = self.context.enter() {
            // SAFETY: made by this alone; what is in it still runs. What is returned cannot be
            // acted on.
            let _ = unsafe { (calls.cuStreamDestroy_v2)(self.handle) };
        }
    }
}

/// A point in a stream.
pub struct CudaEvent {
    context: Arc<CudaContext>,
    handle: Handle,
}

// SAFETY: as for streams.
unsafe impl Send for CudaEvent {}
// SAFETY: as for streams.
unsafe impl Sync for CudaEvent {}

impl CudaEvent {
    /// An event, nowhere yet.
    ///
    /// # Errors
    /// The driver fails.
    pub fn new(context: &Arc<CudaContext>) -> Result<CudaEvent, CudaError> {
        let calls = context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle.
        context.check("cuEventCreate", unsafe { (calls.cuEventCreate)(&mut handle, 0) })?;
        Ok(CudaEvent { context: context.clone(), handle })
    }

    /// Puts it behind all that is in the stream now.
    ///
    /// # Errors
    /// Something before it failed.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        let calls = self.context.enter()?;
        // SAFETY: both live.
        let status = unsafe { (calls.cuEventRecord)(self.handle, stream.handle) };
        self.context.check("cuEventRecord", status)
    }

    /// Waits until all before it has ended.
    ///
    /// # Errors
    /// Something before it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let calls = self.context.enter()?;
        // SAFETY: the event lives.
        let status = unsafe { (calls.cuEventSynchronize)(self.handle) };
        self.context.check("cuEventSynchronize", status)
    }

    /// The time from another event to this one, both of which have passed.
    ///
    /// # Errors
    /// One has not passed.
    pub fn since(&self, start: &CudaEvent) -> Result<Duration, CudaError> {
        let calls = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: a place for one number, and both live.
        let status = unsafe { (calls.cuEventElapsedTime)(&mut milliseconds, start.handle, self.handle) };
        self.context.check("cuEventElapsedTime", status)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        if let Ok(calls) = self.context.enter() {
            // SAFETY: made by this alone. What is returned cannot be acted on.
            let _ = unsafe { (calls.cuEventDestroy_v2)(self.handle) };
        }
    }
}

/// Memory of the host that a GPU reads and writes by itself.
///
/// Each access waits until the last graph or copy that uses it has ended, so it never sees bytes
/// that are being copied.
pub struct PinnedMemory {
    context: Arc<CudaContext>,
    pointer: *mut u8,
    bytes: usize,
    /// Behind the last use on the GPU. The lock is held by whoever accesses the bytes.
    busy: Mutex<Option<Arc<CudaEvent>>>,
}

// SAFETY: the bytes are accessed under the lock alone.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above.
unsafe impl Sync for PinnedMemory {}

impl fmt::Debug for PinnedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of pinned memory", self.bytes)
    }
}

impl PinnedMemory {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// There are not so many.
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Arc<PinnedMemory>, CudaError> {
        let calls = context.enter()?;
        let mut pointer = ptr::null_mut();
        // SAFETY: a place for one pointer. The driver has no memory of no bytes.
        let status = unsafe { (calls.cuMemHostAlloc)(&mut pointer, bytes.max(1), 0) };
        context.check("cuMemHostAlloc", status)?;
        let pointer = pointer.cast::<u8>();
        // SAFETY: allocated just now with at least so many bytes.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Arc::new(PinnedMemory { context: context.clone(), pointer, bytes, busy: Mutex::new(None) }))
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the bytes to `access`, once the GPU does not use them.
    ///
    /// # Errors
    /// What used them failed.
    pub fn with<R>(&self, access: impl FnOnce(&mut [u8]) -> R) -> Result<R, CudaError> {
        let mut busy = self.lock();
        if let Some(event) = busy.take() {
            event.synchronize()?;
        }
        // SAFETY: there are so many bytes, which were written once. The GPU does not use them, for
        // whatever starts that holds the lock; nor does another thread, for the same reason.
        Ok(access(unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }))
    }

    /// Puts copies of these bytes to these addresses of the GPU into a stream, behind the last use,
    /// and `ended` behind them. The bytes are then busy until that has passed.
    ///
    /// # Errors
    /// Bytes of one are not in one allocation; something before them failed.
    pub fn copy(
        &self,
        mut copies: impl Iterator<Item = (Range<usize>, Address)>,
        stream: &Stream,
        ended: &Arc<CudaEvent>,
    ) -> Result<(), CudaError> {
        let mut busy = self.lock();
        if let Some(event) = &*busy {
            stream.wait_for(event)?;
        }
        let calls = self.context.enter()?;
        let begun = copies.try_for_each(|(range, to)| {
            let from = self.part(range.start, range.len())?;
            self.context.inside(to, range.len())?;
            // SAFETY: both sides lie in memory that was allocated; the host's is locked until it is
            // known when the copies will have ended, and the device's is not freed before.
            let status = unsafe { (calls.cuMemcpyHtoDAsync_v2)(to, from.cast(), range.len(), stream.handle) };
            self.context.check("cuMemcpyHtoDAsync", status)
        });
        if let Err(error) = begun.and_then(|()| ended.record(stream)) {
            // Nothing is unlocked before what has begun has ended.
            let _ = self.context.synchronize();
            return Err(error);
        }
        *busy = Some(ended.clone());
        Ok(())
    }

    /// Held while something is launched that uses the bytes; its end is put into it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Arc<CudaEvent>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of these bytes.
    pub(super) fn part(&self, offset: usize, bytes: usize) -> Result<*mut u8, CudaError> {
        if offset > self.bytes || bytes > self.bytes - offset {
            return Err(CudaError::Range { address: self.pointer.addr() as u64 + offset as u64, bytes });
        }
        // SAFETY: within the allocation, as was checked.
        Ok(unsafe { self.pointer.add(offset) })
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if let Some(event) = self.lock().take() {
            // After a failure the GPU uses nothing any more.
            let _ = event.synchronize();
        }
        if let Ok(calls) = self.context.enter() {
            // SAFETY: allocated by this alone, and not in use. What is returned cannot be acted on.
            let _ = unsafe { (calls.cuMemFreeHost)(self.pointer.cast()) };
        }
    }
}

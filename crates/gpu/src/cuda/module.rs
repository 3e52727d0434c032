//! Machine code on a GPU, and its kernels.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use super::calls::{Handle, MAX_DYNAMIC_SHARED_BYTES, PARAMETERS, PARAMETERS_BYTES, PARAMETERS_END};
use super::context::CudaContext;
use super::error::CudaError;

/// What a cubin begins with: it is an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// A cubin that is loaded, until this and its functions are dropped.
pub struct CudaModule {
    context: Arc<CudaContext>,
    name: String,
    handle: Handle,
}

// SAFETY: the driver's functions may be called from any thread, several at once.
unsafe impl Send for CudaModule {}
// SAFETY: as above.
unsafe impl Sync for CudaModule {}

impl fmt::Debug for CudaModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {}", self.name)
    }
}

impl CudaModule {
    /// Loads a cubin.
    ///
    /// # Errors
    /// It is no cubin, or one for another architecture.
    pub fn load(context: &Arc<CudaContext>, name: &str, cubin: &[u8]) -> Result<Arc<CudaModule>, CudaError> {
        if !cubin.starts_with(ELF) {
            return Err(CudaError::Module { module: name.into(), reason: "it is no cubin".into() });
        }
        let calls = context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle. The image says its own length; it is what NVRTC made, by
        // its own size or by the cache's checksum.
        let status = unsafe { (calls.cuModuleLoadData)(&mut handle, cubin.as_ptr().cast()) };
        context.check("cuModuleLoadData", status)?;
        Ok(Arc::new(CudaModule { context: context.clone(), name: name.to_string(), handle }))
    }

    /// One of its kernels, which may use so many bytes of dynamic shared memory.
    ///
    /// # Errors
    /// There is none of this name; the GPU has less shared memory.
    pub fn function(self: &Arc<CudaModule>, entry: &str, shared_bytes: u32) -> Result<Function, CudaError> {
        let missing = |_| CudaError::Module {
            module: self.name.clone(),
            reason: format!("`{entry}` is no name of a kernel"),
        };
        let name = CString::new(entry).map_err(missing)?;
        let calls = self.context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle; the name ends with a zero byte.
        let status = unsafe { (calls.cuModuleGetFunction)(&mut handle, self.handle, name.as_ptr()) };
        self.context.check("cuModuleGetFunction", status)?;
        // Above 48 KiB it has to be asked for, and what the kernel itself declares counts too.
        if shared_bytes > 0 {
            // SAFETY: the function was found just now.
            let status = unsafe {
                (calls.cuFuncSetAttribute)(handle, MAX_DYNAMIC_SHARED_BYTES, shared_bytes as c_int)
            };
            self.context.check("cuFuncSetAttribute", status)?;
        }
        Ok(Function { module: self.clone(), handle })
    }
}

impl Drop for CudaModule {
    fn drop(&mut self) {
        if let Ok(calls) = self.context.enter() {
            // SAFETY: loaded by this alone. What is returned cannot be acted on.
            let _ = unsafe { (calls.cuModuleUnload)(self.handle) };
        }
    }
}

/// A kernel of a module.
#[derive(Clone, Debug)]
pub struct Function {
    module: Arc<CudaModule>,
    handle: Handle,
}

// SAFETY: as for the module.
unsafe impl Send for Function {}
// SAFETY: as for the module.
unsafe impl Sync for Function {}

impl Function {
    pub(super) fn module(&self) -> &Arc<CudaModule> {
        &self.module
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

/// One launch of a kernel.
///
/// A kernel is code of this crate, as much as its functions are: that it accesses only what its
/// launch declares is tested on the simulated device, not checked here.
#[derive(Clone, Copy, Debug)]
pub struct KernelLaunch<'a> {
    /// The kernel.
    pub function: &'a Function,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, along x.
    pub block: u32,
    /// Bytes of dynamic shared memory, at most those that the function was found with.
    pub shared_bytes: u32,
    /// Its parameters, laid out as the members of a C struct. The driver refuses another size than
    /// the kernel's.
    pub parameters: &'a [u8],
}

impl KernelLaunch<'_> {
    /// The parameters as the driver takes them; `bytes` becomes their number. It is read until the
    /// call ends, as the parameters are.
    pub(super) fn extra(&self, bytes: &mut usize) -> [*mut c_void; 5] {
        *bytes = self.parameters.len();
        [
            PARAMETERS,
            self.parameters.as_ptr().cast_mut().cast(),
            PARAMETERS_BYTES,
            ptr::from_mut(bytes).cast(),
            PARAMETERS_END,
        ]
    }
}

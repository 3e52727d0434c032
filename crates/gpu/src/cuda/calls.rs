//! The driver's functions and structs, as `cuda.h` has them:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/>.
//!
//! The names of functions are those that the library exports: where the header redefines a name, it
//! ends with the version of the signature.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::library::functions;

/// `CUresult`.
pub(super) type Status = c_uint;
/// `CUdevice`.
pub(super) type Device = c_int;
/// `CUdeviceptr`.
pub(super) type Address = u64;
/// What the driver calls a handle: a pointer that means something to it alone.
pub(super) type Handle = *mut c_void;

/// `CUDA_SUCCESS`.
pub(super) const SUCCESS: Status = 0;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(super) const OUT_OF_MEMORY: Status = 2;
/// `CUDA_ERROR_NO_DEVICE`.
pub(super) const NO_DEVICE: Status = 100;

/// `CU_STREAM_NON_BLOCKING`: the stream does not wait for the one that copies without a stream use.
pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub(super) const MAX_DYNAMIC_SHARED_BYTES: c_int = 8;
/// `CU_MEMORYTYPE_HOST`.
pub(super) const HOST: c_uint = 1;
/// `CU_MEMORYTYPE_DEVICE`.
pub(super) const DEVICE: c_uint = 2;
/// `CU_LAUNCH_PARAM_BUFFER_POINTER`: the next entry is the address of all parameters.
pub(super) const PARAMETERS: Handle = std::ptr::without_provenance_mut(1);
/// `CU_LAUNCH_PARAM_BUFFER_SIZE`: the next entry is the address of their number of bytes.
pub(super) const PARAMETERS_BYTES: Handle = std::ptr::without_provenance_mut(2);
/// `CU_LAUNCH_PARAM_END`.
pub(super) const PARAMETERS_END: Handle = std::ptr::null_mut();

/// `CUdevice_attribute`: those that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Attribute {
    Multiprocessors = 16,
    L2Bytes = 38,
    CapabilityMajor = 75,
    CapabilityMinor = 76,
    /// What a block may have of shared memory once its kernel has asked for it.
    SharedBytesOfBlock = 97,
}

/// `CUuuid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Uuid {
    pub(super) bytes: [u8; 16],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
pub(super) struct KernelNode {
    pub(super) function: Handle,
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared_bytes: c_uint,
    pub(super) parameters: *mut *mut c_void,
    pub(super) extra: *mut *mut c_void,
    pub(super) kernel: Handle,
    pub(super) context: Handle,
}

/// One side of a copy in `CUDA_MEMCPY3D_v2`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CopySide {
    pub(super) x_bytes: usize,
    pub(super) y: usize,
    pub(super) z: usize,
    pub(super) lod: usize,
    pub(super) memory: c_uint,
    pub(super) host: *mut c_void,
    pub(super) device: Address,
    pub(super) array: Handle,
    pub(super) reserved: *mut c_void,
    pub(super) pitch: usize,
    pub(super) height: usize,
}

/// `CUDA_MEMCPY3D_v2`.
#[repr(C)]
pub(super) struct CopyNode {
    pub(super) from: CopySide,
    pub(super) to: CopySide,
    pub(super) bytes: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
}

functions! {
    /// What is asked before a device is used. Every driver since CUDA 11.4 has these, so that an
    /// older one than is needed can still say what it is.
    pub(super) struct Queries {
        fn cuInit(flags: c_uint) -> Status;
        fn cuDriverGetVersion(version: *mut c_int) -> Status;
        fn cuGetErrorName(status: Status, text: *mut *const c_char) -> Status;
        fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status;
        fn cuDeviceGetCount(count: *mut c_int) -> Status;
        fn cuDeviceGet(device: *mut Device, ordinal: c_int) -> Status;
        fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: Device) -> Status;
        fn cuDeviceGetUuid_v2(uuid: *mut Uuid, device: Device) -> Status;
        fn cuDeviceTotalMem_v2(bytes: *mut usize, device: Device) -> Status;
        fn cuDeviceGetAttribute(value: *mut c_int, attribute: Attribute, device: Device) -> Status;
    }
}

functions! {
    /// What uses a device: drivers of CUDA 12 and later.
    pub(super) struct Calls {
        fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: Device) -> Status;
        fn cuDevicePrimaryCtxRelease_v2(device: Device) -> Status;
        fn cuCtxSetCurrent(context: Handle) -> Status;
        fn cuCtxSynchronize() -> Status;
        fn cuMemGetInfo_v2(free: *mut usize, all: *mut usize) -> Status;
        fn cuMemAlloc_v2(address: *mut Address, bytes: usize) -> Status;
        fn cuMemFree_v2(address: Address) -> Status;
        fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint) -> Status;
        fn cuMemFreeHost(pointer: *mut c_void) -> Status;
        fn cuMemcpyHtoD_v2(to: Address, from: *const c_void, bytes: usize) -> Status;
        fn cuMemcpyDtoH_v2(to: *mut c_void, from: Address, bytes: usize) -> Status;
        fn cuMemsetD8_v2(to: Address, value: u8, bytes: usize) -> Status;
        fn cuMemcpyHtoDAsync_v2(to: Address, from: *const c_void, bytes: usize, stream: Handle) -> Status;
        fn cuMemcpyDtoDAsync_v2(to: Address, from: Address, bytes: usize, stream: Handle) -> Status;
        fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> Status;
        fn cuModuleUnload(module: Handle) -> Status;
        fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> Status;
        fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) -> Status;
        fn cuLaunchKernel(
            function: Handle,
            grid_x: c_uint,
            grid_y: c_uint,
            grid_z: c_uint,
            block_x: c_uint,
            block_y: c_uint,
            block_z: c_uint,
            shared_bytes: c_uint,
            stream: Handle,
            parameters: *mut *mut c_void,
            extra: *mut *mut c_void,
        ) -> Status;
        fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> Status;
        fn cuStreamDestroy_v2(stream: Handle) -> Status;
        fn cuStreamSynchronize(stream: Handle) -> Status;
        fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) -> Status;
        fn cuEventCreate(event: *mut Handle, flags: c_uint) -> Status;
        fn cuEventDestroy_v2(event: Handle) -> Status;
        fn cuEventRecord(event: Handle, stream: Handle) -> Status;
        fn cuEventSynchronize(event: Handle) -> Status;
        fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> Status;
        fn cuGraphCreate(graph: *mut Handle, flags: c_uint) -> Status;
        fn cuGraphDestroy(graph: Handle) -> Status;
        fn cuGraphAddKernelNode_v2(
            node: *mut Handle,
            graph: Handle,
            after: *const Handle,
            count: usize,
            kernel: *const KernelNode,
        ) -> Status;
        fn cuGraphAddMemcpyNode(
            node: *mut Handle,
            graph: Handle,
            after: *const Handle,
            count: usize,
            copy: *const CopyNode,
            context: Handle,
        ) -> Status;
        fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: u64) -> Status;
        fn cuGraphExecDestroy(executable: Handle) -> Status;
        fn cuGraphLaunch(executable: Handle, stream: Handle) -> Status;
    }
}

#[cfg(test)]
impl super::library::Class for Attribute {
    const CLASS: char = '4';
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// Sizes and offsets that bindings have which bindgen made of `cuda.h` 13.0.
    #[test]
    fn structs_are_laid_out_as_the_header_has_them() {
        assert_eq!(size_of::<Uuid>(), 16);
        assert_eq!(size_of::<KernelNode>(), 72);
        assert_eq!(offset_of!(KernelNode, shared_bytes), 32);
        assert_eq!(offset_of!(KernelNode, parameters), 40);
        assert_eq!(offset_of!(KernelNode, context), 64);
        assert_eq!(size_of::<CopyNode>(), 200);
        assert_eq!(offset_of!(CopySide, memory), 32);
        assert_eq!(offset_of!(CopySide, host), 40);
        assert_eq!(offset_of!(CopyNode, to), 88);
        assert_eq!(offset_of!(CopyNode, bytes), 176);
    }
}

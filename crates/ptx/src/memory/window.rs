//! Where the state spaces lie in the generic address space.
//!
//! Each window is 4 GiB, so that the upper half of an address names its space. An address of
//! constant, local or parameter space is generic already; one of shared memory is an offset, as
//! kernels keep it in 32 bits. Each allocation has a window of its own in global memory: what runs
//! over its end meets no neighbour.

use crate::fault::Space;

/// Shared memory of the block.
pub(crate) const SHARED_WINDOW: u64 = 1 << 32;
/// Local memory of the thread.
pub(crate) const LOCAL_WINDOW: u64 = 2 << 32;
/// `.const` variables.
pub(crate) const CONST_WINDOW: u64 = 3 << 32;
/// Arguments of the launch.
pub(crate) const PARAM_WINDOW: u64 = 4 << 32;
/// `.global` variables of the module; the allocations follow, a window each.
pub(crate) const GLOBAL_WINDOW: u64 = 16 << 32;

/// The space of a generic address, and the offset in its window.
pub(crate) fn space_of(address: u64) -> (Space, u64) {
    let space = match address & !0xffff_ffff {
        SHARED_WINDOW => Space::Shared,
        LOCAL_WINDOW => Space::Local,
        CONST_WINDOW => Space::Const,
        PARAM_WINDOW => Space::Param,
        GLOBAL_WINDOW.. => return (Space::Global, address),
        _ => Space::None,
    };
    (space, address & 0xffff_ffff)
}

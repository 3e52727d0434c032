//! Contexts and memory.

// SAFETY of all that follows: arguments are as `cuda.h` asks for, which callers owe a driver.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{c_int, c_uint, c_void};

use super::{Done, Needs, call, driver, give, pointer, removed};
use crate::graph::Graph;
use crate::state::{self, CURRENT, State, Status};
use crate::work::{Side, Work};

driver! {
    Driver fn cuDevicePrimaryCtxRetain(state, context: *mut *mut c_void, device: c_int) {
        if device < 0 || device as usize >= state.visible().len() {
            return Err(state::INVALID_DEVICE);
        }
        *state.retained.entry(device).or_default() += 1;
        // The context of GPU n is n + 1.
        unsafe { give(context, pointer(device as usize + 1)) }
    }
    Driver fn cuDevicePrimaryCtxRelease_v2(state, device: c_int) {
        let Some(count) = state.retained.get_mut(&device).filter(|count| **count > 0) else {
            state.problem("a context is released that is not retained");
            return Err(state::INVALID_CONTEXT);
        };
        *count -= 1;
        if *count == 0 {
            state.leaks().into_iter().for_each(|left| state.problem(format!("not freed: {left}")));
        }
        Ok(())
    }
    Driver fn cuCtxSetCurrent(state, context: *mut c_void) {
        let device = context.addr() as c_int - 1;
        if state.retained.get(&device).is_none_or(|count| *count == 0) {
            state.problem("a context is made current that is not retained");
            return Err(state::INVALID_CONTEXT);
        }
        CURRENT.set(Some(device));
        Ok(())
    }
    Context fn cuCtxSynchronize(state) {
        state.drain_all()
    }
    Context fn cuMemGetInfo_v2(state, free: *mut usize, all: *mut usize) {
        let memory = state.settings.memory;
        unsafe {
            give(free, memory - state.used_bytes())?;
            give(all, memory)
        }
    }
    Context fn cuMemAlloc_v2(state, address: *mut u64, bytes: usize) {
        state.say(bytes);
        let allocated = state.allocate(bytes)?;
        state.say(format!("{allocated:#x}"));
        unsafe { give(address, allocated) }
    }
    Freeing fn cuMemFree_v2(state, address: u64) {
        state.say(format!("{address:#x}"));
        // It waits for what is under way.
        let done = state.drain_all();
        let found = state.memory.remove(&address);
        removed(state, "device memory", found)?;
        done
    }
    Context fn cuMemHostAlloc(state, place: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        state.say(bytes);
        state.count_allocation()?;
        if bytes == 0 {
            return Err(state::INVALID_VALUE);
        }
        // Not zero: nothing is before it was written. The alignment is that of a page.
        let layout = std::alloc::Layout::from_size_align(bytes, 4096).map_err(|_| state::INVALID_VALUE)?;
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            return Err(state::OUT_OF_MEMORY);
        }
        unsafe { memory.write_bytes(0xcd, bytes) };
        state.pinned.insert(memory.expose_provenance(), bytes);
        unsafe { give(place, memory.cast()) }
    }
    Freeing fn cuMemFreeHost(state, place: *mut c_void) {
        let first = place.addr();
        let found = state.pinned.remove(&first);
        let bytes = removed(state, "pinned memory", found)?;
        state.say(bytes);
        let used = |graph: &Graph| graph.uses_host(first, bytes);
        if state.graphs.values().any(used) || state.executables.values().any(|g| used(g)) {
            state.problem("pinned memory is freed that a graph uses");
        }
        if let Ok(layout) = std::alloc::Layout::from_size_align(bytes, 4096) {
            unsafe { std::alloc::dealloc(place.cast(), layout) };
        }
        Ok(())
    }
    Context fn cuMemcpyHtoD_v2(state, to: u64, from: *const c_void, bytes: usize) {
        state.say(bytes);
        inside(state, to, bytes)?;
        // Read at once, on the GPU later.
        let content = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec();
        state.enqueue(0, Work::Write { to, content })
    }
    Context fn cuMemcpyDtoH_v2(state, to: *mut c_void, from: u64, bytes: usize) {
        state.say(bytes);
        // It waits for the stream that is meant where none is named, and for no other.
        state.drain(0)?;
        inside(state, from, bytes)?;
        let content = state.bytes(from, bytes).ok_or(state::ILLEGAL_ADDRESS)?;
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(content.as_ptr(), bytes) };
        Ok(())
    }
    Context fn cuMemsetD8_v2(state, to: u64, value: u8, bytes: usize) {
        state.say(bytes);
        inside(state, to, bytes)?;
        state.enqueue(0, Work::Set { to, value, bytes })
    }
    Context fn cuMemcpyHtoDAsync_v2(state, to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) {
        state.say(bytes);
        inside(state, to, bytes)?;
        let Ok(content) = state.load(Side::Host(from.addr()), bytes) else {
            state.problem(format!("{bytes} bytes are copied in a stream that are not pinned"));
            return Err(state::INVALID_VALUE);
        };
        state.enqueue(stream.addr(), Work::Upload { to, from: from.addr(), content })
    }
    Context fn cuMemcpyDtoDAsync_v2(state, to: u64, from: u64, bytes: usize, stream: *mut c_void) {
        state.say(bytes);
        inside(state, to, bytes)?;
        inside(state, from, bytes)?;
        let work = Work::Copy { to: Side::Device(to), from: Side::Device(from), bytes };
        state.enqueue(stream.addr(), work)
    }
}

fn inside(state: &mut State, address: u64, bytes: usize) -> Done {
    if state.bytes(address, bytes).is_some() {
        return Ok(());
    }
    state.problem(format!("{bytes} bytes at {address:#x} are in no allocation"));
    Err(state::INVALID_VALUE)
}

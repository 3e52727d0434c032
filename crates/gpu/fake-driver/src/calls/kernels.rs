//! Modules, launches, streams and events.

// SAFETY of all that follows: arguments are as `cuda.h` asks for, which callers owe a driver.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{Needs, call, driver, give, pointer, removed};
use crate::cubin::Cubin;
use crate::graph::Graph;
use crate::state::{self, Event, Function, State, Status};
use crate::work::Work;

/// The entries of an `extra` list that name the parameters of a kernel.
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: c_int = 8;
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;
/// What a block may have of shared memory.
pub(super) const SHARED_BYTES: i32 = 227 << 10;

driver! {
    Context fn cuModuleLoadData(state, module: *mut *mut c_void, image: *const c_void) {
        if state.settings.load != 0 {
            return Err(state.settings.load);
        }
        let cubin = unsafe { Cubin::at(image.cast()) }.ok_or(state::INVALID_IMAGE)?;
        let (major, minor) = state.settings.capability;
        // Code for 8.0 runs on 8.6, but not on 9.0.
        let (of, minor_of) = (cubin.capability / 10, cubin.capability % 10);
        if of != major as u32 || minor_of > minor as u32 {
            return Err(state::NO_BINARY_FOR_GPU);
        }
        let handle = state.handle();
        state.modules.insert(handle, cubin);
        unsafe { give(module, pointer(handle)) }
    }
    Freeing fn cuModuleUnload(state, module: *mut c_void) {
        let found = state.modules.remove(&module.addr());
        removed(state, "a module", found)?;
        let functions: Vec<usize> =
            state.functions.iter().filter(|(_, f)| f.module == module.addr()).map(|(h, _)| *h).collect();
        for function in functions {
            state.functions.remove(&function);
            let used = |graph: &Graph| graph.uses_function(function);
            if state.graphs.values().any(used) || state.executables.values().any(|g| used(g)) {
                state.problem("a module is unloaded that a graph uses");
            }
        }
        Ok(())
    }
    Context fn cuModuleGetFunction(state, function: *mut *mut c_void, module: *mut c_void, name: *const c_char) {
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        state.say(&name);
        let cubin = state.modules.get(&module.addr()).ok_or(state::INVALID_HANDLE)?;
        let kernel = *cubin.kernels.get(&name).ok_or(state::NOT_FOUND)?;
        let parameter_bytes = kernel.parameter_bytes;
        let shared_bytes = SHARED_WITHOUT_ASKING.saturating_sub(kernel.shared_bytes as u32);
        let handle = state.handle();
        state.functions.insert(handle, Function { module: module.addr(), name, parameter_bytes, shared_bytes });
        unsafe { give(function, pointer(handle)) }
    }
    Context fn cuFuncSetAttribute(state, function: *mut c_void, attribute: c_int, value: c_int) {
        let function = state.functions.get_mut(&function.addr()).ok_or(state::INVALID_HANDLE)?;
        if attribute != MAX_DYNAMIC_SHARED || !(0..=SHARED_BYTES).contains(&value) {
            return Err(state::INVALID_VALUE);
        }
        function.shared_bytes = value as u32;
        Ok(())
    }
    Context fn cuLaunchKernel(
        state, function: *mut c_void, x: c_uint, y: c_uint, z: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: *mut c_void, _parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) {
        let work = unsafe { launch(state, function.addr(), [x, y, z], [bx, by, bz], shared, extra)? };
        state.enqueue(stream.addr(), work)
    }
    Context fn cuStreamCreate(state, stream: *mut *mut c_void, _flags: c_uint) {
        let handle = state.handle();
        state.streams.insert(handle, Default::default());
        unsafe { give(stream, pointer(handle)) }
    }
    Freeing fn cuStreamDestroy_v2(state, stream: *mut c_void) {
        // What is in it still runs.
        let done = state.drain(stream.addr());
        let found = state.streams.remove(&stream.addr());
        removed(state, "a stream", found)?;
        done
    }
    Context fn cuStreamSynchronize(state, stream: *mut c_void) {
        state.drain(stream.addr())
    }
    Context fn cuStreamWaitEvent(state, stream: *mut c_void, event: *mut c_void, _flags: c_uint) {
        let found = *state.events.get(&event.addr()).ok_or(state::INVALID_HANDLE)?;
        // One that was put nowhere, or has passed, is not waited for.
        let Some(of) = found.stream else { return Ok(()) };
        state.enqueue(stream.addr(), Work::Wait { event: event.addr(), recorded: found.recorded, stream: of })
    }
    Context fn cuEventCreate(state, event: *mut *mut c_void, _flags: c_uint) {
        let handle = state.handle();
        state.events.insert(handle, Event::default());
        unsafe { give(event, pointer(handle)) }
    }
    Freeing fn cuEventDestroy_v2(state, event: *mut c_void) {
        let found = state.events.remove(&event.addr());
        removed(state, "an event", found).map(drop)
    }
    Context fn cuEventRecord(state, event: *mut c_void, stream: *mut c_void) {
        let found = state.events.get_mut(&event.addr()).ok_or(state::INVALID_HANDLE)?;
        found.recorded += 1;
        found.stream = Some(stream.addr());
        let recorded = found.recorded;
        state.enqueue(stream.addr(), Work::Pass { event: event.addr(), recorded })
    }
    Context fn cuEventSynchronize(state, event: *mut c_void) {
        state.drain_to(event.addr())
    }
    Context fn cuEventElapsedTime(state, milliseconds: *mut f32, start: *mut c_void, end: *mut c_void) {
        let time = |event: *mut c_void| {
            let event = state.events.get(&event.addr()).ok_or(state::INVALID_HANDLE)?;
            if event.recorded == 0 || event.stream.is_some() { Err(state::NOT_READY) } else { Ok(event.time) }
        };
        // Each piece of work takes a microsecond.
        unsafe { give(milliseconds, (time(end)? - time(start)?) as f32 / 1000.0) }
    }
}

/// A launch, checked.
///
/// # Safety
/// `extra` is null or as `cuda.h` has it.
pub(super) unsafe fn launch(
    state: &mut State,
    function: usize,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    extra: *mut *mut c_void,
) -> Result<Work, Status> {
    let Some(function) = state.functions.get(&function).cloned() else {
        state.problem("a kernel is launched whose module is not loaded");
        return Err(state::INVALID_HANDLE);
    };
    state.say(format!("{} {grid:?} {block:?} {shared}", function.name));
    let mut bytes = None;
    if !extra.is_null() {
        let mut entry = extra;
        // SAFETY: the list ends with a null.
        unsafe {
            while !(*entry).is_null() {
                let value = *entry.add(1);
                match (*entry).addr() {
                    BUFFER_POINTER => {}
                    BUFFER_SIZE => bytes = Some(value.cast::<usize>().read()),
                    _ => return Err(state::INVALID_VALUE),
                }
                entry = entry.add(2);
            }
        }
    }
    let threads = block.iter().map(|n| u64::from(*n)).product::<u64>();
    let wrong = match () {
        () if bytes != Some(function.parameter_bytes) => {
            format!("has {} bytes of parameters and is given {bytes:?}", function.parameter_bytes)
        }
        () if grid.contains(&0) || grid[1] > 65_535 || grid[2] > 65_535 => {
            format!("cannot have a grid of {grid:?}")
        }
        () if threads == 0 || threads > 1024 => format!("cannot have {threads} threads in a block"),
        () if shared > function.shared_bytes => {
            format!("asked for {} bytes of shared memory and gets {shared}", function.shared_bytes)
        }
        () => return Ok(Work::Kernel(function.name)),
    };
    state.problem(format!("`{}` {wrong}", function.name));
    Err(state::INVALID_VALUE)
}

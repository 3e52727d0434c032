//! Graphs.

// SAFETY of all that follows: arguments are as `cuda.h` asks for, which callers owe a driver.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use super::kernels::launch;
use super::{Needs, call, driver, give, pointer, removed};
use crate::graph::Graph;
use crate::state::{self, State, Status};
use crate::work::{Side, Work};

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
pub struct KernelNode {
    function: *mut c_void,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
    kernel: *mut c_void,
    context: *mut c_void,
}

/// `CUDA_MEMCPY3D_v2`.
#[repr(C)]
pub struct CopyNode {
    from: CopySide,
    to: CopySide,
    bytes: usize,
    height: usize,
    depth: usize,
}

/// One of its sides.
#[repr(C)]
struct CopySide {
    offsets: [usize; 4],
    memory: c_uint,
    host: *mut c_void,
    device: u64,
    array: *mut c_void,
    reserved: *mut c_void,
    pitch: usize,
    height: usize,
}

impl CopySide {
    fn read(&self) -> Result<Side, Status> {
        match (self.memory, self.offsets) {
            (1, [0, 0, 0, 0]) => Ok(Side::Host(self.host.addr())),
            (2, [0, 0, 0, 0]) => Ok(Side::Device(self.device)),
            _ => Err(state::INVALID_VALUE),
        }
    }
}

driver! {
    Context fn cuGraphCreate(state, graph: *mut *mut c_void, _flags: c_uint) {
        let handle = state.handle();
        state.graphs.insert(handle, Graph::default());
        unsafe { give(graph, pointer(handle)) }
    }
    Freeing fn cuGraphDestroy(state, graph: *mut c_void) {
        let found = state.graphs.remove(&graph.addr());
        removed(state, "a graph", found).map(drop)
    }
    Context fn cuGraphAddKernelNode_v2(
        state, node: *mut *mut c_void, graph: *mut c_void, after: *const *mut c_void, count: usize,
        kernel: *const KernelNode
    ) {
        let (kernel, after) = unsafe { (&*kernel, list(after, count)) };
        let function = kernel.function.addr();
        let work = unsafe { launch(state, function, kernel.grid, kernel.block, kernel.shared, kernel.extra)? };
        let added = add(state, graph, work, Some(function), &after)?;
        unsafe { give(node, added) }
    }
    Context fn cuGraphAddMemcpyNode(
        state, node: *mut *mut c_void, graph: *mut c_void, after: *const *mut c_void, count: usize,
        copy: *const CopyNode, _context: *mut c_void
    ) {
        let (copy, after) = unsafe { (&*copy, list(after, count)) };
        let (to, from, bytes) = (copy.to.read()?, copy.from.read()?, copy.bytes);
        state.say(bytes);
        for side in [to, from] {
            let there = match side {
                Side::Device(address) => state.bytes(address, bytes).is_some(),
                Side::Host(address) => state.pinned(address, bytes).is_ok(),
            };
            if !there {
                state.problem(format!("a copy of {bytes} bytes is not within one allocation: {side:?}"));
                return Err(state::INVALID_VALUE);
            }
        }
        if (copy.height, copy.depth) != (1, 1) || bytes == 0 {
            return Err(state::INVALID_VALUE);
        }
        let added = add(state, graph, Work::Copy { to, from, bytes }, None, &after)?;
        unsafe { give(node, added) }
    }
    Context fn cuGraphInstantiateWithFlags(
        state, executable: *mut *mut c_void, graph: *mut c_void, _flags: u64
    ) {
        let graph = state.graphs.get(&graph.addr()).ok_or(state::INVALID_HANDLE)?.clone();
        for (a, b) in graph.unordered() {
            state.problem(format!("the copies {a} and {b} of a graph share bytes, and nothing orders them"));
        }
        let handle = state.handle();
        state.executables.insert(handle, Arc::new(graph));
        unsafe { give(executable, pointer(handle)) }
    }
    Freeing fn cuGraphExecDestroy(state, executable: *mut c_void) {
        // One that runs is destroyed when it has ended.
        let done = state.drain_all();
        let found = state.executables.remove(&executable.addr());
        removed(state, "an instantiated graph", found)?;
        done
    }
    Context fn cuGraphLaunch(state, executable: *mut c_void, stream: *mut c_void) {
        let Some(graph) = state.executables.get(&executable.addr()).cloned() else {
            state.problem("a graph is launched that was destroyed");
            return Err(state::INVALID_HANDLE);
        };
        let content = |(from, bytes)| Ok((from, state.load(Side::Host(from), bytes)?));
        let given = graph.reads_host().map(content).collect::<Result<_, Status>>()?;
        state.enqueue(stream.addr(), Work::Graph(graph, given))
    }
}

/// # Safety
/// There are so many handles.
unsafe fn list(handles: *const *mut c_void, count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    unsafe { std::slice::from_raw_parts(handles, count) }.iter().map(|h| h.addr()).collect()
}

fn add(
    state: &mut State,
    graph: *mut c_void,
    work: Work,
    function: Option<usize>,
    after: &[usize],
) -> Result<*mut c_void, Status> {
    let handle = state.handle();
    let graph = state.graphs.get_mut(&graph.addr()).ok_or(state::INVALID_HANDLE)?;
    let Some(node) = graph.add(handle, work, function, after) else {
        state.problem("a node is to wait for one that is not in its graph");
        return Err(state::INVALID_VALUE);
    };
    let waits = format!("node {node} after {:?}", graph.after(node));
    state.say(waits);
    Ok(pointer(handle))
}

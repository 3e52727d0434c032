//! Kernels and copies that are launched together, each after those it has to wait for.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use super::calls::{Address, CopyNode, CopySide, DEVICE, HOST, Handle, KernelNode};
use super::context::CudaContext;
use super::error::CudaError;
use super::module::{CudaModule, KernelLaunch};
use super::stream::{CudaEvent, PinnedMemory, Stream};

/// A node of a graph that is being made, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphNode(usize);

/// Where a copy begins or ends.
#[derive(Clone, Copy, Debug)]
pub enum CopyPlace<'a> {
    /// An address of the GPU's memory.
    Device(Address),
    /// Bytes of pinned memory, from this one on.
    Host(&'a Arc<PinnedMemory>, usize),
}

/// A graph that is being made.
pub struct CudaGraphBuilder {
    context: Arc<CudaContext>,
    handle: Handle,
    nodes: Vec<Handle>,
    uses: Uses,
}

/// What must live as long as the graph does.
#[derive(Default)]
struct Uses {
    modules: Vec<Arc<CudaModule>>,
    /// Each once: all are locked when the graph is launched.
    pinned: Vec<Arc<PinnedMemory>>,
}

impl Uses {
    fn module(&mut self, module: &Arc<CudaModule>) {
        if !self.modules.iter().any(|m| Arc::ptr_eq(m, module)) {
            self.modules.push(module.clone());
        }
    }

    fn memory(&mut self, memory: &Arc<PinnedMemory>) {
        if !self.pinned.iter().any(|m| Arc::ptr_eq(m, memory)) {
            self.pinned.push(memory.clone());
        }
    }
}

impl CudaGraphBuilder {
    /// A graph without nodes.
    ///
    /// # Errors
    /// The driver fails.
    pub fn new(context: &Arc<CudaContext>) -> Result<CudaGraphBuilder, CudaError> {
        let calls = context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle.
        context.check("cuGraphCreate", unsafe { (calls.cuGraphCreate)(&mut handle, 0) })?;
        Ok(CudaGraphBuilder { context: context.clone(), handle, nodes: Vec::new(), uses: Uses::default() })
    }

    /// Adds a kernel that runs after these nodes. Its parameters are copied.
    ///
    /// # Errors
    /// The driver refuses it.
    pub fn kernel(&mut self, launch: KernelLaunch<'_>, after: &[GraphNode]) -> Result<GraphNode, CudaError> {
        let after = self.handles(after);
        let calls = self.context.enter()?;
        let mut bytes = 0;
        let mut extra = launch.extra(&mut bytes);
        let kernel = KernelNode {
            function: launch.function.handle(),
            grid: launch.grid,
            block: [launch.block, 1, 1],
            shared_bytes: launch.shared_bytes,
            parameters: ptr::null_mut(),
            extra: extra.as_mut_ptr(),
            kernel: ptr::null_mut(),
            context: self.context.handle(),
        };
        let mut node = ptr::null_mut();
        // SAFETY: the list has as many nodes as is said, all of this graph; the function's module
        // lives as long as the graph; the driver reads the parameters before it returns.
        let status = unsafe {
            (calls.cuGraphAddKernelNode_v2)(&mut node, self.handle, after.as_ptr(), after.len(), &kernel)
        };
        self.context.check("cuGraphAddKernelNode", status)?;
        self.uses.module(launch.function.module());
        Ok(self.added(node))
    }

    /// Adds a copy that runs after these nodes.
    ///
    /// # Errors
    /// The bytes are not within one allocation; the driver refuses it.
    pub fn copy(
        &mut self,
        to: CopyPlace<'_>,
        from: CopyPlace<'_>,
        bytes: usize,
        after: &[GraphNode],
    ) -> Result<GraphNode, CudaError> {
        let after = self.handles(after);
        let (to, from) = (self.side(to, bytes)?, self.side(from, bytes)?);
        let calls = self.context.enter()?;
        let copy = CopyNode { from, to, bytes, height: 1, depth: 1 };
        let mut node = ptr::null_mut();
        // SAFETY: as for kernels; both sides lie within memory that was allocated. Pinned memory
        // lives as long as the graph, and is locked while that runs.
        let status = unsafe {
            (calls.cuGraphAddMemcpyNode)(
                &mut node,
                self.handle,
                after.as_ptr(),
                after.len(),
                &copy,
                self.context.handle(),
            )
        };
        self.context.check("cuGraphAddMemcpyNode", status)?;
        Ok(self.added(node))
    }

    /// Makes the graph ready to be launched.
    ///
    /// # Errors
    /// The driver fails.
    pub fn finish(mut self) -> Result<CudaGraph, CudaError> {
        let calls = self.context.enter()?;
        let mut handle = ptr::null_mut();
        // SAFETY: a place for one handle; the graph lives.
        let status = unsafe { (calls.cuGraphInstantiateWithFlags)(&mut handle, self.handle, 0) };
        self.context.check("cuGraphInstantiate", status)?;
        // From here on it is destroyed whatever fails.
        let graph = Executable { context: self.context.clone(), handle };
        let ended = Arc::new(CudaEvent::new(&self.context)?);
        Ok(CudaGraph { graph, ended, uses: std::mem::take(&mut self.uses) })
    }

    fn side(&mut self, place: CopyPlace<'_>, bytes: usize) -> Result<CopySide, CudaError> {
        // As one row of so many bytes.
        let mut side = CopySide {
            x_bytes: 0,
            y: 0,
            z: 0,
            lod: 0,
            memory: DEVICE,
            host: ptr::null_mut(),
            device: 0,
            array: ptr::null_mut(),
            reserved: ptr::null_mut(),
            pitch: bytes,
            height: 1,
        };
        match place {
            CopyPlace::Device(address) => {
                self.context.inside(address, bytes)?;
                side.device = address;
            }
            CopyPlace::Host(memory, offset) => {
                side.memory = HOST;
                side.host = memory.part(offset, bytes)?.cast::<c_void>();
                self.uses.memory(memory);
            }
        }
        Ok(side)
    }

    fn handles(&self, nodes: &[GraphNode]) -> Vec<Handle> {
        nodes.iter().map(|node| self.nodes[node.0]).collect()
    }

    fn added(&mut self, node: Handle) -> GraphNode {
        self.nodes.push(node);
        GraphNode(self.nodes.len() - 1)
    }
}

impl Drop for CudaGraphBuilder {
    fn drop(&mut self) {
        if let Ok(calls) = self.context.enter() {
            // SAFETY: made by this alone; what was instantiated of it stays. What is returned
            // cannot be acted on.
            let _ = unsafe { (calls.cuGraphDestroy)(self.handle) };
        }
    }
}

/// What was instantiated, destroyed when this is dropped.
struct Executable {
    context: Arc<CudaContext>,
    handle: Handle,
}

// SAFETY: the driver's functions may be called from any thread; a graph is launched through `&mut`,
// so by one at a time.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        if let Ok(calls) = self.context.enter() {
            // SAFETY: made by this alone; one that runs is destroyed when it ends. What is returned
            // cannot be acted on.
            let _ = unsafe { (calls.cuGraphExecDestroy)(self.handle) };
        }
    }
}

/// A graph that can be launched any number of times.
pub struct CudaGraph {
    graph: Executable,
    /// Behind the last launch.
    ended: Arc<CudaEvent>,
    uses: Uses,
}

impl CudaGraph {
    /// Puts it into a stream and returns. The pinned memory that it uses is then busy until it has
    /// ended.
    ///
    /// # Errors
    /// Something before it in the stream failed.
    pub fn launch(&mut self, stream: &Stream) -> Result<(), CudaError> {
        let context = stream.context();
        let calls = context.enter()?;
        let mut locks: Vec<_> = self.uses.pinned.iter().map(|memory| memory.lock()).collect();
        // SAFETY: both live; all that the graph uses lives as long as it does, and the pinned
        // memory is locked until it is known when the graph will have ended.
        let status = unsafe { (calls.cuGraphLaunch)(self.graph.handle, stream.handle()) };
        context.check("cuGraphLaunch", status)?;
        if let Err(error) = self.ended.record(stream) {
            // The pinned memory is not unlocked before the graph has ended.
            let _ = context.synchronize();
            return Err(error);
        }
        locks.iter_mut().for_each(|busy| **busy = Some(self.ended.clone()));
        Ok(())
    }

    /// Waits until the last launch has ended.
    ///
    /// # Errors
    /// Something in it failed.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.ended.synchronize()
    }
}

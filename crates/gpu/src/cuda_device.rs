//! A GPU behind NVIDIA's driver. What a program does is one graph of the driver, made once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;

use crate::allowance::Allowance;
use crate::command::{Action, Bases, Command, Commands, Input, Kernel, SMALL_OUTPUT, Span};
use crate::compile::{CodeForm, CompileProgress, Compiler};
use crate::cuda::{
    CopyPlace, CudaContext, CudaError, CudaEvent, CudaGraph, CudaGraphBuilder, CudaModule, Driver, Function,
    Gpu, GraphNode, KernelLaunch, PinnedMemory, Stream,
};
use crate::device::{Buffer, Device, Facts, Recording};
use crate::module::Module;

/// To a multiple of which inputs begin in pinned memory.
const ALIGNMENT: usize = 64;

/// A GPU in use.
pub struct CudaDevice {
    context: Arc<CudaContext>,
    facts: Facts,
    compiler: Compiler,
    /// Where less than all memory may be taken.
    allowance: Option<Arc<Allowance>>,
    stream: Arc<Stream>,
    /// In which inputs are copied while the other is busy.
    copies: Arc<Stream>,
    modules: Mutex<HashMap<Module, Arc<CudaModule>>>,
    progress: Box<dyn Fn(CompileProgress) + Send + Sync>,
}

impl CudaDevice {
    /// A GPU that the driver shows; `progress` is notified of kernels that are compiled.
    ///
    /// # Errors
    /// The driver does not give its context.
    pub fn open(
        driver: &Arc<Driver>,
        gpu: &Gpu,
        compiler: Compiler,
        progress: Box<dyn Fn(CompileProgress) + Send + Sync>,
    ) -> Result<CudaDevice, CudaError> {
        let context = CudaContext::of(driver, gpu)?;
        let (stream, copies) = (Arc::new(Stream::new(&context)?), Arc::new(Stream::new(&context)?));
        let facts = Facts::of(gpu);
        let (modules, allowance) = (Mutex::default(), None);
        Ok(CudaDevice { context, facts, compiler, allowance, stream, copies, modules, progress })
    }

    /// The same, of whose memory at most so many bytes are taken.
    #[must_use]
    pub fn with_at_most(self, bytes: usize) -> CudaDevice {
        CudaDevice { allowance: Some(Allowance::new(bytes)), ..self }
    }

    /// Whether the driver takes what is compiled for this GPU: loads a kernel that does nothing.
    ///
    /// # Errors
    /// It does not compile, or is not taken.
    pub fn check(&self) -> Result<(), EngineError> {
        let (name, source) = ("nothing.cu".into(), "extern \"C\" __global__ void nothing() {}\n".into());
        self.load(&[Module { name, source, headers: Vec::new(), defines: Vec::new() }]).map(drop)
    }

    fn failed(&self, error: CudaError) -> EngineError {
        failed(&self.facts.name, error)
    }

    /// Before anything ran: nothing is lost.
    fn refused(&self, code: &str, error: CudaError) -> EngineError {
        EngineError::Unsupported(format!(
            "`{}` does not take the code of {code}: {error}; a newer driver of NVIDIA may take it",
            self.facts.name
        ))
    }

    /// The modules, compiled and loaded where they were not before.
    fn load(&self, modules: &[Module]) -> Result<Vec<Arc<CudaModule>>, EngineError> {
        let mut loaded = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let absent: Vec<Module> = modules.iter().filter(|m| !loaded.contains_key(m)).cloned().collect();
        let cubins = self
            .compiler
            .compile(&absent, self.facts.architecture, CodeForm::Cubin, &*self.progress)
            .map_err(|e| EngineError::Unsupported(e.to_string()))?;
        for (module, cubin) in absent.into_iter().zip(cubins) {
            let code = CudaModule::load(&self.context, &module.name, &cubin);
            let code = code.map_err(|e| self.refused(&module.name, e))?;
            loaded.insert(module, code);
        }
        Ok(modules.iter().filter_map(|module| loaded.get(module).cloned()).collect())
    }

    /// The kernels that are launched, each with the most shared memory of its launches.
    fn functions(&self, commands: &Commands) -> Result<HashMap<Kernel, Function>, EngineError> {
        let modules = self.load(&commands.modules)?;
        let mut shared: HashMap<&Kernel, u32> = HashMap::new();
        for command in &commands.list {
            if let Action::Launch(launch) = &command.action {
                let most = shared.entry(&launch.kernel).or_default();
                *most = launch.shared.max(*most);
            }
        }
        let function = |(kernel, bytes): (&Kernel, u32)| {
            let function = modules[kernel.module].function(&kernel.entry, bytes);
            Ok((kernel.clone(), function.map_err(|e| self.refused(&kernel.entry, e))?))
        };
        shared.into_iter().map(function).collect()
    }
}

impl Device for CudaDevice {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn compiler(&self) -> String {
        format!("CUDA, NVRTC {}", self.compiler.version())
    }

    fn free_memory(&self) -> Option<FreeMemory> {
        let bytes = self.context.free_bytes().ok()?;
        let name = &self.facts.name;
        Some(match self.allowance.as_ref().map(|allowance| allowance.left()) {
            Some(left) if left < bytes => {
                FreeMemory { bytes: left, limit: format!("are left of what may be taken of {name}") }
            }
            _ => FreeMemory { bytes, limit: format!("are free on {name}") },
        })
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer, EngineError> {
        if bytes == 0 {
            return Ok(Buffer::new(0, 0, Box::new(())));
        }
        let too_little = || {
            let free = self.free_memory().map_or(0, |free| free.bytes);
            EngineError::DeviceMemory { device: self.facts.name.clone(), bytes, free, holds: None }
        };
        let allowed = self.allowance.as_ref().map(|a| a.take(bytes).ok_or_else(too_little)).transpose()?;
        let memory = self.context.allocate(bytes).map_err(|e| match e.is_out_of_memory() {
            true => too_little(),
            false => self.failed(e),
        })?;
        Ok(Buffer::new(memory.address(), bytes, Box::new((memory, allowed))))
    }

    fn clear(&self, buffer: &Buffer) -> Result<(), EngineError> {
        if buffer.bytes() == 0 {
            return Ok(());
        }
        self.context.clear(buffer.address(), buffer.bytes()).map_err(|e| self.failed(e))
    }

    fn write(&self, to: u64, from: &[u8]) -> Result<(), EngineError> {
        self.context.write(to, from).map_err(|e| self.failed(e))
    }

    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), EngineError> {
        self.context.read(from, to).map_err(|e| self.failed(e))
    }

    fn record(&self, commands: &Commands, bases: &Bases) -> Result<Box<dyn Recording>, EngineError> {
        let functions = self.functions(commands)?;
        let work = Work::new(commands, bases, functions);
        let held = 2 * (work.input_bytes + work.output_bytes);
        let side = |turn| Side::record(&self.context, &work, turn);
        let sides =
            side(0).and_then(|first| Ok([first, side(1)?])).map_err(|e| out_of(held, e, &self.facts.name))?;
        let (name, context) = (self.facts.name.clone(), self.context.clone());
        let (stream, copies) = (self.stream.clone(), self.copies.clone());
        Ok(Box::new(CudaRecording { name, context, stream, copies, work, sides, next: 0 }))
    }
}

fn failed(device: &str, error: CudaError) -> EngineError {
    EngineError::Device { device: device.to_string(), what: error.to_string() }
}

/// What is said where so much of the host's memory was asked for.
fn out_of(bytes: usize, error: CudaError, device: &str) -> EngineError {
    if error.is_out_of_memory() { EngineError::Memory { bytes } } else { failed(device, error) }
}

/// A command with its addresses.
enum Prepared {
    Kernel { function: Function, grid: [u32; 3], block: u32, shared: u32, parameters: Vec<u8> },
    Copy { to: u64, from: u64, bytes: usize },
}

/// An input with its addresses.
struct StagedInput {
    /// In pinned memory.
    host: Range<usize>,
    /// Where the run copies it.
    to: u64,
    /// Where it is copied before the run, by turns.
    ahead: Option<[u64; 2]>,
}

/// Commands with their addresses, and the bytes of inputs and outputs in pinned memory.
struct Work {
    list: Vec<Prepared>,
    inputs: Vec<StagedInput>,
    input_bytes: usize,
    /// Where each output is, and where a small one is copied to.
    outputs: Vec<(u64, usize, Option<Range<usize>>)>,
    output_bytes: usize,
    /// For inputs, commands and small outputs, in this order, those that each waits for.
    after: Vec<Vec<usize>>,
}

impl Work {
    fn new(commands: &Commands, bases: &Bases, functions: HashMap<Kernel, Function>) -> Work {
        let (mut input_bytes, mut output_bytes) = (0, 0);
        let place = |bytes: usize, total: &mut usize| {
            let first = total.next_multiple_of(ALIGNMENT);
            *total = first + bytes;
            first..first + bytes
        };
        let input = |input: &Input| StagedInput {
            host: place(input.to.bytes, &mut input_bytes),
            to: bases.address(&input.to),
            ahead: input.ahead.map(|spans| spans.map(|span| bases.address(&span))),
        };
        let inputs = commands.inputs.iter().map(input).collect();
        let mut output = |span: &Span| {
            let small = span.bytes <= SMALL_OUTPUT;
            (bases.address(span), span.bytes, small.then(|| place(span.bytes, &mut output_bytes)))
        };
        let outputs = commands.outputs.iter().map(&mut output).collect();
        let prepare = |command: &Command| match &command.action {
            Action::Launch(launch) => {
                let mut parameters = Vec::new();
                launch.arguments.iter().for_each(|argument| argument.encode(bases, &mut parameters));
                let function = functions[&launch.kernel].clone();
                Prepared::Kernel {
                    function,
                    grid: launch.grid,
                    block: launch.block,
                    shared: launch.shared,
                    parameters,
                }
            }
            Action::Copy { from, to } => {
                Prepared::Copy { to: bases.address(to), from: bases.address(from), bytes: from.bytes }
            }
        };
        let list = commands.list.iter().map(prepare).collect();
        Work { list, inputs, input_bytes, outputs, output_bytes, after: commands.edges() }
    }

    fn small_outputs(&self) -> impl Iterator<Item = (u64, &Range<usize>)> {
        self.outputs.iter().filter_map(|(address, _, host)| Some((*address, host.as_ref()?)))
    }
}

/// A graph with pinned memory of its own: while it runs, the inputs of the next run are written to
/// that of the other.
struct Side {
    graph: CudaGraph,
    inputs: Arc<PinnedMemory>,
    outputs: Arc<PinnedMemory>,
    /// How far each input is.
    staged: Vec<Staged>,
    /// Behind the copies of inputs before a run.
    copied: Arc<CudaEvent>,
}

/// How far an input of the next run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Staged {
    /// Not given yet.
    No,
    /// In pinned memory.
    OnHost,
    /// In the device's memory too, or on its way there.
    Ahead,
}

impl Side {
    fn record(context: &Arc<CudaContext>, work: &Work, turn: usize) -> Result<Side, CudaError> {
        let inputs = PinnedMemory::new(context, work.input_bytes)?;
        let outputs = PinnedMemory::new(context, work.output_bytes)?;
        let mut graph = CudaGraphBuilder::new(context)?;
        // None for copies of nothing, which the driver does not take.
        let mut nodes: Vec<Option<GraphNode>> = Vec::with_capacity(work.after.len());
        let after = |nodes: &[Option<GraphNode>]| -> Vec<GraphNode> {
            work.after[nodes.len()].iter().filter_map(|&i| nodes[i]).collect()
        };
        let copy =
            |graph: &mut CudaGraphBuilder, to: CopyPlace<'_>, from: CopyPlace<'_>, bytes, after: &[_]| {
                if bytes == 0 { Ok(None) } else { graph.copy(to, from, bytes, after).map(Some) }
            };
        for StagedInput { host, to, ahead } in &work.inputs {
            let from = match ahead {
                Some(places) => CopyPlace::Device(places[turn]),
                None => CopyPlace::Host(&inputs, host.start),
            };
            let after = after(&nodes);
            nodes.push(copy(&mut graph, CopyPlace::Device(*to), from, host.len(), &after)?);
        }
        for prepared in &work.list {
            let after = after(&nodes);
            nodes.push(match prepared {
                Prepared::Kernel { function, grid, block, shared, parameters } => {
                    let (grid, block, shared_bytes) = (*grid, *block, *shared);
                    Some(
                        graph.kernel(
                            KernelLaunch { function, grid, block, shared_bytes, parameters },
                            &after,
                        )?,
                    )
                }
                Prepared::Copy { to, from, bytes } => {
                    copy(&mut graph, CopyPlace::Device(*to), CopyPlace::Device(*from), *bytes, &after)?
                }
            });
        }
        for (from, host) in work.small_outputs() {
            let to = CopyPlace::Host(&outputs, host.start);
            let after = after(&nodes);
            nodes.push(copy(&mut graph, to, CopyPlace::Device(from), host.len(), &after)?);
        }
        let (staged, copied) = (vec![Staged::No; work.inputs.len()], Arc::new(CudaEvent::new(context)?));
        Ok(Side { graph: graph.finish()?, inputs, outputs, staged, copied })
    }
}

/// The two graphs of a program, which are launched in turn.
struct CudaRecording {
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<Stream>,
    copies: Arc<Stream>,
    work: Work,
    sides: [Side; 2],
    /// The one that is launched next.
    next: usize,
}

impl CudaRecording {
    fn last(&self) -> &Side {
        &self.sides[1 - self.next]
    }

    /// Puts copies of what is on the host alone and goes ahead of the run into this stream.
    fn copy_inputs(&mut self, stream: &Stream) -> Result<(), CudaError> {
        let (turn, side) = (self.next, &mut self.sides[self.next]);
        let waits = |(input, staged): (&StagedInput, &Staged)| {
            let places = input.ahead.filter(|_| *staged == Staged::OnHost)?;
            Some((input.host.clone(), places[turn]))
        };
        let mut copies = self.work.inputs.iter().zip(&side.staged).filter_map(waits).peekable();
        if copies.peek().is_none() {
            return Ok(());
        }
        side.inputs.copy(copies, stream, &side.copied)?;
        for (input, staged) in self.work.inputs.iter().zip(&mut side.staged) {
            if input.ahead.is_some() && *staged == Staged::OnHost {
                *staged = Staged::Ahead;
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), CudaError> {
        let stream = self.stream.clone();
        let side = &self.sides[self.next];
        if side.staged.contains(&Staged::Ahead) {
            stream.wait_for(&side.copied)?;
        }
        self.copy_inputs(&stream)?;
        let side = &mut self.sides[self.next];
        side.staged.fill(Staged::No);
        self.next = 1 - self.next;
        side.graph.launch(&stream)
    }

    /// One command after another, with an event between them.
    fn measure(&mut self) -> Result<Vec<Duration>, CudaError> {
        let side = &mut self.sides[self.next];
        self.next = 1 - self.next;
        side.staged.fill(Staged::No);
        for StagedInput { host, to, .. } in &self.work.inputs {
            let bytes = side.inputs.with(|all| all[host.clone()].to_vec())?;
            self.context.write(*to, &bytes)?;
        }
        let event = |_| CudaEvent::new(&self.context);
        let events = (0..=self.work.list.len()).map(event).collect::<Result<Vec<_>, _>>()?;
        events[0].record(&self.stream)?;
        for (prepared, event) in self.work.list.iter().zip(&events[1..]) {
            match prepared {
                Prepared::Kernel { function, grid, block, shared, parameters } => {
                    let (grid, block, shared_bytes) = (*grid, *block, *shared);
                    self.stream.launch(KernelLaunch { function, grid, block, shared_bytes, parameters })?;
                }
                Prepared::Copy { bytes: 0, .. } => {}
                Prepared::Copy { to, from, bytes } => self.stream.copy(*to, *from, *bytes)?,
            }
            event.record(&self.stream)?;
        }
        self.stream.synchronize()?;
        for (from, host) in self.work.small_outputs() {
            side.outputs.with(|all| self.context.read(from, &mut all[host.clone()]))??;
        }
        events.windows(2).map(|pair| pair[1].since(&pair[0])).collect()
    }
}

impl Recording for CudaRecording {
    fn stage(&mut self, input: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), EngineError> {
        let (host, side) = (self.work.inputs[input].host.clone(), &mut self.sides[self.next]);
        side.staged[input] = Staged::No;
        side.inputs.with(|all| fill(&mut all[host])).map_err(|e| failed(&self.name, e))?;
        side.staged[input] = Staged::OnHost;
        Ok(())
    }

    fn is_staged(&self, input: usize, is: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool, EngineError> {
        let (host, side) = (self.work.inputs[input].host.clone(), &self.sides[self.next]);
        if side.staged[input] == Staged::No {
            return Ok(false);
        }
        side.inputs.with(|all| is(&all[host])).map_err(|e| failed(&self.name, e))
    }

    fn copy_ahead(&mut self) -> Result<(), EngineError> {
        let copies = self.copies.clone();
        self.copy_inputs(&copies).map_err(|e| failed(&self.name, e))
    }

    fn launch(&mut self) -> Result<(), EngineError> {
        self.start().map_err(|e| failed(&self.name, e))
    }

    fn wait(&mut self) -> Result<(), EngineError> {
        self.stream.synchronize().map_err(|e| failed(&self.name, e))
    }

    fn output(&self, output: usize, to: &mut [u8]) -> Result<(), EngineError> {
        let (address, _, host) = &self.work.outputs[output];
        let copied = match host {
            Some(host) => self.last().outputs.with(|all| to.copy_from_slice(&all[host.clone()])),
            None => self.context.read(*address, to),
        };
        copied.map_err(|e| failed(&self.name, e))
    }

    fn launch_measured(&mut self) -> Result<Option<Vec<Duration>>, EngineError> {
        self.measure().map(Some).map_err(|e| failed(&self.name, e))
    }
}

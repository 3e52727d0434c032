//! A simulated GPU: the same commands and kernels, compiled to PTX and run on the processor with
//! every access checked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;
use halfstep_ptx::{Argument, Counts, Launch, Options, Region, Simulator, Watch};

use crate::architecture::Architecture;
use crate::command::{Action, Bases, Command, Commands, Span};
use crate::compile::{CodeForm, Compiler};
use crate::device::{Buffer, Device, Facts, Recording};
use crate::module::Module;

/// Memory and modules of a simulated GPU.
type Shared = Arc<Mutex<Simulator>>;

/// A simulated GPU. A launch may read and write what its command declares, and nothing else; what a
/// run does not write it may not read.
pub struct SimulatedDevice {
    facts: Facts,
    compiler: Compiler,
    simulator: Shared,
    modules: Mutex<HashMap<Module, Arc<halfstep_ptx::Module>>>,
    launches: Launches,
    recorded: Mutex<Option<Arc<Recorded>>>,
}

/// Commands, and what they need to run.
pub(crate) struct Recorded {
    /// By position in the commands' modules.
    pub modules: Vec<Arc<halfstep_ptx::Module>>,
    pub commands: Commands,
    bases: Bases,
}

/// What was launched, by the names of kernels.
type Launches = Arc<Mutex<Vec<(String, Counts)>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedDevice {
    /// A GPU of this architecture, on which kernels run as `options` say.
    pub fn new(compiler: Compiler, architecture: Architecture, options: Options) -> SimulatedDevice {
        let facts = Facts {
            name: "simulated GPU".into(),
            architecture,
            multiprocessors: 1,
            shared_bytes: architecture.shared_bytes(),
            memory_bytes: 1 << 32,
        };
        let simulator = Arc::new(Mutex::new(Simulator::new(options)));
        let (modules, launches, recorded) = Default::default();
        SimulatedDevice { facts, compiler, simulator, modules, launches, recorded }
    }

    /// The launches since the last call, in their order: names of kernels, and what each did.
    pub fn take_launches(&self) -> Vec<(String, Counts)> {
        std::mem::take(&mut *locked(&self.launches))
    }

    /// The PTX of what was recorded last, by position in its modules.
    ///
    /// # Errors
    /// A module does not compile.
    pub fn ptx(&self) -> Result<Vec<Vec<u8>>, EngineError> {
        let recorded = self.recorded();
        let modules = recorded.as_ref().map_or(&[][..], |recorded| &recorded.commands.modules);
        let compiled = self.compiler.compile(modules, self.facts.architecture, CodeForm::Ptx, &|_| {});
        compiled.map_err(|e| self.failed(e))
    }

    /// What was recorded last.
    pub(crate) fn recorded(&self) -> Option<Arc<Recorded>> {
        locked(&self.recorded).clone()
    }

    /// Makes the inputs indices below `classes`, which are numbers near 0 where they are not
    /// indices.
    pub(crate) fn fill_inputs(&self, recorded: &Recorded, classes: u32) -> Result<(), EngineError> {
        for input in &recorded.commands.inputs {
            // 7919 is a prime that no number of classes is a multiple of.
            let index = |i: usize| ((i * 7919 % classes as usize) as u32).to_le_bytes();
            let bytes: Vec<u8> = (0..input.to.bytes.div_ceil(4)).flat_map(index).collect();
            self.write(recorded.bases.address(&input.to), &bytes[..input.to.bytes])?;
        }
        Ok(())
    }

    /// Runs some blocks of a launch, over the inputs as they are and zeros in the rest of the
    /// arena, where what is one number is 1.
    pub(crate) fn sample(
        &self,
        recorded: &Recorded,
        launch: &crate::command::Launch,
        at: &str,
        blocks: Vec<u32>,
        watch: &mut dyn Watch,
    ) -> Result<Counts, EngineError> {
        let mut simulator = locked(&self.simulator);
        let inputs = &recorded.commands.inputs;
        let filled = |span: &&Span| {
            let small = span.bytes == 4;
            let input = inputs.iter().any(|input| input.to.overlaps(span));
            span.region == crate::command::Region::Arena && (small || !input)
        };
        for span in launch.reads.iter().filter(filled) {
            let bytes = if span.bytes == 4 { 1f32.to_le_bytes().to_vec() } else { vec![0; span.bytes] };
            simulator.write(recorded.bases.address(span), &bytes).map_err(|e| self.failed(e))?;
        }
        let call = recorded.call(launch).only(blocks);
        let counts = simulator.launch_watched(&recorded.modules[launch.kernel.module], &call, watch);
        counts.map_err(|e| self.failed(format!("`{at}`: {e}")))
    }

    /// From now on, kernels run as `options` say.
    pub fn run_as(&self, options: Options) {
        locked(&self.simulator).options = options;
    }

    /// From now on, what is recorded has this code for a module, whatever its source is.
    pub fn replace(&self, module: Module, code: halfstep_ptx::Module) {
        locked(&self.modules).insert(module, Arc::new(code));
    }

    fn failed(&self, what: impl std::fmt::Display) -> EngineError {
        failed(&self.facts.name, what)
    }
}

fn failed(device: &str, what: impl std::fmt::Display) -> EngineError {
    EngineError::Device { device: device.to_string(), what: what.to_string() }
}

/// Frees memory when it is dropped.
struct Owner(Shared, u64);

impl Drop for Owner {
    fn drop(&mut self) {
        // It is there: nobody else frees it.
        let _ = locked(&self.0).free(self.1);
    }
}

impl Device for SimulatedDevice {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn compiler(&self) -> String {
        format!("simulated, NVRTC {}", self.compiler.version())
    }

    fn free_memory(&self) -> Option<FreeMemory> {
        None
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer, EngineError> {
        // No allocation is empty.
        let region = locked(&self.simulator).allocate(bytes.max(1));
        let Region { address, .. } = region.map_err(|_| EngineError::Memory { bytes })?;
        Ok(Buffer::new(address, bytes, Box::new(Owner(self.simulator.clone(), address))))
    }

    fn clear(&self, buffer: &Buffer) -> Result<(), EngineError> {
        self.write(buffer.address(), &vec![0; buffer.bytes()])
    }

    fn write(&self, to: u64, from: &[u8]) -> Result<(), EngineError> {
        locked(&self.simulator).write(to, from).map_err(|e| self.failed(e))
    }

    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), EngineError> {
        locked(&self.simulator).read(from, to).map_err(|e| self.failed(e))
    }

    fn record(&self, commands: &Commands, bases: &Bases) -> Result<Box<dyn Recording>, EngineError> {
        let mut known = locked(&self.modules);
        let new: Vec<Module> =
            commands.modules.iter().filter(|module| !known.contains_key(*module)).cloned().collect();
        let compiled = self.compiler.compile(&new, self.facts.architecture, CodeForm::Ptx, &|_| {});
        for (module, text) in new.into_iter().zip(compiled.map_err(|e| self.failed(e))?) {
            let loaded = halfstep_ptx::Module::load(&String::from_utf8_lossy(&text));
            let loaded = loaded.map_err(|e| self.failed(format!("{}: {e}", module.name)))?;
            known.insert(module, Arc::new(loaded));
        }
        let modules = commands.modules.iter().filter_map(|module| known.get(module).cloned()).collect();
        let recorded = Arc::new(Recorded { modules, commands: commands.clone(), bases: *bases });
        *locked(&self.recorded) = Some(recorded.clone());
        Ok(Box::new(SimulatedRecording {
            device: self.facts.name.clone(),
            simulator: self.simulator.clone(),
            launches: self.launches.clone(),
            recorded,
            staged: vec![None; commands.inputs.len()],
        }))
    }
}

struct SimulatedRecording {
    device: String,
    simulator: Shared,
    launches: Launches,
    recorded: Arc<Recorded>,
    staged: Vec<Option<Vec<u8>>>,
}

impl Recorded {
    fn region(&self, span: &Span) -> Region {
        Region { address: self.bases.address(span), bytes: span.bytes as u64 }
    }

    fn call(&self, launch: &crate::command::Launch) -> Launch {
        let entry = launch.kernel.entry.clone();
        let mut call = Launch::new(entry, launch.grid, [launch.block, 1, 1]).shared(launch.shared);
        for argument in &launch.arguments {
            let mut bytes = Vec::new();
            argument.encode(&self.bases, &mut bytes);
            call = call.argument(Argument::Bytes(bytes));
        }
        call = launch.reads.iter().fold(call, |call, span| call.reads(self.region(span)));
        launch.writes.iter().fold(call, |call, span| call.writes(self.region(span)))
    }
}

impl SimulatedRecording {
    fn failed(&self, at: &str, what: impl std::fmt::Display) -> EngineError {
        failed(&self.device, format!("`{at}`: {what}"))
    }

    fn run(&self, simulator: &mut Simulator, command: &Command) -> Result<(), EngineError> {
        let failed = |what: &dyn std::fmt::Display| self.failed(&command.at, what);
        match &command.action {
            Action::Copy { from, to } => {
                let bytes = simulator.bytes(self.recorded.region(from)).map_err(|e| failed(&e))?;
                simulator.write(self.recorded.bases.address(to), &bytes).map_err(|e| failed(&e))
            }
            Action::Launch(launch) => {
                let module = &self.recorded.modules[launch.kernel.module];
                let counts = simulator.launch(module, &self.recorded.call(launch)).map_err(|e| failed(&e))?;
                locked(&self.launches).push((launch.kernel.entry.clone(), counts));
                Ok(())
            }
        }
    }
}

impl Recording for SimulatedRecording {
    fn stage(&mut self, input: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), EngineError> {
        let mut bytes = vec![0; self.recorded.commands.inputs[input].to.bytes];
        fill(&mut bytes);
        self.staged[input] = Some(bytes);
        Ok(())
    }

    fn is_staged(&self, input: usize, is: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool, EngineError> {
        Ok(self.staged[input].as_deref().is_some_and(is))
    }

    fn copy_ahead(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn launch(&mut self) -> Result<(), EngineError> {
        let simulator = self.simulator.clone();
        let mut simulator = locked(&simulator);
        // Of the last run nothing is left in the arena.
        let Recorded { commands, bases, .. } = &*self.recorded;
        let arena = commands.list.iter().flat_map(|c| [c.action.reads(), c.action.writes()].concat());
        for span in arena.filter(|span| span.region == crate::command::Region::Arena) {
            simulator.forget(self.recorded.region(&span)).map_err(|e| failed(&self.device, e))?;
        }
        for (input, staged) in commands.inputs.iter().zip(&mut self.staged) {
            if let Some(bytes) = staged.take() {
                let written = simulator.write(bases.address(&input.to), &bytes);
                written.map_err(|e| failed(&self.device, e))?;
            }
        }
        commands.list.iter().try_for_each(|command| self.run(&mut simulator, command))
    }

    fn wait(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn output(&self, output: usize, to: &mut [u8]) -> Result<(), EngineError> {
        let address = self.recorded.bases.address(&self.recorded.commands.outputs[output]);
        locked(&self.simulator).read(address, to).map_err(|e| failed(&self.device, e))
    }

    fn launch_measured(&mut self) -> Result<Option<Vec<Duration>>, EngineError> {
        self.launch().map(|()| None)
    }
}

//! Every kernel on every architecture: what lowering chooses is assembled by ptxas, and products
//! and attention keep their numbers in registers.
//!
//! The steps of the measured models on one of them are what is always tested.
//! `HALFSTEP_GPU_KERNELS=FILE` adds the other architectures, and writes the table between the two
//! marks of that file; `HALFSTEP_GPU_KERNELS_OF=conformance` adds all that the conformance suite
//! asks for, which takes long. `scripts/gpu_kernels.sh` does both for docs/gpu.md.

mod common;
#[path = "common/models.rs"]
mod models;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::ptxas;
use halfstep_gpu::command::Action;
use halfstep_gpu::compile::{CodeForm, Compiler};
use halfstep_gpu::device::Facts;
use halfstep_gpu::predict::Resources;
use halfstep_gpu::{Architecture, GpuEngine, Module};
use halfstep_graph::engine::{Engine, EngineError, Program, State, Target};
use halfstep_graph::engine_info::{Device, EngineIdentity, PolicyDescription};
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Plan, Slot, conformance, plan};
use halfstep_train::session::Session;

/// Compute capabilities, and the KiB of shared memory that a block may have: CUDA C++ Programming
/// Guide, technical specifications per compute capability.
const TARGETS: [((u32, u32), usize); 6] =
    [((8, 0), 163), ((8, 6), 99), ((8, 9), 99), ((9, 0), 227), ((10, 0), 227), ((12, 0), 99)];

/// Those that are always tested, by position.
const QUICK: [usize; 1] = [3];

const BEGIN: &str = "<!-- kernels: begin -->";
const END: &str = "<!-- kernels: end -->";

/// Runs programs by the interpreter, and keeps which modules GPUs would run.
struct Collector {
    interpreter: InterpreterEngine,
    gpus: Vec<GpuEngine>,
    /// By target: modules, and the dynamic shared memory that launches of their kernels take.
    modules: Mutex<Vec<BTreeMap<Module, BTreeMap<String, u32>>>>,
    /// The targets that are asked, by position.
    asked: &'static [usize],
}

impl Collector {
    fn new(asked: &'static [usize]) -> Collector {
        let gpu = |((major, minor), kib): ((u32, u32), usize)| {
            let architecture = Architecture::of_device(major, minor);
            GpuEngine::planning(Facts {
                name: "any".into(),
                architecture,
                multiprocessors: 1,
                shared_bytes: kib << 10,
                memory_bytes: 1 << 40,
            })
        };
        Collector {
            interpreter: InterpreterEngine { rounding: Rounding::Stored },
            gpus: TARGETS.map(gpu).into(),
            modules: Mutex::new(vec![BTreeMap::new(); TARGETS.len()]),
            asked,
        }
    }

    fn collect(&self, planned: &Plan) -> Result<(), EngineError> {
        for &target in self.asked {
            let gpu = &self.gpus[target];
            let commands = gpu.commands(&plan(planned.graph.clone(), gpu.target()))?;
            let mut modules = self.modules.lock().unwrap();
            for command in &commands.list {
                let Action::Launch(launch) = &command.action else { continue };
                let module = commands.modules[launch.kernel.module].clone();
                let shared = modules[target].entry(module).or_default();
                let shared = shared.entry(launch.kernel.entry.clone()).or_default();
                *shared = launch.shared.max(*shared);
            }
        }
        Ok(())
    }
}

impl Engine for Collector {
    fn name(&self) -> String {
        Engine::name(&self.interpreter)
    }
    fn identity(&self) -> EngineIdentity {
        self.interpreter.identity()
    }
    fn device(&self) -> Device {
        self.interpreter.device()
    }
    fn describe(&self, policy: &Policy) -> PolicyDescription {
        self.interpreter.describe(policy)
    }
    fn target(&self) -> &dyn Target {
        &self.interpreter
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        self.interpreter.new_state(slots)
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        self.collect(plan)?;
        self.interpreter.compile(plan, state)
    }
}

/// What a kernel needs on one target, over all types and sizes it is compiled for.
#[derive(Clone, Copy, Default)]
struct Needs {
    variants: usize,
    registers: u32,
    shared: u32,
    spilled: u32,
}

/// File and kernel; those that are generated are one.
type Name = (String, String);

/// Assembles a module for a target, and adds what its kernels need.
fn assemble(
    compiler: &Compiler,
    target: usize,
    module: &Module,
    launched: &BTreeMap<String, u32>,
    table: &Mutex<BTreeMap<Name, [Needs; TARGETS.len()]>>,
) -> Result<(), String> {
    let ((major, minor), _) = TARGETS[target];
    let architecture = Architecture::of_device(major, minor);
    let ptx = compiler.compile(std::slice::from_ref(module), architecture, CodeForm::Ptx, &|_| {});
    let ptx = ptx.map_err(|e| format!("{} {:?}: {e}", module.name, module.defines))?;
    let kernels = ptxas::assemble(&ptx[0], &architecture.to_string());
    let kernels = kernels.map_err(|e| format!("{} {:?}: {e}", module.name, module.defines))?;
    for (entry, dynamic) in launched {
        let Resources { registers, shared, spilled } = kernels[entry];
        let kernel = if entry.starts_with("chain_") { "generated" } else { entry };
        let mut table = table.lock().unwrap();
        let needs = &mut table.entry((module.name.clone(), kernel.to_string())).or_default()[target];
        needs.variants += 1;
        needs.registers = needs.registers.max(registers);
        needs.shared = needs.shared.max(shared + dynamic);
        needs.spilled = needs.spilled.max(spilled);
    }
    Ok(())
}

/// All modules of a collector, assembled.
fn assemble_all(collector: Collector) -> BTreeMap<Name, [Needs; TARGETS.len()]> {
    let modules = collector.modules.into_inner().unwrap();
    let of = |(target, modules): (usize, BTreeMap<Module, BTreeMap<String, u32>>)| {
        modules.into_iter().map(move |(module, launched)| (target, module, launched))
    };
    let all: Vec<_> = modules.into_iter().enumerate().flat_map(of).collect();
    let (table, next, failed) = (Mutex::default(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let compiler = common::compiler();
    let work = || {
        while let Some((target, module, launched)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = assemble(&compiler, *target, module, launched, &table) {
                failed.lock().unwrap().push(error);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    table.into_inner().unwrap()
}

/// Products, convolutions and attention keep their numbers in registers.
fn nothing_is_spilled(table: &BTreeMap<Name, [Needs; TARGETS.len()]>) {
    for ((file, kernel), needs) in table {
        if ["matmul", "conv", "attention"].iter().any(|name| file.starts_with(name)) {
            let spilled = needs.map(|needs| needs.spilled);
            assert_eq!(spilled, [0; TARGETS.len()], "{file} {kernel} on {TARGETS:?}");
        }
    }
}

fn markdown(table: &BTreeMap<Name, [Needs; TARGETS.len()]>) -> String {
    let mut text = "| kernel | modules |".to_string();
    for ((major, minor), _) in TARGETS {
        let _ = write!(text, " {} |", Architecture::of_device(major, minor));
    }
    text += &format!("\n|---|--:|{}\n", "--:|".repeat(TARGETS.len()));
    for ((file, kernel), needs) in table {
        let variants = needs.iter().map(|needs| needs.variants).max().unwrap_or(0);
        let _ = write!(text, "| `{kernel}`, {file} | {variants} |");
        for Needs { registers, shared, spilled, .. } in needs {
            let spilled = if *spilled > 0 { format!(", spills {spilled}") } else { String::new() };
            let _ = write!(text, " {registers}, {shared}{spilled} |");
        }
        text.push('\n');
    }
    text
}

/// The steps of the models that are measured, in f32 and in bf16.
fn measured_models(collector: &Collector) {
    for name in ["mlp", "gpt", "resnet18"] {
        for policy in ["fp32", "bf16"] {
            let (case, policy) = (models::measured(name).unwrap(), Policy::named(policy).unwrap());
            Session::new(collector, &*case.model, &case.input, &policy, &case.spec(&policy)).unwrap();
        }
    }
}

fn every_kernel_assembles() {
    let file = std::env::var_os("HALFSTEP_GPU_KERNELS");
    let collector = Collector::new(if file.is_some() { &[0, 1, 2, 3, 4, 5] } else { &QUICK });
    measured_models(&collector);
    if std::env::var_os("HALFSTEP_GPU_KERNELS_OF").is_some_and(|of| of == "conformance") {
        for left_out in
            [conformance::operations, conformance::step, conformance::fusion].map(|f| f(&collector))
        {
            assert!(left_out.is_empty(), "{left_out:?}");
        }
    }
    let table = assemble_all(collector);
    if let Some(file) = file {
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let text = format!("{before}{BEGIN}\n{}{END}{after}", markdown(&table));
        std::fs::write(&file, text).unwrap();
    }
    nothing_is_spilled(&table);
}

fn what_ptxas_prints_is_read() {
    let said = "ptxas info    : Compiling entry function 'matmul' for 'sm_90a'\n\
        ptxas info    : Function properties for matmul\n    \
        8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
        ptxas info    : Used 96 registers, used 1 barriers, 16384 bytes smem\n\
        ptxas info    : Compiling entry function 'add' for 'sm_90a'\n\
        ptxas info    : Used 8 registers\n";
    let kernels = ptxas::read(said);
    assert_eq!(kernels["matmul"], Resources { registers: 96, shared: 16384, spilled: 12 });
    assert_eq!(kernels["add"], Resources { registers: 8, shared: 0, spilled: 0 });
}

fn main() -> ExitCode {
    let read: (String, Box<dyn FnOnce() + Send>) =
        ("what_ptxas_prints_is_read".to_string(), Box::new(what_ptxas_prints_is_read));
    if ptxas::program().is_none() {
        // Read by who wonders why nothing is tested.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("HALFSTEP_PTXAS names no ptxas: `scripts/fetch_ptxas.sh` fetches it");
        }
        return common::run(vec![read]);
    }
    common::run(vec![read, ("every_kernel_assembles".to_string(), Box::new(every_kernel_assembles))])
}

//! Programs on the driver's device: kernels are compiled by NVRTC, and a library that stands in for
//! the driver checks what is done with them. It runs no kernels; copies it does make.
//!
//! Without NVRTC the tests are counted as ignored.

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_fake_cuda::FakeDriver;
use halfstep_gpu::command::{
    Action, Argument, Bases, Command, Commands, Input, Kernel, Launch, Region, Span,
};
use halfstep_gpu::compile::Compiler;
use halfstep_gpu::cuda::Driver;
use halfstep_gpu::device::{Buffer, Device, Recording};
use halfstep_gpu::{CudaDevice, GpuEngine, Module, find};
use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{Graph, Init, SlotKind, ValueType, When, fuse, plan};
use libtest_mimic::{Arguments, Trial};

const ADD: &str = "extern \"C\" __global__ void add(const float *x, float *y, int n) {\n\
    int i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < n) y[i] += x[i];\n}\n";

fn open(fake: &FakeDriver) -> CudaDevice {
    let driver = Driver::open(fake.file()).unwrap();
    let gpus = driver.gpus().unwrap();
    let compiler = Compiler::new(find::nvrtc(None).unwrap(), None).unwrap();
    CudaDevice::open(&driver, &gpus[0], compiler, Box::new(|_| {})).unwrap()
}

fn arena(offset: usize, bytes: usize) -> Span {
    Span { region: Region::Arena, offset, bytes }
}

/// An input of 64 bytes is copied twice, a kernel works on the copies, and two outputs are taken: a
/// small one and one of 1,024 bytes.
fn commands() -> Commands {
    let copy = |from, to| Action::Copy { from, to };
    let (x, y) = (arena(64, 64), arena(128, 64));
    let launch = Launch {
        kernel: Kernel { module: 0, entry: "add".into() },
        grid: [1, 1, 1],
        block: 32,
        shared: 0,
        arguments: vec![Argument::Pointer(x), Argument::Pointer(y), Argument::I32(16)],
        reads: vec![x],
        writes: vec![y],
    };
    let output = |offset, bytes| Span { region: Region::Outputs, offset, bytes };
    let actions = [
        copy(arena(0, 64), x),
        copy(arena(0, 64), y),
        Action::Launch(launch),
        copy(y, output(0, 64)),
        copy(arena(0, 1024), output(256, 1024)),
    ];
    let command = |action| Command { action, at: "add".into(), step: None };
    Commands {
        modules: vec![Module {
            name: "add.cu".into(),
            source: ADD.into(),
            headers: Vec::new(),
            defines: Vec::new(),
        }],
        inputs: vec![Input { name: "x".into(), to: arena(0, 64), ahead: None }],
        list: actions.map(command).into(),
        outputs: vec![output(0, 64), output(256, 1024)],
    }
}

struct Recorded {
    recording: Box<dyn Recording>,
    _buffers: [Buffer; 3],
}

fn record(device: &CudaDevice, commands: &Commands) -> Result<Recorded, EngineError> {
    let buffers = [device.alloc(2048)?, device.alloc(2048)?, device.alloc(512)?];
    let bases = Bases {
        arena: buffers[0].address(),
        outputs: buffers[1].address(),
        slots: 0,
        constants: 0,
        staging: buffers[2].address(),
    };
    Ok(Recorded { recording: device.record(commands, &bases)?, _buffers: buffers })
}

/// Inputs of the next run are written while one is under way, and each run has its own.
fn a_recording_copies_inputs_and_outputs() {
    let fake = FakeDriver::new("");
    let device = open(&fake);
    let mut recorded = record(&device, &commands()).unwrap();
    let recording = &mut recorded.recording;
    recording.stage(0, &mut |bytes| bytes.fill(1)).unwrap();
    for round in 1..6 {
        recording.launch().unwrap();
        recording.stage(0, &mut |bytes| bytes.fill(round + 1)).unwrap();
        let (mut small, mut large) = ([0; 64], [0; 1024]);
        recording.wait().unwrap();
        recording.output(0, &mut small).unwrap();
        recording.output(1, &mut large).unwrap();
        assert_eq!((small, &large[..64]), ([round; 64], &[round; 64][..]));
    }
    let times = recording.launch_measured().unwrap().unwrap();
    assert_eq!(times.len(), 5);
    let mut small = [0; 64];
    recording.output(0, &mut small).unwrap();
    assert_eq!(small, [6; 64]);
    drop((recorded, device));
    assert_eq!(fake.problems(), [""; 0]);
}

/// The same of an input that is copied before the run, in each way that it can be: while the run
/// before is under way or not, and again where other bytes were announced.
fn inputs_are_copied_while_a_run_is_under_way() {
    let fake = FakeDriver::new("");
    let device = open(&fake);
    let mut commands = commands();
    let ahead = |offset| Span { region: Region::Staging, offset, bytes: 64 };
    commands.inputs[0].ahead = Some([ahead(0), ahead(256)]);
    let mut recorded = record(&device, &commands).unwrap();
    let recording = &mut recorded.recording;
    recording.stage(0, &mut |bytes| bytes.fill(1)).unwrap();
    assert!(recording.is_staged(0, &mut |bytes| bytes == [1; 64]).unwrap());
    for round in 1..9 {
        recording.launch().unwrap();
        assert!(!recording.is_staged(0, &mut |_| true).unwrap());
        let other = if round % 3 == 0 { 100 } else { round + 1 };
        if round % 4 != 0 {
            recording.stage(0, &mut |bytes| bytes.fill(other)).unwrap();
            recording.copy_ahead().unwrap();
        }
        let mut small = [0; 64];
        recording.output(0, &mut small).unwrap();
        assert_eq!(small, [round; 64]);
        if !recording.is_staged(0, &mut |bytes| bytes == [round + 1; 64]).unwrap() {
            recording.stage(0, &mut |bytes| bytes.fill(round + 1)).unwrap();
        }
    }
    drop((recorded, device));
    assert_eq!(fake.problems(), [""; 0]);
    let count = |name: &str| fake.log().iter().filter(|line| line.starts_with(name)).count();
    // Six are announced, of which two with other bytes, and those of four runs are not.
    assert_eq!((count("cuMemcpyHtoDAsync"), count("cuStreamWaitEvent")), (6 + 4, 4));
}

/// Those that share no memory do not wait for each other.
fn edges_are_those_of_shared_memory() {
    let fake = FakeDriver::new("");
    let device = open(&fake);
    drop(record(&device, &commands()).unwrap());
    let log = fake.log();
    let edges: Vec<&str> =
        log.iter().filter_map(|line| line.split_once(" node ").map(|(_, node)| node)).take(7).collect();
    let expected = [
        "0 after []",
        "1 after [0]",
        "2 after [0]",
        "3 after [1, 2]",
        "4 after [3]",
        "5 after [3]",
        "6 after [4]",
    ];
    assert_eq!(edges, expected);
}

fn the_same_kernels_are_compiled_and_loaded_once() {
    let fake = FakeDriver::new("");
    let device = open(&fake);
    let recorded = [record(&device, &commands()).unwrap(), record(&device, &commands()).unwrap()];
    let loaded = fake.log().iter().filter(|line| line.starts_with("cuModuleLoadData")).count();
    assert_eq!(loaded, 1);
    drop((recorded, device));
    assert_eq!(fake.problems(), [""; 0]);
}

/// Whichever allocation fails: it is said how much was asked for, and nothing is left behind.
fn any_allocation_may_fail() {
    let mut failures = 0;
    loop {
        let fake = FakeDriver::new(&format!("no_memory={}", failures + 1));
        let device = open(&fake);
        let recorded = record(&device, &commands());
        let asked = match &recorded {
            Ok(_) => None,
            Err(EngineError::Memory { bytes } | EngineError::DeviceMemory { bytes, .. }) => Some(*bytes),
            Err(other) => panic!("{other}"),
        };
        drop((recorded, device));
        assert_eq!(fake.problems(), [""; 0]);
        match asked {
            Some(bytes) => assert!(bytes >= 64, "{bytes}"),
            None => break,
        }
        failures += 1;
    }
    // Three regions, and pinned memory for inputs and outputs of two graphs.
    assert_eq!(failures, 7);
}

fn a_failed_launch_is_an_error_that_names_the_device() {
    for (settings, name) in [("illegal=3", "CUDA_ERROR_ILLEGAL_ADDRESS"), ("lost=3", "CUDA_ERROR_UNKNOWN")] {
        let fake = FakeDriver::new(&format!("{settings};name=NVIDIA L4"));
        let device = open(&fake);
        let mut recorded = record(&device, &commands()).unwrap();
        for run in 1..=3 {
            recorded.recording.launch().unwrap();
            assert_eq!(recorded.recording.wait().is_ok(), run < 3);
        }
        let error = recorded.recording.launch().unwrap_err().to_string();
        assert!(error.starts_with("`NVIDIA L4` failed: ") && error.contains(name), "{error}");
        assert!(error.ends_with("resume from the last checkpoint"), "{error}");
        assert!(device.write(0, &[1]).is_err());
        drop((recorded, device));
        assert_eq!(fake.problems(), [""; 0]);
    }
}

fn code_that_the_driver_does_not_take_is_said() {
    let fake = FakeDriver::new("load=222");
    let device = open(&fake);
    let error = record(&device, &commands()).err().unwrap().to_string();
    let says =
        "`Fake GPU` does not take the code of add.cu: cuModuleLoadData failed: CUDA_ERROR_UNSUPPORTED_PTX";
    assert!(error.starts_with(says), "{error}");
    drop(device);
    assert_eq!(fake.problems(), [""; 0]);
}

/// A whole step of the engine: each kernel gets as many bytes of parameters as it was compiled
/// with and asks for its shared memory, all that is copied is in one allocation, and all is freed.
fn a_step_of_the_engine_is_called_as_the_driver_wants_it() {
    // In bf16x6 tiles take just what a kernel may have without asking.
    ["fp32", "bf16x6"].into_iter().for_each(a_step_under);
}

fn a_step_under(policy: &str) {
    let fake = FakeDriver::new("");
    let engine = GpuEngine::new(Arc::new(open(&fake)));
    let mut graph = Graph::new();
    let x = graph.input("x", ValueType::f32([33, 70].into()));
    let slot = graph
        .add_slot("w", ValueType::f32([70, 65].into()), SlotKind::Weight { decay: true }, Init::Constant(0.0))
        .unwrap();
    let w = graph.read(slot);
    let y = graph.matmul(x, w, false, false).unwrap();
    let y = graph.relu(y).unwrap();
    let sum = graph.sum(y, &[0, 1]).unwrap();
    graph.add_output("y", y);
    graph.add_output("sum", sum);
    let twice = graph.add(w, w).unwrap();
    graph.write(slot, twice, When::Always);
    let (graph, _) = assign(&graph, &Policy::named(policy).unwrap());
    let plan = plan(fuse(&graph), engine.target());
    let mut state = engine.new_state(&plan.graph.slots).unwrap();
    let mut program = engine.compile(&plan, &state).unwrap();
    state.upload("w", HostSlice::F32(&[1.0; 70 * 65])).unwrap();
    for _ in 0..3 {
        program.run(&mut state, &[("x", HostSlice::F32(&[1.0; 33 * 70]))]).unwrap();
        program.read("y").unwrap();
        program.read("sum").unwrap();
    }
    state.download("w").unwrap();
    drop((program, state, engine));
    assert_eq!(fake.problems(), [""; 0]);
}

/// Whatever was announced, a run computes with what it is given; and what is held is what was
/// planned.
fn a_run_takes_its_own_inputs() {
    const N: usize = 300 * 256;
    let fake = FakeDriver::new("");
    let engine = GpuEngine::new(Arc::new(open(&fake)));
    let mut graph = Graph::new();
    let x = graph.input("x", ValueType::f32([300, 256].into()));
    let kind = SlotKind::Weight { decay: true };
    let slot = graph.add_slot("w", ValueType::f32([64].into()), kind, Init::Constant(0.0)).unwrap();
    let w = graph.read(slot);
    let twice = graph.add(w, w).unwrap();
    graph.write(slot, twice, When::Always);
    graph.add_output("x", x);
    let plan = plan(fuse(&graph), engine.target());
    assert_eq!(plan.footprint.staging, 2 * 4 * N);
    let state = &mut engine.new_state(&plan.graph.slots).unwrap();
    let mut program = engine.compile(&plan, state).unwrap();
    assert_eq!(program.footprint(state).unwrap(), plan.footprint);
    let announced = [None, Some(vec![3.0; N]), Some(vec![0.0; N]), Some(vec![5.0]), None];
    for (run, announced) in announced.into_iter().enumerate() {
        let given = vec![1.0 + run as f32; N];
        program.run(state, &[("x", HostSlice::F32(&given))]).unwrap();
        if let Some(next) = announced {
            program.prefetch(&[("unknown", HostSlice::F32(&next)), ("x", HostSlice::F32(&next))]);
        }
        assert!(program.read("x").unwrap() == HostTensor::F32(given), "run {run}");
    }
    drop((program, engine));
    let ahead = fake.log().iter().filter(|line| line.starts_with("cuStreamWaitEvent")).count();
    assert_eq!((ahead, fake.problems()), (1, vec![]));
}

fn main() -> ExitCode {
    let absent = find::nvrtc(None).is_err();
    let trial = |name: &str, test: fn()| {
        let test = move || {
            test();
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(absent)
    };
    let trials = vec![
        trial("a_recording_copies_inputs_and_outputs", a_recording_copies_inputs_and_outputs),
        trial("inputs_are_copied_while_a_run_is_under_way", inputs_are_copied_while_a_run_is_under_way),
        trial("a_run_takes_its_own_inputs", a_run_takes_its_own_inputs),
        trial("edges_are_those_of_shared_memory", edges_are_those_of_shared_memory),
        trial("the_same_kernels_are_compiled_and_loaded_once", the_same_kernels_are_compiled_and_loaded_once),
        trial("any_allocation_may_fail", any_allocation_may_fail),
        trial(
            "a_failed_launch_is_an_error_that_names_the_device",
            a_failed_launch_is_an_error_that_names_the_device,
        ),
        trial("code_that_the_driver_does_not_take_is_said", code_that_the_driver_does_not_take_is_said),
        trial(
            "a_step_of_the_engine_is_called_as_the_driver_wants_it",
            a_step_of_the_engine_is_called_as_the_driver_wants_it,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

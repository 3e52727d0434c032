//! What a session asks of its programs, and when: seen by an engine that keeps a record and leaves
//! the work to another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common;
use halfstep_float::Overflow;
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor, Program, State, Target};
use halfstep_graph::engine_info::{Device, EngineIdentity, PolicyDescription};
use halfstep_graph::precision::{Policy, Scaling};
use halfstep_graph::{Footprint, OutputId, Plan, Slot};
use halfstep_nn::{InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::doctor::{Replayed, diagnose};
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step_options::StepOptions;
use halfstep_train::train_loop::Unwatched;

/// A call of a program, which is known by the order in which it was compiled.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Compiled(usize),
    Run(usize, Given),
    Prefetch(usize, Given),
    Read(usize, String),
    ReadScalars(usize, usize),
}

/// Inputs by name, with their first element.
type Given = Vec<(String, f64)>;

fn given(inputs: &[(&str, HostSlice<'_>)]) -> Given {
    let first = |data: &HostSlice<'_>| match data {
        HostSlice::F32(x) => x[0].into(),
        HostSlice::I32(x) => x[0].into(),
    };
    inputs.iter().map(|(name, data)| (name.to_string(), first(data))).collect()
}

/// The numbers of samples and targets that a run or its announcement begins with.
fn batch_of(given: &Given) -> Option<(f64, f64)> {
    let of = |name: &str| given.iter().find(|(n, _)| n == name).map(|&(_, first)| first);
    of("x").zip(of("y"))
}

type Calls = Arc<Mutex<Vec<Call>>>;

struct Recording<'e> {
    engine: &'e dyn Engine,
    calls: Calls,
    compiled: Mutex<usize>,
    /// How long a run takes at least.
    pause: Duration,
}

impl<'e> Recording<'e> {
    fn new(engine: &'e dyn Engine) -> Recording<'e> {
        Recording { engine, calls: Calls::default(), compiled: Mutex::new(0), pause: Duration::ZERO }
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Engine for Recording<'_> {
    fn name(&self) -> String {
        self.engine.name()
    }
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }
    fn device(&self) -> Device {
        self.engine.device()
    }
    fn describe(&self, policy: &Policy) -> PolicyDescription {
        self.engine.describe(policy)
    }
    fn target(&self) -> &dyn Target {
        self.engine.target()
    }
    fn communicator(&self) -> Option<&Communicator> {
        self.engine.communicator()
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        self.engine.new_state(slots)
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        let program = self.engine.compile(plan, state)?;
        let mut compiled = self.compiled.lock().unwrap();
        self.calls.lock().unwrap().push(Call::Compiled(*compiled));
        *compiled += 1;
        let (calls, pause) = (self.calls.clone(), self.pause);
        Ok(Box::new(Recorded { program, number: *compiled - 1, calls, pause }))
    }
}

struct Recorded {
    program: Box<dyn Program>,
    number: usize,
    calls: Calls,
    pause: Duration,
}

impl Recorded {
    fn keep(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Program for Recorded {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        std::thread::sleep(self.pause);
        self.keep(Call::Run(self.number, given(inputs)));
        self.program.run(state, inputs)
    }
    fn prefetch(&mut self, inputs: &[(&str, HostSlice<'_>)]) {
        self.keep(Call::Prefetch(self.number, given(inputs)));
        self.program.prefetch(inputs);
    }
    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        self.keep(Call::Read(self.number, output.into()));
        self.program.read(output)
    }
    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        self.keep(Call::ReadScalars(self.number, outputs.len()));
        self.program.read_scalars(outputs, into)
    }
    fn arena_bytes(&self) -> usize {
        self.program.arena_bytes()
    }
    fn footprint(&self, state: &State) -> Result<Footprint, EngineError> {
        self.program.footprint(state)
    }
}

const WIDTH: usize = 5;
const BATCH: usize = 6;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };

fn mlp() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![8, 8] }).build(&INPUT, 3).unwrap()
}

/// A batch whose numbers reach up to `most`, and whose samples and targets begin with numbers that
/// tell its parts apart.
fn batch(most: f32) -> (Vec<f32>, Vec<i32>) {
    let number = |i: usize| most * ((i % 29) as f32 + 1.0) / 30.0;
    ((0..BATCH * WIDTH).map(number).collect(), (0..BATCH as i32).map(|i| i / 2).collect())
}

/// The same with every part of two samples alike, so that a scale that fits one fits all.
fn alike(most: f32) -> (Vec<f32>, Vec<i32>) {
    let (x, y) = batch(most);
    (x[..2 * WIDTH].repeat(BATCH / 2), [y[0], y[3]].repeat(BATCH / 2))
}

fn spec(policy: &Policy, accumulate: usize) -> SessionSpec {
    let options = StepOptions { accumulate, ..StepOptions::default() };
    SessionSpec { options, skip_limit: 1000, ..SessionSpec::new(policy, BATCH, 3) }
}

#[test]
fn the_next_batch_is_announced_between_the_launch_of_a_step_and_the_reading_of_its_scalars() {
    let (inner, model) = (common::interpreter(), mlp());
    let policy = Policy::named("fp32").unwrap();
    for parts in [1, 3] {
        let engine = Recording::new(&inner);
        let mut session = Session::new(&engine, &*model, &INPUT, &policy, &spec(&policy, parts)).unwrap();
        let batches: Vec<(Vec<f32>, Vec<i32>)> = [1.0, 2.0, 3.0].map(batch).into();
        engine.take();
        for (i, (x, y)) in batches.iter().enumerate() {
            let next = || batches.get(i + 1).map(|(x, y)| (HostSlice::F32(x), &y[..]));
            session.step_ahead((HostSlice::F32(x), y), 0.1, next).unwrap();
        }
        // Program 0 takes a batch or a part of one; 1 ends a step in parts.
        let calls = engine.take();
        let batches: Vec<&Given> = calls
            .iter()
            .filter_map(|call| match call {
                Call::Run(0, given) | Call::Prefetch(0, given) => Some(given),
                _ => None,
            })
            .collect();
        // What was announced is what is run next.
        for announced in batches[1..].chunks(2).filter(|pair| pair.len() == 2) {
            assert!(batch_of(announced[0]).is_some(), "{calls:?}");
            assert_eq!(batch_of(announced[0]), batch_of(announced[1]), "{calls:?}");
        }
        let kinds: Vec<(&str, usize)> = calls
            .iter()
            .map(|call| match call {
                Call::Run(program, _) => ("run", *program),
                Call::Prefetch(program, _) => ("prefetch", *program),
                Call::Read(program, _) => ("read", *program),
                Call::ReadScalars(program, 4) => ("scalars", *program),
                Call::Compiled(_) | Call::ReadScalars(..) => panic!("{call:?}"),
            })
            .collect();
        let (run, prefetch) = (("run", 0), ("prefetch", 0));
        let step = match parts {
            1 => vec![run, prefetch, ("scalars", 0)],
            _ => vec![run, prefetch, run, prefetch, run, ("run", 1), prefetch, ("scalars", 1)],
        };
        let mut expected = step.repeat(3);
        // Nothing follows the last step.
        expected.remove(expected.len() - 2);
        assert_eq!(kinds, expected);
    }
}

const DIGITS: &str = r#"
[data]
kind = "bundled"
name = "digits"
limit_train = 64
limit_test = 20
[model]
kind = "mlp"
hidden = [8]
[train]
steps = 8
batch = 16
"#;

/// The loop announces the batches that its thread has drawn, and computes the same.
#[test]
fn a_run_announces_its_batches() {
    let experiment = common::run::experiment(DIGITS);
    let inner = common::interpreter();
    let mut engine = Recording::new(&inner);
    // Time for the thread to draw the next batch, also on a busy machine.
    engine.pause = Duration::from_millis(20);
    let losses = |engine: &dyn Engine| {
        let run = experiment.run(engine, "fp32", 0, &mut Unwatched).unwrap();
        run.record.losses
    };
    let found = losses(&engine);
    let mut calls = engine.take();
    // What evaluates is compiled before the first step.
    let first = calls.iter().position(|call| matches!(call, Call::Run(..))).unwrap();
    assert!(matches!(calls[..first], [Call::Compiled(0), Call::Compiled(1)]), "{calls:?}");
    calls.drain(..first);
    assert!(!calls.iter().any(|call| matches!(call, Call::Compiled(_))), "{calls:?}");
    calls.retain(|call| !matches!(call, Call::Read(..) | Call::Run(1.., _)));
    let mut announced = 0;
    for (i, call) in calls.iter().enumerate() {
        let Call::Prefetch(0, next) = call else { continue };
        announced += 1;
        assert!(matches!(calls[i - 1], Call::Run(0, _)), "{calls:?}");
        assert!(matches!(calls[i + 1], Call::ReadScalars(0, 4)), "{calls:?}");
        let Call::Run(0, run) = &calls[i + 2] else { panic!("{calls:?}") };
        assert_eq!(batch_of(next), batch_of(run));
    }
    assert!((1..=7).contains(&announced), "{announced} of 7 batches");
    assert_eq!(found, losses(&inner));
}

/// Delayed scaling whose scales overflow: a batch of larger numbers than those before is skipped.
fn overflowing() -> Policy {
    let mut policy = Policy::named("fp8").unwrap();
    policy.narrow.as_mut().unwrap().scaling =
        Scaling::Delayed { history: 4, margin: 0, overflow: Overflow::NonFinite };
    policy
}

/// Scales stay with the engine: only who looks into a skipped step reads them, as that step found
/// them.
#[test]
fn scales_are_read_after_a_skipped_step_alone() {
    let (inner, model) = (common::interpreter(), mlp());
    let policy = overflowing();
    for parts in [1, 3] {
        let engine = Recording::new(&inner);
        let mut session = Session::new(&engine, &*model, &INPUT, &policy, &spec(&policy, parts)).unwrap();
        let (x, y) = alike(1.0);
        engine.take();
        for _ in 0..3 {
            assert!(session.step(HostSlice::F32(&x), &y, 1e-4).unwrap().committed);
        }
        let (x, _) = alike(64.0);
        let replayed = Replayed { x: HostSlice::F32(&x), y: &y, attempt: 3 };
        let untried = diagnose(&session, &replayed, 1.0).unwrap();
        let is_scale = |call: &Call| matches!(call, Call::Read(_, name) if name.starts_with("found."));
        assert!(!engine.take().iter().any(is_scale), "a scale was read though no step was skipped");
        assert!(!session.step(HostSlice::F32(&x), &y, 1e-4).unwrap().committed);
        assert!(!engine.take().iter().any(is_scale), "a scale was read before anybody asked for it");
        let slot = "layers.0.input.scale";
        let after = session.download(slot).unwrap();
        let tried = diagnose(&session, &replayed, 1.0).unwrap();
        assert!(engine.take().iter().any(is_scale));
        let scale = |d: &halfstep_train::doctor::Diagnosis| {
            d.finding
                .as_ref()
                .and_then(|f| f.cast.as_ref())
                .and_then(|c| c.scale)
                .unwrap_or_else(|| panic!("{d}"))
        };
        assert_eq!(scale(&tried), scale(&untried), "{parts} parts:\n{untried}\n{tried}");
        assert_ne!(f64::from(after.f32()[0]), scale(&untried), "the skipped step has made a new scale");
    }
}

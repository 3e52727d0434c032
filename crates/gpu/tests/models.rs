//! Training steps of small models of every kind on a simulated GPU, beside the interpreter's.
//! `HALFSTEP_CONFORMANCE=all` tests each of them on two architectures, with and without groups.

mod common;

use std::process::ExitCode;
use std::sync::{Arc, Barrier};

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::Unfused;
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::Policy;
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};
use halfstep_ptx::{Arrival, Options};
use halfstep_train::optimiser::{AdamW, Optimiser};
use halfstep_train::session::{Session, SessionSpec};

const BATCH: usize = 4;
const STEPS: usize = 3;
const ORACLE: InterpreterEngine = InterpreterEngine { rounding: Rounding::Stored };

/// Whether steps are run with the groups that the engine makes alone, or with none too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Groups {
    Alone,
    AndNone,
}

struct Case {
    model: Box<dyn Model>,
    input: InputSpec,
}

/// A model of each kind, with five classes or tokens.
fn case(kind: &str) -> Case {
    let image = |channels| InputSpec::Image { height: 9, width: 8, channels };
    let (spec, input) = match kind {
        "mlp" => (ModelSpec::Mlp(MlpSpec { hidden: vec![17] }), image(1)),
        "cnn" => (ModelSpec::Cnn(CnnSpec { channels: vec![3, 5], hidden: 7 }), image(1)),
        "resnet18" => (ModelSpec::Resnet18(Resnet18Spec { width: 3 }), image(3)),
        _ => {
            let gpt = GptSpec { width: 12, layers: 2, heads: 3, dropout: 0.1, ..GptSpec::default() };
            (ModelSpec::Gpt(gpt), InputSpec::Tokens { length: 7, vocab: 5 })
        }
    };
    Case { model: spec.build(&input, 5).unwrap(), input }
}

impl Case {
    fn session<'a>(&'a self, engine: &'a dyn Engine, policy: &Policy) -> Session<'a> {
        let spec = SessionSpec {
            optimiser: Optimiser::AdamW(AdamW { lr: 0.01, ..AdamW::default() }),
            clip: Some(1.0),
            ..SessionSpec::new(policy, BATCH, 5)
        };
        Session::new(engine, &*self.model, &self.input, policy, &spec).unwrap()
    }

    /// The losses of some steps on one batch; steps that do not commit have one too.
    fn train(&self, session: &mut Session<'_>, steps: usize) -> Vec<f32> {
        let count = BATCH * self.input.elements();
        let numbers: Vec<f32> = (0..count).map(|i| ((i * 31) % 19) as f32 / 8.0 - 1.1).collect();
        let tokens: Vec<i32> = (0..count).map(|i| ((i * 31) % 19 % 5) as i32).collect();
        let targets: Vec<i32> = (0..self.input.rows(BATCH)).map(|i| (i * 7 % 5) as i32).collect();
        let x = match self.input {
            InputSpec::Tokens { .. } => HostSlice::I32(&tokens),
            _ => HostSlice::F32(&numbers),
        };
        (0..steps).map(|_| session.step(x, &targets, 0.01).unwrap().loss).collect()
    }
}

/// Losses lie near those of the interpreter: within what sums in another order do to f32, or to
/// values that are rounded to fewer bits, some of which then go the other way by an ulp of 2^-7.
fn near(found: &[f32], wanted: &[f32], policy: &str) {
    let allowed = if policy == "fp32" { 1e-4 } else { f32::powi(2.0, -6) };
    for (y, t) in found.iter().zip(wanted) {
        assert!((y - t).abs() <= allowed * t.abs(), "{policy}: {found:?} against {wanted:?}");
    }
}

/// Steps agree with the interpreter's, and have the same bits in another order of blocks and warps
/// and, where that is asked for, without groups; the device holds what the plan says.
fn steps_agree(kind: &str, policy_name: &str, architecture: Architecture, groups: Groups) {
    let (case, policy) = (case(kind), Policy::named(policy_name).unwrap());
    let wanted = case.train(&mut case.session(&ORACLE, &policy), STEPS);
    let device = Arc::new(common::device(architecture, Options::default()));
    let engine = GpuEngine::new(device.clone());
    let mut session = case.session(&engine, &policy);
    let found = case.train(&mut session, STEPS);
    // Batch norm over a few numbers, and first steps of Adam of one size whatever the gradient is,
    // make much of what is rounded in fewer bits: after the first step such a ResNet is another.
    let compared = if kind == "resnet18" && policy_name != "fp32" { 1 } else { STEPS };
    near(&found[..compared], &wanted[..compared], policy_name);
    assert!(policy_name == "fp16" || found[STEPS - 1] < found[0], "{found:?}");
    assert_eq!(session.footprint().unwrap(), session.plan().footprint);

    device.run_as(Options { seed: Some(3), arrival: Arrival::Early, ..Options::default() });
    assert_eq!(case.train(&mut case.session(&engine, &policy), STEPS), found, "in another order");
    if groups == Groups::AndNone {
        let unfused = Unfused(&engine);
        assert_eq!(case.train(&mut case.session(&unfused, &policy), STEPS), found, "without groups");
    }
}

/// State that one engine has trained goes on in another.
fn runs_go_on_elsewhere() {
    let (case, policy) = (case("gpt"), Policy::named("bf16").unwrap());
    let engine = common::engine(Architecture::MINIMUM, Options::default());
    let engines: [&dyn Engine; 2] = [&engine, &ORACLE];
    for (here, there) in [(0, 1), (1, 0)] {
        let mut first = case.session(engines[here], &policy);
        case.train(&mut first, 2);
        let mut second = case.session(engines[there], &policy);
        for slot in first.lasting_slots() {
            let values = first.download(&slot.name).unwrap();
            second.upload(&slot.name, values.as_slice()).unwrap();
        }
        second.restore_progress(first.progress());
        near(&case.train(&mut second, 2), &case.train(&mut first, 2), "bf16");
    }
}

/// Two engines of one device at the same time, as `compare` may have them, train what each trains
/// alone, bit for bit.
fn runs_side_by_side_have_the_bits_of_each_alone() {
    let (cases, policy) = ([case("mlp"), case("cnn")], Policy::named("bf16").unwrap());
    let device = Arc::new(common::device(Architecture::MINIMUM, Options::default()));
    let train = |case: &Case| case.train(&mut case.session(&GpuEngine::new(device.clone()), &policy), STEPS);
    let alone = cases.each_ref().map(train);
    let begin = Barrier::new(cases.len());
    let together = std::thread::scope(|scope| {
        let run = |case| {
            begin.wait();
            train(case)
        };
        cases.each_ref().map(|case| scope.spawn(move || run(case))).map(|thread| thread.join().unwrap())
    });
    assert_eq!(together, alone);
}

fn main() -> ExitCode {
    let mut tests: Vec<(String, Box<dyn FnOnce() + Send>)> = Vec::new();
    let (oldest, later) = (Architecture::MINIMUM, Architecture::of_device(9, 0));
    let all = common::thorough();
    for kind in ["mlp", "cnn", "resnet18", "gpt"] {
        for policy in ["fp32", "bf16", "fp16", "fp8"] {
            // Later architectures multiply codes by themselves; the rest is the same code.
            let default = if policy == "fp8" { later } else { oldest };
            // The conformance suite tests groups under every policy.
            let groups = if all || policy == "bf16" { Groups::AndNone } else { Groups::Alone };
            for architecture in [oldest, later] {
                if all || architecture == default {
                    let test = move || steps_agree(kind, policy, architecture, groups);
                    tests.push((format!("{architecture}::{kind}::{policy}"), Box::new(test)));
                }
            }
        }
    }
    tests.push(("runs_go_on_elsewhere".into(), Box::new(runs_go_on_elsewhere)));
    tests.push(("side_by_side".into(), Box::new(runs_side_by_side_have_the_bits_of_each_alone)));
    common::run(tests)
}

//! The doctor in the loop that runs use: failed steps are diagnosed where they happen, ranges are
//! sampled, nothing loops.

use crate::common;
use halfstep_graph::engine::HostSlice;
use halfstep_train::checkpoint;
use halfstep_train::doctor::{Cause, Diagnosis, FirstWeights, Sample, Trial};
use halfstep_train::examination::Examined;
use halfstep_train::metrics::{EvaluationMetrics, Outcome, StepMetrics};
use halfstep_train::session::Session;
use halfstep_train::train_loop::{Callbacks, Keeping, Proceed, RunError};

/// Keeps all it is notified of.
#[derive(Default)]
struct Told {
    steps: Vec<StepMetrics>,
    samples: Vec<Sample>,
    diagnoses: Vec<Diagnosis>,
}

impl Callbacks for Told {
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
        self.steps.push(metrics.clone());
        Ok(Proceed::Continue)
    }
    fn evaluation(&mut self, _: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        Ok(())
    }
    fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        self.samples.push(sample.clone());
        Ok(())
    }
    fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        self.diagnoses.push(diagnosis.clone());
        Ok(())
    }
}

fn recipe(more: &str) -> String {
    format!(
        "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 200\nlimit_test = 50\n\
         [model]\nkind = \"mlp\"\nhidden = [16]\n[train]\nsteps = 40\nbatch = 20\n{more}"
    )
}

#[test]
fn a_run_that_never_commits_ends_diagnosed_and_its_data_move_on() {
    let more = "skip_limit = 6\n[schedule]\nkind = \"constant\"\nwarmup = 10\n[precision]\npolicy = \"fp16\"\n\
                loss_scale = { kind = \"static\", scale = 1e12 }\n[doctor]\nskips = 2";
    let experiment = common::run::experiment(&recipe(more));
    let mut told = Told::default();
    let engine = &common::engines()[1];
    let run = experiment.run(&**engine, "fp16", 0, &mut told).unwrap();
    let Outcome::Diverged { reason } = &run.record.outcome else { panic!("{:?}", run.record.outcome) };
    assert!(reason.contains("The doctor: `loss_scale`: the loss scale 1.000e12 is too high"), "{reason}");
    assert_eq!((run.session.progress().attempts, run.session.progress().committed), (6, 0));
    // Other batches, the same weights and the same place in the schedule.
    let steps = &told.steps;
    assert!(steps.len() == 5 && steps.iter().all(|s| !s.committed && s.cause.is_some()));
    assert!(
        steps
            .windows(2)
            .all(|w| w[0].loss != w[1].loss && w[0].lr == w[1].lr && w[0].attempt + 1 == w[1].attempt)
    );
    // At the second skip, and at the end.
    let found: Vec<(u64, bool)> =
        told.diagnoses.iter().map(|d| (d.attempt, matches!(d.cause, Cause::ScaleTooHigh { .. }))).collect();
    assert_eq!(found, [(1, true), (5, true)]);
}

#[test]
fn samples_are_taken_when_due_and_change_nothing() {
    let engine = &common::engines()[1];
    let run = |every: u64| {
        let more = format!("[precision]\npolicy = \"fp16\"\n[doctor]\nevery = {every}");
        let experiment = common::run::experiment(&recipe(&more));
        let mut told = Told::default();
        let run = experiment.run(&**engine, "fp16", 3, &mut told).unwrap();
        (common::run::bits(&run.session), run.session.footprint().unwrap(), told)
    };
    let (bits, footprint, none) = run(0);
    let (same, holds, told) = run(10);
    assert!(none.samples.is_empty() && bits == same);
    assert_eq!(footprint, holds, "the step's own memory is as it was");
    assert_eq!(told.samples.iter().map(|s| s.attempt).collect::<Vec<_>>(), [9, 19, 29, 39]);
    for sample in &told.samples {
        assert!(sample.values.len() > 10);
        for value in &sample.values {
            let counted: u64 = value.exponents.iter().sum();
            assert_eq!(counted + value.zeros + value.non_finite, value.count, "{}", value.name);
            assert_eq!(value.formats.len(), 10);
        }
        let stored = |op: &str| sample.values.iter().any(|v| v.op == op && v.format.name() == "f16");
        assert!(stored("matmul") && stored("cast"));
    }
}

/// Weights of a run are measured from those it was given, not from those it would have drawn.
#[test]
fn what_a_run_began_with_is_what_it_was_given() {
    let experiment = common::run::experiment(&recipe(""));
    let engine = &common::engines()[1];
    let mut session = experiment.session(&**engine, "bf16", 0).unwrap();
    let slot = session.slots().iter().find(|s| s.name == "layers.1.weight").unwrap().clone();
    let given: Vec<f32> = session.download(&slot.name).unwrap().f32().iter().map(|w| w * 50.0).collect();
    session.upload(&slot.name, HostSlice::F32(&given)).unwrap();
    let drawn = FirstWeights::of(&session).unwrap().values(&slot);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.safetensors");
    checkpoint::save(&session, &path).unwrap();
    let keeping = Keeping { start: Some(&path), ..Keeping::default() };
    let run = experiment.run_with(&**engine, "bf16", 0, &mut Told::default(), keeping).unwrap();
    let first = FirstWeights::of(&run.session).unwrap().values(&slot);
    assert!(first == given && first != drawn && run.session.download(&slot.name).unwrap().f32() != given);
}

#[test]
fn an_examination_finds_the_step_a_run_fails_at() {
    let more = "skip_limit = 6\n[optimiser]\nkind = \"sgd\"\nlr = 1e5\n[precision]\npolicy = \"fp16\"";
    let experiment = common::run::experiment(&recipe(more));
    let engine = &common::engines()[1];
    let mut told = Told::default();
    experiment.run(&**engine, "fp16", 0, &mut told).unwrap();
    let asked = |policy, steps| Examined {
        engine: &**engine,
        policy,
        seed: 0,
        from: None,
        start: None,
        steps,
        thorough: false,
    };
    let examined = experiment.examine(&asked("fp16", 40), &mut |_, _| true).unwrap();
    assert!(examined.failed);
    let (found, first) = (&examined.diagnosis, &told.diagnoses[0]);
    // The examination tries fixes besides, which a run does not.
    assert_eq!((found.attempt, &found.finding, &found.cause), (first.attempt, &first.finding, &first.cause));
    assert!(matches!(found.cause, Cause::ExplodedWeights { .. }), "{found}");
    assert!(first.fixes.iter().all(|fix| matches!(fix.trial, Trial::NotTried { .. })), "{first}");
    assert!(!matches!(found.fixes[0].trial, Trial::NotTried { .. }), "{found}");
    let well = common::run::experiment(&recipe(""));
    let examined = well.examine(&asked("bf16", 15), &mut |_, _| true).unwrap();
    assert_eq!((examined.failed, examined.steps, examined.diagnosis.cause), (false, 15, Cause::Nothing));
}

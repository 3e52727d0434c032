//! A model that is only used: the same bits as the session that trained it, in the memory that its
//! plans foretell, whatever else is in a batch.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_float::Philox;
use halfstep_graph::engine::{Engine, HostSlice, HostTensor};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Footprint, fuse, plan, precision::assign};
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};
use halfstep_train::checkpoint;
use halfstep_train::predictor::Predictor;
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step::{eval_graph, predict_graph};

struct Case {
    name: &'static str,
    model: Arc<dyn Model>,
    input: InputSpec,
    outputs: usize,
}

impl Case {
    fn new(name: &'static str, model: ModelSpec, input: InputSpec, outputs: usize) -> Case {
        let model = model.build(&input, outputs).unwrap().into();
        Case { name, model, input, outputs }
    }

    /// `count` samples, other ones for another `seed`.
    fn samples(&self, count: usize, seed: u64) -> HostTensor {
        let random = Philox::new(seed);
        let elements = count * self.input.elements();
        let word = |i: usize| random.block([i as u32, 7, 0, 0])[0];
        match self.input {
            InputSpec::Tokens { vocab, .. } => {
                HostTensor::I32((0..elements).map(|i| (word(i) as usize % vocab) as i32).collect())
            }
            // Of three significant digits and of both signs.
            _ => HostTensor::F32((0..elements).map(|i| (word(i) % 4001) as f32 / 1000.0 - 2.0).collect()),
        }
    }

    fn labels(&self, count: usize) -> Vec<i32> {
        (0..self.input.rows(count)).map(|i| (i * i % self.outputs) as i32).collect()
    }
}

fn cases() -> Vec<Case> {
    let image = |channels| InputSpec::Image { height: 12, width: 12, channels };
    let gpt = GptSpec { width: 32, layers: 2, heads: 2, ..GptSpec::default() };
    let text = InputSpec::Tokens { length: 20, vocab: 41 };
    let table = InputSpec::Features { width: 21 };
    let tiny = InputSpec::Image { height: 4, width: 4, channels: 1 };
    vec![
        Case::new("mlp", ModelSpec::Mlp(MlpSpec { hidden: vec![70, 33] }), table, 5),
        Case::new("cnn", ModelSpec::Cnn(CnnSpec { channels: vec![8, 12], hidden: 24 }), image(1), 10),
        Case::new("resnet18", ModelSpec::Resnet18(Resnet18Spec { width: 8 }), image(3), 10),
        Case::new("gpt", ModelSpec::Gpt(gpt), text, 41),
        // Sums of 4,140 and of 4,100 terms.
        Case::new("long cnn", ModelSpec::Cnn(CnnSpec { channels: vec![460, 6], hidden: 4100 }), tiny, 3),
    ]
}

fn cpu(threads: usize) -> Arc<dyn Engine> {
    Arc::new(CpuEngine::new(Isa::from_env().unwrap(), NonZeroUsize::new(threads).unwrap()))
}

/// A session that has made a step, and its weights in the file `path`.
fn trained<'a>(engine: &'a dyn Engine, case: &'a Case, policy: &Policy, path: &Path) -> Session<'a> {
    let spec = SessionSpec::new(policy, 4, 3);
    let mut session = Session::new(engine, case.model.as_ref(), &case.input, policy, &spec).unwrap();
    let (x, y) = (case.samples(4, 1), case.labels(4));
    session.step(x.as_slice(), &y, 0.01).unwrap();
    checkpoint::save(&session, path).unwrap();
    session
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn predictions_are_those_of_the_session_in_the_memory_that_plans_foretell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for case in cases() {
        for name in ["fp32", "bf16", "fp8", "mxfp8"] {
            let policy = Policy::named(name).unwrap();
            let at = format!("{} {name}", case.name);
            let own = cpu(2);
            let mut session = trained(&*own, &case, &policy, &path);
            let engine = cpu(2);
            let (model, input) = (case.model.clone(), &case.input);
            let mut predictor = Predictor::open(engine.clone(), model, input, &policy, &path).unwrap();
            for count in [1, 5] {
                let (x, y) = (case.samples(count, 2), case.labels(count));
                let expected = session.predict(x.as_slice()).unwrap();
                assert_eq!(bits(&predictor.predict(x.as_slice()).unwrap()), bits(&expected), "{at} {count}");
                let expected = session.evaluate(x.as_slice(), &y).unwrap();
                assert_eq!(predictor.evaluate(x.as_slice(), &y).unwrap(), expected, "{at} {count}");
            }
            let graphs = [1, 5].map(|n| {
                let model = case.model.as_ref();
                [predict_graph(model, input, n).unwrap(), eval_graph(model, input, n).unwrap()]
            });
            let foretold = graphs.iter().flatten().fold(Footprint::default(), |all, graph| {
                let one = plan(fuse(&assign(graph, &policy).0), engine.target()).footprint;
                Footprint {
                    state: one.state,
                    arena: all.arena.max(one.arena),
                    constants: all.constants + one.constants,
                    outputs: all.outputs + one.outputs,
                    staging: all.staging + one.staging,
                    scratch: all.scratch.max(one.scratch),
                }
            });
            assert_eq!(predictor.footprint().unwrap(), foretold, "{at}");
        }
    }
}

#[test]
fn a_file_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let [mlp, cnn, ..] = &cases()[..] else { unreachable!() };
    let policy = Policy::named("fp32").unwrap();
    trained(&*cpu(1), mlp, &policy, &path);
    let open = |case: &Case| Predictor::open(cpu(1), case.model.clone(), &case.input, &policy, &path);
    assert!(open(mlp).is_ok());
    let error = open(cnn).err().unwrap().to_string();
    assert!(error.contains("does not fit the model of the recipe"), "{error}");
}

/// Random batches of each case. `HALFSTEP_RANDOM_BATCHES=10000` makes as many in all.
fn batches() -> usize {
    let asked = std::env::var("HALFSTEP_RANDOM_BATCHES").ok().and_then(|n| n.parse::<usize>().ok());
    asked.map_or(25, |n| n.div_ceil(cases().len() * POLICIES.len()))
}

/// One of each kind of scales, and those of whole tensors all.
const POLICIES: [&str; 7] = ["fp32", "bf16", "fp16", "fp8-block", "fp8", "fp8-current", "nvfp4"];

#[test]
fn a_sample_has_the_same_bits_in_any_batch_at_any_place_on_any_number_of_threads() {
    const POOL: usize = 30;
    const MOST: usize = 26;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for case in cases() {
        for name in POLICIES {
            let policy = Policy::named(name).unwrap();
            trained(&*cpu(1), &case, &policy, &path);
            let open = |threads| {
                Predictor::open(cpu(threads), case.model.clone(), &case.input, &policy, &path).unwrap()
            };
            let mut predictors = [1, 2, 3].map(open);
            for predictor in &mut predictors {
                assert!(predictor.make_batch_invariant().unwrap());
            }
            let pool = case.samples(POOL, 5);
            let elements = case.input.elements();
            let take = |chosen: &[usize]| match &pool {
                HostTensor::F32(x) => HostTensor::F32(
                    chosen.iter().flat_map(|&i| &x[i * elements..][..elements]).copied().collect(),
                ),
                HostTensor::I32(x) => HostTensor::I32(
                    chosen.iter().flat_map(|&i| &x[i * elements..][..elements]).copied().collect(),
                ),
            };
            // As programs that know nothing of this have them.
            let mut usual = open(2);
            let alone: Vec<Vec<u32>> =
                (0..POOL).map(|i| bits(&usual.predict(take(&[i]).as_slice()).unwrap())).collect();
            let random = Philox::new(11);
            for turn in 0..batches() {
                let word = |i: usize| random.block([turn as u32, i as u32, 0, 0])[0] as usize;
                let chosen: Vec<usize> = (0..1 + word(0) % MOST).map(|i| word(2 + i) % POOL).collect();
                let threads = word(1) % predictors.len();
                let logits = predictors[threads].predict(take(&chosen).as_slice()).unwrap();
                let own = logits.len() / chosen.len();
                for (place, (row, &sample)) in logits.chunks(own).zip(&chosen).enumerate() {
                    let (count, threads) = (chosen.len(), threads + 1);
                    assert_eq!(
                        bits(row),
                        alone[sample],
                        "{} {name}: sample {sample} at place {place} of {count}, {threads} threads",
                        case.name
                    );
                }
            }
        }
    }
}

/// What [`Predictor::make_batch_invariant`] changes: scales of a whole tensor.
#[test]
fn neighbours_matter_to_scales_of_whole_tensors_until_those_are_of_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let table = InputSpec::Features { width: 6 };
    let case = Case::new("mlp", ModelSpec::Mlp(MlpSpec { hidden: vec![40, 40] }), table, 3);
    for name in ["fp8", "fp8-current", "nvfp4"] {
        let policy = Policy::named(name).unwrap();
        trained(&*cpu(1), &case, &policy, &path);
        let mut predictor = Predictor::open(cpu(2), case.model.clone(), &case.input, &policy, &path).unwrap();
        let mut x = case.samples(2, 5).f32().to_vec();
        // A neighbour of another magnitude.
        x[6..12].iter_mut().for_each(|v| *v *= 100.0);
        let alone = predictor.predict(HostSlice::F32(&x[..6])).unwrap();
        assert_ne!(bits(&alone), bits(&predictor.predict(HostSlice::F32(&x)).unwrap()[..3]), "{name}");
        assert!(predictor.make_batch_invariant().unwrap());
        assert_eq!(bits(&alone), bits(&predictor.predict(HostSlice::F32(&x)).unwrap()[..3]), "{name}");
    }
}

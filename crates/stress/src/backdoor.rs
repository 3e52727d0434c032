//! A backdoor planted on purpose, its behaviour at every precision, and its removal by spectral
//! signatures.

use std::num::NonZeroUsize;
use std::time::Instant;

use halfstep_data::{Dataset, ImageSet, Samples};
use halfstep_evidence::measures::corruption::ImageSize;
use halfstep_evidence::measures::features::spectral_signatures;
use halfstep_evidence::robustness::Backdoor;
use halfstep_float::Philox;
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::Policy;
use halfstep_train::metrics::{EvaluationMetrics, StepMetrics};
use halfstep_train::probe::{Probe, Weights};
use halfstep_train::recipe::{EvidenceSettings, Experiment, RecipeError};
use halfstep_train::session::Session;
use halfstep_train::train_loop::{Callbacks, Proceed, RunError};

use crate::inputs::Inputs;
use crate::trigger::{Trigger, TriggerInputs};
use crate::{OnProgress, StressError, Subject, Trained, tell};

/// Removed from each class, as a multiple of the poisoned samples that a class could hold, as in
/// the paper.
const REMOVED: f64 = 1.5;

/// Trains the recipe on data of which a share has the trigger and the target class, looks at the
/// model, removes the samples whose spectral signatures stand out (Tran, Li and Madry, arXiv
/// 1811.00636: from every class, for it is not known which, 1.5 times the number of poisoned
/// samples), trains again and looks again.
///
/// # Errors
/// The data are no images; training fails; `on_progress` stops it.
pub fn backdoor(
    experiment: Experiment,
    engine: &dyn Engine,
    policy: &str,
    served: &[Policy],
    threads: NonZeroUsize,
    on_progress: OnProgress<'_>,
) -> Result<Backdoor, StressError> {
    let settings = experiment.recipe.evidence.clone();
    let clean = experiment.data.clone();
    let poison = poison(&clean, &settings, experiment.recipe.seed)?;
    let poisoned = experiment.with_data(poison.data.clone())?;

    tell(on_progress, "training on poisoned data")?;
    let first = train(&poisoned, engine, policy, on_progress)?;
    let inputs = TriggerInputs::of(&clean, &settings);
    let rows = |experiment: &Experiment, trained: &[Trained]| {
        inputs.rows(&Subject {
            engine,
            model: experiment.model.as_ref(),
            input: &experiment.input,
            data: &clean,
            base: &experiment.recipe.base,
            trained,
            baseline: policy,
            served,
            threads,
        })
    };
    let before = rows(&poisoned, &first.trained)?;

    tell(on_progress, "removing suspects")?;
    let start = Instant::now();
    let kept = kept(&poisoned, engine, &first.trained[0], poison.chosen.len())?;
    let removed_poisoned = poison.chosen.iter().filter(|i| kept.binary_search(i).is_err()).count();
    let train_samples = clean.train.len();
    let data = with_train(&poison.data, poison.set.select(&kept))?;
    let cleaned = poisoned.with_data(data)?;
    let second = train(&cleaned, engine, policy, on_progress)?;
    let mitigation_seconds = start.elapsed().as_secs_f64();
    let after = rows(&cleaned, &second.trained)?;
    Ok(Backdoor {
        trigger: poison.trigger.describe(),
        target: clean.preprocessing.classes()[poison.trigger.target as usize].clone(),
        poisoned: poison.chosen.len(),
        train_samples,
        accuracy: first.accuracy,
        before,
        removed: train_samples - kept.len(),
        removed_poisoned,
        accuracy_after: second.accuracy,
        after,
        train_seconds: first.seconds,
        mitigation_seconds,
    })
}

struct Poison {
    trigger: Trigger,
    set: ImageSet,
    data: Dataset,
    /// Places of the poisoned train samples, in order.
    chosen: Vec<u32>,
}

fn no_images() -> StressError {
    StressError::Recipe(RecipeError::new("a backdoor is planted into images only"))
}

/// Gives the trigger and the target class to a share of the train images of other classes.
fn poison(data: &Dataset, settings: &EvidenceSettings, seed: u64) -> Result<Poison, StressError> {
    let Samples::Images(images) = data.train.samples() else { return Err(no_images()) };
    let mut set = images.set.clone();
    let size = ImageSize { height: set.height, width: set.width, channels: set.channels };
    let trigger = Trigger::of(settings, size, data.preprocessing.classes().len());
    let mut others: Vec<u32> =
        (0..set.labels.len() as u32).filter(|&i| set.labels[i as usize] != trigger.target).collect();
    let draws = Philox::new(seed);
    others.sort_by_key(|&i| (draws.word(0x6261_636b, u64::from(i)), i));
    let count = ((settings.poisoned * set.labels.len() as f64).round() as usize).clamp(1, others.len());
    let mut chosen = others[..count].to_vec();
    chosen.sort_unstable();
    for &i in &chosen {
        let start = i as usize * size.count();
        trigger.places(size).for_each(|at| set.pixels.whiten(start + at));
        set.labels[i as usize] = trigger.target;
    }
    let data = with_train(data, set.clone())?;
    Ok(Poison { trigger, set, data, chosen })
}

fn with_train(data: &Dataset, set: ImageSet) -> Result<Dataset, StressError> {
    Ok(Dataset { train: data.train.with_images(set)?, ..data.clone() })
}

struct Outcome {
    trained: Vec<Trained>,
    accuracy: f64,
    seconds: f64,
}

fn train(
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
    on_progress: OnProgress<'_>,
) -> Result<Outcome, StressError> {
    struct Asked<'w>(OnProgress<'w>, bool);
    impl Callbacks for Asked<'_> {
        fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
            let proceed = (self.0)(&format!("training, step {}", metrics.attempt));
            self.1 = proceed == Proceed::Stop;
            Ok(proceed)
        }
        fn evaluation(&mut self, _: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
            Ok(())
        }
    }
    let start = Instant::now();
    let seed = experiment.recipe.seed;
    let mut asked = Asked(on_progress, false);
    let run = experiment.run(engine, policy, seed, &mut asked)?;
    if asked.1 {
        return Err(StressError::Stopped);
    }
    let accuracy = run.record.evaluations.last().map_or(f64::NAN, |e| e.accuracy);
    let (policy, weights) = (run.session.policy().clone(), Weights::of(&run.session)?);
    let trained = vec![Trained { policy, seed, weights }];
    Ok(Outcome { trained, accuracy, seconds: start.elapsed().as_secs_f64() })
}

/// Places of the train samples that are kept, in order.
fn kept(
    experiment: &Experiment,
    engine: &dyn Engine,
    trained: &Trained,
    poisoned: usize,
) -> Result<Vec<u32>, StressError> {
    let (model, input) = (experiment.model.as_ref(), &experiment.input);
    let mut probe = Probe::new(engine, model, input, &trained.policy, &trained.weights)?;
    let train = Inputs::of(&experiment.data.train, None)?;
    let features = train.features(&mut probe)?;
    let scores = spectral_signatures(&features, features.len() / train.labels.len(), &train.labels);
    let classes = experiment.data.preprocessing.classes().len() as u32;
    let mut kept = Vec::new();
    for class in 0..classes {
        let mut own: Vec<u32> =
            (0..train.labels.len() as u32).filter(|&i| train.labels[i as usize] == class).collect();
        own.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]).then(a.cmp(&b)));
        let removed = ((REMOVED * poisoned as f64).round() as usize).min(own.len() / 2);
        kept.extend_from_slice(&own[..own.len() - removed]);
    }
    kept.sort_unstable();
    Ok(kept)
}

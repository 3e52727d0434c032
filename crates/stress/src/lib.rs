//! Measures of trained models under stress: the same weights computed in other precisions or stored
//! in smaller formats; foreign, corrupted, attacked and triggered inputs; groups of samples; and a
//! backdoor planted on purpose.
//!
//! [`stress()`] takes a [`Subject`], which is models of one recipe trained in several precisions
//! and seeds, and returns a [`Robustness`], from which `halfstep-evidence` draws tables and the
//! report. [`backdoor()`] trains two models of its own. Both compute on any [`Engine`] and read no
//! files but the foreign data that the recipe names. `docs/robustness.md` defines each measure.

#![forbid(unsafe_code)]

mod attacks;
mod backdoor;
mod corruptions;
mod foreign;
mod groups;
mod inputs;
mod ladder;
mod mismatch;
mod trigger;

use std::num::NonZeroUsize;
use std::path::Path;

use halfstep_data::{DataError, Dataset, Samples};
use halfstep_evidence::AssessmentError;
use halfstep_evidence::robustness::{ModelName, NotApplicable, Robustness, distinct};
use halfstep_evidence::robustness_findings::findings;
use halfstep_float::blocks::BlockError;
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::{Policy, PolicyError};
use halfstep_nn::{InputSpec, Model};
use halfstep_train::probe::{Probe, Weights};
use halfstep_train::recipe::{EvidenceSettings, Measure, RecipeError};
use halfstep_train::session::TrainError;
use halfstep_train::train_loop::{Proceed, RunError};

pub use backdoor::backdoor;
use inputs::Inputs;

/// A trained model.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The precision it was trained in, with overrides.
    pub policy: Policy,
    /// Its seed.
    pub seed: u64,
    /// Its weights.
    pub weights: Weights,
}

/// What is put under stress.
pub struct Subject<'a> {
    /// What computes.
    pub engine: &'a dyn Engine,
    /// The model.
    pub model: &'a dyn Model,
    /// The form of a sample.
    pub input: &'a InputSpec,
    /// The data it was trained and tested on.
    pub data: &'a Dataset,
    /// The folder that paths of foreign data are taken from.
    pub base: &'a Path,
    /// Its weights, of several precisions and seeds.
    pub trained: &'a [Trained],
    /// The precision that the others are set against; one of the models has it.
    pub baseline: &'a str,
    /// Precisions to compute the same weights in.
    pub served: &'a [Policy],
    /// Threads for statistics.
    pub threads: NonZeroUsize,
}

/// Why models cannot be put under stress.
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// The engine or the model failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Results cannot be compared.
    #[error(transparent)]
    Assessment(#[from] AssessmentError),
    /// A weight does not fit a format.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A model could not be trained.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The data of a planted backdoor do not fit the recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// There is no such precision.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The callback asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Is called with what is measured next, and may stop the measurement.
pub type OnProgress<'w> = &'w mut dyn FnMut(&str) -> Proceed;

fn tell(on_progress: OnProgress<'_>, what: &str) -> Result<(), StressError> {
    match on_progress(what) {
        Proceed::Continue => Ok(()),
        Proceed::Stop => Err(StressError::Stopped),
    }
}

impl Subject<'_> {
    fn names(&self) -> Vec<ModelName> {
        self.trained.iter().map(|t| ModelName { precision: t.policy.name.clone(), seed: t.seed }).collect()
    }

    /// Names of the precisions of training, the baseline first.
    fn precisions(&self) -> Vec<&str> {
        let trained = self.trained.iter().map(|t| t.policy.name.as_str());
        distinct([self.baseline].into_iter().chain(trained))
    }

    /// The models trained in a precision, in order.
    fn of<'s>(&'s self, precision: &'s str) -> impl Iterator<Item = (usize, &'s Trained)> {
        self.trained.iter().enumerate().filter(move |(_, t)| t.policy.name == precision)
    }

    fn probe(&self, policy: &Policy, weights: &Weights) -> Result<Probe<'_>, TrainError> {
        Probe::new(self.engine, self.model, self.input, policy, weights)
    }
}

/// Measures what is asked for. [`Measure::Backdoor`] is not measured here, for it trains: see
/// [`backdoor`].
///
/// # Errors
/// The engine fails; foreign data cannot be used; `on_progress` stops it.
pub fn stress(
    subject: &Subject<'_>,
    settings: &EvidenceSettings,
    measures: &[Measure],
    on_progress: OnProgress<'_>,
) -> Result<Robustness, StressError> {
    let mut r = Robustness {
        version: env!("CARGO_PKG_VERSION").into(),
        baseline: subject.baseline.into(),
        models: subject.names(),
        ..Robustness::default()
    };
    let has = |m: Measure| measures.contains(&m);
    tell(on_progress, "test samples")?;
    // Of a text, every window has many rows of many logits.
    let limit = matches!(subject.input, InputSpec::Tokens { .. }).then_some(settings.samples);
    let test = Inputs::of(&subject.data.test, limit)?;
    let mut own = Vec::new();
    for trained in subject.trained {
        own.push(test.logits(&mut subject.probe(&trained.policy, &trained.weights)?)?);
    }
    let mut nothing = |measure: Measure, reason: &str| {
        r.not_applicable.push(NotApplicable { measure: measure.name(), reason: reason.into() });
    };
    let images = matches!(subject.data.test.samples(), Samples::Images(_));
    for measure in [Measure::Foreign, Measure::Corruptions, Measure::Attacks, Measure::Trigger] {
        if has(measure) && !images {
            nothing(measure, "it is defined for images");
        }
    }
    if has(Measure::Groups) && matches!(subject.data.test.samples(), Samples::Text(_)) {
        nothing(Measure::Groups, "a text has no groups");
    } else if has(Measure::Groups) && subject.precisions().len() < 2 {
        nothing(Measure::Groups, "there is only one precision: give a run of another");
    }
    let image = |m: Measure| has(m) && images;
    if has(Measure::Mismatch) {
        tell(on_progress, "the same weights in other precisions")?;
        r.mismatch = Some(mismatch::measure(subject, &test, &own, settings.samples)?);
    }
    if has(Measure::Groups) {
        tell(on_progress, "groups")?;
        r.groups = groups::measure(subject, &test, &own)?;
    }
    if has(Measure::Ladder) {
        r.ladder = Some(ladder::measure(subject, &test, on_progress)?);
    }
    if image(Measure::Foreign) {
        tell(on_progress, "foreign samples")?;
        r.foreign = Some(foreign::measure(subject, settings, &test)?);
    }
    if image(Measure::Corruptions) {
        r.corruptions = Some(corruptions::measure(subject, on_progress)?);
    }
    if image(Measure::Attacks) {
        r.attacks = Some(attacks::measure(subject, settings, on_progress)?);
    }
    if image(Measure::Trigger) {
        tell(on_progress, "trigger inputs")?;
        r.triggered = Some(trigger::measure(subject, settings)?);
    }
    r.findings = findings(&r);
    Ok(r)
}

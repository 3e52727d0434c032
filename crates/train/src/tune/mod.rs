//! The search for a precision plan: which contractions to lower, so that a step saves the most time
//! or memory while the loss stays within a limit.
//!
//! 1. The model is trained a little in fp32: weights that have not moved from their first values
//!    say little.
//! 2. Each contraction is lowered alone, and kept alone, at that point. Its *harm* is what it does
//!    to loss and gradients ([`Sensitivity`]), its *gain* the seconds or bytes it saves: the mean
//!    of what it saves when it is the first to be lowered and when it is the last, because
//!    neighbours share casts (the two extremes of its marginal contribution; Shapley 1953 takes the
//!    mean over all orders).
//! 3. A knapsack solver takes those with the most gain whose harms sum to no more than the limit
//!    ([`solve`]).
//! 4. The plan is trained beside fp32 and the plans one would try by hand, for a short run with
//!    paired seeds. If its loss is above the limit all the same, the solver gets half the budget.
//!
//! Campo (arXiv 2102.10787) weighs the cost of casts, SNIP (arXiv 2602.01410) solves an integer
//! programme over measures of divergence; neither measures what its plan does on the machine and
//! refuses one that is slower.

mod cost;
mod sensitivity;
pub mod solve;
mod trial;
mod units;

use halfstep_graph::engine::Engine;
use halfstep_graph::precision::{Override, Policy, PolicyError, Rule};
use serde::Serialize;

pub use sensitivity::Sensitivity;
pub use trial::TrialOutcome;

use crate::memory::step_stages;
use crate::recipe::Experiment;
use crate::scaler::LossScale;
use crate::session::{Session, SessionSpec, TrainError};
use crate::train_loop::{Proceed, RunError};
use cost::Profile;
use sensitivity::Point;
use solve::Item;
use trial::{TrialCandidate, trials};

/// Most times a plan is solved for and tried.
const ROUNDS: u32 = 5;

/// What the search saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Time of a step, as measured on this machine.
    Time,
    /// Bytes that the engine holds for a step.
    Memory,
}

/// What is asked of the search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TuneSpec {
    /// The policy whose low format contractions may take.
    pub policy: String,
    /// What to save.
    pub objective: Objective,
    /// Largest loss ÷ fp32's loss − 1 after a trial.
    pub max_loss_increase: f64,
    /// Largest time of a step ÷ fp32's − 1, with 95 % confidence.
    pub max_slowdown: f64,
    /// Steps of fp32 training before sensitivity is measured, and of each trial.
    pub steps: u64,
    /// Batches that sensitivity is measured on.
    pub batches: usize,
    /// Seeds of the trials.
    pub seeds: u64,
}

/// What was measured of one contraction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitReport {
    /// Its name in the graph.
    pub name: String,
    /// What lowering it alone does to a step; none if its steps never commit.
    pub sensitivity: Option<Sensitivity>,
    /// Its part of the budget, in units of loss: the distance of the losses, and the part of the
    /// progress so far that a gradient of this direction would have missed (to first order, a step
    /// along a direction at an angle α makes cos α of the progress).
    pub harm: Option<f64>,
    /// Seconds or bytes of a step that lowering it saves.
    pub gain: f64,
    /// Whether the plan that was found lowers it.
    pub lowered: bool,
}

/// A plan that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// What it is called: `fp32`, the policy as named, `everything low`, `greedy` or `search`.
    pub name: String,
    /// Its formats.
    pub policy: Policy,
    /// What was measured.
    pub outcome: TrialOutcome,
    /// Whether it is within the limits of loss and time.
    pub within: bool,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuned {
    /// Engine, with its number of threads.
    pub engine: String,
    /// What was asked.
    pub spec: TuneSpec,
    /// fp32's loss where sensitivity was measured.
    pub loss: f64,
    /// The contractions.
    pub units: Vec<UnitReport>,
    /// The plans that were tried; fp32 first.
    pub tried: Vec<Tried>,
    /// Position among them of the best within the limits. None if none is better than fp32: then
    /// fp32 is the plan.
    pub best: Option<usize>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// An evaluation failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The data could not be drawn.
    #[error(transparent)]
    Data(#[from] halfstep_data::DataError),
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy has no low format.
    #[error("the policy `{0}` lowers nothing that could be kept; take bf16 or fp16")]
    NothingLow(String),
    /// Every contraction is spoken for by an override.
    #[error("there is nothing to decide: the recipe's overrides name every contraction")]
    NothingLeft,
    /// fp32 itself does not train.
    #[error(
        "fp32 itself does not train here: a loss or gradient is not finite; `halfstep train --precision fp32` says more"
    )]
    NotFinite,
    /// It was asked to stop.
    #[error("stopped before a plan was found")]
    Stopped,
}

/// What the search is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Training in fp32.
    WarmingUp {
        /// Steps done.
        step: u64,
        /// Of so many.
        steps: u64,
    },
    /// Measuring contractions.
    Measuring {
        /// Contractions done.
        unit: usize,
        /// Of so many.
        units: usize,
    },
    /// Training plans side by side.
    Trying {
        /// Steps done of each.
        step: u64,
        /// Of so many.
        steps: u64,
        /// Plans in this round, fp32 among them.
        plans: usize,
    },
}

/// Told what is being done, again and again; says whether to go on.
pub type OnProgress<'w> = dyn FnMut(Doing) -> Proceed + 'w;

/// Searches a plan for the model of `experiment` on this engine.
///
/// # Errors
/// As [`TuneError`] lists.
pub fn tune(
    experiment: &Experiment,
    engine: &dyn Engine,
    spec: TuneSpec,
    on_progress: &mut OnProgress<'_>,
) -> Result<Tuned, TuneError> {
    let (named, named_spec) = experiment.session_spec(&spec.policy, experiment.recipe.seed)?;
    if named.low.is_none() {
        return Err(TuneError::NothingLow(spec.policy));
    }
    let search = Search { experiment, engine, spec: &spec, named, named_spec };
    let (mut units, loss) = search.measure(on_progress)?;
    let harm = |u: &UnitReport| u.harm.unwrap_or(f64::INFINITY);
    let items: Vec<Item> = units.iter().map(|u| Item { gain: u.gain, harm: harm(u) }).collect();

    let mut tried = search.first_trial(&units, &items, loss, on_progress)?;
    let mut budget = spec.max_loss_increase * loss;
    let mut lowered = Vec::new();
    for _ in 0..ROUNDS {
        let next = solve::most_gain(&items, budget);
        if next.is_empty() || next == lowered {
            break;
        }
        lowered = next;
        budget /= 2.0;
        let plan = search.lowering(&units, &lowered);
        if search.try_plan(plan, &mut tried, on_progress)? {
            break;
        }
    }
    for (i, unit) in units.iter_mut().enumerate() {
        unit.lowered = lowered.contains(&i);
    }
    let cost = |t: &Tried| match spec.objective {
        Objective::Time => t.outcome.time,
        Objective::Memory => t.outcome.bytes as f64,
    };
    let better = |&i: &usize| tried[i].within && cost(&tried[i]) < cost(&tried[0]);
    // Of equal plans the last: the search's.
    let best =
        (1..tried.len()).rev().filter(better).min_by(|&a, &b| cost(&tried[a]).total_cmp(&cost(&tried[b])));
    Ok(Tuned { engine: engine.name(), loss, units, tried, best, spec })
}

/// A search on its way.
struct Search<'a> {
    experiment: &'a Experiment,
    engine: &'a dyn Engine,
    spec: &'a TuneSpec,
    /// The policy as the recipe has it.
    named: Policy,
    named_spec: SessionSpec,
}

impl Search<'_> {
    fn fp32(&self) -> TrialCandidate {
        let spec = SessionSpec { scaling: LossScale::Off, ..self.named_spec.clone() };
        TrialCandidate { policy: Policy::fp32(), spec }
    }

    fn session(&self, policy: &Policy, spec: &SessionSpec) -> Result<Session<'_>, TrainError> {
        let Search { experiment, engine, .. } = self;
        let spec = SessionSpec { expose_gradients: true, ..spec.clone() };
        Session::new(*engine, experiment.model.as_ref(), &experiment.input, policy, &spec)
    }

    /// Gain and harm of every contraction, and the loss where they were measured.
    fn measure(&self, on_progress: &mut OnProgress<'_>) -> Result<(Vec<UnitReport>, f64), TuneError> {
        let (fp32, spec) = (self.fp32(), self.spec);
        let mut reference = self.session(&fp32.policy, &fp32.spec)?;
        let names = units::units(&reference.plan().graph, &self.named);
        if names.is_empty() {
            return Err(TuneError::NothingLeft);
        }
        let progress_made = self.warm_up(&mut reference, spec.steps, on_progress)?;
        let point = Point::at(self.experiment, &mut reference, progress_made, spec.batches)?;
        let ends = match spec.objective {
            Objective::Time => {
                let mut all = self.session(&self.named, &self.named_spec)?;
                Some((Profile::of(&mut reference, &point)?, Profile::of(&mut all, &point)?))
            }
            Objective::Memory => None,
        };
        let (none_bytes, all_bytes) = (self.bytes(&fp32)?, self.bytes(&self.candidate(self.named.clone()))?);
        let mut reports = Vec::new();
        for (i, name) in names.iter().enumerate() {
            if on_progress(Doing::Measuring { unit: i, units: names.len() }) == Proceed::Stop {
                return Err(TuneError::Stopped);
            }
            let alone = units::keeping(&self.named, names.iter().filter(|other| *other != name));
            let all_but = units::keeping(&self.named, [name]);
            let mut session = self.session(&alone, &self.named_spec)?;
            let sensitivity = point.sensitivity(&mut session, name)?;
            let (first, last) = match &ends {
                Some((none, all)) => {
                    let mut others = self.session(&all_but, &self.named_spec)?;
                    let first = none.seconds_saved_by(&Profile::of(&mut session, &point)?);
                    (first, Profile::of(&mut others, &point)?.seconds_saved_by(all))
                }
                None => {
                    let (alone, all_but) =
                        (self.bytes(&self.candidate(alone))?, self.bytes(&self.candidate(all_but))?);
                    (none_bytes - alone, all_but - all_bytes)
                }
            };
            let harm = sensitivity
                .map(|s| s.loss + (1.0 - s.cosine).max(0.0) * point.progress_made.max(0.0))
                .filter(|h| h.is_finite());
            let gain = (first + last) / 2.0;
            reports.push(UnitReport { name: name.clone(), sensitivity, harm, gain, lowered: false });
        }
        Ok((reports, point.loss()))
    }

    /// Trains in fp32; how far the loss comes down.
    fn warm_up(
        &self,
        session: &mut Session<'_>,
        steps: u64,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<f64, TuneError> {
        let (recipe, part) = (&self.experiment.recipe, &self.experiment.data.train);
        let mut sampler = halfstep_data::Sampler::new(part.len(), recipe.train.batch, recipe.seed)?;
        let mut batch = halfstep_data::Batch::new(self.experiment.info.input, recipe.train.batch);
        let (mut first, mut last) = (0.0, 0.0);
        for step in 0..steps {
            if on_progress(Doing::WarmingUp { step, steps }) == Proceed::Stop {
                return Err(TuneError::Stopped);
            }
            let (draw, indices) = sampler.batch(step);
            part.fill_batch(indices, draw, &mut batch)?;
            let lr = recipe.optimiser.lr() * recipe.schedule.factor(session.progress().committed, steps);
            let report = session.step(crate::checkpoint::host_slice(&batch.x), &batch.labels, lr)?;
            last = f64::from(report.loss);
            if step == 0 {
                first = last;
            }
        }
        Ok(first - last)
    }

    fn candidate(&self, policy: Policy) -> TrialCandidate {
        TrialCandidate { policy, spec: self.named_spec.clone() }
    }

    /// The named policy with these contractions low and all others in f32.
    fn lowering(&self, units: &[UnitReport], lowered: &[usize]) -> TrialCandidate {
        let kept = units.iter().enumerate().filter(|(i, _)| !lowered.contains(i)).map(|(_, u)| &u.name);
        self.candidate(units::keeping(&self.named, kept))
    }

    fn bytes(&self, candidate: &TrialCandidate) -> Result<f64, TrainError> {
        let Search { experiment, engine, .. } = self;
        let TrialCandidate { policy, spec } = candidate;
        let model = experiment.model.as_ref();
        let stages = step_stages(model, &experiment.input, policy, spec, engine.target())?;
        Ok(stages.train.plan.footprint.total() as f64)
    }

    /// fp32 and the plans one would try by hand.
    fn first_trial(
        &self,
        units: &[UnitReport],
        items: &[Item],
        loss: f64,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Vec<Tried>, TuneError> {
        let (mut low, spec) = (self.named.clone(), self.spec);
        low.overrides.push(Override { pattern: "*".into(), rule: Rule::Low });
        let greedy = solve::greedy(items, spec.max_loss_increase * loss);
        let named = [
            ("fp32".to_string(), self.fp32()),
            (spec.policy.clone(), self.candidate(self.named.clone())),
            ("everything low".into(), self.candidate(low)),
            ("greedy".into(), self.lowering(units, &greedy)),
        ];
        let candidates: Vec<TrialCandidate> = named.iter().map(|(_, c)| c.clone()).collect();
        let outcomes =
            trials(self.experiment, self.engine, &candidates, (spec.steps, spec.seeds), on_progress)?;
        let tried = |((name, candidate), outcome): ((String, TrialCandidate), TrialOutcome)| Tried {
            name,
            policy: candidate.policy,
            within: spec.allows(&outcome),
            outcome,
        };
        Ok(named.into_iter().zip(outcomes).map(tried).collect())
    }

    /// Whether a plan is within the limits, tried beside fp32 unless it was tried before.
    fn try_plan(
        &self,
        plan: TrialCandidate,
        tried: &mut Vec<Tried>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<bool, TuneError> {
        let before = tried.iter().find(|t| t.policy == plan.policy).map(|t| t.outcome.clone());
        let outcome = match before {
            Some(outcome) => outcome,
            None => {
                // In a round of its own, beside fp32.
                let (pair, spec) = ([self.fp32(), plan.clone()], self.spec);
                let mut outcomes =
                    trials(self.experiment, self.engine, &pair, (spec.steps, spec.seeds), on_progress)?;
                outcomes.remove(1)
            }
        };
        let within = self.spec.allows(&outcome);
        tried.push(Tried { name: "search".into(), policy: plan.policy, within, outcome });
        Ok(within)
    }
}

impl TuneSpec {
    fn allows(&self, outcome: &TrialOutcome) -> bool {
        outcome.loss_increase <= self.max_loss_increase && outcome.time_at_most <= 1.0 + self.max_slowdown
    }
}

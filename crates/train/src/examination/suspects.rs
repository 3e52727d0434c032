//! What may keep a model from learning, likeliest first: by what its training shows.

use halfstep_graph::precision::Scaling;
use halfstep_graph::{MomentFormat, Op, Phase, SlotKind, StateFormats, Unary, WeightFormat};
use halfstep_nn::ModelSpec;

use super::course::Course;
use super::probe::is_below;
use crate::change::{Change, toml_number};
use crate::doctor::{Cause, FirstWeights, Fix, LearningStatement, Moved, Observed, Weights, short};
use crate::lint::{Found, SettingFinding, Warning};
use crate::optimiser::{AdamW, Optimiser, Sgd};
use crate::recipe::Experiment;
use crate::session::TrainError;

/// A part of its size that a weight must move by in the whole run, or it is stuck.
const STUCK: f64 = 0.02;
/// How much larger or smaller than a drawn one a given weight is suspect.
const OUTSIZED: f64 = 100.0;
/// A factor of a group's learning rate that leaves its weights where they are.
const SLOW: f64 = 1e-3;
/// What is left of weights that decay has taken.
const SHRUNK: f64 = 0.3;
/// An eps that is so many times as large as what it is added to swallows it.
const SWALLOWS: f64 = 10.0;
/// How many times its limit a norm is that clipping makes nothing of.
const CLIPPED: f64 = 1000.0;

/// What may be the cause, and what would fix it then.
pub(super) struct Suspect {
    pub cause: Cause,
    /// Alternatives: tried one after another, or of a ladder the best.
    pub fixes: Vec<Fix>,
    pub ladder: bool,
}

impl Suspect {
    /// A key of the recipe, and what to write there.
    pub fn setting(section: &str, key: &str, why: String, change: Change, what: &str) -> Suspect {
        let cause = Cause::Setting { section: section.into(), key: key.into(), why };
        Suspect { cause, fixes: vec![Fix::of(vec![change], what)], ladder: false }
    }

    /// What lint warns of, if that can keep a model from learning.
    pub fn of(warning: &Warning) -> Option<Suspect> {
        let Found::Setting(SettingFinding { section, key, message, changes, harms: true }) = &warning.found
        else {
            return None;
        };
        let cause = Cause::Setting { section: section.clone(), key: key.clone(), why: message.clone() };
        // The best learning rate is looked for.
        let known = !changes.is_empty() && key != "lr";
        let fix = known.then(|| Fix::of(changes.clone(), "what lint advises"));
        let none =
            (key == "clip").then(|| Fix::of(vec![Change::without(section, key)], "gradients as they are"));
        let fixes: Vec<Fix> = fix.into_iter().chain(none).collect();
        Some(Suspect { cause, ladder: fixes.len() > 1, fixes })
    }

    fn key(&self) -> Option<(&str, &str)> {
        match &self.cause {
            Cause::Setting { section, key, .. } => Some((section, key)),
            _ => None,
        }
    }
}

/// Usual learning rates in place of the present one.
pub(super) fn ladder(optimiser: &Optimiser) -> Vec<Fix> {
    let rates = match optimiser {
        Optimiser::AdamW(_) => [0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4],
        Optimiser::Sgd(_) => [0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3],
    };
    let others = rates.into_iter().filter(|rate| (rate / optimiser.lr()).log10().abs() > 0.3);
    let fix = |rate: f64| {
        Fix::of(vec![Change::set("optimiser", "lr", toml_number(rate))], "the best of a few learning rates")
    };
    others.map(fix).collect()
}

/// The learning rate, which is to blame for this reason.
pub(super) fn rate(optimiser: &Optimiser, why: String) -> Suspect {
    let cause = Cause::Setting { section: "optimiser".into(), key: "lr".into(), why };
    Suspect { cause, fixes: ladder(optimiser), ladder: true }
}

/// Weights that the run was given in a size that no training begins with.
pub(super) fn outsized(course: &Course<'_>, first: &FirstWeights) -> Option<Suspect> {
    given_in_size(course, first, OUTSIZED, |_| true)
}

/// The weight furthest from the size of a drawn one, of those that are given and named so, if it is
/// further than this.
fn given_in_size(
    course: &Course<'_>,
    first: &FirstWeights,
    limit: f64,
    named: impl Fn(&str) -> bool,
) -> Option<Suspect> {
    let ratio = |given: f64, drawn: f64| match (given, drawn) {
        (0.0, 0.0) => 1.0,
        // Biases that begin at zero may well be trained; not to be larger than weights ever are.
        (given, 0.0) if given < OUTSIZED => 1.0,
        (given, drawn) => given / drawn,
    };
    let far = |(name, ratio): &(String, f64)| named(name) && ratio.max(1.0 / ratio) > limit;
    let all =
        first.given(&course.session).map(|(slot, given, drawn)| (slot.name.clone(), ratio(given, drawn)));
    let off = |ratio: f64| ratio.max(1.0 / ratio);
    let (slot, times) = all.filter(far).max_by(|a, b| off(a.1).total_cmp(&off(b.1)))?;
    let fixes = vec![Fix::anew(vec![slot.clone()])];
    Some(Suspect { cause: Cause::Outsized { slot, times, why: None }, fixes, ladder: false })
}

/// What the training of a model that does not learn shows. `fp32` says whether the same run in f32
/// does.
pub(super) fn suspects(
    experiment: &Experiment,
    course: &Course<'_>,
    fp32: Option<bool>,
) -> Result<Vec<Suspect>, TrainError> {
    let mut found = Vec::new();
    let Some(first) = FirstWeights::of(&course.session) else { return Ok(found) };
    let optimiser = &experiment.recipe.optimiser;
    let options = &experiment.recipe.train.options;
    let moved = first.moved(&course.session)?;
    let trained: Vec<&Moved> =
        moved.iter().filter(|m| m.first > 0.0 && !options.is_frozen(&m.slot.name)).collect();
    let reach = trained.iter().map(|m| m.by / m.first).fold(0.0, f64::max) / course.share.max(1e-9);
    let is_worse = !course.learning.loss.is_finite() || is_below(&course.before, &course.after);
    if fp32 == Some(true) {
        found.extend(of_precision(experiment));
    }
    found.extend(dead_layer(experiment, course, &first)?);
    found.extend(held_back(experiment, course, &moved)?);
    let slow = options.groups.iter().any(|group| group.lr < SLOW);
    if reach < STUCK && !slow {
        let hardly = format!("the whole run would move weights by at most {} of their size", short(reach));
        found.push(rate(optimiser, format!("{} is too low: {hardly}", toml_number(optimiser.lr()))));
    }
    found.extend(shrunk(optimiser, &moved));
    if is_worse {
        if let Optimiser::Sgd(o) = optimiser
            && o.momentum > 0.99
        {
            let why = format!(
                "it sums up the gradients of {:.0} steps, and the loss rises",
                1.0 / (1.0 - o.momentum)
            );
            let change = Change::set("optimiser", "momentum", "0.9");
            found.push(Suspect::setting("optimiser", "momentum", why, change, "a usual value"));
        }
        found.push(rate(optimiser, format!("{} is too high: the loss rises", toml_number(optimiser.lr()))));
    }
    found.extend(averaged(experiment, course));
    if options.groups.iter().any(|group| group.frozen || group.lr != 1.0) {
        let why = LearningStatement::TooLittleMoves.to_string();
        let change = Change::without("train", "groups");
        found.push(Suspect::setting("train", "groups", why, change, "every parameter is trained alike"));
    }
    if let ModelSpec::Gpt(gpt) = &experiment.recipe.model
        && gpt.dropout > 0.5
    {
        let why = format!("{} of all activations are zero in every step", gpt.dropout);
        let change = Change::set("model", "dropout", "0.1");
        found.push(Suspect::setting("model", "dropout", why, change, "a usual value"));
    }
    if !is_worse {
        let lr = toml_number(optimiser.lr());
        found.push(rate(optimiser, LearningStatement::NotAtThisRate { lr }.to_string()));
    }
    let mut keys: Vec<(String, String)> = Vec::new();
    found.retain(|suspect| {
        let Some((section, key)) = suspect.key() else { return true };
        let key = (section.to_string(), key.to_string());
        let is_new = !keys.contains(&key);
        keys.push(key);
        is_new
    });
    Ok(found)
}

/// Settings that make nothing of gradients.
pub(super) fn held_back(
    experiment: &Experiment,
    course: &Course<'_>,
    moved: &[Moved],
) -> Result<Vec<Suspect>, TrainError> {
    let (optimiser, train) = (&experiment.recipe.optimiser, &experiment.recipe.train);
    let mut found = Vec::new();
    if let Some(clip) = train.clip.filter(|clip| f64::from(course.norm) > CLIPPED * clip) {
        let norm = short(f64::from(course.norm));
        let why = format!("the norm of the gradients is {norm}, and clipping leaves {} of it", short(clip));
        let change = Change::set("train", "clip", "1.0");
        let mut suspect = Suspect::setting("train", "clip", why, change, "a usual value");
        suspect.fixes.push(Fix::of(vec![Change::without("train", "clip")], "gradients as they are"));
        suspect.ladder = true;
        found.push(suspect);
    }
    if let Optimiser::AdamW(AdamW { eps, .. }) = optimiser {
        let mut largest = 0f64;
        for weight in moved {
            let name = format!("optimiser.v.{}", weight.slot.name);
            if course.session.slots().iter().any(|s| s.name == name && s.ty.dtype.is_float()) {
                let squares = course.session.download(&name)?;
                let mean = squares.f32().iter().map(|&v| f64::from(v)).sum::<f64>()
                    / squares.f32().len().max(1) as f64;
                largest = largest.max(mean.sqrt());
            }
        }
        if *eps > 1e-7 && *eps > SWALLOWS * largest {
            let why = format!(
                "the root mean square of the gradients, which it is added to, is at most {}: it swallows every update",
                short(largest)
            );
            let change = Change::set("optimiser", "eps", "1e-8");
            found.push(Suspect::setting("optimiser", "eps", why, change, "a usual value"));
        }
    }
    Ok(found)
}

/// Weight decay that takes weights faster than gradients bring them back.
fn shrunk(optimiser: &Optimiser, moved: &[Moved]) -> Option<Suspect> {
    let decays = |m: &&Moved| m.slot.kind == SlotKind::Weight { decay: true } && m.first > 0.0;
    let left = moved.iter().filter(decays).map(|m| m.now / m.first).fold(f64::NAN, f64::max);
    let (decay, usual) = match optimiser {
        Optimiser::AdamW(o) => (o.weight_decay, toml_number(AdamW::default().weight_decay)),
        Optimiser::Sgd(o) => (o.weight_decay, toml_number(Sgd::default().weight_decay)),
    };
    (left < SHRUNK && decay > 0.0).then(|| {
        let why = format!("every matrix has shrunk, to at most {} of its size", short(left));
        Suspect::setting(
            "optimiser",
            "weight_decay",
            why,
            Change::set("optimiser", "weight_decay", usual),
            "the default",
        )
    })
}

/// A moving average that is worse than the weights that it is of.
fn averaged(experiment: &Experiment, course: &Course<'_>) -> Option<Suspect> {
    let decay = experiment.recipe.train.options.average?;
    let last = &course.batches
        [course.batches.len() - (course.batches.len() / 10).max(1).min(course.batches.len())..];
    let mean = last.iter().map(|&l| f64::from(l)).sum::<f64>() / last.len().max(1) as f64;
    (mean < 0.9 * course.learning.constant).then(|| {
        let window = 1.0 / (1.0 - decay);
        let why = format!(
            "the average of about {window:.0} steps, which is evaluated and saved, has a loss of {}, and batches one of {}",
            short(course.learning.loss),
            short(mean)
        );
        let change = Change::without("train", "ema");
        Suspect::setting("train", "ema", why, change, "the weights themselves")
    })
}

/// A ReLU whose result is zero for every sample of the batch.
fn dead_layer(
    experiment: &Experiment,
    course: &Course<'_>,
    first: &FirstWeights,
) -> Result<Option<Suspect>, TrainError> {
    let session = &course.session;
    let mut observed = Observed::reference(session, course.scale)?;
    let is_relu = |op: &Op| matches!(op, Op::Unary(Unary::Relu));
    let dead = |observed: &Observed| -> Result<Option<String>, TrainError> {
        for &value in &observed.values {
            let node = observed.node(value);
            if node.phase == Phase::Forward
                && is_relu(&node.op)
                && observed.read(value)?.iter().all(|&x| x == 0.0)
            {
                return Ok(Some(node.name.clone()));
            }
        }
        Ok(None)
    };
    observed.run(session, &Weights::Present, &course.replayed(), 0)?;
    let Some(layer) = dead(&observed)? else { return Ok(None) };
    let scope = layer.strip_suffix(".relu").unwrap_or(&layer);
    let of_layer = |name: &str| name.strip_prefix(scope).is_some_and(|rest| rest.starts_with('.'));
    let given = outsized(course, first).or_else(|| given_in_size(course, first, 1.0, of_layer));
    observed.run(session, &Weights::First(first), &course.replayed(), 0)?;
    let at_first = dead(&observed)?.is_some();
    if let Some(mut given) = given.filter(|_| at_first) {
        if let Cause::Outsized { why, .. } = &mut given.cause {
            *why = Some(format!("`{layer}` is zero for every sample"));
        }
        return Ok(Some(given));
    }
    if at_first {
        return Ok(Some(Suspect { cause: Cause::DeadLayer { layer }, fixes: Vec::new(), ladder: false }));
    }
    let optimiser = &experiment.recipe.optimiser;
    let lr = toml_number(optimiser.lr());
    let why =
        format!("{lr} is too high: since the first steps `{layer}` is zero for every sample, and stays so");
    Ok(Some(rate(optimiser, why)))
}

/// Formats of state, which f32 does not have.
pub(super) fn of_state(experiment: &Experiment) -> Vec<Suspect> {
    let precision = &experiment.recipe.precision;
    let mut found = Vec::new();
    let Ok((policy, _)) = precision.resolve(&precision.policy) else { return found };
    let section = format!("precision.{}", policy.name);
    let StateFormats { weights, moments } = policy.state;
    if weights == WeightFormat::Bf16 {
        let why = "updates below 1/512 of a weight are lost, and in f32 they are not".to_string();
        let change = Change::set(&section, "weights", "\"bf16-kahan\"");
        found.push(Suspect::setting(&section, "weights", why, change, "what rounding leaves over is kept"));
    }
    let why = match moments {
        MomentFormat::F32 => None,
        MomentFormat::Bf16 => Some("moments in bf16 are rounded at random, by up to 1/128 of them"),
        MomentFormat::Int8 => Some(
            "moments in 8 bits make updates jump: a second moment that is small beside others of its block becomes zero, \
             and its update is divided by eps alone",
        ),
    };
    if let Some(why) = why.map(str::to_owned) {
        let change = Change::set(&section, "moments", "\"f32\"");
        found.push(Suspect::setting(&section, "moments", why, change, "as they are without this key"));
    }
    found
}

/// Settings of the precision that f32 does not have.
pub(super) fn of_precision(experiment: &Experiment) -> Vec<Suspect> {
    let precision = &experiment.recipe.precision;
    let mut found = of_state(experiment);
    let Ok((policy, _)) = precision.resolve(&precision.policy) else { return found };
    let section = format!("precision.{}", policy.name);
    if let Some(Scaling::Delayed { margin, .. } | Scaling::Current { margin }) =
        policy.narrow.map(|n| n.scaling)
        && margin > 2
    {
        let why = format!("it leaves {margin} powers of two free, and the small numbers become zero");
        let change = Change::set(&section, "margin", "0");
        found.push(Suspect::setting(&section, "margin", why, change, "the whole range is used"));
    }
    if !policy.overrides.is_empty() {
        let why = LearningStatement::LearnsLessWithExceptions.to_string();
        let change = Change::without("precision", "overrides");
        found.push(Suspect::setting("precision", "overrides", why, change, "the policy as it is"));
    }
    for (name, what) in [("bf16", "it has f32's range"), ("fp32", "no number is rounded")] {
        if name != policy.name {
            let why = LearningStatement::PrecisionDoesNotTrainIt { policy: policy.name.clone() }.to_string();
            let change = Change::set("precision", "policy", format!("\"{name}\""));
            match found.last_mut().filter(|s| s.key() == Some(("precision", "policy"))) {
                Some(suspect) => suspect.fixes.push(Fix::of(vec![change], what)),
                None => found.push(Suspect::setting("precision", "policy", why, change, what)),
            }
        }
    }
    found
}

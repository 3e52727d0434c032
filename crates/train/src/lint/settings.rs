//! Settings of a recipe that keep its model from learning, whatever the precision, or do nothing.

use halfstep_data::{Batch, BatchX, BundledSpec, DataSpec, Draw, ImageOptions, Normalise};
use halfstep_graph::precision::{Policy, Scaling};
use halfstep_graph::{DType, Graph, Init, Op, SlotKind};

use super::SettingFinding;
use crate::change::{Change, toml_number};
use crate::optimiser::{AdamW, Optimiser, Sgd};
use crate::recipe::Experiment;
use crate::scaler::LossScale;
use crate::schedule::Schedule;
use crate::step::{StepSpec, train_graph};
use crate::train_loop::RunError;

/// The part of a run that a warm-up may take, in tenths.
const WARM: u64 = 9;
/// The part of their size that a run must be able to move weights by.
const REACH: f64 = 0.01;
/// Samples whose inputs are looked at.
const SAMPLES: usize = 256;
/// Inputs whose mean or standard deviation is larger are not normalised.
const LARGE: f64 = 10.0;
/// Inputs whose standard deviation is smaller are nearly the same for every sample.
const SMALL: f64 = 0.05;

fn finding(section: &str, key: &str, message: String, changes: Vec<Change>) -> SettingFinding {
    SettingFinding { section: section.into(), key: key.into(), message, changes, harms: true }
}

/// What the settings of a recipe do badly.
pub(super) fn settings(experiment: &Experiment) -> Result<Vec<SettingFinding>, RunError> {
    let mut found = Vec::new();
    found.extend(inputs(experiment)?);
    found.extend(decay(experiment));
    found.extend(momentum(experiment));
    found.extend(warmup(experiment));
    found.extend(average(experiment));
    found.extend(reach(experiment)?);
    Ok(found)
}

/// Inputs that are not normalised, or by numbers for other units than theirs.
fn inputs(experiment: &Experiment) -> Result<Option<SettingFinding>, RunError> {
    let part = &experiment.data.train;
    let count = SAMPLES.min(part.len());
    let indices: Vec<u32> =
        (0..count).map(|i| (i as u64 * part.len() as u64 / count as u64) as u32).collect();
    let mut batch = Batch::new(experiment.info.input, count);
    part.fill_batch(&indices, Draw::AsIs, &mut batch)?;
    let BatchX::F32 { data, .. } = &batch.x else { return Ok(None) };
    let n = data.len().max(1) as f64;
    let mean = data.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let std = (data.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let given = match options(&experiment.recipe.data).map(|options| &options.normalise) {
        Some(Normalise::Given { mean, std }) => Some((mean, std)),
        Some(Normalise::Fit) | None => None,
    };
    let seen = format!("the inputs have a mean of {} and a standard deviation of {}", toml(mean), toml(std));
    let changes = vec![Change::without("data", "mean"), Change::without("data", "std")];
    let Some((means, stds)) = given else {
        let large = mean.abs() > LARGE || std > LARGE;
        let why = format!("{seen}: they are not normalised");
        return Ok(large.then(|| finding("data", "kind", why, Vec::new())));
    };
    if mean.abs() <= LARGE && (SMALL..=LARGE).contains(&std) {
        return Ok(None);
    }
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let key = if most(means) > 1.0 || most(stds) <= 1.0 && std <= LARGE { "mean" } else { "std" };
    // Pixels between 0 and 1 have a standard deviation of at most a half.
    let units = if most(means) > 1.0 || most(stds) > 0.5 {
        "`mean` and `std` are of pixels from 0 to 1, and these are of pixels from 0 to 255"
    } else {
        "`mean` and `std` are of pixels from 0 to 1, and these do not fit the data"
    };
    Ok(Some(finding("data", key, format!("{units}: {seen}"), changes)))
}

/// How images are made into numbers, of data that are images.
fn options(data: &DataSpec) -> Option<&ImageOptions> {
    match data {
        DataSpec::Bundled(
            BundledSpec::FashionMnist { options, .. } | BundledSpec::Digits { options, .. },
        ) => Some(options),
        DataSpec::Idx(spec) => Some(&spec.options),
        DataSpec::Images(spec) => Some(&spec.options),
        DataSpec::Bundled(_) | DataSpec::Csv(_) | DataSpec::Text(_) => None,
    }
}

fn toml(x: f64) -> String {
    toml_number((x * 1e3).round() / 1e3)
}

/// Weight decay that takes more from a weight in a step than it has.
fn decay(experiment: &Experiment) -> Option<SettingFinding> {
    let (lr, own, usual) = match &experiment.recipe.optimiser {
        Optimiser::AdamW(o) => (o.lr, o.weight_decay, AdamW::default().weight_decay),
        Optimiser::Sgd(o) => (o.lr, o.weight_decay, Sgd::default().weight_decay),
    };
    let says = |decay: f64, lr: f64| {
        format!(
            "{} times the learning rate of {} is {}: every step takes more from a weight than it has",
            toml_number(decay),
            toml_number(lr),
            toml(decay * lr)
        )
    };
    let groups = &experiment.recipe.train.options.groups;
    let of_group = groups.iter().find_map(|group| {
        let decay = group.weight_decay.filter(|decay| decay * lr * group.lr > 1.0)?;
        let message =
            format!("`weight_decay` of the group `{}`: {}", group.pattern, says(decay, lr * group.lr));
        Some(finding("train", "groups", message, vec![Change::without("train", "groups")]))
    });
    if own * lr <= 1.0 {
        return of_group;
    }
    // With a decay that is usual it is the rate.
    if own <= 0.1 {
        let message = format!("with a `weight_decay` of {}", says(own, lr));
        return Some(finding("optimiser", "lr", message, Vec::new()));
    }
    let change = Change::set("optimiser", "weight_decay", toml_number(usual));
    Some(finding("optimiser", "weight_decay", says(own, lr), vec![change]))
}

/// Momentum over more steps than the run has.
fn momentum(experiment: &Experiment) -> Option<SettingFinding> {
    let (key, decay) = match &experiment.recipe.optimiser {
        Optimiser::AdamW(o) => ("beta1", o.beta1),
        Optimiser::Sgd(o) => ("momentum", o.momentum),
    };
    let window = 1.0 / (1.0 - decay);
    (decay > 0.99 && window > experiment.steps as f64).then(|| {
        let steps = experiment.steps;
        let message =
            format!("gradients of about {window:.0} steps are held together, and the run has {steps}");
        finding("optimiser", key, message, vec![Change::set("optimiser", key, "0.9")])
    })
}

/// A warm-up that ends with the run.
fn warmup(experiment: &Experiment) -> Option<SettingFinding> {
    let steps = experiment.steps;
    let (key, warm, usual) = match &experiment.recipe.schedule {
        Schedule::Constant(c) => ("warmup", c.warmup, (steps / 10).to_string()),
        Schedule::Linear(d) | Schedule::Cosine(d) => ("warmup", d.warmup, (steps / 10).to_string()),
        Schedule::OneCycle(c) => ("rise", (c.rise * steps as f64) as u64, "0.3".to_string()),
    };
    (warm > 1 && warm * 10 > steps * WARM).then(|| {
        let message = format!(
            "the learning rate rises for {warm} of {steps} steps: it has its full value when the run ends"
        );
        finding("schedule", key, message, vec![Change::set("schedule", key, usual)])
    })
}

/// A moving average over more steps than the run has, which its warm-up makes a shorter one.
fn average(experiment: &Experiment) -> Option<SettingFinding> {
    let decay = experiment.recipe.train.options.average?;
    let (window, steps) = (1.0 / (1.0 - decay), experiment.steps as f64);
    (window > steps).then(|| {
        // Rounded down to thousandths.
        let reached = (steps / (steps + 9.0) * 1e3).floor() / 1e3;
        let message = format!(
            "a decay of {} averages about {window:.0} steps, and the run has {steps}: warmed up, the decay gets to {reached} \
             only",
            toml_number(decay)
        );
        // Of about a twentieth of the run.
        let change = match 1.0 - 20.0 / steps {
            decay if decay > 0.0 => Change::set("train", "ema", toml_number((decay * 1e3).floor() / 1e3)),
            _ => Change::without("train", "ema"),
        };
        SettingFinding { harms: false, ..finding("train", "ema", message, vec![change]) }
    })
}

/// What bounds the way that updates can move weights.
#[derive(Clone, Copy)]
struct Bounds {
    lr: f64,
    clip: Option<f64>,
    eps: f64,
}

/// A rate, a limit or an eps that leaves weights where they are, however long the gradients.
fn reach(experiment: &Experiment) -> Result<Option<SettingFinding>, RunError> {
    let recipe = &experiment.recipe;
    let graph = train_graph(&StepSpec {
        model: experiment.model.as_ref(),
        input: &experiment.input,
        batch: experiment.evaluation_batch(),
        optimiser: &recipe.optimiser,
        scaling: &LossScale::Off,
        clip: None,
        expose_gradients: false,
    })
    .map_err(crate::session::TrainError::from)?;
    let (mut squares, mut count) = (0.0, 0.0);
    for slot in graph.slots.iter().filter(|s| matches!(s.kind, SlotKind::Weight { decay: true })) {
        let elements = slot.ty.shape.count() as f64;
        let square = match slot.init {
            Init::Constant(value) => value * value,
            Init::Normal { std } => std * std,
            Init::Uniform { bound } => bound * bound / 3.0,
        };
        (squares, count) = (squares + elements * square, count + elements);
    }
    let size = (squares / f64::max(count, 1.0)).sqrt();
    if size == 0.0 {
        return Ok(None);
    }
    let rates: f64 = (0..experiment.steps).map(|step| recipe.schedule.factor(step, experiment.steps)).sum();
    // Root mean square of all updates together, over that of the weights.
    let way = |b: Bounds| {
        let of_clip = b.clip.map_or(f64::INFINITY, |clip| clip / count.sqrt());
        let update = match &recipe.optimiser {
            // |m| / (√v + eps) is about 1 at most, and gradients are hardly larger than 1.
            Optimiser::AdamW(_) => (of_clip.min(1.0) / b.eps).min(1.0),
            Optimiser::Sgd(o) => of_clip / (1.0 - o.momentum),
        };
        b.lr * rates * update / size
    };
    let eps = match &recipe.optimiser {
        Optimiser::AdamW(o) => o.eps,
        Optimiser::Sgd(_) => 0.0,
    };
    let bounds = Bounds { lr: recipe.optimiser.lr(), clip: recipe.train.clip, eps };
    let now = way(bounds);
    if now >= REACH {
        return Ok(None);
    }
    let usual = AdamW::default();
    let rate = if matches!(recipe.optimiser, Optimiser::AdamW(_)) { usual.lr } else { Sgd::default().lr };
    let candidates = [
        (Bounds { eps: usual.eps, ..bounds }, Change::set("optimiser", "eps", toml_number(usual.eps))),
        (Bounds { clip: None, ..bounds }, Change::set("train", "clip", "1.0")),
        (Bounds { lr: rate, ..bounds }, Change::set("optimiser", "lr", toml_number(rate))),
    ];
    let cured = candidates.into_iter().find(|(bounds, _)| way(*bounds) >= REACH);
    Ok(cured.map(|(_, change)| {
        let message = format!(
            "it is so {} that all updates of the run together move weights by at most {:.1e} of their size",
            if change.key == "eps" { "large" } else { "small" },
            now
        );
        finding(&change.section.clone(), &change.key.clone(), message, vec![change])
    }))
}

/// A policy that lowers no operation of this model.
pub(super) fn quantises_nothing(policy: &Policy, graph: &Graph, assigned: &Graph) -> Option<SettingFinding> {
    if has_low(policy, assigned) || (policy.low.is_none() && policy.split.is_none()) {
        return None;
    }
    let bare = Policy { overrides: Vec::new(), ..policy.clone() };
    let harmless = |section: &str, key: &str, message: String, change: Change| SettingFinding {
        harms: false,
        ..finding(section, key, message, vec![change])
    };
    let name = &policy.name;
    if !policy.overrides.is_empty() && has_low(&bare, &halfstep_graph::precision::assign(graph, &bare).0) {
        let message =
            format!("they keep every operation out of {name}: nothing of this model is computed in it");
        return Some(harmless("precision", "overrides", message, Change::without("precision", "overrides")));
    }
    let message = format!(
        "\"{name}\" lowers no operation of this model: what could be lowered stays in 16 bits, such as its last product"
    );
    Some(harmless("precision", "policy", message, Change::set("precision", "policy", "\"bf16\"")))
}

/// A margin that takes most of a format's powers of two.
pub(super) fn margin(policy: &Policy) -> Option<SettingFinding> {
    let narrow = policy.narrow?;
    let (Scaling::Delayed { margin, .. } | Scaling::Current { margin }) = narrow.scaling else { return None };
    let info = narrow.forward.info();
    let all = (info.max_finite / info.min_subnormal).log2();
    (f64::from(margin) > all / 2.0).then(|| {
        let section = format!("precision.{}", policy.name);
        let message = format!(
            "{margin} powers of two are left free above the largest magnitude, of the {all:.0} that {} has",
            narrow.forward.name()
        );
        finding(&section, "margin", message, vec![Change::set(&section, "margin", "0")])
    })
}

/// Whether something is stored or multiplied as the policy is there for.
fn has_low(policy: &Policy, assigned: &Graph) -> bool {
    match (policy.narrow, policy.low) {
        (Some(_), _) => assigned.nodes.iter().any(|n| matches!(n.op, Op::Quantise(_))),
        (None, Some(low)) => assigned.values.iter().any(|v| v.ty.dtype == low && v.ty.dtype != DType::F32),
        (None, None) => assigned.nodes.iter().any(|n| n.split.is_some()),
    }
}

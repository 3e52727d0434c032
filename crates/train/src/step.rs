//! The training step and the evaluation of a model as graphs.

use halfstep_graph::precision::{Policy, keep_state};
use halfstep_graph::{
    Binary, Graph, GraphError, Init, Phase, RESIDUAL, Residuals, Shape, Shard, Slot, SlotId, SlotKind, Unary,
    ValueId, ValueType, When, Write, differentiate, shard,
};
use halfstep_nn::{Context, InputSpec, Model};

use crate::optimiser::{Optimiser, UpdateInputs, count_step};
use crate::scaler::{LossScale, Scale};
use crate::step_options::{Reduce, StepOptions};

/// What a training step is made of.
#[derive(Clone, Copy)]
pub struct StepSpec<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// The form of a sample.
    pub input: &'a InputSpec,
    /// Samples in a batch; of a batch that ranks share, in one rank's part.
    pub batch: usize,
    /// How gradients become weights.
    pub optimiser: &'a Optimiser,
    /// How the loss is scaled.
    pub scaling: &'a LossScale,
    /// Largest global norm of the unscaled gradients; larger ones are shrunk to it. None leaves
    /// them.
    pub clip: Option<f64>,
    /// Whether gradients, still scaled, are outputs called `grad.<slot>`: for tests and diagnosis.
    pub expose_gradients: bool,
}

/// One step: forward pass, mean cross-entropy, gradients, and the update of all state as one
/// transaction.
///
/// Inputs: `x` as [`InputSpec::value_type`] says, `y` i32\[rows\], `key` i32\[4\], `lr` f32\[\].
/// Outputs: `loss` (unscaled), `grad_norm` (unscaled, before clipping), `committed` (1 or 0),
/// `scale` (used in this step).
///
/// The step commits if the global norm of the scaled gradients is finite, and new running
/// statistics and moments are, whatever the precision. Otherwise weights, moments, statistics and
/// the step count stay as they were and only the scaler's state changes. Clipping is min(1, clip /
/// (norm + 1e-6)) as in torch's `clip_grad_norm_`, of unscaled gradients.
///
/// # Errors
/// The model does not take this input, or cannot be differentiated.
pub fn train_graph(spec: &StepSpec<'_>) -> Result<Graph, GraphError> {
    whole_step(spec, &StepOptions::default(), 1)
}

/// The programs of a step: one, or two over the same slots.
#[derive(Clone, Debug)]
pub struct StepGraphs {
    /// The step; or, of a batch that is worked through in parts, one part.
    pub train: Graph,
    /// The update after the last part.
    pub apply: Option<Graph>,
}

/// [`train_graph`] with options.
///
/// A batch in k parts: `train` takes the input `first` f32\[\] (1 for the first part, else 0) in
/// place of `lr`, and adds the part's scaled gradients, staged statistics and loss to slots called
/// `accumulate.…`. `apply` takes `lr` and ends the step with their means, once for all parts: one
/// norm, one decision whether it commits, one unscaling, one clipping. Running statistics are the
/// mean of what each part alone would make of them.
///
/// On several ranks the loss of each is divided by their number, so that the sum of their gradients
/// is that of the mean loss of the whole batch; [`shard`] says what is summed where. Of a batch in
/// parts, gradients are summed in `apply`.
///
/// # Errors
/// As [`train_graph`].
pub fn step_graphs(
    spec: &StepSpec<'_>,
    options: &StepOptions,
    ranks: usize,
) -> Result<StepGraphs, GraphError> {
    if options.accumulate <= 1 {
        return Ok(StepGraphs { train: whole_step(spec, options, ranks)?, apply: None });
    }
    let train = part_of_step(spec, options, ranks)?;
    let apply = end_of_step(spec, options, &train, ranks)?;
    Ok(StepGraphs { train, apply: Some(apply) })
}

impl StepGraphs {
    /// The same programs with state kept as `policy` says. `train` then names all slots of both.
    #[must_use]
    pub fn keep_state(self, policy: &Policy) -> StepGraphs {
        let mut train = keep_state(&self.train, policy);
        let apply = self.apply.map(|apply| keep_state(&apply, policy));
        for slot in apply.iter().flat_map(|apply| &apply.slots) {
            if train.slot_named(&slot.name).is_none() {
                train.slots.push(slot.clone());
            }
        }
        StepGraphs { train, apply }
    }
}

/// Begins the name of every slot that sums up the parts of a batch. They hold nothing between
/// steps.
pub const ACCUMULATE: &str = "accumulate.";
/// Begins the name of the slot of a weight's moving average; the weight's name follows.
pub const AVERAGE: &str = "optimiser.average.";

/// Bytes of gradients whose sum over ranks begins as soon as they are there: enough that a message
/// costs more by its bytes than by being one, and few enough that the first sums begin early in the
/// backward pass.
const BUCKET_BYTES: usize = 1 << 20;

/// Bytes of the copy that a checkpoint is written from: all lasting state of these slots, in which
/// every element takes four.
pub fn snapshot_bytes(slots: &[Slot]) -> usize {
    slots.iter().filter(|s| is_lasting(s)).map(|s| 4 * s.ty.shape.count()).sum()
}

/// Whether a slot outlives a step: not sums over parts of a batch, nor what rounding has left of a
/// rank's gradients.
pub fn is_lasting(slot: &Slot) -> bool {
    !slot.name.starts_with(ACCUMULATE) && !slot.name.starts_with(RESIDUAL)
}

/// One rank's share of a step, given what each rank has a part of, and the mean loss of each rank's
/// samples.
fn share(
    graph: &Graph,
    options: &StepOptions,
    ranks: usize,
    (sums, loss): (&[ValueId], &[ValueId]),
    scale: Scale,
) -> Result<Graph, GraphError> {
    let residuals = Residuals { scale: scale.reciprocal.map(|reciprocal| (scale.scale, reciprocal)) };
    let bf16 = (options.reduce == Reduce::Bf16).then_some(residuals);
    shard(graph, &Shard { ranks, sums, means: loss, bf16, bucket_bytes: BUCKET_BYTES })
}

/// A step up to its gradients.
struct Backward {
    /// The scalar input besides samples, targets and key.
    input: ValueId,
    loss: ValueId,
    scale: Scale,
    /// The weights that are trained.
    weights: Vec<SlotId>,
    /// Of each of them, scaled.
    gradients: Vec<ValueId>,
}

fn backward(
    g: &mut Graph,
    spec: &StepSpec<'_>,
    options: &StepOptions,
    ranks: usize,
    (batch, input): (usize, &str),
) -> Result<Backward, GraphError> {
    let frozen = |name: &str| options.is_frozen(name);
    let ctx = Context::train().on_ranks(ranks).freezing(&frozen);
    let (x, y) = inputs(g, spec.input, batch);
    ctx.key(g);
    let input = g.input(input, ValueType::f32(Shape::scalar()));
    let (loss, _) = forward(g, spec.model, (x, y), &ctx)?;
    let scale = spec.scaling.read(g)?;
    let weights: Vec<SlotId> = g.weights().filter(|&slot| !options.is_frozen(&g.slot(slot).name)).collect();
    // Gradients are seeded with the loss scale over the number of ranks.
    let seed = match ranks {
        1 => scale.scale,
        _ => g.scoped("loss", |g| g.scale(scale.scale, 1.0 / ranks as f64))?,
    };
    let gradients = differentiate(g, loss, seed, &weights)?;
    Ok(Backward { input, loss, scale, weights, gradients })
}

fn whole_step(spec: &StepSpec<'_>, options: &StepOptions, ranks: usize) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let Backward { input: lr, loss, scale, weights, gradients } =
        backward(g, spec, options, ranks, (spec.batch, "lr"))?;
    let pairs: Vec<(SlotId, ValueId)> = weights.into_iter().zip(gradients.iter().copied()).collect();
    update(g, spec, options, &pairs, (lr, scale))?;
    g.add_output("loss", loss);
    share(&graph, options, ranks, (&gradients, &[loss]), scale)
}

fn part_of_step(spec: &StepSpec<'_>, options: &StepOptions, ranks: usize) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let batch = spec.batch / options.accumulate;
    let Backward { input: first, loss, scale, weights, gradients } =
        backward(g, spec, options, ranks, (batch, "first"))?;
    let staged = std::mem::take(&mut g.writes);
    g.in_phase(Phase::Update, |g| {
        let named = |g: &Graph, slot: SlotId| g.slot(slot).name.clone();
        let mut sums: Vec<(String, ValueId)> = vec![("loss".into(), loss)];
        sums.extend(weights.iter().zip(&gradients).map(|(&slot, &gradient)| (named(g, slot), gradient)));
        sums.extend(staged.iter().map(|write| (named(g, write.slot), write.value)));
        for (name, value) in sums {
            let ty = g.value(value).ty.clone();
            let slot =
                g.add_slot(&format!("{ACCUMULATE}{name}"), ty, SlotKind::Moment, Init::Constant(0.0))?;
            g.scoped(&name, |g| {
                let before = g.read(slot);
                let sum = g.add(before, value)?;
                // Not a product with zero: what the step before left may not be finite.
                let sum = g.select(first, value, sum)?;
                g.write(slot, sum, When::Always);
                Ok::<_, GraphError>(())
            })?;
        }
        Ok::<(), GraphError>(())
    })?;
    g.add_output("loss", loss);
    // The statistics of batch norms alone: gradients and loss are summed at the end of the step.
    share(&graph, options, ranks, (&[], &[]), scale)
}

fn end_of_step(
    spec: &StepSpec<'_>,
    options: &StepOptions,
    part: &Graph,
    ranks: usize,
) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let lr = g.input("lr", ValueType::f32(Shape::scalar()));
    let (sums, loss, scale) = g.in_phase(Phase::Update, |g| {
        let loss_scale = spec.scaling.read(g)?;
        let each = 1.0 / options.accumulate as f64;
        let reciprocal = match loss_scale.reciprocal {
            Some(reciprocal) => g.scale(reciprocal, each)?,
            None => g.scalar(each),
        };
        let scale = Scale { reciprocal: Some(reciprocal), ..loss_scale };
        let mut gradients = Vec::new();
        for slot in &part.slots {
            let Some(sum) = part.slot_named(&format!("{ACCUMULATE}{}", slot.name)) else { continue };
            let sum = part.slot(sum);
            let sum_slot = g.add_slot(&sum.name, sum.ty.clone(), sum.kind, sum.init)?;
            let slot_here = g.add_slot(&slot.name, slot.ty.clone(), slot.kind, slot.init)?;
            let sum = g.read(sum_slot);
            if slot.kind == SlotKind::Statistic {
                let mean = g.scoped(&slot.name, |g| g.scale(sum, each))?;
                g.write(slot_here, mean, When::Committed);
            } else {
                gradients.push((slot_here, sum));
            }
        }
        update(g, spec, options, &gradients, (lr, scale))?;
        let scalar = ValueType::f32(Shape::scalar());
        let loss = g.add_slot(&format!("{ACCUMULATE}loss"), scalar, SlotKind::Moment, Init::Constant(0.0))?;
        let sum = g.read(loss);
        let loss = g.scoped("loss", |g| g.scale(sum, each))?;
        g.add_output("loss", loss);
        let sums: Vec<ValueId> = gradients.into_iter().map(|(_, sum)| sum).collect();
        Ok::<_, GraphError>((sums, sum, loss_scale))
    })?;
    share(&graph, options, ranks, (&sums, &[loss]), scale)
}

/// From scaled gradients to new state, as one transaction.
fn update(
    g: &mut Graph,
    spec: &StepSpec<'_>,
    options: &StepOptions,
    pairs: &[(SlotId, ValueId)],
    (lr, scale): (ValueId, Scale),
) -> Result<(), GraphError> {
    let gradients: Vec<ValueId> = pairs.iter().map(|&(_, gradient)| gradient).collect();
    g.in_phase(Phase::Update, |g| {
        let scaled_norm = g.scoped("grad_norm", |g| g.global_norm(&gradients))?;
        let (commit, norm, grad_scale) = g.scoped("grad_norm", |g| {
            let commit = all_finite(g, scaled_norm)?;
            let norm = match scale.reciprocal {
                Some(reciprocal) => g.mul(scaled_norm, reciprocal)?,
                None => scaled_norm,
            };
            let grad_scale = gradient_factor(g, norm, scale.reciprocal, spec.clip)?;
            let commit = moments_stay_finite(g, (scaled_norm, grad_scale), commit)?;
            Ok::<_, GraphError>((commit, norm, grad_scale))
        })?;
        let step = match (spec.optimiser, options.average) {
            (Optimiser::Sgd(_), None) => None,
            (Optimiser::AdamW(_), _) | (_, Some(_)) => Some(count_step(g)?),
        };
        spec.optimiser.update(g, pairs, &UpdateInputs { lr, grad_scale, step, commit }, options)?;
        if let (Some(decay), Some(step)) = (options.average, step) {
            average(g, pairs, decay, step)?;
        }
        spec.scaling.update(g, commit)?;
        g.commit = Some(commit);
        g.add_output("grad_norm", norm);
        g.add_output("committed", commit);
        g.add_output("scale", scale.scale);
        if spec.expose_gradients {
            for &(slot, gradient) in pairs {
                let name = format!("grad.{}", g.slot(slot).name);
                g.add_output(&name, gradient);
            }
        }
        Ok(())
    })
}

/// Moves every average towards its new weight, at the step of this number, counted from 1. It is an
/// f32 number that moves by a small part of a difference: the sum is kept in f32, as weights are.
///
/// The decay is min(decay, n / (n + 9)), as TensorFlow's `ExponentialMovingAverage` has it with
/// `num_updates` = n − 1: at first an average over few steps, in which the weights that were drawn
/// have no say.
fn average(g: &mut Graph, pairs: &[(SlotId, ValueId)], decay: f64, step: ValueId) -> Result<(), GraphError> {
    let new_part = g.scoped("average", |g| {
        let nine = g.scalar(9.0);
        let steps = g.add(step, nine)?;
        let of_start = g.div(nine, steps)?;
        let least = g.scalar(1.0 - decay);
        g.binary(Binary::Max, of_start, least)
    })?;
    for &(slot, _) in pairs {
        let weight = g.slot(slot).clone();
        let Some(new) = g.writes.iter().find(|w| w.slot == slot).map(|w| w.value) else { continue };
        let slot =
            g.add_slot(&format!("{AVERAGE}{}", weight.name), weight.ty, SlotKind::Moment, weight.init)?;
        let moved = g.scoped(&weight.name, |g| {
            let before = g.read(slot);
            let way = g.sub(new, before)?;
            let part = g.mul(way, new_part)?;
            g.add(before, part)
        })?;
        g.write(slot, moved, When::Committed);
    }
    Ok(())
}

/// The evaluation of a batch: no state changes.
///
/// Inputs: `x`, `y`. Outputs: `loss` (mean), `losses` f32\[rows\], `logits` f32\[rows, classes\],
/// `predictions` i32\[rows\] (the first largest logit).
///
/// # Errors
/// The model does not take this input.
pub fn eval_graph(model: &dyn Model, input: &InputSpec, batch: usize) -> Result<Graph, GraphError> {
    let mut g = Graph::new();
    let inputs = inputs(&mut g, input, batch);
    let (loss, parts) = forward(&mut g, model, inputs, &Context::eval())?;
    let predictions = g.scoped("predictions", |g| g.argmax(parts.logits))?;
    g.add_output("loss", loss);
    g.add_output("losses", parts.losses);
    g.add_output("logits", parts.logits);
    g.add_output("predictions", predictions);
    Ok(g)
}

/// What a model says of a batch, without targets: output `logits` f32\[rows, classes\].
///
/// # Errors
/// The model does not take this input.
pub fn predict_graph(model: &dyn Model, input: &InputSpec, batch: usize) -> Result<Graph, GraphError> {
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(batch));
    let logits = logits(&mut g, model, x, &Context::eval())?;
    g.add_output("logits", logits);
    Ok(g)
}

/// Samples `x` and targets `y` of a batch.
fn inputs(g: &mut Graph, input: &InputSpec, batch: usize) -> (ValueId, ValueId) {
    let x = g.input("x", input.value_type(batch));
    let y = g.input("y", ValueType::i32(Shape::from([input.rows(batch)])));
    (x, y)
}

struct Rows {
    logits: ValueId,
    losses: ValueId,
}

/// Logits as `[rows, classes]`.
fn logits(g: &mut Graph, model: &dyn Model, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
    let logits = model.forward(g, x, ctx)?;
    let shape = g.shape(logits).clone();
    g.scoped("loss", |g| g.reshape(logits, [shape.rows(), shape.last()]))
}

/// Mean cross-entropy of a batch, and its parts.
fn forward(
    g: &mut Graph,
    model: &dyn Model,
    (x, y): (ValueId, ValueId),
    ctx: &Context,
) -> Result<(ValueId, Rows), GraphError> {
    let logits = logits(g, model, x, ctx)?;
    g.scoped("loss", |g| {
        let losses = g.cross_entropy(logits, y)?;
        let loss = g.mean(losses, &[0])?;
        Ok((loss, Rows { logits, losses }))
    })
}

/// 1 if the gradients' norm and all running statistics staged so far are finite, else 0.
///
/// A variance can overflow where no gradient does: dividing by its root makes the gradients zero.
fn all_finite(g: &mut Graph, scaled_norm: ValueId) -> Result<ValueId, GraphError> {
    let gradients = g.unary(Unary::IsFinite, scaled_norm)?;
    let is_statistic = |w: &&Write| g.slot(w.slot).kind == SlotKind::Statistic;
    let statistics: Vec<ValueId> = g.writes.iter().filter(is_statistic).map(|w| w.value).collect();
    if statistics.is_empty() {
        return Ok(gradients);
    }
    let norm = g.global_norm(&statistics)?;
    let statistics = g.unary(Unary::IsFinite, norm)?;
    g.mul(gradients, statistics)
}

/// Largest norm of the gradients, as the update takes them, of a step that commits: the root of
/// half of f32's largest number. A moment of AdamW is a mean, with weights of sum 1, of the moment
/// before and a gradient or its square, so that none is ever above that half; the sum that SGD
/// keeps is at most this over 1 − momentum.
pub const NORM_LIMIT: f64 = 1.304_38e19;

/// `commit`, but 0 where a moment could leave f32's range: known from the norm, without a look at
/// the moments.
fn moments_stay_finite(
    g: &mut Graph,
    (scaled_norm, grad_scale): (ValueId, ValueId),
    commit: ValueId,
) -> Result<ValueId, GraphError> {
    let norm = g.mul(scaled_norm, grad_scale)?;
    let limit = g.scalar(NORM_LIMIT);
    let fits = g.binary(Binary::GreaterEqual, limit, norm)?;
    g.mul(commit, fits)
}

/// What the optimiser multiplies gradients with: clipping over loss scale.
fn gradient_factor(
    g: &mut Graph,
    norm: ValueId,
    reciprocal: Option<ValueId>,
    clip: Option<f64>,
) -> Result<ValueId, GraphError> {
    let one = g.scalar(1.0);
    let Some(limit) = clip else { return Ok(reciprocal.unwrap_or(one)) };
    let (limit, tiny) = (g.scalar(limit), g.scalar(1e-6));
    let norm = g.add(norm, tiny)?;
    let factor = g.div(limit, norm)?;
    let factor = g.binary(Binary::Min, factor, one)?;
    match reciprocal {
        Some(reciprocal) => g.mul(factor, reciprocal),
        None => Ok(factor),
    }
}

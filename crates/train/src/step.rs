//! The training step and the evaluation of a model as graphs.

use halfstep_graph::{
    Binary, Graph, GraphError, Phase, Shape, SlotId, SlotKind, Unary, ValueId, ValueType, Write,
    differentiate,
};
use halfstep_nn::{Context, InputSpec, Model};

use crate::optimiser::{Optimiser, UpdateInputs};
use crate::scaler::LossScale;

/// What a training step is made of.
#[derive(Clone, Copy)]
pub struct StepSpec<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// The form of a sample.
    pub input: &'a InputSpec,
    /// Samples in a batch.
    pub batch: usize,
    /// How gradients become weights.
    pub optimiser: &'a Optimiser,
    /// How the loss is scaled.
    pub scaling: &'a LossScale,
    /// Largest global norm of the unscaled gradients; larger ones are shrunk to it. None leaves them.
    pub clip: Option<f64>,
    /// Whether gradients, still scaled, are outputs called `grad.<slot>`: for tests and diagnosis.
    pub expose_gradients: bool,
}

/// One step: forward pass, mean cross-entropy, gradients, and the update of all state as one transaction.
///
/// Inputs: `x` as [`InputSpec::value_type`] says, `y` i32\[rows\], `key` i32\[4\], `lr` f32\[\]. Outputs: `loss`
/// (unscaled), `grad_norm` (unscaled, before clipping), `committed` (1 or 0), `scale` (used in this step).
///
/// The step commits if the global norm of the scaled gradients is finite, and new running statistics are, whatever the
/// precision. Otherwise weights, moments, statistics and the step count stay as they were and only the scaler's state
/// changes. Clipping is
/// min(1, clip / (norm + 1e-6)) as in torch's `clip_grad_norm_`, of unscaled gradients.
///
/// Errors: the model does not take this input, or cannot be differentiated.
pub fn train_graph(spec: &StepSpec<'_>) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let ctx = Context::train();
    let (x, y) = inputs(g, spec.input, spec.batch);
    ctx.key(g);
    let lr = g.input("lr", ValueType::f32(Shape::scalar()));
    let (loss, _) = forward(g, spec.model, (x, y), &ctx)?;
    let scale = spec.scaling.read(g)?;
    let weights: Vec<SlotId> = g.weights().collect();
    let gradients = differentiate(g, loss, scale.scale, &weights)?;
    g.in_phase(Phase::Update, |g| {
        let scaled_norm = g.scoped("grad_norm", |g| g.global_norm(&gradients))?;
        let (commit, norm, grad_scale) = g.scoped("grad_norm", |g| {
            let commit = all_finite(g, scaled_norm)?;
            let norm = match scale.reciprocal {
                Some(reciprocal) => g.mul(scaled_norm, reciprocal)?,
                None => scaled_norm,
            };
            let grad_scale = gradient_factor(g, norm, scale.reciprocal, spec.clip)?;
            Ok::<_, GraphError>((commit, norm, grad_scale))
        })?;
        let pairs: Vec<(SlotId, ValueId)> = weights.iter().copied().zip(gradients.iter().copied()).collect();
        spec.optimiser.update(g, &pairs, &UpdateInputs { lr, grad_scale, commit })?;
        spec.scaling.update(g, commit)?;
        g.commit = Some(commit);
        g.add_output("grad_norm", norm);
        g.add_output("committed", commit);
        g.add_output("scale", scale.scale);
        if spec.expose_gradients {
            for (slot, gradient) in pairs {
                let name = format!("grad.{}", g.slot(slot).name);
                g.add_output(&name, gradient);
            }
        }
        Ok::<(), GraphError>(())
    })?;
    g.add_output("loss", loss);
    Ok(graph)
}

/// The evaluation of a batch: no state changes.
///
/// Inputs: `x`, `y`. Outputs: `loss` (mean), `losses` f32\[rows\], `logits` f32\[rows, classes\], `predictions`
/// i32\[rows\] (the first largest logit).
///
/// Errors: the model does not take this input.
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
/// Errors: the model does not take this input.
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

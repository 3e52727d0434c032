//! Normalising layers.

use halfstep_graph::{
    Graph, GraphError, Init, Phase, Shape, SlotId, SlotKind, Unary, ValueId, ValueType, When,
};

use super::weight;
use crate::context::{Context, Mode};

/// torch's default for both norms.
const EPS: f64 = 1e-5;
/// torch's default for the running statistics.
const MOMENTUM: f64 = 0.1;

/// Layer norm over the last dimension (Ba et al. 2016), with `weight[D]` and `bias[D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    name: String,
    width: usize,
}

impl LayerNorm {
    /// A layer norm of `width` numbers with eps 1e-5.
    pub fn new(name: impl Into<String>, width: usize) -> LayerNorm {
        LayerNorm { name: name.into(), width }
    }

    /// `[…, D]` to `[…, D]`.
    ///
    /// # Errors
    /// The last dimension is not D; a slot of this name has another shape.
    pub fn forward(&self, g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let gamma = weight(g, "weight", Shape::from([self.width]), Init::Constant(1.0))?;
            let beta = weight(g, "bias", Shape::from([self.width]), Init::Constant(0.0))?;
            g.layer_norm(x, gamma, beta, EPS)
        })
    }
}

/// Batch norm over all but the last dimension (Ioffe and Szegedy 2015), with `weight[C]`, `bias[C]`
/// and the running statistics `running_mean[C]` and `running_var[C]`.
///
/// As torch: running ← (1 − momentum)·running + momentum·batch, where the running variance takes
/// the unbiased batch variance and the normalisation the biased one. The running statistics are
/// part of the step's transaction.
///
/// A norm whose weight and bias are frozen normalises with its running statistics in training too,
/// and they stay as they are, as in Keras (`trainable = False`): what is frozen is one function.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    name: String,
    channels: usize,
}

impl BatchNorm {
    /// A batch norm of `channels` channels with momentum 0.1 and eps 1e-5.
    pub fn new(name: impl Into<String>, channels: usize) -> BatchNorm {
        BatchNorm { name: name.into(), channels }
    }

    /// `[…, C]` to `[…, C]`.
    ///
    /// # Errors
    /// The last dimension is not C; in training, one value per channel only, whose variance is
    /// unknown; a slot of this name has another shape.
    pub fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let shape = Shape::from([self.channels]);
            let gamma = weight(g, "weight", shape.clone(), Init::Constant(1.0))?;
            let beta = weight(g, "bias", shape.clone(), Init::Constant(0.0))?;
            let mut statistic = |name: &str, first: f64| {
                let ty = ValueType::f32(shape.clone());
                g.add_slot(name, ty, SlotKind::Statistic, Init::Constant(first))
            };
            let running_mean = statistic("running_mean", 0.0)?;
            let running_var = statistic("running_var", 1.0)?;
            let frozen = ["weight", "bias"].iter().all(|name| ctx.is_frozen(&g.path(name)));
            match ctx.mode {
                Mode::Train if !frozen => train(g, x, (gamma, beta), (running_mean, running_var), ctx.ranks),
                Mode::Train | Mode::Eval => {
                    let (mean, var) = (g.read(running_mean), g.read(running_var));
                    eval(g, x, [gamma, beta, mean, var])
                }
            }
        })
    }
}

fn train(
    g: &mut Graph,
    x: ValueId,
    (gamma, beta): (ValueId, ValueId),
    (running_mean, running_var): (SlotId, SlotId),
    ranks: usize,
) -> Result<ValueId, GraphError> {
    let values = ranks * g.shape(x).rows();
    if values < 2 {
        return Err(GraphError::Operands {
            op: "batch_norm".into(),
            at: g.path(""),
            problem: format!(
                "{} has one value per channel, and the variance of one value is not known; \
                 expected a batch of at least 2",
                g.shape(x)
            ),
        });
    }
    let (y, mean, var) = g.batch_norm(x, gamma, beta, EPS)?;
    let unbias = values as f64 / (values - 1) as f64;
    g.in_phase(Phase::Update, |g| {
        for (slot, batch, factor) in [(running_mean, mean, 1.0), (running_var, var, unbias)] {
            let before = g.read(slot);
            let kept = g.scale(before, 1.0 - MOMENTUM)?;
            let new = g.scale(batch, MOMENTUM * factor)?;
            let after = g.add(kept, new)?;
            g.write(slot, after, When::Committed);
        }
        Ok(y)
    })
}

fn eval(g: &mut Graph, x: ValueId, [gamma, beta, mean, var]: [ValueId; 4]) -> Result<ValueId, GraphError> {
    let eps = g.scalar(EPS);
    let var = g.add(var, eps)?;
    let rstd = g.unary(Unary::Rsqrt, var)?;
    let factor = g.mul(gamma, rstd)?;
    let shift = g.mul(mean, factor)?;
    let shift = g.sub(beta, shift)?;
    let y = g.mul(x, factor)?;
    g.add(y, shift)
}

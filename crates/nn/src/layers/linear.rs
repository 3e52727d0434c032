//! The affine layer.

use halfstep_graph::{Graph, GraphError, Init, Shape, ValueId};

use super::{fan_in_uniform, weight};

/// y = x·Wᵀ + b over the last dimension, with `weight[out, in]` and `bias[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    name: String,
    inputs: usize,
    outputs: usize,
    bias: bool,
    init: Init,
}

impl Linear {
    /// A layer from `inputs` to `outputs` numbers, with bias and torch's default initial weights.
    pub fn new(name: impl Into<String>, inputs: usize, outputs: usize) -> Linear {
        Linear { name: name.into(), inputs, outputs, bias: true, init: fan_in_uniform(inputs) }
    }

    /// The same layer without its bias.
    pub fn without_bias(mut self) -> Linear {
        self.bias = false;
        self
    }

    /// The same layer with its weight (not its bias) drawn from `init`.
    pub fn with_init(mut self, init: Init) -> Linear {
        self.init = init;
        self
    }

    /// `[…, in]` to `[…, out]`.
    ///
    /// # Errors
    /// The last dimension is not `in`; a slot of this name has another shape.
    pub fn forward(&self, g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let w = weight(g, "weight", Shape::from([self.outputs, self.inputs]), self.init)?;
            let bias_init = fan_in_uniform(self.inputs);
            let bias =
                self.bias.then(|| weight(g, "bias", Shape::from([self.outputs]), bias_init)).transpose()?;
            project(g, x, w, bias)
        })
    }
}

/// x·Wᵀ + b over the last dimension.
pub(crate) fn project(
    g: &mut Graph,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, GraphError> {
    let (shape, outputs) = (g.shape(x).clone(), g.shape(w)[0]);
    let rows = g.reshape(x, [shape.rows(), shape.last()])?;
    let y = g.matmul(rows, w, false, true)?;
    let y = bias.map_or(Ok(y), |bias| g.add(y, bias))?;
    let mut sizes = shape[..shape.len().saturating_sub(1)].to_vec();
    sizes.push(outputs);
    g.reshape(y, sizes)
}

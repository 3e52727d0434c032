//! The multi-layer perceptron.

use halfstep_graph::{Graph, GraphError, ValueId};

use crate::Model;
use crate::context::Context;
use crate::layers::{Linear, relu};

/// Linear layers with ReLU between them; images are read as rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Layers between successive `widths`, from the input's to the number of classes.
    pub fn new(widths: &[usize]) -> Mlp {
        let layer = |(i, w): (usize, &[usize])| Linear::new(format!("layers.{i}"), w[0], w[1]);
        Mlp { layers: widths.windows(2).enumerate().map(layer).collect() }
    }
}

impl Model for Mlp {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        let shape = g.shape(x).clone();
        let batch = shape.first().copied().unwrap_or(1);
        let mut x = g.reshape(x, [batch, shape.count() / batch])?;
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x = relu(g, &format!("layers.{}.relu", i - 1), x)?;
            }
            x = layer.forward(g, x)?;
        }
        Ok(x)
    }
}

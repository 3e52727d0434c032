//! A small convolutional net.

use halfstep_graph::{Graph, GraphError, ValueId};

use crate::Model;
use crate::context::Context;
use crate::layers::{Conv2d, Linear, max_pool, relu};

/// Stages of 3×3 convolution, ReLU and 2×2 max pooling, then a hidden and an output layer.
///
/// The first hidden layer reads the last stage's pixels in the order height, width, channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Cnn {
    convs: Vec<Conv2d>,
    hidden: Linear,
    head: Linear,
}

impl Cnn {
    /// For images of `size` = (height, width, channels), with one stage per entry of `stages`, its
    /// output channels.
    ///
    /// Each stage halves height and width, rounding down.
    pub fn new(size: (usize, usize, usize), stages: &[usize], hidden: usize, classes: usize) -> Cnn {
        let (mut height, mut width, mut channels) = size;
        let mut convs = Vec::new();
        for (i, &out) in stages.iter().enumerate() {
            convs.push(Conv2d::new(format!("convs.{i}"), channels, out, 3).pad(1));
            (height, width, channels) = (height / 2, width / 2, out);
        }
        let hidden_layer = Linear::new("hidden", height * width * channels, hidden);
        Cnn { convs, hidden: hidden_layer, head: Linear::new("head", hidden, classes) }
    }
}

impl Model for Cnn {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        let mut x = x;
        for (i, conv) in self.convs.iter().enumerate() {
            x = conv.forward(g, x)?;
            x = relu(g, &format!("convs.{i}.relu"), x)?;
            x = max_pool(g, &format!("convs.{i}.pool"), x, 2, 2)?;
        }
        let shape = g.shape(x).clone();
        let batch = shape.first().copied().unwrap_or(1);
        x = g.reshape(x, [batch, shape.count() / batch])?;
        x = self.hidden.forward(g, x)?;
        x = relu(g, "hidden.relu", x)?;
        self.head.forward(g, x)
    }
}

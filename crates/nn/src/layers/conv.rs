//! The two-dimensional convolution layer.

use halfstep_graph::{ConvGeometry, Graph, GraphError, Shape, ValueId};

use super::{fan_in_uniform, weight};

/// Convolution of `[N, H, W, C]` with `weight[O, K, K, C]` and an optional `bias[O]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    name: String,
    channels: usize,
    outputs: usize,
    window: usize,
    geometry: ConvGeometry,
    bias: bool,
}

impl Conv2d {
    /// A `window`×`window` convolution with stride 1, no padding, a bias and torch's default
    /// initial weights.
    pub fn new(name: impl Into<String>, channels: usize, outputs: usize, window: usize) -> Conv2d {
        let geometry = ConvGeometry { stride: 1, pad: 0 };
        Conv2d { name: name.into(), channels, outputs, window, geometry, bias: true }
    }

    /// The same layer with another stride.
    pub fn stride(mut self, stride: usize) -> Conv2d {
        self.geometry.stride = stride;
        self
    }

    /// The same layer with `pad` zeros on each side.
    pub fn pad(mut self, pad: usize) -> Conv2d {
        self.geometry.pad = pad;
        self
    }

    /// The same layer without its bias.
    pub fn without_bias(mut self) -> Conv2d {
        self.bias = false;
        self
    }

    /// `[N, H, W, C]` to `[N, H', W', O]`.
    ///
    /// # Errors
    /// Another number of channels; the window does not fit; a slot of this name has another shape.
    pub fn forward(&self, g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let init = fan_in_uniform(self.channels * self.window * self.window);
            let shape = Shape::from([self.outputs, self.window, self.window, self.channels]);
            let w = weight(g, "weight", shape, init)?;
            let bias = self.bias.then(|| weight(g, "bias", Shape::from([self.outputs]), init)).transpose()?;
            let y = g.conv2d(x, w, self.geometry)?;
            bias.map_or(Ok(y), |bias| g.add(y, bias))
        })
    }
}

//! ResNet-18 in its variant for 32×32 images.

use halfstep_graph::{Graph, GraphError, ValueId};

use crate::Model;
use crate::context::Context;
use crate::layers::{BatchNorm, Conv2d, Linear, add, global_mean_pool, relu};

/// A residual block of two 3×3 convolutions (He et al. 2016, figure 5 left).
#[derive(Clone, Debug, PartialEq)]
struct BasicBlock {
    name: String,
    c1: Conv2d,
    b1: BatchNorm,
    c2: Conv2d,
    b2: BatchNorm,
    /// A 1×1 convolution where the shape changes; else the identity.
    skip: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    fn new(name: String, inputs: usize, outputs: usize, stride: usize) -> BasicBlock {
        let skip = (stride != 1 || inputs != outputs).then(|| {
            let conv = Conv2d::new("skip.0", inputs, outputs, 1).stride(stride).without_bias();
            (conv, BatchNorm::new("skip.1", outputs))
        });
        BasicBlock {
            name,
            c1: Conv2d::new("c1", inputs, outputs, 3).stride(stride).pad(1).without_bias(),
            b1: BatchNorm::new("b1", outputs),
            c2: Conv2d::new("c2", outputs, outputs, 3).pad(1).without_bias(),
            b2: BatchNorm::new("b2", outputs),
            skip,
        }
    }

    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let y = self.c1.forward(g, x)?;
            let y = self.b1.forward(g, y, ctx)?;
            let y = relu(g, "relu1", y)?;
            let y = self.c2.forward(g, y)?;
            let y = self.b2.forward(g, y, ctx)?;
            let skip = match &self.skip {
                None => x,
                Some((conv, norm)) => {
                    let s = conv.forward(g, x)?;
                    norm.forward(g, s, ctx)?
                }
            };
            let sum = add(g, "add", y, skip)?;
            relu(g, "relu2", sum)
        })
    }
}

/// ResNet-18 (He et al. 2016) with a 3×3 stem and no first pooling: four stages of two basic blocks
/// at `width`, 2·`width`, 4·`width` and 8·`width` channels, the mean over pixels, and a linear
/// head.
#[derive(Clone, Debug, PartialEq)]
pub struct Resnet18 {
    stem: (Conv2d, BatchNorm),
    blocks: Vec<BasicBlock>,
    head: Linear,
}

impl Resnet18 {
    /// The net for images of `channels` channels.
    pub fn new(width: usize, classes: usize, channels: usize) -> Resnet18 {
        let stem = Conv2d::new("stem.0", channels, width, 3).pad(1).without_bias();
        let mut blocks = Vec::new();
        let mut inputs = width;
        for stage in 0..4 {
            for block in 0..2 {
                let outputs = width << stage;
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push(BasicBlock::new(format!("blocks.{}", blocks.len()), inputs, outputs, stride));
                inputs = outputs;
            }
        }
        let head = Linear::new("head", inputs, classes);
        Resnet18 { stem: (stem, BatchNorm::new("stem.1", width)), blocks, head }
    }
}

impl Model for Resnet18 {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let mut x = self.stem.0.forward(g, x)?;
        x = self.stem.1.forward(g, x, ctx)?;
        x = relu(g, "stem.2", x)?;
        for block in &self.blocks {
            x = block.forward(g, x, ctx)?;
        }
        x = global_mean_pool(g, "pool", x)?;
        self.head.forward(g, x)
    }
}

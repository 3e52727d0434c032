//! A model of your own from layers, trained in bf16 and in fp32 on the bundled digits.
//!
//! ```sh
//! cargo run --release --example custom_model
//! ```

#![allow(clippy::print_stdout)] // a program of its own

use halfstep::EngineRequest;
use halfstep::data::{Batch, DataSpec, Sampler, load};
use halfstep::evidence::Paired;
use halfstep::graph::precision::Policy;
use halfstep::graph::{Graph, GraphError, ValueId};
use halfstep::nn::layers::{Dropout, LayerNorm, Linear, add, gelu};
use halfstep::nn::{Context, Model};
use halfstep::train::checkpoint::host_slice;
use halfstep::train::recipe::input_spec;
use halfstep::train::session::{Session, SessionSpec};
use halfstep::train::train_loop::evaluate;

/// Blocks of x + down(gelu(up(norm(x)))): the feed-forward half of a transformer.
struct ResidualMlp {
    stem: Linear,
    blocks: Vec<(LayerNorm, Linear, Linear, Dropout)>,
    head: Linear,
}

impl ResidualMlp {
    fn new(inputs: usize, width: usize, blocks: usize, classes: usize) -> ResidualMlp {
        let block = |i: usize| {
            (
                LayerNorm::new(format!("blocks.{i}.norm"), width),
                Linear::new(format!("blocks.{i}.up"), width, 4 * width),
                Linear::new(format!("blocks.{i}.down"), 4 * width, width),
                Dropout::new(format!("blocks.{i}.drop"), 0.1),
            )
        };
        ResidualMlp {
            stem: Linear::new("stem", inputs, width),
            blocks: (0..blocks).map(block).collect(),
            head: Linear::new("head", width, classes),
        }
    }
}

impl Model for ResidualMlp {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let shape = g.shape(x).clone();
        let rows = g.reshape(x, [shape[0], shape.count() / shape[0]])?;
        let mut x = self.stem.forward(g, rows)?;
        for (i, (norm, up, down, drop)) in self.blocks.iter().enumerate() {
            let y = norm.forward(g, x)?;
            let y = up.forward(g, y)?;
            let y = gelu(g, &format!("blocks.{i}.gelu"), y)?;
            let y = down.forward(g, y)?;
            let y = drop.forward(g, y, ctx)?;
            x = add(g, &format!("blocks.{i}.sum"), x, y)?;
        }
        self.head.forward(g, x)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (batch, steps, lr) = (32, 300u64, 1e-3);
    let data = load(&DataSpec::bundled("digits")?, std::path::Path::new("."))?;
    let info = data.info();
    let input = input_spec(info.input, info.outputs);
    let model = ResidualMlp::new(input.elements(), 64, 2, info.outputs);
    let engine = halfstep::engine(EngineRequest::default())?;

    let mut accuracies = Vec::new();
    for seed in 0..3 {
        let mut pair = Vec::new();
        for name in ["fp32", "bf16"] {
            let policy = Policy::named(name)?;
            let spec = SessionSpec::new(&policy, batch, seed);
            let mut session = Session::new(engine.as_ref(), &model, &input, &policy, &spec)?;
            let mut sampler = Sampler::new(info.train_samples, batch, seed)?;
            let mut buffers = Batch::new(info.input, batch);
            for attempt in 0..steps {
                let (draw, indices) = sampler.batch(attempt);
                data.train.fill_batch(indices, draw, &mut buffers)?;
                session.step(host_slice(&buffers.x), &buffers.labels, lr)?;
            }
            let result = evaluate(&mut session, &data.test, batch)?;
            println!(
                "{name} seed {seed}: test loss {:.4}, accuracy {:.2} %",
                result.loss,
                result.accuracy * 100.0
            );
            pair.push(result.accuracy);
        }
        accuracies.push((pair[0], pair[1]));
    }
    if let Some(Paired { mean, lower: Some(lower), .. }) = Paired::of(&accuracies) {
        println!("bf16 against fp32: {:+.2} points, at worst {:+.2} (95 %)", mean * 100.0, lower * 100.0);
    }
    Ok(())
}

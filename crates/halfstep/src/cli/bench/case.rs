//! What is measured: a model of the comparison with other frameworks, its sizes, and a random batch
//! for it.

use std::num::NonZeroUsize;

use halfstep::float::{Philox, unit_f64};
use halfstep::graph::engine::HostSlice;
use halfstep::nn::{GptSpec, InputSpec, MlpSpec, ModelSpec, Resnet18Spec};

use super::super::args::{BenchModel, BenchStep};
use super::super::failure::Failure;

/// A model with its sizes, as asked.
pub struct Case {
    /// The model's name.
    pub name: &'static str,
    /// The model.
    pub model: ModelSpec,
    /// What it takes.
    pub input: InputSpec,
    /// Classes, or tokens of the vocabulary.
    pub outputs: usize,
    /// Samples in a step.
    pub batch: usize,
}

/// A random batch for a [`Case`].
pub struct RandomBatch {
    floats: Vec<f32>,
    tokens: Vec<i32>,
    /// A class for each row of the model's output.
    pub labels: Vec<i32>,
}

impl Case {
    /// The same batch each time.
    pub fn batch(&self) -> RandomBatch {
        let random = Philox::new(0);
        let elements = self.batch * self.input.elements();
        let (floats, tokens) = match self.input {
            InputSpec::Tokens { vocab, .. } => (Vec::new(), integers(random, elements, vocab, 1)),
            InputSpec::Features { .. } | InputSpec::Image { .. } => (normal(random, elements, 1), Vec::new()),
        };
        let labels = integers(random, self.input.rows(self.batch), self.outputs, 2);
        RandomBatch { floats, tokens, labels }
    }
}

impl RandomBatch {
    /// What the model takes.
    pub fn x(&self) -> HostSlice<'_> {
        if self.tokens.is_empty() { HostSlice::F32(&self.floats) } else { HostSlice::I32(&self.tokens) }
    }
}

/// Heads of the GPT where none are asked for.
pub const GPT_HEADS: usize = 6;

/// The model and sizes asked for.
pub fn case(args: &BenchStep) -> Result<Case, Failure> {
    let or = |value: Option<NonZeroUsize>, default: usize| value.map_or(default, NonZeroUsize::get);
    let refuse = |given: &[(&str, Option<NonZeroUsize>)], model: &str| match given
        .iter()
        .find(|(_, v)| v.is_some())
    {
        Some((name, _)) => Err(Failure::asked(format!("--{name} means nothing for {model}"), "leave it out")),
        None => Ok(()),
    };
    let gpt_only = [("layers", args.layers), ("heads", args.heads), ("seq", args.seq), ("vocab", args.vocab)];
    Ok(match args.model {
        BenchModel::Mlp => {
            refuse(&gpt_only, "mlp")?;
            refuse(&[("width", args.width)], "mlp")?;
            let model = ModelSpec::Mlp(MlpSpec { hidden: vec![1024, 1024] });
            let input = InputSpec::Features { width: 784 };
            Case { name: "mlp", model, input, outputs: 10, batch: or(args.batch, 256) }
        }
        BenchModel::Resnet18 => {
            refuse(&gpt_only, "resnet18")?;
            let model = ModelSpec::Resnet18(Resnet18Spec { width: or(args.width, 64) });
            let input = InputSpec::Image { height: 32, width: 32, channels: 3 };
            Case { name: "resnet18", model, input, outputs: 10, batch: or(args.batch, 64) }
        }
        BenchModel::Gpt => {
            let (width, layers, heads) = (or(args.width, 384), or(args.layers, 6), or(args.heads, GPT_HEADS));
            let (length, vocab) = (or(args.seq, 256), or(args.vocab, 256));
            let model = ModelSpec::Gpt(GptSpec { width, layers, heads, ..GptSpec::default() });
            let input = InputSpec::Tokens { length, vocab };
            Case { name: "gpt", model, input, outputs: vocab, batch: or(args.batch, 8) }
        }
    })
}

/// Standard normal numbers (Box and Muller 1958), `stream` apart from other streams of the seed.
fn normal(random: Philox, count: usize, stream: u32) -> Vec<f32> {
    let pair = |i: usize| {
        let [a, b, c, d] = random.block([i as u32, (i >> 32) as u32, stream, 0]);
        // 1 − u lies in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - unit_f64(a, b)).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit_f64(c, d)).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    };
    (0..count.div_ceil(2)).flat_map(pair).take(count).collect()
}

/// Integers below `below`.
fn integers(random: Philox, count: usize, below: usize, stream: u64) -> Vec<i32> {
    let draw = |i: usize| ((u64::from(random.word(stream, i as u64)) * below as u64) >> 32) as i32;
    (0..count).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let n = 1 << 16;
        let x = normal(Philox::new(3), n, 1);
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
        // Standard deviations 1/√n and √(2/n); six of each.
        assert!(mean.abs() < 6.0 / (n as f64).sqrt(), "{mean}");
        assert!((variance - 1.0).abs() < 6.0 * (2.0 / n as f64).sqrt(), "{variance}");
    }

    #[test]
    fn integers_reach_every_value_and_no_more() {
        let x = integers(Philox::new(3), 10_000, 10, 2);
        assert_eq!((x.iter().min(), x.iter().max()), (Some(&0), Some(&9)));
    }
}

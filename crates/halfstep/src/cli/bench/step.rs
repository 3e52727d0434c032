//! `halfstep bench step`: a training step on a random batch. Models, sizes and optimiser are those of the comparison
//! with other frameworks: AdamW with a learning rate of 1e-4, three steps to warm up, at least five measured.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use halfstep::evidence::units;
use halfstep::float::{Philox, unit_f64};
use halfstep::graph::engine::HostSlice;
use halfstep::graph::precision::Policy;
use halfstep::nn::{GptSpec, InputSpec, MlpSpec, ModelSpec, Resnet18Spec, parameter_count};
use halfstep::train::optimiser::{AdamW, Optimiser};
use halfstep::train::session::{Session, SessionSpec};
use serde::Serialize;

use super::super::args::{BenchModel, BenchStep};
use super::super::failure::Failure;
use super::super::{machine, output};
use super::median_and_min;

const LR: f64 = 1e-4;
const WARM_UP: usize = 3;
const LEAST: usize = 5;

/// What `--json` prints. The names are those of the peers' script.
#[derive(Serialize)]
struct Printed {
    program: String,
    engine: String,
    model: &'static str,
    precision: &'static str,
    threads: usize,
    seconds: f64,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vocab: Option<usize>,
    median_ms: f64,
    min_ms: f64,
    items_per_s: f64,
    steps: usize,
    arena_bytes: usize,
    state_bytes: usize,
    peak_rss_bytes: Option<usize>,
    compile_ms: f64,
    loss: f32,
}

/// A model with its sizes, as asked.
struct Case {
    name: &'static str,
    model: ModelSpec,
    input: InputSpec,
    outputs: usize,
    batch: usize,
}

fn case(args: &BenchStep) -> Result<Case, Failure> {
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
            Case {
                name: "mlp",
                model,
                input: InputSpec::Features { width: 784 },
                outputs: 10,
                batch: or(args.batch, 256),
            }
        }
        BenchModel::Resnet18 => {
            refuse(&gpt_only, "resnet18")?;
            let model = ModelSpec::Resnet18(Resnet18Spec { width: or(args.width, 64) });
            let input = InputSpec::Image { height: 32, width: 32, channels: 3 };
            Case { name: "resnet18", model, input, outputs: 10, batch: or(args.batch, 64) }
        }
        BenchModel::Gpt => {
            let (width, layers, heads) = (or(args.width, 384), or(args.layers, 6), or(args.heads, 6));
            let (length, vocab) = (or(args.seq, 256), or(args.vocab, 256));
            let model = ModelSpec::Gpt(GptSpec { width, layers, heads, dropout: 0.0 });
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

/// Runs the command.
pub fn run(args: BenchStep, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    if !(args.seconds >= 0.0 && args.seconds.is_finite()) {
        return Err(Failure::asked(format!("--seconds {} is not possible", args.seconds), "give 0 or more"));
    }
    let case = case(&args)?;
    let model = case.model.build(&case.input, case.outputs);
    let model = model.map_err(|e| Failure::asked(e.to_string(), e.hint()))?;
    let parameters = parameter_count(model.as_ref(), &case.input);
    let parameters = parameters.map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))?;
    // Weights and two moments in f32.
    machine::check_memory("training this model", parameters.saturating_mul(12))?;
    let engine = halfstep::engine(threads)?;
    let policy = Policy::named(args.precision.name()).map_err(|e| Failure::asked(e.to_string(), ""))?;
    let optimiser = Optimiser::AdamW(AdamW { lr: LR, ..AdamW::default() });
    let spec = SessionSpec { optimiser, ..SessionSpec::new(&policy, case.batch, 0) };
    let mut session = Session::new(engine.as_ref(), model.as_ref(), &case.input, &policy, &spec)?;

    let random = Philox::new(0);
    let elements = case.batch * case.input.elements();
    let (floats, tokens) = match case.input {
        InputSpec::Tokens { vocab, .. } => (Vec::new(), integers(random, elements, vocab, 1)),
        InputSpec::Features { .. } | InputSpec::Image { .. } => (normal(random, elements, 1), Vec::new()),
    };
    let x = if tokens.is_empty() { HostSlice::F32(&floats) } else { HostSlice::I32(&tokens) };
    let items = case.input.rows(case.batch);
    let y = integers(random, items, case.outputs, 2);

    for _ in 0..WARM_UP {
        session.step(x, &y, LR)?;
    }
    let mut times = Vec::new();
    let mut loss = 0.0;
    let end = Instant::now() + Duration::from_secs_f64(args.seconds.min(1e6));
    while times.len() < LEAST || Instant::now() < end {
        let start = Instant::now();
        loss = session.step(x, &y, LR)?.loss;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let steps = times.len();
    let (median_ms, min_ms) = median_and_min(&mut times);
    let gpt = |value: usize| (case.name == "gpt").then_some(value);
    let (width, layers, heads) = match &case.model {
        ModelSpec::Gpt(g) => (Some(g.width), g.layers, g.heads),
        ModelSpec::Resnet18(r) => (Some(r.width), 0, 0),
        ModelSpec::Mlp(_) | ModelSpec::Cnn(_) => (None, 0, 0),
    };
    let printed = Printed {
        program: format!("halfstep {}", env!("CARGO_PKG_VERSION")),
        engine: engine.name(),
        model: case.name,
        precision: args.precision.name(),
        threads: halfstep::threads_or_all(threads).get(),
        seconds: args.seconds,
        batch: case.batch,
        width,
        layers: gpt(layers),
        heads: gpt(heads),
        seq: gpt(case.input.elements()),
        vocab: gpt(case.outputs),
        median_ms,
        min_ms,
        items_per_s: items as f64 / median_ms * 1e3,
        steps,
        arena_bytes: session.arena_bytes(),
        state_bytes: session.plan().state_bytes().total(),
        peak_rss_bytes: machine::peak_rss_bytes(),
        compile_ms: session.compile_time().as_secs_f64() * 1e3,
        loss,
    };
    if args.json {
        output::json(&printed)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::raw(&output::fields(&[
        ("model", format!("{}, {}", printed.model, printed.precision)),
        ("engine", printed.engine.clone()),
        (
            "step",
            format!(
                "{} median, {} least, over {steps} steps",
                units::milliseconds(median_ms),
                units::milliseconds(min_ms)
            ),
        ),
        ("items/s", units::count(printed.items_per_s.round() as u64)),
        ("step's scratch", units::bytes(printed.arena_bytes)),
        ("weights and optimiser", units::bytes(printed.state_bytes)),
        ("peak resident", printed.peak_rss_bytes.map_or("unknown".into(), units::bytes)),
        ("compiled in", units::milliseconds(printed.compile_ms)),
    ]));
    Ok(ExitCode::SUCCESS)
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

//! `halfstep bench step`: a training step on a random batch. Models, sizes and optimiser are those
//! of the comparison with other frameworks: AdamW with a learning rate of 1e-4, three steps to warm
//! up, at least five measured.

use std::process::ExitCode;
use std::time::Duration;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::gpu::GpuEngine;
use halfstep::graph::engine::Engine;
use halfstep::graph::precision::Policy;
use halfstep::graph::{Plan, Unfused};
use halfstep::nn::{ModelSpec, parameter_count};
use halfstep::train::optimiser::{AdamW, Optimiser};
use halfstep::train::session::{Session, SessionSpec};
use serde::{Deserialize, Serialize};

use super::super::args::BenchStep;
use super::super::failure::Failure;
use super::super::{machine, output};
use super::case::{Case, RandomBatch, case};
use super::{LEAST, check_seconds, median_and_least, median_and_min, times};

const LR: f64 = 1e-4;

/// What `--json` prints. The names are those of the peers' script.
#[derive(Serialize)]
struct Printed {
    program: String,
    engine: String,
    model: &'static str,
    precision: String,
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
    loss: f32,
    #[serde(flatten)]
    measurement: StepMeasurement,
}

/// Time and memory of a training step. `bench suite` reads them from the JSON of `bench step`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepMeasurement {
    /// Median time of a step.
    pub median_ms: f64,
    /// Shortest time of a step.
    pub min_ms: f64,
    /// Samples, or tokens of a text, in a second.
    pub items_per_s: f64,
    /// Steps measured.
    pub steps: usize,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// Size of weights and optimiser state.
    pub state_bytes: usize,
    /// Memory of the GPU that is allocated: state, arena, constants and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes: Option<usize>,
    /// Resident before the model was made: the program and its libraries.
    pub baseline_rss_bytes: Option<usize>,
    /// Most that was resident at any time.
    pub peak_rss_bytes: Option<usize>,
    /// Time to compile the step.
    pub compile_ms: f64,
    /// The slowest groups of operations, if asked for and if the engine measures them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupTime>,
}

/// Time of a group of operations in one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupTime {
    /// Layer and operations.
    pub name: String,
    /// Time in one step.
    pub ms: f64,
    /// Operations of its products.
    pub flops: f64,
    /// Bytes it must read and write, each value once.
    pub bytes: f64,
}

/// Runs the command.
pub fn run(args: BenchStep, request: EngineRequest) -> Result<ExitCode, Failure> {
    check_seconds(args.seconds)?;
    let case = case(&args)?;
    let baseline_rss_bytes = machine::rss_bytes();
    let fused = halfstep::engine(request)?;
    let unfused = Unfused(fused.as_ref());
    let engine: &dyn Engine = if args.unfused { &unfused } else { fused.as_ref() };
    let (measurement, loss) = measure(&args, &case, engine, baseline_rss_bytes)?;
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
        precision: args.precision,
        threads: request.threads().get(),
        seconds: args.seconds,
        batch: case.batch,
        width,
        layers: gpt(layers),
        heads: gpt(heads),
        seq: gpt(case.input.elements()),
        vocab: gpt(case.outputs),
        loss,
        measurement,
    };
    if args.json {
        output::json(&printed)?;
    } else {
        show(&printed);
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures steps of a case, and returns the loss of the last one too.
fn measure(
    args: &BenchStep,
    case: &Case,
    engine: &dyn Engine,
    baseline_rss_bytes: Option<usize>,
) -> Result<(StepMeasurement, f32), Failure> {
    let model = case.model.build(&case.input, case.outputs);
    let model = model.map_err(|e| Failure::asked(e.to_string(), e.hint()))?;
    let parameters = parameter_count(model.as_ref(), &case.input);
    let parameters = parameters.map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))?;
    // Weights and two moments in f32.
    machine::check_memory("training this model", parameters.saturating_mul(12))?;
    let policy = Policy::named(&args.precision)?;
    let optimiser = Optimiser::AdamW(AdamW { lr: LR, ..AdamW::default() });
    let spec = SessionSpec { optimiser, ..SessionSpec::new(&policy, case.batch, 0) };
    let mut session = Session::new(engine, model.as_ref(), &case.input, &policy, &spec)?;
    let batch = case.batch();
    let mut loss = 0.0;
    let mut times = times(args.seconds, || {
        loss = session.step(batch.x(), &batch.labels, LR)?.loss;
        Ok(())
    })?;
    let groups = slowest(&mut session, &batch, args.groups)?;
    let steps = times.len();
    let on_gpu = GpuEngine::is_name(&engine.name());
    let device_bytes = on_gpu.then(|| session.footprint()).transpose()?.map(|held| held.total());
    let (median_ms, min_ms) = median_and_min(&mut times);
    let measurement = StepMeasurement {
        median_ms,
        min_ms,
        items_per_s: batch.labels.len() as f64 / median_ms * 1e3,
        steps,
        arena_bytes: session.arena_bytes(),
        state_bytes: session.plan().state_bytes().total(),
        device_bytes,
        baseline_rss_bytes,
        peak_rss_bytes: machine::peak_rss_bytes(),
        compile_ms: session.compile_time().as_secs_f64() * 1e3,
        groups,
    };
    Ok((measurement, loss))
}

fn show(printed: &Printed) {
    let m = &printed.measurement;
    let mut fields = vec![
        ("model", format!("{}, {}", printed.model, printed.precision)),
        ("engine", printed.engine.clone()),
        ("step", format!("{}, over {} steps", median_and_least(m.median_ms, m.min_ms), m.steps)),
        ("items/s", units::count(m.items_per_s.round() as u64)),
        ("step's scratch", units::bytes(m.arena_bytes)),
        ("weights and optimiser", units::bytes(m.state_bytes)),
        (
            "peak resident",
            match (m.peak_rss_bytes, m.baseline_rss_bytes) {
                (Some(peak), Some(base)) => {
                    format!("{}, of it {} before the model was made", units::bytes(peak), units::bytes(base))
                }
                (peak, _) => peak.map_or("unknown".into(), units::bytes),
            },
        ),
        ("compiled in", units::milliseconds(m.compile_ms)),
    ];
    if let Some(bytes) = m.device_bytes {
        fields.push(("memory of the GPU", units::bytes(bytes)));
    }
    output::raw(&output::fields(&fields));
    for group in &m.groups {
        output::line(&format!("{:>9}  {}", units::milliseconds(group.ms), group.name));
    }
}

/// The `count` slowest groups, measured over a few steps of their own: looking at the clock takes
/// time too.
fn slowest(session: &mut Session<'_>, batch: &RandomBatch, count: usize) -> Result<Vec<GroupTime>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    session.measure();
    for _ in 0..LEAST {
        session.step(batch.x(), &batch.labels, LR)?;
    }
    let Plan { graph, groups, .. } = session.plan();
    let named = |(group, time): (&halfstep::graph::Group, &Duration)| {
        let root = graph.node(group.root(graph));
        let operations: Vec<String> = group.nodes.iter().map(|&n| graph.node(n).op.name()).collect();
        let traffic = groups.traffic(graph, group);
        GroupTime {
            name: format!("{} {}", root.name, operations.join("+")),
            ms: time.as_secs_f64() * 1e3 / LEAST as f64,
            flops: traffic.flops as f64,
            bytes: (traffic.read + traffic.written) as f64,
        }
    };
    let mut all: Vec<GroupTime> = groups.steps.iter().zip(session.group_times()).map(named).collect();
    all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    all.truncate(count);
    Ok(all)
}

//! `halfstep export`: a trained model as a file that other programs run.

use std::path::Path;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::data::{Batch, BatchX, Draw};
use halfstep::evidence::units;
use halfstep::graph::engine::HostTensor;
use halfstep::graph::precision::assign;
use halfstep::nn::{InputSpec, onnx};
use halfstep::train::checkpoint::host_slice;
use halfstep::train::predictor::Predictor;
use halfstep::train::run_dir::write_whole;
use halfstep::train::step::predict_graph;
use serde_json::json;

use super::args::Export;
use super::failure::Failure;
use super::open::Opened;
use super::output;

/// The graph is built for this many samples; the file takes any number.
const BATCH: usize = 2;
/// Test samples whose logits `--test-data` writes.
const TESTED: usize = 8;

/// Runs the command.
pub fn run(args: Export, request: EngineRequest) -> Result<ExitCode, Failure> {
    let opened = Opened::open(&args.chosen)?;
    let engine = halfstep::engine(request)?;
    let mut predictor = opened.predictor(engine.into())?;
    let graph = predict_graph(opened.model.as_ref(), &opened.manifest.input, BATCH);
    let graph = graph.map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))?;
    let (graph, _) = assign(&graph, &opened.policy);
    let notes = [
        ("halfstep.precision", opened.precision().to_string()),
        ("halfstep.checkpoint", opened.checkpoint.clone()),
        ("halfstep.preprocessing", serde_json::to_string(&opened.preprocessing)?),
    ];
    let weights = |slot: &str| predictor.download(slot).ok();
    let bytes = onnx::model(&graph, &weights, &notes);
    let bytes = bytes.map_err(|e| Failure::failed(e.to_string()))?;
    write_whole(&args.onnx, &bytes)?;
    if let Some(folder) = &args.test_data {
        test_data(&opened, &mut predictor, folder)?;
    }
    if args.json {
        output::json(&json!({
            "checkpoint": opened.checkpoint,
            "precision": opened.precision(),
            "file": args.onnx.display().to_string(),
            "bytes": bytes.len(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::raw(&output::fields(&[
        ("checkpoint", opened.checkpoint.clone()),
        ("precision", opened.precision().to_string()),
        ("file", format!("{}, {}", args.onnx.display(), units::bytes(bytes.len()))),
        ("input", describe(&opened.manifest.input)),
    ]));
    Ok(ExitCode::SUCCESS)
}

fn describe(input: &InputSpec) -> String {
    match input {
        InputSpec::Tokens { length, vocab } => {
            format!("x: i32 [batch, {length}], token numbers below {vocab}")
        }
        InputSpec::Image { height, width, channels } => {
            format!("x: f32 [batch, {height}, {width}, {channels}], prepared as the metadata say")
        }
        InputSpec::Features { width } => format!("x: f32 [batch, {width}], prepared as the metadata say"),
    }
}

/// The first test samples and the logits this program gives them, as ONNX lays out tests of a
/// model.
fn test_data(opened: &Opened, predictor: &mut Predictor, folder: &Path) -> Result<(), Failure> {
    let data = opened.recipe.load()?;
    opened.check_data(&data)?;
    let count = TESTED.min(data.test.len());
    let mut batch = Batch::new(data.test.input(), count);
    let indices: Vec<u32> = (0..count as u32).collect();
    data.test.fill_batch(&indices, Draw::AsIs, &mut batch)?;
    let logits = predictor.predict(host_slice(&batch.x))?;
    let rows = opened.manifest.input.rows(count);
    let classes = logits.len() / rows;
    let (shape, x) = match batch.x {
        BatchX::F32 { data, shape } => (shape, HostTensor::F32(data)),
        BatchX::Tokens { data, shape } => (shape, HostTensor::I32(data)),
    };
    let folder = folder.join("test_data_set_0");
    let unwritable =
        |e: std::io::Error| Failure::failed(format!("{}: cannot be made: {e}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(unwritable)?;
    write_whole(&folder.join("input_0.pb"), &onnx::tensor("x", &shape, &x))?;
    let logits = onnx::tensor("logits", &[rows, classes], &HostTensor::F32(logits));
    Ok(write_whole(&folder.join("output_0.pb"), &logits)?)
}

//! `halfstep eval`: a trained model on its test data.

use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::nn::InputSpec;
use halfstep::train::train_loop::evaluate;
use serde_json::json;

use super::args::Eval;
use super::failure::Failure;
use super::open::Opened;
use super::{output, progress};

/// Runs the command.
pub fn run(args: Eval, request: EngineRequest) -> Result<ExitCode, Failure> {
    let opened = Opened::open(&args.chosen)?;
    let engine = halfstep::engine(request)?;
    let data = opened.recipe.load()?;
    opened.check_data(&data)?;
    let mut session = opened.session(engine.as_ref())?;
    let train = &opened.recipe.train;
    let batch = (train.batch / train.options.accumulate.max(1)).min(data.test.len());
    let result = progress::during("evaluating", || evaluate(&mut session, &data.test, batch))?;
    if args.json {
        output::json(&json!({
            "checkpoint": opened.checkpoint,
            "precision": opened.precision(),
            "test_samples": data.test.len(),
            "loss": result.loss,
            "accuracy": result.accuracy,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut fields = vec![
        ("checkpoint", opened.checkpoint.clone()),
        ("precision", opened.precision().to_string()),
        ("test samples", units::count(data.test.len() as u64)),
        ("loss", format!("{:.4}", result.loss)),
        ("accuracy", units::percent(result.accuracy, None)),
    ];
    if let InputSpec::Tokens { .. } = opened.manifest.input {
        fields.push(("perplexity", format!("{:.2} per token", result.loss.exp())));
    }
    output::raw(&output::fields(&fields));
    Ok(ExitCode::SUCCESS)
}

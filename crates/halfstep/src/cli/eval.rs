//! `halfstep eval`: a trained model on its test data.

mod classes;
mod groups;

use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::data::Samples;
use halfstep::evidence::measures::{GroupColumn, measure};
use halfstep::evidence::model::{ModelMeasures, ModelSums};
use halfstep::evidence::statements::CommandStatement;
use halfstep::evidence::units;
use halfstep::graph::engine::HostSlice;
use halfstep::nn::InputSpec;
use serde_json::{Value, json};

use super::args::Eval;
use super::failure::Failure;
use super::open::Opened;
use super::{output, pass, progress};

/// What a model makes of its test data.
#[derive(Default)]
struct Measured {
    /// Mean of the losses that the engine computes.
    loss: f64,
    /// Share predicted right.
    accuracy: f64,
    /// Targets.
    targets: usize,
    /// Targets whose outputs are not all finite.
    not_finite: usize,
    /// Everything else that the logits say; none of text, whose classes are tokens, and none where
    /// outputs are not finite.
    measures: Option<ModelMeasures>,
}

/// Runs the command.
pub fn run(args: Eval, request: EngineRequest) -> Result<ExitCode, Failure> {
    let opened = Opened::open(&args.chosen)?;
    let engine = halfstep::engine(request)?;
    let data = opened.recipe.load()?;
    opened.check_data(&data)?;
    let mut predictor = opened.predictor(engine.into())?;
    let train = &opened.recipe.train;
    let batch = (train.batch / train.options.accumulate.max(1)).min(data.test.len());
    let samples: Vec<u32> = (0..data.test.len() as u32).collect();
    let is_text = matches!(opened.manifest.input, InputSpec::Tokens { .. });
    let columns: Vec<GroupColumn> = match data.test.samples() {
        Samples::Table(table) => {
            table.groups.iter().map(|g| GroupColumn::new(&g.column, &g.values)).collect()
        }
        _ => Vec::new(),
    };
    let mut sums = (!is_text).then(|| ModelSums::new(samples.len() as u64, opened.outputs, &columns));
    let mut measured = Measured::default();
    let mut exps = vec![0.0; opened.outputs];
    progress::during("evaluating", || {
        let mut evaluate = |x: HostSlice<'_>, y: &[i32]| predictor.evaluate(x, y);
        pass::over(&mut evaluate, &data.test, &samples, batch, &mut |evaluation, labels| {
            // Summed by batches, as in training: the same model gives the same number.
            measured.loss += evaluation.losses.iter().map(|&l| f64::from(l)).sum::<f64>();
            let right = evaluation.predictions.iter().zip(labels).filter(|(p, y)| p == y);
            measured.accuracy += right.count() as f64;
            for (row, &label) in evaluation.logits.chunks(opened.outputs).zip(labels) {
                let sample = measured.targets;
                measured.targets += 1;
                let finite = row.iter().all(|x| x.is_finite());
                measured.not_finite += usize::from(!finite);
                if let Some(sums) = sums.as_mut().filter(|_| finite) {
                    let codes = columns.iter().map(|c| c.codes[sample]);
                    sums.push(label as u32, &measure(row, label as u32, &mut exps), row, codes);
                }
            }
        })
    })?;
    measured.loss /= measured.targets as f64;
    measured.accuracy /= measured.targets as f64;
    measured.measures = sums.filter(|_| measured.not_finite == 0).and_then(|s| s.measures("test data"));
    if args.json {
        output::json(&printed(&opened, samples.len(), &measured))?;
    } else {
        show(&opened, samples.len(), is_text, &measured);
    }
    if measured.not_finite > 0 {
        return Err(Failure::failed(format!(
            "the outputs of {} of {} targets are not finite: this model cannot be used in {}",
            measured.not_finite,
            measured.targets,
            opened.precision()
        )));
    }
    Ok(ExitCode::SUCCESS)
}

fn printed(opened: &Opened, samples: usize, measured: &Measured) -> Value {
    let own = json!({
        "checkpoint": opened.checkpoint,
        "precision": opened.precision(),
        "test_samples": samples,
        "loss": measured.loss,
        "accuracy": measured.accuracy,
        "classes": opened.preprocessing.classes(),
    });
    let (Value::Object(mut own), Some(measures)) = (own.clone(), &measured.measures) else { return own };
    if let Ok(Value::Object(all)) = serde_json::to_value(measures) {
        let shown = |(key, _): &(String, Value)| !["name", "samples", "accuracy"].contains(&key.as_str());
        own.extend(all.into_iter().filter(shown));
    }
    own.insert("left_out".into(), json!(measures.classes.left_out()));
    Value::Object(own)
}

fn show(opened: &Opened, samples: usize, is_text: bool, measured: &Measured) {
    let share = |x: f64| units::percent(x, None);
    let mut fields = vec![
        ("checkpoint", opened.checkpoint.clone()),
        ("precision", opened.precision().to_string()),
        ("test samples", units::count(samples as u64)),
        ("loss", format!("{:.4}", measured.loss)),
        ("accuracy", share(measured.accuracy)),
    ];
    if is_text {
        fields.push(("perplexity", format!("{:.2} per token", measured.loss.exp())));
    }
    let Some(m) = &measured.measures else {
        output::raw(&output::fields(&fields));
        if is_text {
            let none =
                "There are no scores of classes and no confusion matrix: a text has tokens, not classes.";
            output::raw(&output::bullets(&[none]));
        }
        return;
    };
    let (constant, scores) = (&m.beside_constant, &m.classes);
    let names = classes::names(opened.preprocessing.classes());
    let majority = &names[scores.majority_class as usize];
    fields[3].1 += &format!(" (constant predictor {:.4})", constant.constant_nll);
    fields[4].1 += &format!(" (always `{majority}`: {})", share(scores.majority_accuracy));
    fields.push((
        "balanced accuracy",
        format!(
            "{} (constant predictor {})",
            share(scores.balanced_accuracy),
            share(constant.constant_balanced_accuracy)
        ),
    ));
    fields.push(("macro F1", share(scores.macro_f1)));
    if let Some(auroc) = m.auroc {
        let of = match auroc.classes {
            1 => String::new(),
            n => format!(" (one class against the rest, mean of {n})"),
        };
        let rows = match auroc.samples {
            n if n == samples => String::new(),
            n => format!(" of {} evenly spaced samples", units::count(n as u64)),
        };
        fields.push(("AUROC", format!("{}{of}{rows}", share(auroc.value))));
    }
    fields.push(("calibration error", format!("{} (ECE)", share(m.quality.ece))));
    output::raw(&output::fields(&fields));
    if !constant.shown_better {
        output::raw(&output::bullets(&[CommandStatement::NotShownBetter]));
    }
    output::raw(&classes::text(scores, &names, output::width()));
    output::raw(&groups::text(&m.by_group));
}

//! `halfstep predict`: classes of images and table rows, scores of texts.

use std::path::Path;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::data::{Pictures, Preprocessing, pictures};
use halfstep::evidence::units;
use halfstep::graph::engine::{Engine, HostSlice};
use halfstep::train::session::Session;
use serde::Serialize;
use serde_json::json;

use super::args::Predict;
use super::failure::Failure;
use super::open::Opened;
use super::output;

/// Samples predicted at a time: enough to keep the processor busy, few enough to need little
/// memory.
const CHUNK: usize = 64;

/// A class for one sample.
#[derive(Serialize)]
struct Prediction {
    input: String,
    /// Row of a table, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<usize>,
    class: String,
    probability: f64,
}

/// How likely a text is.
#[derive(Serialize)]
struct Score {
    input: String,
    tokens: usize,
    /// Mean cross-entropy per token in nats.
    loss: f64,
    bits_per_byte: f64,
}

/// Prints what `--json` asks for.
fn print_json<T: Serialize>(opened: &Opened, predictions: &[T]) -> Result<ExitCode, Failure> {
    let (checkpoint, precision) = (&opened.checkpoint, opened.precision());
    let printed = json!({ "checkpoint": checkpoint, "precision": precision, "predictions": predictions });
    output::json(&printed)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the command.
pub fn run(args: Predict, request: EngineRequest) -> Result<ExitCode, Failure> {
    let opened = Opened::open(&args.chosen)?;
    let engine = halfstep::engine(request)?;
    if let Preprocessing::Text(_) = &opened.preprocessing {
        return texts(&args, &opened, engine.as_ref());
    }
    // Everything is read before anything is predicted: a bad input gives an error, not half an
    // answer.
    let mut samples = Vec::new();
    let mut origins = Vec::new();
    for input in &args.inputs {
        let name = input.display().to_string();
        match &opened.preprocessing {
            Preprocessing::Image(image) => {
                for path in images(input)? {
                    samples.extend(image.image_from_path(&path)?);
                    origins.push((path.display().to_string(), None));
                }
            }
            Preprocessing::Table(table) => {
                let rows = table.rows_from_path(input)?;
                origins.extend((1..=rows.len() / table.width()).map(|row| (name.clone(), Some(row))));
                samples.extend(rows);
            }
            Preprocessing::Text(_) => {}
        }
    }
    let mut session = opened.session(engine.as_ref())?;
    let classes = opened.preprocessing.classes();
    let elements = opened.manifest.input.elements();
    let mut predictions = Vec::new();
    for (chunk, origins) in samples.chunks(CHUNK * elements).zip(origins.chunks(CHUNK)) {
        let logits = session.predict(HostSlice::F32(chunk))?;
        for (row, (input, number)) in logits.chunks(classes.len()).zip(origins) {
            let (best, probability) = likeliest(row);
            let class = classes[best].clone();
            predictions.push(Prediction { input: input.clone(), row: *number, class, probability });
        }
    }
    if args.json {
        return print_json(&opened, &predictions);
    }
    let origin = |p: &Prediction| p.row.map_or(p.input.clone(), |row| format!("{}:{row}", p.input));
    let width = predictions.iter().map(|p| origin(p).chars().count()).max().unwrap_or(0);
    let class_width = classes.iter().map(|c| c.chars().count()).max().unwrap_or(0);
    for p in &predictions {
        let percent = units::percent(p.probability, None);
        output::line(&format!("{:<width$}  {:<class_width$}  {percent:>8}", origin(p), p.class));
    }
    Ok(ExitCode::SUCCESS)
}

/// The images of an input: itself, or those in a folder, found as for training.
fn images(input: &Path) -> Result<Vec<std::path::PathBuf>, Failure> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let Pictures { paths, notes } = pictures(input)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    if paths.is_empty() {
        return Err(Failure::asked(format!("{}: no PNG or JPEG images in this folder", input.display()), ""));
    }
    Ok(paths)
}

/// The first greatest logit and its probability under softmax.
fn likeliest(logits: &[f32]) -> (usize, f64) {
    let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(logits[best])).exp()).sum();
    (best, 1.0 / sum)
}

fn texts(args: &Predict, opened: &Opened, engine: &dyn Engine) -> Result<ExitCode, Failure> {
    let text = opened.preprocessing.text()?;
    let mut inputs = Vec::new();
    for input in &args.inputs {
        let name = input.display().to_string();
        let content =
            std::fs::read(input).map_err(|e| Failure::asked(format!("{name}: cannot be read: {e}"), ""))?;
        let content =
            String::from_utf8(content).map_err(|_| Failure::asked(format!("{name}: not UTF-8 text"), ""))?;
        let tokens: Vec<i32> = text.encode(&content)?.into_iter().map(|t| t as i32).collect();
        if tokens.len() < 2 {
            return Err(Failure::asked(
                format!("{name}: too short to be scored"),
                "at least two tokens are needed",
            ));
        }
        inputs.push((name, content.len(), tokens));
    }
    let mut session = opened.session(engine)?;
    let mut scores = Vec::new();
    for (input, bytes, tokens) in inputs {
        let loss = score(&mut session, &tokens, text.sequence(), opened.outputs)?;
        let predicted = tokens.len() - 1;
        let bits_per_byte = loss * predicted as f64 / std::f64::consts::LN_2 / bytes as f64;
        scores.push(Score { input, tokens: tokens.len(), loss, bits_per_byte });
    }
    if args.json {
        return print_json(opened, &scores);
    }
    let width = scores.iter().map(|s| s.input.chars().count()).max().unwrap_or(0);
    for s in &scores {
        let tokens = units::count(s.tokens as u64);
        output::line(&format!(
            "{:<width$}  {tokens} tokens  loss {:.4}  {:.3} bits per byte",
            s.input, s.loss, s.bits_per_byte
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Mean loss of every token but the first, each predicted from those before it in its window.
fn score(
    session: &mut Session<'_>,
    tokens: &[i32],
    length: usize,
    vocabulary: usize,
) -> Result<f64, Failure> {
    let (mut sum, mut counted) = (0.0, 0usize);
    let last = tokens.len() - 1;
    for start in (0..last).step_by(length) {
        let end = (start + length).min(last);
        // The rest of a short window changes nothing before it: attention looks back only.
        let mut window = tokens[start..end].to_vec();
        window.resize(length, 0);
        let logits = session.predict(HostSlice::I32(&window))?;
        for (row, &next) in logits.chunks(vocabulary).zip(&tokens[start + 1..=end]) {
            sum += cross_entropy(row, next as usize);
            counted += 1;
        }
    }
    Ok(sum / counted as f64)
}

fn cross_entropy(logits: &[f32], target: usize) -> f64 {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - greatest).exp()).sum();
    greatest + sum.ln() - f64::from(logits[target])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_softmax() {
        let (best, p) = likeliest(&[0.0, 3.0f32.ln(), 3.0f32.ln()]);
        assert_eq!(best, 1, "the first of equals");
        // Logits rounded to f32: a relative error of about 2^-24 in each exponential.
        assert!((p - 3.0 / 7.0).abs() < 1e-7, "{p}");
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-15);
    }
}

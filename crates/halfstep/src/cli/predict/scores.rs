//! Scores of texts: how likely a model finds them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use halfstep::data::{DataError, read_text, text_files};
use halfstep::evidence::units;
use halfstep::graph::engine::{Engine, HostSlice};
use halfstep::train::predictor::Predictor;
use serde::Serialize;

use super::super::args::Predict;
use super::super::failure::Failure;
use super::super::open::Opened;
use super::super::output;
use super::print_json;

/// How likely a text is.
#[derive(Serialize)]
struct Score {
    input: String,
    tokens: usize,
    /// Mean cross-entropy per token in nats.
    loss: f64,
    bits_per_byte: f64,
}

/// What is said of a text in another encoding: the model has no key that names it, as recipes do.
fn not_utf8(name: &str, error: DataError) -> Failure {
    let what = match &error {
        DataError::NotUtf8 { offset, line, .. } => format!("byte {offset} (line {line}) is none of it"),
        DataError::Encoding { looks_like, .. } => format!("it looks like {looks_like}"),
        _ => return error.into(),
    };
    Failure::asked(
        format!("{name}: texts to score are read as UTF-8, and {what}"),
        "save the file as UTF-8, or as UTF-16 with a byte-order mark",
    )
}

/// Scores each text.
pub(super) fn texts(args: &Predict, opened: &Opened, engine: Arc<dyn Engine>) -> Result<ExitCode, Failure> {
    let text = opened.preprocessing.text()?;
    let mut inputs = Vec::new();
    for input in files(&args.inputs)? {
        let name = input.display().to_string();
        let content = read_text(&input).map_err(|error| not_utf8(&name, error))?;
        let tokens: Vec<i32> = text.encode(&content)?.into_iter().map(|t| t as i32).collect();
        if tokens.len() < 2 {
            return Err(Failure::asked(
                format!("{name}: too short to be scored"),
                "at least two tokens are needed",
            ));
        }
        inputs.push((name, content.len(), tokens));
    }
    let mut predictor = opened.predictor(engine)?;
    let mut scores = Vec::new();
    for (input, bytes, tokens) in inputs {
        let loss = score(&mut predictor, &tokens, text.sequence(), opened.outputs)?;
        let predicted = tokens.len() - 1;
        let bits_per_byte = loss * predicted as f64 / std::f64::consts::LN_2 / bytes as f64;
        scores.push(Score { input, tokens: tokens.len(), loss, bits_per_byte });
    }
    if args.json {
        return print_json(opened, &scores, None);
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

/// The inputs, and in place of folders the text files in them.
fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for input in inputs {
        let texts = |folder: &Path| -> Result<Vec<PathBuf>, Failure> {
            let texts = text_files(folder)?;
            let none = || Failure::asked(format!("{}: no text files in this folder", folder.display()), "");
            if texts.is_empty() { Err(none()) } else { Ok(texts) }
        };
        if input.is_dir() { all.extend(texts(input)?) } else { all.push(input.clone()) }
    }
    Ok(all)
}

/// Mean loss of every token but the first, each predicted from those before it in its window.
fn score(
    predictor: &mut Predictor,
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
        let logits = predictor.predict(HostSlice::I32(&window))?;
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
    fn equal_logits_cost_their_logarithm() {
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-15);
    }
}

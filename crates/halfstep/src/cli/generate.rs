//! `halfstep generate`: a text continued token by token.

use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::float::{Philox, unit_f64};
use halfstep::graph::engine::HostSlice;

use super::args::Generate;
use super::failure::{Failure, INTERRUPTED};
use super::open::Opened;
use super::{interrupt, stdio};

/// Runs the command.
pub fn run(args: Generate, request: EngineRequest) -> Result<ExitCode, Failure> {
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        return Err(Failure::asked(
            format!("a temperature of {} is not possible", args.temperature),
            "give 0 or more",
        ));
    }
    let opened = Opened::open(&args.chosen)?;
    let text = opened.preprocessing.text()?;
    let mut tokens: Vec<u32> = text.encode(&args.prompt)?;
    if tokens.is_empty() {
        return Err(Failure::asked("the prompt is empty", "give at least one character with --prompt"));
    }
    let engine = halfstep::engine(request)?;
    let mut predictor = opened.predictor(engine.into())?;
    interrupt::listen("Stopping after this token.");
    let (length, vocabulary) = (text.sequence(), opened.outputs);
    let random = Philox::new(args.seed);
    let mut shown = Shown::default();
    shown.show(&text.decode(&tokens)?);
    for i in 0..args.tokens {
        // Of a text that nobody reads no more is made.
        if interrupt::asked() || stdio::is_lost() {
            break;
        }
        let seen = &tokens[tokens.len().saturating_sub(length)..];
        // The rest of a short window changes nothing before it: attention looks back only.
        let mut window: Vec<i32> = seen.iter().map(|&t| t as i32).collect();
        window.resize(length, 0);
        let logits = predictor.predict(HostSlice::I32(&window))?;
        let last = &logits[(seen.len() - 1) * vocabulary..][..vocabulary];
        let block = random.block([i as u32, 0, 0, 0]);
        tokens.push(draw(last, args.temperature, unit_f64(block[0], block[1])) as u32);
        shown.show(&text.decode(&tokens)?);
    }
    shown.finish(&text.decode(&tokens)?);
    Ok(if interrupt::asked() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// How much of the text is printed. Tokens can end inside a character, so the end is held back
/// until it is whole.
#[derive(Default)]
struct Shown {
    bytes: usize,
}

impl Shown {
    fn show(&mut self, text: &str) {
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        if whole.len() > self.bytes {
            // What the model writes is its text, whatever is in it.
            stdio::out_as_it_is(&whole[self.bytes..]);
            self.bytes = whole.len();
        }
    }

    fn finish(self, text: &str) {
        stdio::out_as_it_is(&format!("{}\n", text.get(self.bytes..).unwrap_or_default()));
    }
}

/// The token at which the cumulative probability of softmax(logits / temperature) passes `uniform`;
/// the first greatest logit at temperature 0.
fn draw(logits: &[f32], temperature: f64, uniform: f64) -> usize {
    let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    if temperature == 0.0 {
        return best;
    }
    let weight = |l: f32| ((f64::from(l) - f64::from(logits[best])) / temperature).exp();
    let mut left = uniform * logits.iter().map(|&l| weight(l)).sum::<f64>();
    for (i, &l) in logits.iter().enumerate() {
        left -= weight(l);
        if left < 0.0 {
            return i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, 3.0f32.ln()];
        assert_eq!(draw(&logits, 1.0, 0.24), 0);
        assert_eq!(draw(&logits, 1.0, 0.26), 1);
        assert_eq!(draw(&logits, 0.0, 0.0), 1);
        // Colder: 1 : 9.
        assert_eq!((draw(&logits, 0.5, 0.09), draw(&logits, 0.5, 0.11)), (0, 1));
    }
}

//! How often predictions are right, where the inputs say what they are of: samples that the model
//! was trained on apart, for they say nothing about new ones.

use halfstep::data::sample_hash;
use halfstep::evidence::statements::CommandStatement;
use halfstep::evidence::units;
use halfstep::train::samples::RunSamples;
use serde::Serialize;

/// Samples of a known class.
#[derive(Serialize)]
pub(super) struct Known {
    /// Those the model was not trained on; all, where the run does not say.
    new: Right,
    /// Those it was trained on, or chosen by.
    trained_on: Right,
    /// Whether the run says which it was trained on.
    checked: bool,
}

/// How many, and how many of them are predicted right.
#[derive(Default, Serialize)]
struct Right {
    samples: u64,
    correct: u64,
}

impl Right {
    fn text(&self) -> String {
        let Right { samples, correct } = *self;
        let percent = units::percent(correct as f64 / samples as f64, None);
        format!("{percent} ({} of {})", units::count(correct), units::count(samples))
    }
}

impl Known {
    /// Of samples, and whether each was predicted right; none if no class is known.
    pub(super) fn of<'x>(
        run: Option<&RunSamples>,
        samples: impl Iterator<Item = (&'x [f32], Option<bool>)>,
    ) -> Option<Known> {
        let (mut new, mut trained_on) = (Right::default(), Right::default());
        for (x, right) in samples {
            let Some(right) = right else { continue };
            let seen = run.is_some_and(|run| run.trained_on(sample_hash(x)));
            let of = if seen { &mut trained_on } else { &mut new };
            of.samples += 1;
            of.correct += u64::from(right);
        }
        let any = new.samples + trained_on.samples > 0;
        any.then_some(Known { new, trained_on, checked: run.is_some() })
    }

    /// What to say of samples that were trained on.
    pub(super) fn warning(&self) -> Option<CommandStatement> {
        let (known, all) = (self.trained_on.samples, self.new.samples + self.trained_on.samples);
        if !self.checked {
            return Some(CommandStatement::PredictionsCannotBeChecked);
        }
        (known > 0).then_some(CommandStatement::PredictionsTrainedOn { known, all })
    }

    /// Labels and figures to print.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        if self.new.samples > 0 {
            let label = if self.trained_on.samples > 0 { "right of new samples" } else { "right" };
            fields.push((label, self.new.text()));
        }
        if self.trained_on.samples > 0 {
            fields.push(("right of samples it was trained on", self.trained_on.text()));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_trained_on_is_said() {
        let sample = [0.5f32];
        let known = Known::of(None, [(&sample[..], Some(true))].into_iter()).unwrap();
        assert_eq!(known.warning(), Some(CommandStatement::PredictionsCannotBeChecked));
        // Of a run that says it, new samples need no word.
        let checked = Known { checked: true, ..known };
        assert_eq!(checked.warning(), None);
        assert!(Known::of(None, [(&sample[..], None)].into_iter()).is_none(), "no class is known");
    }
}

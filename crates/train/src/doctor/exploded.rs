//! Whether training made the weights so large that the step fails, and which setting did.

use super::diagnosis::Cause;
use super::observe::{Observed, Weights};
use super::replays::{Doctor, first_broken};
use super::text::short;
use crate::change::toml_number;
use crate::optimiser::Optimiser;
use crate::session::TrainError;

/// How much worse than at the beginning a loss in f32 must be to blame training for it.
const WORSE: f32 = 2.0;

/// A momentum above which the sum of gradients, and not the rate, makes the updates large.
const LONG_MOMENTUM: f64 = 0.995;

impl Doctor<'_, '_, '_> {
    /// Whether training has made things worse than they were: by the loss in f32 with the present
    /// weights, and with those that the run began with.
    pub(super) fn exploded(&mut self, reference: &mut Observed) -> Result<Option<Cause>, TrainError> {
        if self.session.progress().committed == 0 {
            return Ok(None);
        }
        let Some(first) = self.first.take() else {
            self.evidence.push(
                "the file of the weights that the run began with cannot be read: whether training made them \
                 larger is not known"
                    .into(),
            );
            return Ok(None);
        };
        let now = reference.loss()?;
        self.run(reference, &Weights::First(&first))?;
        let (before, finite) = (reference.loss()?, first_broken(reference)?.is_none());
        self.run(reference, &Weights::Present)?;
        let moved = first.moved(self.session);
        self.first = Some(first);
        if !finite || (now.is_finite() && now <= WORSE * before) {
            return Ok(None);
        }
        let grown = |m: &super::first::Moved| if m.first > 0.0 { m.now / m.first } else { 0.0 };
        let moved = moved?;
        let Some(most) = moved.iter().max_by(|a, b| grown(a).total_cmp(&grown(b))) else { return Ok(None) };
        if grown(most) <= 1.0 {
            return Ok(None);
        }
        self.evidence.push(format!(
            "in f32 the loss of this batch is {} with the present weights, {} with those that the run began with",
            if now.is_finite() { short(f64::from(now)) } else { "not finite".into() },
            short(f64::from(before))
        ));
        let (slot, grown) = (most.slot.name.clone(), grown(most));
        Ok(Some(Cause::ExplodedWeights { setting: self.what_explodes(), slot, grown }))
    }

    /// The setting of the optimiser that makes updates large, as it is written.
    fn what_explodes(&self) -> String {
        let written = |key: &str, value: f64| format!("{key} = {}", toml_number(value));
        let optimiser = &self.session.spec().optimiser;
        let (lr, decay) = match optimiser {
            Optimiser::AdamW(o) => (o.lr, o.weight_decay),
            Optimiser::Sgd(o) => (o.lr, o.weight_decay),
        };
        match optimiser {
            _ if decay > 1.0 && lr * decay > 1.0 => written("weight_decay", decay),
            Optimiser::Sgd(o) if o.momentum > LONG_MOMENTUM => written("momentum", o.momentum),
            _ => written("lr", lr),
        }
    }
}

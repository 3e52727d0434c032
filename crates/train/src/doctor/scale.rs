//! Whether the loss scale is to blame: replays at others.

use halfstep_graph::{DType, Phase, ValueId};

use super::diagnosis::{Cause, Finding};
use super::observe::{Observed, Replayed, Weights};
use super::replays::{Doctor, Range, first_broken, largest_of};
use super::text::short;
use crate::session::{Session, TrainError};
use crate::step::NORM_LIMIT;

impl Doctor<'_, '_, '_> {
    /// The largest power of two below the scale, and at least 1, at which a replay of the step is
    /// finite.
    pub(super) fn scale_that_fits(
        &mut self,
        low: &Observed,
        reference: &Observed,
    ) -> Result<Option<f64>, TrainError> {
        let counterparts = low.counterparts(reference);
        let mut fits = self.scale;
        for value in low.gradients() {
            let Some(counterpart) = counterparts[value.0 as usize] else { continue };
            let Some(range) = self.range_of(reference, counterpart)? else { continue };
            let limit = largest_of(low.graph.dtype(value));
            fits = if range.finite { fits.min(self.scale * limit / range.largest) } else { 1.0 };
        }
        // Scales are powers of two, so that they change no digits. What ranges foretell is right to
        // a power or so: from there down until a replay is finite, then up while it is.
        let exponent = |scale: f64| scale.log2().floor().clamp(0.0, 1023.0) as i32;
        let (mut good, mut bad, mut stride) = (-1, self.scale.log2().ceil() as i32, 1);
        let mut next = exponent(fits).min(bad - 1);
        while good + 1 < bad {
            if self.is_finite_at(f64::from(next).exp2())? {
                good = next;
            } else {
                bad = next;
            }
            next = if good < 0 { (bad - stride).max(0) } else { good + 1 };
            stride *= 2;
        }
        Ok((good >= 0).then(|| f64::from(good).exp2()))
    }

    fn is_finite_at(&self, scale: f64) -> Result<bool, TrainError> {
        let mut again = Observed::compile(self.session, scale)?;
        self.run(&mut again, &Weights::Present)?;
        Ok(first_broken(&again)?.is_none())
    }

    /// The norm of the gradients, where a step with it does not commit though no gradient is out of
    /// range: it is beyond f32, or so large that moments could leave f32.
    pub(super) fn norm_beyond(
        &mut self,
        low: &Observed,
    ) -> Result<Option<(Option<Finding>, Cause)>, TrainError> {
        let mut squares = 0.0;
        for &value in &low.values {
            if low.graph.value(value).gradient_of.is_some() {
                squares += low.read(value)?.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            }
        }
        let (norm, limit) = (squares.sqrt(), f64::from(f32::MAX));
        let unscaled = self.session.spec().clip.unwrap_or(f64::INFINITY).min(norm / self.scale);
        if norm <= limit && unscaled <= NORM_LIMIT {
            return Ok(None);
        }
        let range =
            Range { largest: norm, smallest: None, finite: true, nonzero: 1, not_finite: 1, count: 1 };
        let finding =
            self.finding_of("grad_norm", "global_norm", Phase::Update, DType::F32, Some(&range), 1, 1);
        let fits = (self.scale * limit / norm).log2().floor().exp2();
        if unscaled <= NORM_LIMIT && self.scale > 1.0 && fits >= 1.0 && fits < self.scale {
            self.evidence.push(format!("the norm of the gradients is {}", short(norm)));
            return Ok(Some((Some(finding), Cause::ScaleTooHigh { scale: self.scale, fits })));
        }
        self.evidence.push(format!(
            "the norm of the gradients is {} without the loss scale, and above {} moments could leave f32",
            short(norm / self.scale),
            short(NORM_LIMIT)
        ));
        Ok(Some((Some(finding), Cause::OutOfRange)))
    }

    /// A loss scale at which `value` keeps its elements and nothing overflows, as a replay shows.
    pub(super) fn scale_that_keeps(
        &self,
        low: &Observed,
        reference: &Observed,
        value: ValueId,
    ) -> Result<Option<f64>, TrainError> {
        let counterparts = low.counterparts(reference);
        let mut room = f64::INFINITY;
        for v in low.gradients() {
            let Some(counterpart) = counterparts[v.0 as usize] else { continue };
            let Some(range) = self.range_of(reference, counterpart)? else { continue };
            if range.largest > 0.0 {
                room = room.min(largest_of(low.graph.dtype(v)) / range.largest);
            }
        }
        // Half of the room: batches differ.
        let keeps = (self.scale * room / 2.0).log2().floor().exp2();
        if !keeps.is_finite() || keeps <= self.scale {
            return Ok(None);
        }
        let mut again = Observed::compile(self.session, keeps)?;
        self.run(&mut again, &Weights::Present)?;
        let nonzero = Range::of(&again.read(value)?).nonzero;
        let before = Range::of(&low.read(value)?).nonzero;
        Ok((first_broken(&again)?.is_none() && nonzero > before).then_some(keeps))
    }
}

/// Share of the elements of gradients stored in a low format that are zero there and not in f32, 0
/// to 1.
///
/// The session stays as it is; call it before the step.
///
/// # Errors
/// The engine has no memory for the replays; a batch of another size.
pub(crate) fn flushed(session: &Session<'_>, batch: &Replayed<'_>, scale: f64) -> Result<f64, TrainError> {
    let mut low = Observed::compile(session, scale)?;
    let mut reference = Observed::reference(session, scale)?;
    low.run(session, &Weights::Present, batch, 0)?;
    reference.run(session, &Weights::Present, batch, 0)?;
    let counterparts = low.counterparts(&reference);
    let (mut lost, mut whole) = (0, 0);
    for value in low.gradients() {
        let is_low = low.graph.dtype(value) != DType::F32;
        let Some(counterpart) =
            counterparts[value.0 as usize].filter(|c| is_low && reference.values.contains(c))
        else {
            continue;
        };
        let theirs = Range::of(&reference.read(counterpart)?).nonzero;
        whole += theirs;
        lost += theirs.saturating_sub(Range::of(&low.read(value)?).nonzero);
    }
    Ok(if whole == 0 { 0.0 } else { lost as f64 / whole as f64 })
}

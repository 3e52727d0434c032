//! What was wrong before the step: its batch, or the state it began with.

use halfstep_graph::engine::HostSlice;
use halfstep_graph::{DType, Op, Phase, SlotKind, ValueId};

use super::diagnosis::{Cause, Finding};
use super::observe::{Observed, Replayed, Weights};
use super::replays::{Doctor, Range, first_broken};
use crate::session::{Session, TrainError};
use crate::step::ACCUMULATE;

/// How much larger than every other sample one must be to be suspected.
const OUTLIER: f32 = 1e4;

/// A slot that holds what no state can be: NaN, infinity, or a negative mean of squares.
pub(crate) fn spoilt_state(session: &Session<'_>) -> Result<Option<Cause>, TrainError> {
    let mut impossible = None;
    for slot in session.slots().iter().filter(|s| !s.name.starts_with(ACCUMULATE)) {
        let values = session.download(&slot.name)?;
        let slot_name = || slot.name.clone();
        if values.f32().iter().any(|v| !v.is_finite()) {
            return Ok(Some(Cause::BadState { slot: slot_name() }));
        }
        let is_variance = slot.kind == SlotKind::Statistic && slot.name.ends_with("running_var");
        let is_square = slot.kind == SlotKind::Moment && slot.name.starts_with("optimiser.v.");
        let least = values.f32().iter().copied().fold(0.0, f32::min);
        if (is_variance || is_square) && least < 0.0 && impossible.is_none() {
            let what = if is_variance { "a variance" } else { "a mean of squares" };
            impossible = Some(Cause::ImpossibleState {
                slot: slot_name(),
                value: f64::from(least),
                what: what.into(),
            });
        }
    }
    Ok(impossible)
}

impl Doctor<'_, '_, '_> {
    /// A number of the batch that is not finite.
    pub(super) fn bad_input(&mut self) -> Option<(Option<Finding>, Cause)> {
        let HostSlice::F32(x) = self.batch.x else { return None };
        let at = x.iter().position(|v| !v.is_finite())?;
        let Range { not_finite: bad, count, .. } = Range::of(x);
        self.evidence.push(format!("the batch itself has {bad} numbers that are NaN or infinite"));
        let finding = self.finding_of("x", "input", Phase::Forward, DType::F32, None, bad, count);
        Some((Some(finding), self.input_at(at, x[at])))
    }

    fn input_at(&self, at: usize, value: f32) -> Cause {
        let elements = self.session.input().elements();
        Cause::BadInput { sample: at / elements, element: at % elements, value: format!("{value:?}") }
    }

    /// A sample to blame: one whose numbers do not fit the format of `value`, a copy of the input,
    /// or without which the step would be finite.
    pub(super) fn input_beyond(
        &mut self,
        low: &Observed,
        value: ValueId,
        format: DType,
        suspected: bool,
    ) -> Result<Option<Cause>, TrainError> {
        let HostSlice::F32(x) = self.batch.x else { return Ok(None) };
        let Some(at) = (0..x.len()).max_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())) else {
            return Ok(None);
        };
        let is_input = matches!(&low.node(low.origin(value)).op, Op::Input { name } if name == "x");
        if is_input && format.round(f64::from(x[at])).is_infinite() {
            return Ok(Some(self.input_at(at, x[at])));
        }
        let elements = self.session.input().elements();
        let (sample, whole) = (at / elements, x.len() / elements);
        let others = (0..whole).filter(|&s| s != sample).flat_map(|s| &x[s * elements..(s + 1) * elements]);
        let rest = others.fold(0f32, |most, v| most.max(v.abs()));
        if !suspected || whole < 2 || x[at].abs() <= OUTLIER * rest {
            return Ok(None);
        }
        let mut without = x.to_vec();
        without[sample * elements..(sample + 1) * elements].fill(0.0);
        let batch = Replayed { x: HostSlice::F32(&without), ..self.batch };
        let mut again = Observed::compile(self.session, self.scale)?;
        again.run(self.session, &Weights::Present, &batch, self.part)?;
        if first_broken(&again)?.is_some() {
            return Ok(None);
        }
        self.evidence.push(format!("replayed with sample {sample} set to zero, every value is finite"));
        Ok(Some(self.input_at(at, x[at])))
    }
}

//! Elements that are zero though f32 has them: too small for their format, or a difference of
//! operands that are equal once they are rounded.

use halfstep_graph::{Binary, DType, Op, Phase, Unary, ValueId};

use super::diagnosis::{Cause, Finding};
use super::observe::Observed;
use super::replays::{Doctor, LOST, Range};
use super::text::{pass, short};
use crate::session::TrainError;

impl Doctor<'_, '_, '_> {
    /// The earliest value that `value` is made of, operand by operand, in which elements are zero
    /// that are not in f32, with their number.
    pub(super) fn flushed_ancestor(
        &self,
        low: &Observed,
        reference: &Observed,
        value: ValueId,
    ) -> Result<Option<(ValueId, u64, Vec<f32>)>, TrainError> {
        let counterparts = low.counterparts(reference);
        let (mut at, mut found) = (value, None);
        loop {
            let mut most: Option<(ValueId, u64, Vec<f32>)> = None;
            for &operand in &low.node(at).inputs {
                let mut operand = operand;
                while matches!(low.node(operand).op, Op::Reshape { .. } | Op::Permute { .. }) {
                    operand = low.node(operand).inputs[0];
                }
                let Some(counterpart) = counterparts[operand.0 as usize] else { continue };
                if !low.values.contains(&operand) {
                    continue;
                }
                let Some(theirs) = self.numbers(reference, counterpart)? else { continue };
                let range = Range::of(&theirs);
                let lost = range.nonzero.saturating_sub(Range::of(&low.read(operand)?).nonzero);
                if range.finite && lost > most.as_ref().map_or(0, |(_, lost, _)| *lost) {
                    most = Some((operand, lost, theirs));
                }
            }
            let Some(next) = most else { return Ok(found) };
            at = next.0;
            found = Some(next);
        }
    }

    /// Why `lost` elements of `value` are zero that in f32 are among these numbers.
    pub(super) fn why_lost(&mut self, low: &Observed, value: ValueId, lost: u64, theirs: &[f32]) -> Cause {
        let to = low.graph.dtype(value);
        if let Some(value) = constant_operand(low, value, |c| c != 0.0 && to.round(c) == 0.0) {
            return Cause::Constant { value };
        }
        let below = |x: &&f32| **x != 0.0 && to.round(f64::from(**x)) == 0.0;
        let small = theirs.iter().filter(below).count() as u64;
        if 2 * small >= lost {
            return Cause::Underflow;
        }
        self.evidence.push(format!(
            "{small} of the {lost} are too small for {to}; the others are differences of operands that are equal once \
             they are rounded"
        ));
        Cause::Rounding
    }

    /// A value most of whose elements are zero and are not in f32.
    pub(super) fn lost_elements(
        &mut self,
        low: &Observed,
        reference: &mut Observed,
    ) -> Result<Option<(Option<Finding>, Cause)>, TrainError> {
        let counterparts = low.counterparts(reference);
        for &value in &low.values {
            if let Some(found) = self.cast_out_of_range(low, reference, value)? {
                return Ok(Some(found));
            }
            let Some(counterpart) = counterparts[value.0 as usize] else { continue };
            // Zeros that f32 has too are the model's: a ReLU makes them.
            let Some(theirs) = self.numbers(reference, counterpart)? else { continue };
            let (range, mine) = (Range::of(&theirs), Range::of(&low.read(value)?));
            let lost = range.nonzero.saturating_sub(mine.nonzero);
            let enough = range.nonzero > 0 && lost as f64 >= LOST * range.nonzero as f64;
            if !enough || !range.finite || low.graph.dtype(value) == DType::F32 {
                continue;
            }
            let finding = self.finding(low, value, Some(&range), lost);
            self.evidence.push(format!(
                "{lost} of {} elements that are not zero in f32 are zero in the {}",
                range.nonzero,
                pass(finding.phase)
            ));
            let cause = self.why_lost(low, value, lost, &theirs);
            if finding.phase == Phase::Backward
                && cause == Cause::Underflow
                && let Some(keeps) = self.scale_that_keeps(low, reference, value)?
            {
                self.evidence.push(format!("replayed at loss scale {}, they are kept", short(keeps)));
                return Ok(Some((Some(finding), Cause::ScaleTooLow { scale: self.scale, keeps })));
            }
            self.asking = low.asks_for(value);
            return Ok(Some((Some(finding), cause)));
        }
        Ok(None)
    }
}

/// A constant that the node of `value` reads, directly or through a shape, and that `is_bad`.
pub(super) fn constant_operand(
    observed: &Observed,
    value: ValueId,
    is_bad: impl Fn(f64) -> bool,
) -> Option<f64> {
    let node = observed.node(value);
    // A factor is no part of the result: it is the result that does not fit.
    if matches!(node.op, Op::Binary(Binary::Mul | Binary::Div)) {
        return None;
    }
    node.inputs.iter().find_map(|&input| {
        let mut at = input;
        loop {
            let made = observed.node(at);
            match made.op {
                Op::Const { value, .. } => return is_bad(value).then_some(value),
                Op::Broadcast { .. } | Op::Reshape { .. } | Op::Cast { .. } | Op::Unary(Unary::Neg) => {
                    at = made.inputs[0]
                }
                _ => return None,
            }
        }
    })
}

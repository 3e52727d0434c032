//! Finds the first value of a step that left its range, and the cause, by repeating the step in
//! other ways.

use halfstep_graph::{Phase, ValueId};

use super::diagnosis::{Cause, Diagnosis, Finding};
use super::first::FirstWeights;
use super::lost::constant_operand;
use super::observe::{Observed, Replayed, Weights};
use super::replays::{Doctor, Range, first_broken};
use super::state::spoilt_state;
use super::text::short;
use crate::session::{Session, TrainError};

/// Repeats a step that changed nothing, or is yet to be done, with every value observed, and says
/// what went wrong.
///
/// `scale` is the loss scale of the step. The session stays as it is; its weights must be those the
/// step began with.
///
/// # Errors
/// The engine has no memory for the replays; a batch of another size.
pub fn diagnose(session: &Session<'_>, batch: &Replayed<'_>, scale: f64) -> Result<Diagnosis, TrainError> {
    let mut doctor = Doctor {
        session,
        batch: *batch,
        scale,
        part: 0,
        first: FirstWeights::of(session),
        asking: Vec::new(),
        evidence: Vec::new(),
        loss: None,
    };
    let (finding, cause) = doctor.examine()?;
    let fixes = doctor.fixes(finding.as_ref(), &cause);
    Ok(Diagnosis {
        policy: session.policy().name.clone(),
        seed: session.spec().seed,
        attempt: batch.attempt,
        scale,
        loss: doctor.loss,
        finding,
        cause,
        evidence: doctor.evidence,
        fixes,
    })
}

impl Doctor<'_, '_, '_> {
    fn examine(&mut self) -> Result<(Option<Finding>, Cause), TrainError> {
        if let Some(found) = self.bad_input() {
            return Ok(found);
        }
        if let Some(cause) = spoilt_state(self.session)? {
            return Ok((None, cause));
        }
        let mut low = Observed::compile(self.session, self.scale)?;
        let parts = self.session.spec().options.accumulate;
        let mut broken = None;
        for part in 0..parts {
            self.part = part;
            self.run(&mut low, &Weights::Present)?;
            broken = first_broken(&low)?;
            if broken.is_some() {
                break;
            }
        }
        if broken.is_none() && parts > 1 {
            self.part = 0;
            self.run(&mut low, &Weights::Present)?;
        }
        self.loss = Some(f64::from(low.loss()?)).filter(|l| l.is_finite());
        let mut reference = Observed::reference(self.session, self.scale)?;
        self.run(&mut reference, &Weights::Present)?;
        match broken {
            Some(value) => self.explain(value, &low, &mut reference),
            None => self.nothing_broken(&low, &mut reference),
        }
    }

    /// Why `value` is not finite.
    fn explain(
        &mut self,
        value: ValueId,
        low: &Observed,
        reference: &mut Observed,
    ) -> Result<(Option<Finding>, Cause), TrainError> {
        if let Some(found) = self.cast_out_of_range(low, reference, value)? {
            return Ok(found);
        }
        let counterpart = low.counterparts(reference)[low.product(value).0 as usize];
        let found = match counterpart {
            Some(c) => self.range_of(reference, c)?,
            None => None,
        };
        let bad = low.read(value)?.iter().filter(|v| !v.is_finite()).count() as u64;
        let node = low.node(value).clone();
        let finding = self.finding(low, value, found.as_ref(), bad);
        let phase = node.phase;
        let holds = found.as_ref().is_some_and(|r| r.finite);
        self.evidence.push(match (&found, holds) {
            (Some(r), true) => {
                format!("replayed in f32, the same value is finite, up to {}", short(r.largest))
            }
            (Some(_), false) => "replayed in f32, the same value is not finite either".into(),
            (None, _) => "the replay in f32 has no such value".into(),
        });
        // The scale first: it is the one cause that no other replay shares.
        if phase == Phase::Backward && self.scale > 1.0 {
            if let Some(fits) = self.scale_that_fits(low, reference)? {
                self.evidence.push(format!("replayed at loss scale {}, every value is finite", short(fits)));
                return Ok((Some(finding), Cause::ScaleTooHigh { scale: self.scale, fits }));
            }
            self.evidence.push("replayed without the loss scale, a value is not finite either".into());
        }
        let format = low.graph.dtype(value);
        let over = found.as_ref().is_some_and(|r| r.finite && format.round(r.largest).is_infinite());
        if let Some(cause) = self.input_beyond(low, value, format, over || !holds)? {
            return Ok((Some(finding), cause));
        }
        if over && let Some(constant) = constant_operand(low, value, |c| format.round(c).is_infinite()) {
            self.asking = self.overrides_that_fit(low, value)?;
            return Ok((Some(finding), Cause::Constant { value: constant }));
        }
        if (over || !holds)
            && let Some(cause) = self.exploded(reference)?
        {
            return Ok((Some(finding), cause));
        }
        if !holds {
            return Ok((Some(finding), Cause::NotFiniteInF32));
        }
        if over {
            self.asking = self.overrides_that_fit(low, value)?;
            return Ok((Some(finding), Cause::OutOfRange));
        }
        // In range in f32 and made of finite operands: one of them is not what it is in f32.
        if let Some((origin, lost, theirs)) = self.flushed_ancestor(low, reference, value)? {
            let finding = self.finding(low, origin, Some(&Range::of(&theirs)), lost);
            self.evidence.push(format!(
                "{lost} elements that are not zero in f32 are zero, and {} of {} makes them infinite or NaN",
                node.op.name(),
                node.name
            ));
            let cause = self.why_lost(low, origin, lost, &theirs);
            self.asking = low.asks_for(origin);
            return Ok((Some(finding), cause));
        }
        self.asking = low.asks_for(value);
        Ok((Some(finding), Cause::Rounding))
    }

    /// All is finite: whether something was lost, or is about to be.
    fn nothing_broken(
        &mut self,
        low: &Observed,
        reference: &mut Observed,
    ) -> Result<(Option<Finding>, Cause), TrainError> {
        if let Some(found) = self.norm_beyond(low)? {
            return Ok(found);
        }
        if let Some(found) = self.lost_elements(low, reference)? {
            return Ok(found);
        }
        if let Some(cause) = self.exploded(reference)? {
            return Ok((None, cause));
        }
        self.evidence.push("replayed with every value observed, all are finite and none is lost".into());
        Ok((None, Cause::Nothing))
    }
}

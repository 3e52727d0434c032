//! Finds the first value of a step that left its range, and the cause, by repeating the step in
//! other ways.

use halfstep_float::RangeStats;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::{Binary, DType, Op, Phase, SlotKind, Unary, ValueId};

use super::diagnosis::{Cause, Diagnosis, Finding, pass, short};
use super::observe::{Observed, Replayed, Weights};
use crate::init::initial_values;
use crate::session::{Session, TrainError};
use crate::step::ACCUMULATE;

/// Share of a value's elements flushed to zero from which on it counts as lost.
pub(super) const LOST: f64 = 0.5;
/// How much worse than at the beginning a loss in f32 must be to blame training for it.
const WORSE: f32 = 2.0;
/// How much larger than every other sample one must be to be suspected.
const OUTLIER: f32 = 1e4;

/// Repeats a step that changed nothing, or is yet to be done, with every value observed, and says
/// what went wrong.
///
/// `scale` is the loss scale of the step. The session stays as it is; its weights must be those the
/// step began with.
///
/// # Errors
/// The engine has no memory for the replays; a batch of another size.
pub fn diagnose(session: &Session<'_>, batch: &Replayed<'_>, scale: f64) -> Result<Diagnosis, TrainError> {
    let mut doctor = Doctor { session, batch: *batch, scale, part: 0, evidence: Vec::new(), loss: None };
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

/// The replays of one step, and what they showed so far.
pub(super) struct Doctor<'s, 'e, 'b> {
    pub(super) session: &'s Session<'e>,
    pub(super) batch: Replayed<'b>,
    scale: f64,
    /// The part of the batch that is looked at.
    part: usize,
    pub(super) evidence: Vec<String>,
    loss: Option<f64>,
}

/// Magnitudes of a tensor.
pub(super) struct Range {
    pub(super) largest: f64,
    pub(super) smallest: Option<f64>,
    pub(super) finite: bool,
    pub(super) nonzero: u64,
    not_finite: u64,
    pub(super) count: u64,
}

impl Range {
    pub(super) fn of(values: &[f32]) -> Range {
        let stats = RangeStats::of(values);
        let not_finite = stats.non_finite();
        Range {
            largest: stats.amax.into(),
            smallest: stats.amin.is_finite().then_some(stats.amin.into()),
            finite: not_finite == 0,
            nonzero: stats.count - stats.zeros - not_finite,
            not_finite,
            count: stats.count,
        }
    }
}

/// The first value that is not finite, if there is one.
fn first_broken(observed: &Observed) -> Result<Option<ValueId>, TrainError> {
    for &value in &observed.values {
        if observed.read(value)?.iter().any(|v| !v.is_finite()) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn largest_of(dtype: DType) -> f64 {
    dtype.format().map_or(f64::INFINITY, |f| f.info().max_finite)
}

impl Doctor<'_, '_, '_> {
    fn run(&self, observed: &mut Observed, weights: Weights) -> Result<(), TrainError> {
        observed.run(self.session, weights, &self.batch, self.part)
    }

    fn examine(&mut self) -> Result<(Option<Finding>, Cause), TrainError> {
        if let Some(found) = self.bad_input() {
            return Ok(found);
        }
        if let Some(cause) = self.bad_state()? {
            return Ok((None, cause));
        }
        let mut low = Observed::compile(self.session, self.scale)?;
        let parts = self.session.spec().options.accumulate;
        let mut broken = None;
        for part in 0..parts {
            self.part = part;
            self.run(&mut low, Weights::Present)?;
            broken = first_broken(&low)?;
            if broken.is_some() {
                break;
            }
        }
        if broken.is_none() && parts > 1 {
            self.part = 0;
            self.run(&mut low, Weights::Present)?;
        }
        self.loss = Some(f64::from(low.loss()?)).filter(|l| l.is_finite());
        let mut reference = Observed::reference(self.session, self.scale)?;
        self.run(&mut reference, Weights::Present)?;
        match broken {
            Some(value) => self.explain(value, &low, &mut reference),
            None => self.nothing_broken(&low, &mut reference),
        }
    }

    /// A number of the batch that is not finite.
    fn bad_input(&mut self) -> Option<(Option<Finding>, Cause)> {
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

    #[allow(clippy::too_many_arguments, reason = "the fields of a finding")]
    fn finding_of(
        &self,
        name: &str,
        op: &str,
        phase: Phase,
        format: DType,
        found: Option<&Range>,
        bad: u64,
        count: u64,
    ) -> Finding {
        let found = found.filter(|r| r.finite);
        Finding {
            name: name.into(),
            op: op.into(),
            phase,
            format,
            largest: largest_of(format),
            smallest: format.format().map_or(0.0, |f| f.info().min_subnormal),
            found_largest: found.map(|r| r.largest),
            found_smallest: found.and_then(|r| r.smallest),
            bad,
            count,
            cast: None,
        }
    }

    pub(super) fn finding(&self, low: &Observed, value: ValueId, found: Option<&Range>, bad: u64) -> Finding {
        let node = low.node(value);
        let count = low.graph.shape(value).count() as u64;
        self.finding_of(&node.name, &node.op.name(), node.phase, low.graph.dtype(value), found, bad, count)
    }

    /// A slot that was not finite before the step.
    fn bad_state(&mut self) -> Result<Option<Cause>, TrainError> {
        for slot in self.session.slots().iter().filter(|s| !s.name.starts_with(ACCUMULATE)) {
            if self.session.download(&slot.name)?.f32().iter().any(|v| !v.is_finite()) {
                return Ok(Some(Cause::BadState { slot: slot.name.clone() }));
            }
        }
        Ok(None)
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
            return Ok((Some(finding), Cause::OutOfRange));
        }
        // In range in f32 and made of finite operands: one of them is not what it is in f32.
        if let Some((origin, lost, range)) = self.flushed_ancestor(low, reference, value)? {
            let finding = self.finding(low, origin, Some(&range), lost);
            self.evidence.push(format!(
                "{lost} elements that are not zero in f32 are zero, and {} of {} makes them infinite or NaN",
                node.op.name(),
                node.name
            ));
            let to = low.graph.dtype(origin);
            let cause = match constant_operand(low, origin, |c| c != 0.0 && to.round(c) == 0.0) {
                Some(value) => Cause::Constant { value },
                None => Cause::Underflow,
            };
            return Ok((Some(finding), cause));
        }
        Ok((Some(finding), Cause::Rounding))
    }

    fn range_of(&self, observed: &Observed, value: ValueId) -> Result<Option<Range>, TrainError> {
        Ok(self.numbers(observed, value)?.map(|numbers| Range::of(&numbers)))
    }

    /// What a value was in the last run, in some order, if that is known.
    pub(super) fn numbers(
        &self,
        observed: &Observed,
        value: ValueId,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        let node = observed.node(value);
        Ok(match &node.op {
            Op::Read { slot } => {
                let slot = &observed.graph.slot(*slot).name;
                Some(self.session.download_before(slot, self.batch.attempt)?.f32().to_vec())
            }
            Op::Input { name } if name == "x" => match self.batch.x {
                HostSlice::F32(x) => Some(x.to_vec()),
                HostSlice::I32(_) => None,
            },
            Op::Const { value, .. } => Some(vec![*value as f32]),
            Op::Reshape { .. } | Op::Permute { .. } => self.numbers(observed, node.inputs[0])?,
            _ if observed.values.contains(&value) => Some(observed.read(value)?),
            _ => None,
        })
    }

    /// The largest power of two up to 1024 times below the scale that ranges in f32 allow, or 1, at
    /// which a replay is finite.
    fn scale_that_fits(&mut self, low: &Observed, reference: &Observed) -> Result<Option<f64>, TrainError> {
        let counterparts = low.counterparts(reference);
        let mut fits = self.scale;
        for value in low.gradients() {
            let Some(counterpart) = counterparts[value.0 as usize] else { continue };
            let Some(range) = self.range_of(reference, counterpart)? else { continue };
            let limit = largest_of(low.graph.dtype(value));
            fits = if range.finite { fits.min(self.scale * limit / range.largest) } else { 1.0 };
        }
        // Scales are powers of two, so that they change no digits; one step of room for roundings.
        let foretold = fits.log2().floor().exp2().min(self.scale / 2.0).max(1.0);
        let mut tried = vec![foretold, foretold / 2.0, 1.0];
        tried.retain(|s| *s >= 1.0 && *s < self.scale);
        tried.dedup();
        for scale in tried {
            let mut again = Observed::compile(self.session, scale)?;
            self.run(&mut again, Weights::Present)?;
            if first_broken(&again)?.is_none() {
                return Ok(Some(scale));
            }
        }
        Ok(None)
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
        again.run(self.session, Weights::Present, &batch, self.part)?;
        if first_broken(&again)?.is_some() {
            return Ok(None);
        }
        self.evidence.push(format!("replayed with sample {sample} set to zero, every value is finite"));
        Ok(Some(self.input_at(at, x[at])))
    }

    /// Whether training has made things worse than they were: by the loss in f32 with the present
    /// and the first weights.
    pub(super) fn exploded(&mut self, reference: &mut Observed) -> Result<Option<Cause>, TrainError> {
        if self.session.progress().committed == 0 {
            return Ok(None);
        }
        let now = reference.loss()?;
        self.run(reference, Weights::First)?;
        let (first, finite) = (reference.loss()?, first_broken(reference)?.is_none());
        self.run(reference, Weights::Present)?;
        if !finite || (now.is_finite() && now <= WORSE * first) {
            return Ok(None);
        }
        let Some((slot, grown)) = self.grown_most()? else { return Ok(None) };
        self.evidence.push(format!(
            "in f32 the loss of this batch is {} with the present weights, {} with the first ones",
            if now.is_finite() { short(f64::from(now)) } else { "not finite".into() },
            short(f64::from(first))
        ));
        Ok(Some(Cause::ExplodedWeights { slot, grown }))
    }

    /// The weight whose root mean square grew most, and by how much.
    fn grown_most(&self) -> Result<Option<(String, f64)>, TrainError> {
        let rms =
            |v: &[f32]| (v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / v.len().max(1) as f64).sqrt();
        let mut most: Option<(String, f64)> = None;
        let weights = self.session.slots().iter().filter(|s| matches!(s.kind, SlotKind::Weight { .. }));
        for slot in weights {
            let (first, now) = (
                rms(&initial_values(slot, self.session.spec().seed)),
                rms(self.session.download(&slot.name)?.f32()),
            );
            if first > 0.0 && most.as_ref().is_none_or(|(_, grown)| now / first > *grown) {
                most = Some((slot.name.clone(), now / first));
            }
        }
        Ok(most.filter(|(_, grown)| *grown > 1.0))
    }

    /// The earliest value that `value` is made of, operand by operand, in which elements are zero
    /// that are not in f32, with their number.
    fn flushed_ancestor(
        &self,
        low: &Observed,
        reference: &Observed,
        value: ValueId,
    ) -> Result<Option<(ValueId, u64, Range)>, TrainError> {
        let counterparts = low.counterparts(reference);
        let (mut at, mut found) = (value, None);
        loop {
            let mut most: Option<(ValueId, u64, Range)> = None;
            for &operand in &low.node(at).inputs {
                let mut operand = operand;
                while matches!(low.node(operand).op, Op::Reshape { .. } | Op::Permute { .. }) {
                    operand = low.node(operand).inputs[0];
                }
                let Some(counterpart) = counterparts[operand.0 as usize] else { continue };
                if !low.values.contains(&operand) {
                    continue;
                }
                let Some(theirs) = self.range_of(reference, counterpart)? else { continue };
                let lost = theirs.nonzero.saturating_sub(Range::of(&low.read(operand)?).nonzero);
                if theirs.finite && lost > most.as_ref().map_or(0, |(_, lost, _)| *lost) {
                    most = Some((operand, lost, theirs));
                }
            }
            let Some(next) = most else { return Ok(found) };
            at = next.0;
            found = Some(next);
        }
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
        let counterparts = low.counterparts(reference);
        for &value in &low.values {
            if let Some(found) = self.cast_out_of_range(low, reference, value)? {
                return Ok(found);
            }
            let Some(counterpart) = counterparts[value.0 as usize] else { continue };
            // Zeros that f32 has too are the model's: a ReLU makes them.
            let Some(theirs) = self.range_of(reference, counterpart)? else { continue };
            let mine = Range::of(&low.read(value)?);
            let lost = theirs.nonzero.saturating_sub(mine.nonzero);
            let enough = theirs.nonzero > 0 && lost as f64 >= LOST * theirs.nonzero as f64;
            if !enough || !theirs.finite || low.graph.dtype(value) == DType::F32 {
                continue;
            }
            let finding = self.finding(low, value, Some(&theirs), lost);
            self.evidence.push(format!(
                "{lost} of {} elements that are not zero in f32 are zero in the {}",
                theirs.nonzero,
                pass(finding.phase)
            ));
            let to = low.graph.dtype(value);
            if let Some(value) = constant_operand(low, value, |c| c != 0.0 && to.round(c) == 0.0) {
                return Ok((Some(finding), Cause::Constant { value }));
            }
            if finding.phase == Phase::Backward
                && let Some(keeps) = self.scale_that_keeps(low, reference, value)?
            {
                self.evidence.push(format!("replayed at loss scale {}, they are kept", short(keeps)));
                return Ok((Some(finding), Cause::ScaleTooLow { scale: self.scale, keeps }));
            }
            return Ok((Some(finding), Cause::Underflow));
        }
        if let Some(cause) = self.exploded(reference)? {
            return Ok((None, cause));
        }
        self.evidence.push("replayed with every value observed, all are finite and none is lost".into());
        Ok((None, Cause::Nothing))
    }

    /// The norm of the gradients, where it is beyond f32 though no gradient is.
    fn norm_beyond(&mut self, low: &Observed) -> Result<Option<(Option<Finding>, Cause)>, TrainError> {
        let mut squares = 0.0;
        for &value in &low.values {
            if low.graph.value(value).gradient_of.is_some() {
                squares += low.read(value)?.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            }
        }
        if squares < f64::from(f32::MAX) {
            return Ok(None);
        }
        let norm =
            Range { largest: squares, smallest: None, finite: true, nonzero: 1, not_finite: 1, count: 1 };
        let finding =
            self.finding_of("grad_norm", "global_norm", Phase::Update, DType::F32, Some(&norm), 1, 1);
        self.evidence.push(format!("the squares of the gradients sum up to {squares:.1e}"));
        let fits = (self.scale / (squares / f64::from(f32::MAX)).sqrt()).log2().floor().exp2() / 2.0;
        let cause = if self.scale > 1.0 && fits >= 1.0 {
            Cause::ScaleTooHigh { scale: self.scale, fits }
        } else {
            Cause::OutOfRange
        };
        Ok(Some((Some(finding), cause)))
    }

    /// A loss scale at which `value` keeps its elements and nothing overflows, as a replay shows.
    fn scale_that_keeps(
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
        self.run(&mut again, Weights::Present)?;
        let nonzero = Range::of(&again.read(value)?).nonzero;
        let before = Range::of(&low.read(value)?).nonzero;
        Ok((first_broken(&again)?.is_none() && nonzero > before).then_some(keeps))
    }
}

/// A constant that the node of `value` reads, directly or through a shape, and that `is_bad`.
fn constant_operand(observed: &Observed, value: ValueId, is_bad: impl Fn(f64) -> bool) -> Option<f64> {
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
    low.run(session, Weights::Present, batch, 0)?;
    reference.run(session, Weights::Present, batch, 0)?;
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

//! What range each value of a step takes: exponents, and what each format would make of it.

use std::collections::BTreeMap;

use halfstep_float::{Format, RangeStats};
use halfstep_graph::{DType, Phase};
use serde::{Deserialize, Serialize};

use super::observe::{Observed, Replayed, Weights};
use crate::scaler::{LossScale, SCALE_SLOT};
use crate::session::{Session, TrainError};

/// Shares of a value's finite elements that are not zero, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatShares {
    /// Become zero in the format.
    pub underflow: f64,
    /// Lie below its smallest normal number, those that become zero included: they lose digits.
    pub subnormal: f64,
    /// Round beyond its largest number: infinity, or that number itself where a conversion
    /// saturates.
    pub overflow: f64,
}

/// What range one value of a step takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueRange {
    /// Where in the model it stands.
    pub name: String,
    /// The operation that makes it.
    pub op: String,
    /// Which part of the step.
    pub phase: Phase,
    /// How it is stored.
    pub format: DType,
    /// Elements.
    pub count: u64,
    /// Zeros.
    pub zeros: u64,
    /// NaNs and infinities.
    pub non_finite: u64,
    /// Largest finite magnitude; 0 if there is none.
    pub amax: f32,
    /// Smallest finite magnitude above 0; 0 if there is none.
    pub amin: f32,
    /// Exponent of the first entry of `exponents`: an element x counts where 2^e ≤ |x| < 2^(e+1).
    pub first_exponent: i32,
    /// Counts of finite elements that are not zero, by exponent. f32's subnormal numbers count at
    /// −127.
    pub exponents: Vec<u64>,
    /// What each format makes of it.
    pub formats: BTreeMap<String, FormatShares>,
}

impl ValueRange {
    fn of(observed: &Observed, value: halfstep_graph::ValueId, elements: &[f32]) -> ValueRange {
        let node = observed.node(value);
        let stats = RangeStats::of(elements);
        let (first_exponent, exponents) = exponents(elements);
        let whole = (stats.count - stats.zeros - stats.non_finite()).max(1) as f64;
        let shares = |format: Format| {
            let counts = stats.counts(format);
            let share = |n: u64| n as f64 / whole;
            let (underflow, subnormal) = (share(counts.underflowed), share(counts.subnormal));
            (
                format.name().to_string(),
                FormatShares { underflow, subnormal, overflow: share(counts.overflowed) },
            )
        };
        ValueRange {
            name: node.name.clone(),
            op: node.op.name(),
            phase: node.phase,
            format: observed.graph.dtype(value),
            count: stats.count,
            zeros: stats.zeros,
            non_finite: stats.non_finite(),
            amax: stats.amax,
            amin: if stats.amin.is_finite() { stats.amin } else { 0.0 },
            first_exponent,
            exponents,
            formats: Format::ALL.map(shares).into(),
        }
    }

    /// Powers of two between the largest element and the end of its format, negative beyond it; −∞
    /// where something is not finite, none where all is zero.
    pub fn headroom(&self) -> Option<f64> {
        let largest = self.format.format()?.info().max_finite;
        if self.non_finite > 0 {
            return Some(f64::NEG_INFINITY);
        }
        (self.amax > 0.0).then(|| (largest / f64::from(self.amax)).log2())
    }

    /// Share of the elements that are not zero which lie below the smallest normal number of the
    /// value's format.
    pub fn lost(&self) -> Option<f64> {
        let format = self.format.format()?;
        self.formats.get(format.name()).map(|shares| shares.subnormal)
    }
}

/// Counts of finite elements that are not zero by exponent, from the smallest to the largest that
/// occurs.
fn exponents(elements: &[f32]) -> (i32, Vec<u64>) {
    let mut counts = [[0u32; 256]; 4];
    let mut total = [0u64; 256];
    for chunk in elements.chunks(1 << 30) {
        // Four tables: neighbours often have one exponent, and a counter waits for itself.
        for (i, x) in chunk.iter().enumerate() {
            let bits = x.to_bits() & 0x7fff_ffff;
            let bin = if bits == 0 { 255 } else { bits >> 23 };
            counts[i % 4][bin as usize] += 1;
        }
        for table in &mut counts {
            total.iter_mut().zip(table.iter()).for_each(|(t, &c)| *t += u64::from(c));
            table.fill(0);
        }
    }
    // The last exponent is that of what is not finite.
    let finite = &total[..255];
    let Some(first) = finite.iter().position(|&c| c > 0) else { return (0, Vec::new()) };
    let last = finite.iter().rposition(|&c| c > 0).unwrap_or(first);
    (first as i32 - 127, finite[first..=last].to_vec())
}

/// The ranges of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Precision policy.
    pub policy: String,
    /// Seed of the run.
    pub seed: u64,
    /// Steps tried before this one.
    pub attempt: u64,
    /// Loss scale of the step.
    pub scale: f64,
    /// Every value, in execution order.
    pub values: Vec<ValueRange>,
}

/// Takes samples of a run, with a program of its own that is compiled for the first.
#[derive(Default)]
pub struct Sampler {
    observed: Option<(f64, Observed)>,
}

impl Sampler {
    /// The ranges of the values of a step at this loss scale, of a batch in parts those of the
    /// first part. The session stays as it is; its weights must be those the step begins with.
    ///
    /// # Errors
    /// The engine has no memory for the program; a batch of another size.
    pub fn sample(
        &mut self,
        session: &Session<'_>,
        batch: &Replayed<'_>,
        scale: f64,
    ) -> Result<Sample, TrainError> {
        let observed = match &mut self.observed {
            Some((of, observed)) if *of == scale => observed,
            other => &mut other.insert((scale, Observed::compile(session, scale)?)).1,
        };
        observed.run(session, &Weights::Present, batch, 0)?;
        let mut values = Vec::with_capacity(observed.values.len());
        for &value in &observed.values {
            values.push(ValueRange::of(observed, value, &observed.read(value)?));
        }
        let (policy, seed) = (session.policy().name.clone(), session.spec().seed);
        Ok(Sample { policy, seed, attempt: batch.attempt, scale, values })
    }
}

/// The ranges that the values of a step would take if each were f32: those of a failed step say
/// nothing behind the first that broke. Formats are those of the policy.
///
/// # Errors
/// The engine has no memory for the replay; a batch of another size.
pub(crate) fn in_f32(session: &Session<'_>, batch: &Replayed<'_>, scale: f64) -> Result<Sample, TrainError> {
    let stored = Observed::compile(session, scale)?;
    let mut reference = Observed::reference(session, scale)?;
    reference.run(session, &Weights::Present, batch, 0)?;
    let counterparts = stored.counterparts(&reference);
    let mut values = Vec::with_capacity(stored.values.len());
    for &value in &stored.values {
        if let Some(wide) = counterparts[value.0 as usize].filter(|wide| reference.values.contains(wide)) {
            values.push(ValueRange::of(&stored, value, &reference.read(wide)?));
        }
    }
    let (policy, seed) = (session.policy().name.clone(), session.spec().seed);
    Ok(Sample { policy, seed, attempt: batch.attempt, scale, values })
}

/// The loss scale that the session's next step uses.
pub(crate) fn scale_of(session: &Session<'_>) -> Result<f64, TrainError> {
    Ok(match &session.spec().scaling {
        LossScale::Off => 1.0,
        LossScale::Static(s) => s.scale,
        LossScale::Dynamic(_) => f64::from(session.download(SCALE_SLOT)?.f32()[0]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_counted_where_the_numbers_lie() {
        let (first, counts) = exponents(&[0.0, 1.0, 1.9, -2.0, 0.25, f32::NAN, f32::INFINITY, -0.0]);
        assert_eq!((first, counts), (-2, vec![1, 0, 2, 1]));
        assert_eq!(exponents(&[f32::from_bits(1)]), (-127, vec![1]));
        assert_eq!(exponents(&[0.0, f32::NAN]), (0, Vec::new()));
        assert_eq!(exponents(&[f32::MAX]), (127, vec![1]));
    }
}

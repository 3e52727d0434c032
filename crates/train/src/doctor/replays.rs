//! The replays of one step, and what is read from them.

use halfstep_float::RangeStats;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::{DType, Op, Phase, ValueId};

use super::diagnosis::Finding;
use super::first::FirstWeights;
use super::observe::{Observed, Replayed, Weights};
use crate::session::{Session, TrainError};

/// Share of a value's elements flushed to zero from which on it counts as lost.
pub(super) const LOST: f64 = 0.5;

/// The replays of one step, and what they showed so far.
pub(super) struct Doctor<'s, 'e, 'b> {
    pub(super) session: &'s Session<'e>,
    pub(super) batch: Replayed<'b>,
    pub(super) scale: f64,
    /// The part of the batch that is looked at.
    pub(super) part: usize,
    /// What the run began with, if that is known.
    pub(super) first: Option<FirstWeights>,
    /// The operations that are to be kept in f32.
    pub(super) asking: Vec<String>,
    pub(super) evidence: Vec<String>,
    pub(super) loss: Option<f64>,
}

/// Magnitudes of a tensor.
pub(super) struct Range {
    pub(super) largest: f64,
    pub(super) smallest: Option<f64>,
    pub(super) finite: bool,
    pub(super) nonzero: u64,
    pub(super) not_finite: u64,
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
pub(super) fn first_broken(observed: &Observed) -> Result<Option<ValueId>, TrainError> {
    for &value in &observed.values {
        if observed.read(value)?.iter().any(|v| !v.is_finite()) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

pub(super) fn largest_of(dtype: DType) -> f64 {
    dtype.format().map_or(f64::INFINITY, |f| f.info().max_finite)
}

impl Doctor<'_, '_, '_> {
    pub(super) fn run(&self, observed: &mut Observed, weights: &Weights<'_>) -> Result<(), TrainError> {
        observed.run(self.session, weights, &self.batch, self.part)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a finding")]
    pub(super) fn finding_of(
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

    pub(super) fn range_of(&self, observed: &Observed, value: ValueId) -> Result<Option<Range>, TrainError> {
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
}

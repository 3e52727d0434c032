//! The values that a run began with: those of the file it was given, and drawn ones.

use std::collections::HashMap;

use halfstep_graph::{Slot, SlotKind};
use safetensors::tensor::SafeTensors;

use crate::checkpoint;
use crate::init::initial_values;
use crate::session::{Session, TrainError};

/// The values that a run began with.
pub struct FirstWeights {
    seed: u64,
    given: HashMap<String, Vec<f32>>,
}

/// A weight now, beside what it was at the beginning of the run.
pub(crate) struct Moved {
    pub slot: Slot,
    /// Root mean square at the beginning.
    pub first: f64,
    /// Root mean square now.
    pub now: f64,
    /// Root mean square of the difference.
    pub by: f64,
}

pub(crate) fn rms(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    (values.map(|x| x * x).sum::<f64>() / count).sqrt()
}

impl FirstWeights {
    /// Of a run; none where the file that it was given can no longer be read.
    pub fn of(session: &Session<'_>) -> Option<FirstWeights> {
        let mut given = HashMap::new();
        if let Some(path) = session.start() {
            let bytes = checkpoint::read(path).ok()?;
            let file = SafeTensors::deserialize(&bytes).ok()?;
            for (name, tensor) in file.tensors() {
                let words = tensor.data().chunks_exact(4);
                let values = words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                given.insert(name, values);
            }
        }
        Some(FirstWeights { seed: session.spec().seed, given })
    }

    /// What a slot held.
    pub fn values(&self, slot: &Slot) -> Vec<f32> {
        let given = self.given.get(&slot.name).filter(|v| v.len() == slot.ty.shape.count());
        given.cloned().unwrap_or_else(|| self.drawn(slot))
    }

    /// What a slot would have held without the file.
    pub(super) fn drawn(&self, slot: &Slot) -> Vec<f32> {
        initial_values(slot, self.seed)
    }

    /// Every weight that is given, with the root mean squares of its given and its drawn values.
    pub(crate) fn given<'s>(
        &'s self,
        session: &'s Session<'_>,
    ) -> impl Iterator<Item = (&'s Slot, f64, f64)> {
        let size = |v: &[f32]| rms(v.iter().map(|&x| f64::from(x)));
        let weights = session.slots().iter().filter(|s| matches!(s.kind, SlotKind::Weight { .. }));
        weights.filter_map(move |slot| {
            let given = self.given.get(&slot.name)?;
            Some((slot, size(given), size(&self.drawn(slot))))
        })
    }

    /// What training has made of each weight.
    pub(crate) fn moved(&self, session: &Session<'_>) -> Result<Vec<Moved>, TrainError> {
        let size = |v: &[f32]| rms(v.iter().map(|&x| f64::from(x)));
        let mut all = Vec::new();
        for slot in session.slots().iter().filter(|s| matches!(s.kind, SlotKind::Weight { .. })) {
            let (first, now) = (self.values(slot), session.download(&slot.name)?);
            let pairs = first.iter().zip(now.f32());
            let by = rms(pairs.map(|(a, b)| f64::from(*b) - f64::from(*a)).collect::<Vec<_>>().into_iter());
            all.push(Moved { slot: slot.clone(), first: size(&first), now: size(now.f32()), by });
        }
        Ok(all)
    }
}

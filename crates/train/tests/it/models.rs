//! Every reference model under every precision policy on every engine: it learns, and threads do
//! not change a bit.

use crate::common;
use std::num::NonZeroUsize;

use crate::common::models::{Case, cases};
use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::Policy;
use halfstep_nn::InputSpec;
use halfstep_train::optimiser::{AdamW, Optimiser};
use halfstep_train::session::{Session, SessionSpec};

const BATCH: usize = 4;

struct Batch {
    numbers: Vec<f32>,
    tokens: Vec<i32>,
    targets: Vec<i32>,
}

impl Case {
    fn batch(&self) -> Batch {
        let count = BATCH * self.input.elements();
        Batch {
            numbers: (0..count).map(|i| ((i * 31) % 19) as f32 / 8.0 - 1.1).collect(),
            tokens: (0..count).map(|i| ((i * 31) % 19 % 5) as i32).collect(),
            targets: (0..self.input.rows(BATCH)).map(|i| (i * 7 % 5) as i32).collect(),
        }
    }

    /// Losses of steps on one batch, and whether each committed.
    fn train(&self, engine: &dyn Engine, policy: &str, steps: usize) -> (Vec<f32>, Vec<bool>) {
        let policy = Policy::named(policy).unwrap();
        let spec = SessionSpec {
            optimiser: Optimiser::AdamW(AdamW { lr: 0.01, ..AdamW::default() }),
            clip: Some(1.0),
            ..SessionSpec::new(&policy, BATCH, 5)
        };
        let mut session = Session::new(engine, &*self.model, &self.input, &policy, &spec).unwrap();
        let batch = self.batch();
        let x = match self.input {
            InputSpec::Tokens { .. } => HostSlice::I32(&batch.tokens),
            _ => HostSlice::F32(&batch.numbers),
        };
        let reports = (0..steps).map(|_| session.step(x, &batch.targets, 0.01).unwrap());
        reports.map(|r| (r.loss, r.committed)).unzip()
    }
}

#[test]
fn every_model_learns_a_batch_in_every_precision() {
    for engine in common::engines() {
        for case in cases(3, 0.0) {
            for &policy in common::policies() {
                let (losses, committed) = case.train(&*engine, policy, 24);
                let name = format!("{} {policy} on {}: {losses:?}", case.name, engine.name());
                assert!(losses.iter().all(|l| l.is_finite()), "{name}");
                assert!(losses[23] < 0.9 * losses[0], "{name}");
                // The first loss scale of f16 may be too high: it halves with every skipped step.
                let allowed = if policy == "fp16" { 6 } else { 0 };
                assert!(committed.iter().filter(|&&c| !c).count() <= allowed, "{name} {committed:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in cases(3, 0.0) {
        for &policy in common::policies() {
            let run = |threads| {
                let engine = CpuEngine::new(Isa::best(), NonZeroUsize::new(threads).unwrap());
                case.train(&engine, policy, 6)
            };
            let one = run(1);
            for threads in [2, 3, 5] {
                assert_eq!(one, run(threads), "{} {policy}, {threads} threads", case.name);
            }
        }
    }
}

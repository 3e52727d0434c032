//! Trained weights stored in ever smaller formats, computed in fp32.

use halfstep_evidence::assessment::MetricRow;
use halfstep_evidence::experiment::NoiseFloor;
use halfstep_evidence::logits::{InMemory, Source};
use halfstep_evidence::noninferiority::over_all;
use halfstep_evidence::robustness::{Ladder, Rung};
use halfstep_evidence::stats::Looks;
use halfstep_evidence::{Assessment, Metric, Protocol, assess};
use halfstep_float::blocks::{BlockError, BlockShape, F32Scale, Fp8Blocks, Mx, ScaleRule};
use halfstep_float::{E8m0, Format, Overflow, SliceRounding, round_f32, round_to_integers};
use halfstep_graph::precision::Policy;
use halfstep_train::probe::Weights;

use crate::inputs::Inputs;
use crate::{OnProgress, StressError, Subject, tell};

/// A format for stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Float(Format),
    Fp8,
    Mx(Format),
    Int(u32),
}

/// From wide to narrow.
pub(crate) const RUNGS: [(&str, Stored); 7] = [
    ("bf16", Stored::Float(Format::Bf16)),
    ("fp16", Stored::Float(Format::F16)),
    ("fp8", Stored::Fp8),
    ("mxfp8", Stored::Mx(Format::E4m3)),
    ("int8", Stored::Int(8)),
    ("mxfp4", Stored::Mx(Format::E2m1)),
    ("int4", Stored::Int(4)),
];

impl Stored {
    fn how(self) -> &'static str {
        match self {
            Stored::Float(_) => "rounded to nearest even",
            Stored::Fp8 => "e4m3, one f32 scale per tensor (amax becomes 448)",
            Stored::Mx(Format::E2m1) => "e2m1, a power-of-two scale per 32 of a row (OCP MX)",
            Stored::Mx(_) => "e4m3, a power-of-two scale per 32 of a row (OCP MX)",
            Stored::Int(_) => "symmetric, one f32 scale per output channel",
        }
    }

    /// Stores a matrix or kernel, output channels first, and reads it back; bits that it takes.
    fn round(self, shape: &[usize], values: &mut [f32]) -> Result<usize, BlockError> {
        let row = shape[1..].iter().product::<usize>().max(1);
        let (count, rows) = (values.len(), values.len() / row);
        let rounding = SliceRounding::NearestEven;
        match self {
            Stored::Float(format) => {
                let from = values.to_vec();
                round_f32(format, rounding, Overflow::Saturate, &from, values);
                Ok(16 * count)
            }
            Stored::Fp8 => {
                let whole = BlockShape { rows: rows.max(1), columns: row };
                let form = Fp8Blocks::new(Format::E4m3, whole, F32Scale::Any)?;
                let mut codes = vec![0; count];
                let mut scales = vec![0.0; form.scales(count, row)?];
                form.quantise(rounding, values, row, &mut codes, &mut scales)?;
                form.dequantise(&codes, row, &scales, values)?;
                Ok(8 * count + 32 * scales.len())
            }
            Stored::Mx(element) => {
                let form = Mx::new(element, ScaleRule::default())?;
                let mut codes = vec![0; count];
                let mut scales = vec![E8m0(0); form.scales(count, row)?];
                form.quantise(rounding, values, row, &mut codes, &mut scales)?;
                form.dequantise(&codes, row, &scales, values)?;
                Ok(element.bits() as usize * count + 8 * scales.len())
            }
            Stored::Int(bits) => {
                round_to_integers(bits, row, values);
                Ok(bits as usize * count + 32 * rows)
            }
        }
    }

    /// The weights as read back, and bits per number of matrices and kernels.
    pub(crate) fn weights(self, weights: &Weights) -> Result<(Weights, f64), BlockError> {
        let mut bits = 0;
        let changed = weights.map_matrices(|shape, values| {
            bits += self.round(shape, values)?;
            Ok(())
        })?;
        Ok((changed, bits as f64 / weights.counts().0.max(1) as f64))
    }
}

pub(crate) fn measure(
    subject: &Subject<'_>,
    test: &Inputs,
    on_progress: OnProgress<'_>,
) -> Result<Ladder, StressError> {
    let fp32 = Policy::named("fp32")?;
    let models: Vec<_> = subject.of(subject.baseline).map(|(_, t)| t).collect();
    // Tokens of one window are no examples of their own.
    let rows = test.labels.len() / test.len().max(1);
    let windows: Option<Vec<String>> =
        (rows > 1).then(|| (0..test.labels.len()).map(|row| (row / rows).to_string()).collect());
    let source = |name: &str, seed: u64, logits: Vec<f32>| {
        let name = format!("{name} seed {seed}");
        let all = InMemory::new(name, logits.len() / test.labels.len(), logits, &test.labels).with_seed(seed);
        match &windows {
            Some(windows) => all.with_clusters(windows),
            None => all,
        }
    };
    let logits = |weights: &Weights| test.logits(&mut subject.probe(&fp32, weights)?);
    let mut wide = Vec::new();
    for model in &models {
        wide.push(source("f32 weights", model.seed, logits(&model.weights)?));
    }
    let mut rungs = Vec::new();
    for (name, stored) in RUNGS {
        tell(on_progress, &format!("weights in {name}"))?;
        let (mut narrow, mut bits) = (Vec::new(), 0.0);
        for model in &models {
            let (weights, each) = stored.weights(&model.weights)?;
            bits = each;
            narrow.push(source(name, model.seed, logits(&weights)?));
        }
        // Each model by its own examples: the question is about these weights, not about training
        // others like them.
        let mut assessments = Vec::new();
        for (a, b) in wide.iter().zip(&narrow) {
            let protocol = Protocol { floor: NoiseFloor::None, ..Protocol::default() };
            assessments.push(assess(&[a as &dyn Source], &[b], protocol, subject.threads)?);
        }
        let mean = |f: &dyn Fn(&Assessment) -> f64| {
            assessments.iter().map(f).sum::<f64>() / assessments.len().max(1) as f64
        };
        let accuracy = |a: &Assessment, of: fn(&MetricRow) -> f64| {
            let row = a.rows.iter().find(|r| r.metric == Metric::Accuracy && r.group.is_none());
            row.map_or(f64::NAN, of)
        };
        // Every model must pass, and what fails must do so after allowing for their number.
        let tests: Vec<_> = assessments.iter().flat_map(Assessment::tests).collect();
        let verdict = over_all(&tests, Looks::ONE);
        rungs.push(Rung {
            format: name,
            how: stored.how(),
            bits,
            reference: mean(&|a| accuracy(a, |r| r.reference)),
            accuracy: mean(&|a| accuracy(a, |r| r.candidate)),
            flips: mean(&|a| a.seeds[0].agreement.flips),
            verdict,
            rows: assessments.into_iter().map(|a| a.rows).collect(),
        });
    }
    Ok(Ladder { trained: subject.baseline.into(), seeds: models.len(), rungs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_keeps_what_its_format_holds() {
        // Powers of two of one magnitude, in every row: exact in all formats but the integers'
        // scales of 7 and 127.
        let values: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { -0.25 } else { 0.25 }).collect();
        for (name, stored) in RUNGS {
            let mut x = values.clone();
            let bits = stored.round(&[4, 8, 8], &mut x).unwrap() as f64 / 256.0;
            // amax / 7 · 7 is rounded twice, amax / 448 · 448 likewise.
            assert!(x.iter().zip(&values).all(|(a, b)| (a - b).abs() <= 2.0 * f32::EPSILON * 0.25), "{name}");
            let expected = match name {
                "bf16" | "fp16" => 16.0,
                "fp8" => 8.0 + 32.0 / 256.0,
                "mxfp8" => 8.25,
                "mxfp4" => 4.25,
                "int8" => 8.0 + 32.0 / 64.0,
                _ => 4.0 + 32.0 / 64.0,
            };
            assert_eq!(bits, expected, "{name}");
        }
    }
}

//! How far the values inside a model are from those of the same model computed in another
//! precision.

use serde::Serialize;

/// Sums over samples of one layer's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerSums {
    samples: u64,
    relative: f64,
    cosine: f64,
    difference: f64,
    reference: f64,
}

/// What the sums come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerDivergence {
    /// ‖other − reference‖ / ‖reference‖ over all samples together.
    pub relative_l2: f64,
    /// Mean over samples of the same of one sample.
    pub mean_relative_l2: f64,
    /// Mean over samples of the cosine of the angle between them.
    pub cosine: f64,
}

impl LayerSums {
    /// Adds a sample's outputs. Where both are all zeros they agree; where one is, relative L2 is 1
    /// and the cosine 0.
    pub fn push(&mut self, reference: &[f32], other: &[f32]) {
        let (mut rr, mut oo, mut ro, mut dd) = (0.0, 0.0, 0.0, 0.0);
        for (&r, &o) in reference.iter().zip(other) {
            let (r, o) = (f64::from(r), f64::from(o));
            rr += r * r;
            oo += o * o;
            ro += r * o;
            dd += (o - r) * (o - r);
        }
        let (relative, cosine) = match (rr > 0.0, oo > 0.0) {
            (true, true) => ((dd / rr).sqrt(), ro / (rr * oo).sqrt()),
            (false, false) => (0.0, 1.0),
            _ => (1.0, 0.0),
        };
        self.samples += 1;
        self.relative += relative;
        self.cosine += cosine;
        self.difference += dd;
        self.reference += rr;
    }

    /// Means over the samples; none without samples, or if something was not finite.
    pub fn values(&self) -> Option<LayerDivergence> {
        let n = self.samples as f64;
        let overall = if self.reference > 0.0 {
            (self.difference / self.reference).sqrt()
        } else {
            f64::from(u8::from(self.difference > 0.0))
        };
        let values = LayerDivergence {
            relative_l2: overall,
            mean_relative_l2: self.relative / n,
            cosine: self.cosine / n,
        };
        (self.samples > 0 && (values.relative_l2 + values.mean_relative_l2 + values.cosine).is_finite())
            .then_some(values)
    }
}

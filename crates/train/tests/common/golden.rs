//! The golden files that `scripts/golden_torch.py` makes.

use std::path::PathBuf;

use halfstep_graph::engine::HostSlice;
use halfstep_nn::{InputSpec, Model, ModelSpec};
use halfstep_train::session::Session;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Where the golden files are.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Samples of all batches, one after another.
pub enum Samples {
    Numbers(Vec<f32>),
    Tokens(Vec<i32>),
}

/// What torch did with one model.
pub struct Golden {
    pub model: Box<dyn Model>,
    pub input: InputSpec,
    pub batch: usize,
    pub lr: f64,
    /// Weight names in the order of all concatenations.
    pub weights: Vec<String>,
    pub samples: Samples,
    pub targets: Vec<i32>,
    pub initial: Vec<f32>,
    pub losses64: Vec<f64>,
    pub losses32: Vec<f64>,
    pub gradients64: Vec<f64>,
    pub gradients32: Vec<f64>,
    /// Weights of the f64 run after each step.
    pub weights64: Vec<Vec<f64>>,
    /// Whether the loss depends on a weight. Of the rounding noise in a gradient that is zero,
    /// AdamW makes steps that say nothing of precision: attention's key bias, which softmax does
    /// not see, is the case in point.
    pub counted: Vec<bool>,
    /// L2 distance of the f32 run from them after each step, over the weights that count.
    pub distance32: Vec<f64>,
}

fn numbers(t: &TensorView<'_>) -> Vec<f64> {
    use safetensors::Dtype;
    let bytes = t.data();
    match t.dtype() {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
        Dtype::I8 => bytes.iter().map(|&b| f64::from(b as i8)).collect(),
        Dtype::BF16 => {
            let wide = |&b: &[u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
            bytes.as_chunks().0.iter().map(wide).collect()
        }
        other => panic!("golden files hold no {other:?}"),
    }
}

impl Golden {
    pub fn load(name: &str) -> Golden {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let get = |name: &str| numbers(&file.tensor(name).unwrap());
        let spec: ModelSpec = serde_json::from_str(&metadata["model"]).unwrap();
        let input: InputSpec = serde_json::from_str(&metadata["input"]).unwrap();
        let x = get("x");
        let samples = match input {
            InputSpec::Tokens { .. } => Samples::Tokens(x.iter().map(|&v| v as i32).collect()),
            // Stored as whole 32nds.
            _ => Samples::Numbers(x.iter().map(|&v| v as f32 / 32.0).collect()),
        };
        let initial: Vec<f32> = get("initial").iter().map(|&v| v as f32).collect();
        let (high, low) = (get("f64.weights.high"), get("f64.weights.low"));
        let whole: Vec<f64> = high.iter().zip(&low).map(|(h, l)| h + l).collect();
        Golden {
            model: spec.build(&input, metadata["outputs"].parse().unwrap()).unwrap(),
            input,
            batch: metadata["batch"].parse().unwrap(),
            lr: metadata["lr"].parse().unwrap(),
            weights: serde_json::from_str(&metadata["weights"]).unwrap(),
            samples,
            targets: get("y").iter().map(|&v| v as i32).collect(),
            losses64: get("f64.losses"),
            losses32: get("f32.losses"),
            gradients64: get("f64.gradients"),
            gradients32: get("f32.gradients"),
            weights64: whole.chunks(initial.len()).map(<[f64]>::to_vec).collect(),
            counted: get("counted").iter().map(|&c| c != 0.0).collect(),
            distance32: get("f32.distance"),
            initial,
        }
    }

    pub fn steps(&self) -> usize {
        self.losses64.len()
    }

    /// Samples and targets of one step.
    pub fn batch_at(&self, step: usize) -> (HostSlice<'_>, &[i32]) {
        let size = self.batch * self.input.elements();
        let rows = self.input.rows(self.batch);
        let x = match &self.samples {
            Samples::Numbers(x) => HostSlice::F32(&x[step * size..(step + 1) * size]),
            Samples::Tokens(x) => HostSlice::I32(&x[step * size..(step + 1) * size]),
        };
        (x, &self.targets[step * rows..(step + 1) * rows])
    }

    /// Gives a session torch's first weights.
    pub fn upload(&self, session: &mut Session<'_>) {
        let mut rest = self.initial.as_slice();
        for name in &self.weights {
            let count = session.download(name).unwrap().f32().len();
            let (own, after) = rest.split_at(count);
            session.upload(name, HostSlice::F32(own)).unwrap();
            rest = after;
        }
        assert!(rest.is_empty());
    }

    /// L2 distance of weights from those of the f64 run after `step`, over the weights that count.
    pub fn distance(&self, weights: &[f64], step: usize) -> f64 {
        let pairs = weights.iter().zip(&self.weights64[step]).zip(&self.counted);
        pairs.filter(|(_, counted)| **counted).map(|((a, b), _)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    /// A session's weights, concatenated.
    pub fn download(&self, session: &Session<'_>) -> Vec<f64> {
        let all = self.weights.iter().map(|name| session.download(name).unwrap().f32().to_vec());
        all.flatten().map(f64::from).collect()
    }
}

//! Samples laid out for a program's inputs.

use crate::dataset::InputShape;

/// How samples are taken: as they are, or with the random changes of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Images unchanged, windows of text side by side: for evaluation.
    AsIs,
    /// Augmented images, windows of text from anywhere. Each sample's changes depend on the seed,
    /// the epoch and its own index.
    Random {
        /// Seed of the run.
        seed: u64,
        /// Epoch, counted from 0.
        epoch: u32,
    },
}

/// The inputs of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchX {
    /// Images or features.
    F32 {
        /// `[B, height, width, channels]` or `[B, F]`.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<f32>,
    },
    /// Tokens.
    Tokens {
        /// `[B, T]`.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<i32>,
    },
}

/// Buffers for a batch, to be filled again and again by
/// [`Part::fill_batch`](crate::Part::fill_batch).
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Inputs.
    pub x: BatchX,
    /// Class indices `[B]`, or the next token of each `[B, T]`.
    pub labels: Vec<i32>,
}

impl Batch {
    /// Buffers of zeros for `batch` samples.
    pub fn new(input: InputShape, batch: usize) -> Self {
        let shape = input.batch_shape(batch);
        let length = batch * input.len();
        let x = match input {
            InputShape::Tokens { .. } => BatchX::Tokens { shape, data: vec![0; length] },
            InputShape::Image { .. } | InputShape::Features { .. } => {
                BatchX::F32 { shape, data: vec![0.0; length] }
            }
        };
        Batch { x, labels: vec![0; batch * input.labels_per_sample()] }
    }
}

impl BatchX {
    pub(crate) fn describe(&self) -> String {
        match self {
            BatchX::F32 { data, .. } => format!("{} f32", data.len()),
            BatchX::Tokens { data, .. } => format!("{} i32 tokens", data.len()),
        }
    }
}

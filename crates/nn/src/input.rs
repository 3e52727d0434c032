//! What one sample looks like.

use halfstep_graph::{Shape, ValueType};
use serde::{Deserialize, Serialize};

/// The form of a sample, as the data set decides it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputSpec {
    /// A row of numbers.
    Features {
        /// How many.
        width: usize,
    },
    /// An image, channels last.
    Image {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// Numbers per pixel.
        channels: usize,
    },
    /// A sequence of tokens; every position has a target.
    Tokens {
        /// Tokens in a sequence.
        length: usize,
        /// Number of different tokens.
        vocab: usize,
    },
}

impl InputSpec {
    /// Type of a batch: f32\[N, D\], f32\[N, H, W, C\] or i32\[N, T\].
    pub fn value_type(&self, batch: usize) -> ValueType {
        match *self {
            InputSpec::Features { width } => ValueType::f32(Shape::from([batch, width])),
            InputSpec::Image { height, width, channels } => {
                ValueType::f32(Shape::from([batch, height, width, channels]))
            }
            InputSpec::Tokens { length, .. } => ValueType::i32(Shape::from([batch, length])),
        }
    }

    /// Numbers, or tokens, in one sample.
    pub fn elements(&self) -> usize {
        match *self {
            InputSpec::Features { width } => width,
            InputSpec::Image { height, width, channels } => height * width * channels,
            InputSpec::Tokens { length, .. } => length,
        }
    }

    /// Targets of a batch of `batch` samples: one per sample, or one per token.
    pub fn rows(&self, batch: usize) -> usize {
        match *self {
            InputSpec::Tokens { length, .. } => batch * length,
            InputSpec::Features { .. } | InputSpec::Image { .. } => batch,
        }
    }

    /// The form in words, for messages.
    pub fn describe(&self) -> String {
        match *self {
            InputSpec::Features { width } => format!("rows of {width} numbers"),
            InputSpec::Image { height, width, channels } => {
                format!("images of {height}×{width} with {channels} channels")
            }
            InputSpec::Tokens { length, vocab } => {
                format!("sequences of {length} tokens out of {vocab}")
            }
        }
    }
}

//! What a forward pass is for.

use halfstep_graph::{Graph, Shape, ValueId, ValueType};

/// Name of the input that carries the random key, i32\[4\]: seed and attempt, low word first.
pub const KEY_INPUT: &str = "key";

/// Whether a forward pass belongs to a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout draws; batch norm uses the batch's statistics and updates the running ones.
    Train,
    /// Dropout does nothing; batch norm uses the running statistics.
    Eval,
}

/// Handed to every layer that behaves differently in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// What the pass is for.
    pub mode: Mode,
    /// Ranks that share the batch of a training step in equal parts, of which the pass sees one.
    pub ranks: usize,
}

impl Context {
    /// For a training step.
    pub fn train() -> Context {
        Context { mode: Mode::Train, ranks: 1 }
    }

    /// The same, of a batch that so many ranks share.
    pub fn on_ranks(self, ranks: usize) -> Context {
        Context { ranks, ..self }
    }

    /// For evaluation and prediction.
    pub fn eval() -> Context {
        Context { mode: Mode::Eval, ranks: 1 }
    }

    /// The random key of this step.
    pub fn key(&self, g: &mut Graph) -> ValueId {
        g.input(KEY_INPUT, ValueType::i32(Shape::from([4])))
    }
}

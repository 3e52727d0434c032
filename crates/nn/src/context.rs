//! What a forward pass is for.

use halfstep_graph::{Graph, Shape, ValueId, ValueType};

/// Name of the input that carries the random key, i32\[4\]: seed and attempt, low word first.
pub const KEY_INPUT: &str = "key";

/// Whether a forward pass belongs to a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout draws; batch norm uses the batch's statistics and updates the running ones, unless
    /// it is frozen.
    Train,
    /// Dropout does nothing; batch norm uses the running statistics.
    Eval,
}

/// Handed to every layer that behaves differently in training.
#[derive(Clone, Copy)]
pub struct Context<'f> {
    /// What the pass is for.
    pub mode: Mode,
    /// Ranks that share the batch of a training step in equal parts, of which the pass sees one.
    pub ranks: usize,
    /// Whether a slot of this name stays as it is in training.
    frozen: Option<&'f dyn Fn(&str) -> bool>,
}

impl<'f> Context<'f> {
    /// For a training step.
    pub fn train() -> Context<'f> {
        Context { mode: Mode::Train, ranks: 1, frozen: None }
    }

    /// The same, of a batch that so many ranks share.
    #[must_use]
    pub fn on_ranks(self, ranks: usize) -> Context<'f> {
        Context { ranks, ..self }
    }

    /// The same, in which the slots that `frozen` names stay as they are.
    #[must_use]
    pub fn freezing(self, frozen: &'f dyn Fn(&str) -> bool) -> Context<'f> {
        Context { frozen: Some(frozen), ..self }
    }

    /// For evaluation and prediction.
    pub fn eval() -> Context<'f> {
        Context { mode: Mode::Eval, ranks: 1, frozen: None }
    }

    /// Whether a slot of this name stays as it is.
    pub fn is_frozen(&self, slot: &str) -> bool {
        self.frozen.is_some_and(|frozen| frozen(slot))
    }

    /// The random key of this step.
    pub fn key(&self, g: &mut Graph) -> ValueId {
        g.input(KEY_INPUT, ValueType::i32(Shape::from([4])))
    }
}

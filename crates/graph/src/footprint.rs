//! What an engine holds for a program.

use serde::{Deserialize, Serialize};

/// Bytes that an engine holds for a program, by region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// The slots.
    pub state: usize,
    /// The values of a step and the workspace of its nodes.
    pub arena: usize,
    /// Constants of the program, and what its nodes keep from run to run.
    pub constants: usize,
    /// Copies of the outputs, which outlive a run.
    pub outputs: usize,
    /// Where inputs of the next run are copied while one is under way.
    #[serde(default)]
    pub staging: usize,
    /// Working memory that all programs of the engine share, such as packed operands of matrix
    /// products, and what is on its way between ranks.
    pub scratch: usize,
}

impl Footprint {
    /// What an engine holds for two programs over one state, which take turns in one arena and in
    /// its working memory; constants, outputs and staged inputs are each program's own.
    #[must_use]
    pub fn together(self, other: Footprint) -> Footprint {
        Footprint {
            state: self.state.max(other.state),
            arena: self.arena.max(other.arena),
            constants: self.constants + other.constants,
            outputs: self.outputs + other.outputs,
            staging: self.staging + other.staging,
            scratch: self.scratch.max(other.scratch),
        }
    }

    /// All of it.
    pub fn total(&self) -> usize {
        self.state + self.arena + self.constants + self.outputs + self.staging + self.scratch
    }
}

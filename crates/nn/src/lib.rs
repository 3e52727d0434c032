//! Layers and reference models.
//!
//! A layer is a plain struct whose `forward` adds nodes and slots to a [`Graph`]; a [`Model`] is
//! anything that turns samples into logits that way. Slot names follow torch's `state_dict`; the
//! layouts are this project's: images are channels-last and convolution weights `[O, KH, KW, C]`.

#![forbid(unsafe_code)]

mod context;
mod input;
pub mod layers;
pub mod models;
#[cfg(feature = "onnx")]
pub mod onnx;
mod spec;

pub use context::{Context, KEY_INPUT, Mode};
pub use input::InputSpec;
pub use spec::{CnnSpec, GptActivation, GptSpec, MlpSpec, ModelError, ModelSpec, Resnet18Spec};

use halfstep_graph::{Graph, GraphError, SlotKind, ValueId};

/// What turns a batch of samples into logits.
///
/// A model holds sizes only; its weights are slots of the graph, declared where they are used.
pub trait Model: Send + Sync {
    /// Adds the model to `g` and returns the logits: `[N, classes]`, or `[N, T, vocabulary]` for
    /// token models.
    ///
    /// # Errors
    /// `x` does not have the shape the model was built for.
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError>;
}

/// Number of trained numbers in `model`; a weight used twice counts once.
///
/// # Errors
/// The model does not take this input.
pub fn parameter_count(model: &dyn Model, input: &InputSpec) -> Result<usize, GraphError> {
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(1));
    model.forward(&mut g, x, &Context::eval())?;
    let weights = g.slots.iter().filter(|s| matches!(s.kind, SlotKind::Weight { .. }));
    Ok(weights.map(|s| s.ty.shape.count()).sum())
}

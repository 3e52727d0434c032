//! Layers: plain structs over a [`Graph`]. Each names its slots and nodes under its own path.

mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod pool;

pub use conv::Conv2d;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{BatchNorm, LayerNorm};
pub use pool::{global_mean_pool, max_pool, mean_pool};

use halfstep_graph::{Graph, GraphError, Init, Shape, SlotKind, ValueId, ValueType};

/// torch's default for weights and biases of linear and convolution layers: uniform within ±1/√fan_in, which is what
/// `kaiming_uniform_(a=√5)` (He et al. 2015) comes to.
pub fn fan_in_uniform(fan_in: usize) -> Init {
    Init::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
}

/// max(x, 0) at `name`.
///
/// Errors: `x` is not a tensor of numbers.
pub fn relu(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.relu(x))
}

/// x·Φ(x), exact, at `name`.
///
/// Errors: `x` is not a tensor of numbers.
pub fn gelu(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.gelu(x))
}

/// a + b at `name`.
///
/// Errors: the operands do not broadcast together.
pub fn add(g: &mut Graph, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.add(a, b))
}

/// The trained parameter `name` under the current path. Weight decay applies to matrices and convolution kernels, not
/// to biases and norm parameters, which is the usual grouping.
pub(crate) fn weight(g: &mut Graph, name: &str, shape: Shape, init: Init) -> Result<ValueId, GraphError> {
    let decay = shape.len() > 1;
    let slot = g.add_slot(name, ValueType::f32(shape), SlotKind::Weight { decay }, init)?;
    Ok(g.read(slot))
}

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
pub(crate) use linear::project;
pub use norm::{BatchNorm, LayerNorm};
pub use pool::{global_mean_pool, max_pool};

use halfstep_graph::{Graph, GraphError, Init, Shape, SlotKind, Unary, ValueId, ValueType};

/// torch's default for weights and biases of linear and convolution layers: uniform within
/// ±1/√fan_in, which is what `kaiming_uniform_(a=√5)` (He et al. 2015) comes to.
pub fn fan_in_uniform(fan_in: usize) -> Init {
    Init::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
}

/// max(x, 0) at `name`.
///
/// # Errors
/// `x` is not a tensor of numbers.
pub fn relu(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.relu(x))
}

/// x·Φ(x), exact, at `name`.
///
/// # Errors
/// `x` is not a tensor of numbers.
pub fn gelu(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.gelu(x))
}

/// 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) at `name`, which GPT-2 has in place of [`gelu`]
/// (Hendrycks and Gimpel 2016). With 1 + tanh(u) = 2·σ(2u) it is x·σ(x·(a + b·x²)).
///
/// # Errors
/// `x` is not a tensor of numbers.
pub fn gelu_tanh(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    let a = 2.0 * std::f64::consts::FRAC_2_PI.sqrt();
    g.scoped(name, |g| {
        let square = g.unary(Unary::Square, x)?;
        let cubic = g.scale(square, 0.044715 * a)?;
        let a = g.scalar(a);
        let slope = g.add(cubic, a)?;
        let u = g.mul(slope, x)?;
        let gate = g.unary(Unary::Sigmoid, u)?;
        g.mul(x, gate)
    })
}

/// a + b at `name`.
///
/// # Errors
/// The operands do not broadcast together.
pub fn add(g: &mut Graph, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
    g.scoped(name, |g| g.add(a, b))
}

/// The trained parameter `name` under the current path. Weight decay applies to matrices and
/// convolution kernels, not to biases and norm parameters, which is the usual grouping.
pub(crate) fn weight(g: &mut Graph, name: &str, shape: Shape, init: Init) -> Result<ValueId, GraphError> {
    let decay = shape.len() > 1;
    let slot = g.add_slot(name, ValueType::f32(shape), SlotKind::Weight { decay }, init)?;
    Ok(g.read(slot))
}

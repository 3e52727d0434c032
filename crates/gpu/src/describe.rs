//! What the kernels make of a precision policy.

use halfstep_graph::engine_info::{Arithmetic, PolicyDescription};
use halfstep_graph::precision::Policy;

/// How contractions under `policy` are computed: all by multiplications of f32, which hold operands
/// and codes of fewer bits exactly.
pub(crate) fn describe(policy: &Policy) -> PolicyDescription {
    let (arithmetic, text) = match (policy.narrow, policy.split, policy.low) {
        (Some(_), ..) => (
            Arithmetic::Emulated,
            "emulated: exact codes, multiplied as f32 on CUDA cores (exact products): shows quality, \
             saves memory, not time"
                .to_string(),
        ),
        (None, Some(_), _) => (
            Arithmetic::Widened,
            "f32 multiply-add on CUDA cores: as accurate and as fast as fp32".to_string(),
        ),
        (None, None, Some(low)) => (
            Arithmetic::Widened,
            format!(
                "f32 multiply-add of {low} values (exact products) on CUDA cores: saves memory, not time"
            ),
        ),
        (None, None, None) => (Arithmetic::Native, "f32 multiply-add on CUDA cores".to_string()),
    };
    PolicyDescription { arithmetic, text }
}

//! What the kernels make of a precision policy.

use halfstep_graph::Split;
use halfstep_graph::engine_info::{Arithmetic, PolicyDescription};
use halfstep_graph::precision::Policy;

/// How contractions under `policy` are computed: on Tensor Cores, by `mma.sync` of 16-bit operands,
/// but for `fp32`. Attention in f32 is multiplied as it is, which is within what a split promises;
/// so is attention whose heads are wider than 128 elements, or no multiple of 8 wide.
pub(crate) fn describe(policy: &Policy) -> PolicyDescription {
    let (arithmetic, text) = match (policy.narrow, policy.split, policy.low) {
        (Some(_), ..) => (
            Arithmetic::Emulated,
            "emulated: exact codes, multiplied by Tensor Cores as bf16, f32 sums".to_string(),
        ),
        (None, Some(split), _) => {
            let (terms, passes, error) = match split {
                Split::Tf32 => {
                    let text = "f32 multiply-add on CUDA cores, of operands rounded to tf32 (exact products); attention in f32";
                    return PolicyDescription { arithmetic: Arithmetic::Widened, text: text.into() };
                }
                Split::Bf16x3 => ("two", "three", "2^-15"),
                Split::Bf16x6 => ("three", "six", "2^-23"),
            };
            let text = format!(
                "Tensor Cores: each f32 value as {terms} bf16 terms, {passes} passes; error within {error} \
                 of |A||B|; attention in f32"
            );
            (Arithmetic::Split, text)
        }
        (None, None, Some(low)) => {
            (Arithmetic::Native, format!("Tensor Cores: exact {low} products, f32 sums"))
        }
        (None, None, None) => (Arithmetic::Native, "f32 multiply-add on CUDA cores".to_string()),
    };
    PolicyDescription { arithmetic, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_the_description_of_its_own_format() {
        use Arithmetic::{Emulated, Native};
        let of = |name: &str| describe(&Policy::named(name).unwrap());
        for name in Policy::NAMES {
            let (policy, found) = (Policy::named(name).unwrap(), of(name));
            let tf32 = policy.split == Some(Split::Tf32);
            assert_eq!(found.arithmetic == Emulated, policy.narrow.is_some(), "{name}");
            assert_eq!(found.arithmetic == Arithmetic::Split, policy.split.is_some() && !tf32, "{name}");
            assert_eq!(found.arithmetic == Arithmetic::Widened, tf32, "{name}");
        }
        assert!(of("bf16").arithmetic == Native && of("bf16").text.contains("exact bf16 products"));
        assert!(of("fp16").text.contains("exact f16 products"));
        assert!(of("bf16x3").text.contains("2^-15") && of("bf16x6").text.contains("2^-23"));
        assert!(!of("fp32").text.contains("16"));
    }
}

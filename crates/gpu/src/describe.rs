//! What the kernels make of a precision policy.

use halfstep_graph::Split;
use halfstep_graph::engine_info::{Arithmetic, PolicyDescription};
use halfstep_graph::precision::Policy;

use crate::architecture::Architecture;

/// How contractions under `policy` are computed: on Tensor Cores, by `mma.sync`, but for `fp32`.
/// Attention in f32 is multiplied as it is, which is within what a split promises; so is attention
/// whose heads are wider than 128 elements, or no multiple of 8 wide.
pub(crate) fn describe(policy: &Policy, architecture: Architecture) -> PolicyDescription {
    let (arithmetic, text) = match (policy.narrow, policy.split, policy.low) {
        (Some(narrow), ..) => codes(narrow.in_blocks(), architecture),
        (None, Some(split), _) => {
            let (terms, passes, error) = match split {
                Split::Tf32 => {
                    let text = "Tensor Cores: exact products of operands rounded to tf32, f32 sums; attention in f32";
                    return PolicyDescription { arithmetic: Arithmetic::Native, text: text.into() };
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

/// How products of codes are computed.
fn codes(in_blocks: bool, architecture: Architecture) -> (Arithmetic, String) {
    let as_bf16 = "exact codes, multiplied by Tensor Cores as bf16, f32 sums";
    let takes_codes = (architecture.major, architecture.minor) >= (8, 9);
    if in_blocks || !takes_codes {
        return (Arithmetic::Emulated, format!("emulated: {as_bf16}"));
    }
    let odd = "as bf16 where rows are no multiples of 16 elements";
    match (architecture.adds_codes_in_f32(), architecture.converts_codes()) {
        (false, _) => {
            (Arithmetic::Widened, format!("{as_bf16}: products of codes are added in 13 bits here"))
        }
        (true, true) => (
            Arithmetic::Widened,
            format!(
                "Tensor Cores: exact products of codes, which mma.sync converts to f16 here, {odd}; f32 sums"
            ),
        ),
        (true, false) => {
            (Arithmetic::Native, format!("Tensor Cores: exact products of codes, {odd}; f32 sums"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: (u32, u32) = (9, 0);

    fn of(name: &str, (major, minor): (u32, u32)) -> PolicyDescription {
        describe(&Policy::named(name).unwrap(), Architecture::of_device(major, minor))
    }

    #[test]
    fn every_policy_has_the_description_of_its_own_format() {
        use Arithmetic::Native;
        for name in Policy::NAMES {
            let (policy, found) = (Policy::named(name).unwrap(), of(name, HOPPER));
            let split = policy.split.is_some_and(Split::allows_f32);
            assert_eq!(found.arithmetic == Arithmetic::Split, split, "{name}");
            assert_eq!(found.arithmetic == Native, policy.narrow.is_none() && !split, "{name}");
        }
        let text = |name| of(name, HOPPER).text;
        assert!(text("bf16").contains("exact bf16 products") && text("fp16").contains("exact f16 products"));
        assert!(text("bf16x3").contains("2^-15") && text("bf16x6").contains("2^-23"));
        assert!(text("tf32").contains("rounded to tf32") && !text("fp32").contains("16"));
    }

    #[test]
    fn codes_are_multiplied_as_the_architecture_can() {
        use Arithmetic::{Emulated, Native, Widened};
        let architectures = [(8, 0), (8, 6), (8, 9), HOPPER, (10, 0), (12, 0)];
        let kinds = |name| architectures.map(|a| of(name, a).arithmetic);
        for name in ["fp8", "fp8-current"] {
            assert_eq!(kinds(name), [Emulated, Emulated, Widened, Widened, Widened, Native]);
        }
        for name in ["fp8-block", "mxfp8", "mxfp4", "nvfp4"] {
            assert_eq!(kinds(name), [Emulated; 6], "{name}");
        }
        assert!(of("fp8", (8, 9)).text.contains("13 bits") && of("fp8", HOPPER).text.contains("f16"));
    }
}

//! Policies: what a user says about precision.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::narrow::{Narrow, SharedScale};
use crate::dtype::{DType, Split};
use crate::state_formats::{MomentFormat, StateFormats, WeightFormat};

/// What to do with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Operands in the policy's low format, f32 accumulation, result stored low; under a policy
    /// that splits f32 operands instead, the split.
    Low,
    /// Computed and stored in f32.
    F32,
    /// Stored like the widest operand.
    Follow,
    /// Operands in bf16, f32 accumulation, result stored in bf16, whatever the policy's own format.
    Bf16,
}

/// A rule for the operations whose name matches a pattern; it holds for their derivatives too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// A name in which `*` stands for any characters, such as `blocks.*.attn`.
    pub pattern: String,
    /// What to do with what matches.
    pub rule: Rule,
}

impl Override {
    /// Whether `name`, or a scope it lies in, matches the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let ends = name.match_indices('.').map(|(i, _)| i).chain([name.len()]);
        ends.into_iter().any(|end| glob(self.pattern.as_bytes(), &name.as_bytes()[..end]))
    }
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| glob(rest, &name[skip..])),
        Some((c, rest)) => name.split_first().is_some_and(|(n, after)| n == c && glob(rest, after)),
    }
}

/// What a user says about precision: a named policy and exceptions to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// One of [`Policy::NAMES`].
    pub name: String,
    /// The format that contractions read and store; none where all storage is f32.
    pub low: Option<DType>,
    /// How contractions quantise operands to fewer bits than `low`; none where they read `low`
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrow: Option<Narrow>,
    /// Which terms of f32 operands contractions multiply; none for policies with a low format and
    /// for `fp32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// How weights and moments are kept.
    #[serde(default, skip_serializing_if = "StateFormats::is_f32")]
    pub state: StateFormats,
    /// Exceptions; the first match holds.
    pub overrides: Vec<Override>,
}

/// A policy name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no precision policy `{0}`; there are: {all}", all = Policy::NAMES.join(", "))]
pub struct PolicyError(pub String);

impl Policy {
    /// The named policies.
    pub const NAMES: [&'static str; 12] = [
        "fp32",
        "bf16",
        "fp16",
        "tf32",
        "bf16x3",
        "bf16x6",
        "fp8",
        "fp8-current",
        "fp8-block",
        "mxfp8",
        "mxfp4",
        "nvfp4",
    ];
    /// Those that a comparison sets side by side unless others are named.
    pub const USUAL: [&'static str; 3] = ["fp32", "bf16", "fp16"];

    /// All in f32.
    pub fn fp32() -> Policy {
        let state = StateFormats::default();
        Policy { name: "fp32".into(), low: None, narrow: None, split: None, state, overrides: Vec::new() }
    }

    /// The same policy for a model that is only read, from f32 weights as checkpoints have them.
    /// Results are the same: bf16 weights are f32 numbers too, and products round others as they
    /// read them.
    #[must_use]
    pub fn reading_f32_weights(self) -> Policy {
        Policy { state: StateFormats::default(), ..self }
    }

    /// The same policy for a model that is only read, with scales of the activations of each sample
    /// in the place of those of whole tensors: see [`SharedScale::Sample`].
    #[must_use]
    pub fn scaling_by_sample(self) -> Policy {
        let narrow = self.narrow.map(|narrow| Narrow { shared: SharedScale::Sample, ..narrow });
        Policy { narrow, ..self }
    }

    /// A named policy without exceptions.
    ///
    /// # Errors
    /// No policy has that name.
    pub fn named(name: &str) -> Result<Policy, PolicyError> {
        let narrow = Narrow::named(name);
        let (low, split) = match name {
            "fp32" => (None, None),
            "bf16" => (Some(DType::Bf16), None),
            "fp16" => (Some(DType::F16), None),
            "tf32" => (None, Some(Split::Tf32)),
            "bf16x3" => (None, Some(Split::Bf16x3)),
            "bf16x6" => (None, Some(Split::Bf16x6)),
            _ if narrow.is_some() => (Some(DType::Bf16), None),
            other => return Err(PolicyError(other.to_string())),
        };
        Ok(Policy { name: name.to_string(), low, narrow, split, ..Policy::fp32() })
    }

    /// Whether the policy can keep weights in this format: bf16 ones are for contractions that
    /// multiply in bf16, or in codes made of it. In f32 products they would only lose digits, and
    /// f16 has not their range.
    pub fn takes(&self, weights: WeightFormat) -> bool {
        weights == WeightFormat::F32 || self.low == Some(DType::Bf16)
    }

    /// The types that a program under this policy stores values in. Whole numbers are i32 under
    /// every policy.
    pub fn dtypes(&self) -> BTreeSet<DType> {
        let codes = self.narrow.iter().flat_map(|narrow| narrow.stored());
        let exceptions = self.overrides.iter().filter(|o| o.rule == Rule::Bf16).map(|_| DType::Bf16);
        let weights = (self.state.weights != WeightFormat::F32).then_some(DType::Bf16);
        let moments = match self.state.moments {
            MomentFormat::F32 => DType::F32,
            MomentFormat::Bf16 => DType::Bf16,
            MomentFormat::Int8 => DType::U8,
        };
        let all = [DType::F32, moments].into_iter().chain(self.low).chain(weights);
        all.chain(codes).chain(exceptions).collect()
    }

    /// The exception that holds for `name`, if any.
    pub fn exception(&self, name: &str) -> Option<Rule> {
        self.overrides.iter().find(|o| o.matches(name)).map(|o| o.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_names_and_the_scopes_above_them() {
        let matches =
            |pattern: &str, name: &str| Override { pattern: pattern.into(), rule: Rule::F32 }.matches(name);
        assert!(matches("blocks.0", "blocks.0.attn.qkv"));
        assert!(matches("blocks.*.attn", "blocks.11.attn"));
        assert!(matches("*.qkv", "blocks.0.attn.qkv"));
        assert!(!matches("blocks.1", "blocks.11.attn"));
        assert!(!matches("attn", "blocks.0.attn"));
    }

    #[test]
    fn an_unknown_policy_names_those_there_are() {
        let message = Policy::named("fp7").unwrap_err().to_string();
        assert!(message.contains("fp7") && message.contains("bf16"), "{message}");
    }
}

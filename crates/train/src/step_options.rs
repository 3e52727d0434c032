//! What a step may do besides: work through its batch in parts, average weights, and treat
//! parameters in groups.

use halfstep_graph::precision::{Override, Rule};
use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, positive_in_f32, require};

/// What a step may do besides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepOptions {
    /// Parts that a batch is worked through in, one after another, before one update with the mean
    /// of their gradients. It needs the scratch memory of one part.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Decay of an exponential moving average of the weights, which evaluation then uses: after
    /// every step that commits, average ← d · average + (1 − d) · weight (Polyak and Juditsky 1992
    /// with a window), where d = min(decay, n / (n + 9)) in the n-th such step. None keeps no
    /// average.
    #[serde(rename = "ema", skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Parameters that are treated in another way. The first group that a name matches holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
    /// The format in which gradients travel between ranks, where there are several.
    #[serde(skip_serializing_if = "is_f32")]
    pub reduce: Reduce,
}

/// The format in which gradients travel between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// As they are.
    #[default]
    F32,
    /// Rounded, in half the bytes, with error feedback: what rounding takes from a gradient is
    /// added to the next one.
    Bf16,
}

fn is_one(parts: &usize) -> bool {
    *parts == 1
}

fn is_f32(reduce: &Reduce) -> bool {
    *reduce == Reduce::F32
}

impl Default for StepOptions {
    fn default() -> StepOptions {
        StepOptions { accumulate: 1, average: None, groups: Vec::new(), reduce: Reduce::F32 }
    }
}

/// Parameters, by name, and how they are treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// A name, or a scope that names lie in, in which `*` stands for any characters, such as
    /// `blocks.*.attn`.
    pub pattern: String,
    /// What the learning rate is multiplied with.
    #[serde(default = "one")]
    pub lr: f64,
    /// Weight decay in place of the optimiser's, of everything in the group, biases and norm
    /// parameters too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Whether they stay as they are. No gradient is computed for them.
    #[serde(default)]
    pub frozen: bool,
}

fn one() -> f64 {
    1.0
}

impl ParameterGroup {
    /// Whether the parameter of this name is in the group.
    pub fn matches(&self, name: &str) -> bool {
        // The patterns of overrides; the rule says nothing here.
        Override { pattern: self.pattern.clone(), rule: Rule::Follow }.matches(name)
    }
}

impl StepOptions {
    /// The group of a parameter.
    pub fn group(&self, name: &str) -> Option<&ParameterGroup> {
        self.groups.iter().find(|group| group.matches(name))
    }

    /// Whether a parameter stays as it is.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.group(name).is_some_and(|group| group.frozen)
    }

    /// Whether the rate of every group is a number above 0 in f32, in which it is computed from the
    /// optimiser's.
    ///
    /// # Errors
    /// A factor out of range.
    pub fn check_rates(&self, lr: f64) -> Result<(), SettingError> {
        let beyond = self.groups.iter().find(|group| !positive_in_f32(lr * group.lr));
        let found = beyond.map_or(0.0, |group| group.lr);
        let expected = "a factor with which the optimiser's `lr` is above 1e-45 and below 3.4e38";
        require(beyond.is_none(), "groups", format!("lr = {found}"), expected)
    }

    /// Whether the settings make sense for batches of `batch`.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self, batch: usize) -> Result<(), SettingError> {
        let divides = self.accumulate > 0 && batch.is_multiple_of(self.accumulate);
        let expected = "a number of equal parts that `batch` can be divided in";
        require(divides, "accumulate", self.accumulate, expected)?;
        let (decay, expected) =
            (self.average.unwrap_or(0.0), "a number from 0 up to but not 1, such as 0.999");
        require((0.0..1.0).contains(&decay), "ema", decay, expected)?;
        for group in &self.groups {
            let positive = positive_in_f32(group.lr);
            let expected = "a factor above 0 and below 3.4e38; `frozen = true` stops them";
            require(positive, "groups", format!("lr = {}", group.lr), expected)?;
            let decay = group.weight_decay.unwrap_or(0.0);
            let fits = decay >= 0.0 && (decay as f32).is_finite();
            require(fits, "groups", format!("weight_decay = {decay}"), "a number of at least 0")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_that_matches_holds() {
        let group = |pattern: &str, frozen| ParameterGroup {
            pattern: pattern.into(),
            lr: 1.0,
            weight_decay: None,
            frozen,
        };
        let options = StepOptions {
            groups: vec![group("blocks.0", true), group("blocks.*", false)],
            ..Default::default()
        };
        assert!(options.is_frozen("blocks.0.attn.weight"));
        assert!(
            !options.is_frozen("blocks.1.attn.weight") && options.group("blocks.1.attn.weight").is_some()
        );
        assert!(options.group("head.weight").is_none());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let field = |options: StepOptions| options.validate(32).unwrap_err().field;
        let default = StepOptions::default;
        assert_eq!(default().validate(32), Ok(()));
        assert_eq!(field(StepOptions { accumulate: 0, ..default() }), "accumulate");
        assert_eq!(field(StepOptions { accumulate: 3, ..default() }), "accumulate");
        assert_eq!(field(StepOptions { average: Some(1.0), ..default() }), "ema");
        let group = ParameterGroup { pattern: "a".into(), lr: 0.0, weight_decay: None, frozen: false };
        assert_eq!(field(StepOptions { groups: vec![group], ..default() }), "groups");
    }
}

//! Settings of one policy: `[precision.fp8]`, `[precision.bf16]` and so on.

use halfstep_float::Overflow;
use halfstep_float::blocks::ScaleRule;
use halfstep_graph::precision::{GradientRounding, Narrow, Policy, Scaling};
use halfstep_graph::{MomentFormat, StateFormats, WeightFormat};
use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, require};

/// `[precision.<policy>]`: what is to differ from [`Policy::named`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// `weights`: how weights are kept. Other than in f32 only where products multiply in bf16.
    pub weights: Option<WeightFormat>,
    /// `moments`: how the optimiser's moments are kept.
    pub moments: Option<MomentFormat>,
    /// `history`: steps whose largest magnitudes are remembered. Of `fp8`.
    pub history: Option<usize>,
    /// `margin`: powers of two left free above the largest magnitude. Of `fp8` and `fp8-current`.
    pub margin: Option<u32>,
    /// `overflow`: what becomes of numbers that outgrow their scale. Of `fp8`.
    pub overflow: Option<Overflow>,
    /// `scale`: how the power of two of a block comes from its largest magnitude. Of `mxfp8` and
    /// `mxfp4`.
    pub scale: Option<ScaleRule>,
    /// `rounding`: of gradients. Of the policies below 16 bits.
    pub rounding: Option<GradientRounding>,
}

/// An error if the policy cannot keep weights as it says.
pub(crate) fn check_state(policy: &Policy) -> Result<(), SettingError> {
    require(
        policy.takes(policy.state.weights),
        "weights",
        "in bf16, where products do not multiply in bf16",
        "\"f32\" here; bf16 weights are for `bf16` and the policies below 16 bits",
    )
}

impl PolicySettings {
    /// The policy with these settings.
    ///
    /// # Errors
    /// A setting out of range, or one that the policy does not have.
    pub fn apply(&self, policy: Policy) -> Result<Policy, SettingError> {
        let state = StateFormats {
            weights: self.weights.unwrap_or_default(),
            moments: self.moments.unwrap_or_default(),
        };
        let policy = Policy { state, ..policy };
        check_state(&policy)?;
        let given = [
            ("history", self.history.is_some()),
            ("margin", self.margin.is_some()),
            ("overflow", self.overflow.is_some()),
            ("scale", self.scale.is_some()),
            ("rounding", self.rounding.is_some()),
        ];
        let (has, all): (&[&str], _) = match policy.narrow.map(|n| n.scaling) {
            None => (&[], "only `weights` and `moments`"),
            Some(Scaling::Delayed { .. }) => (
                &["history", "margin", "overflow", "rounding"],
                "only `weights`, `moments`, `history`, `margin`, `overflow` and `rounding`",
            ),
            Some(Scaling::Current { .. }) => {
                (&["margin", "rounding"], "only `weights`, `moments`, `margin` and `rounding`")
            }
            Some(Scaling::Mx { .. }) => {
                (&["scale", "rounding"], "only `weights`, `moments`, `scale` and `rounding`")
            }
            Some(Scaling::Block128 | Scaling::Nvfp4) => {
                (&["rounding"], "only `weights`, `moments` and `rounding`")
            }
        };
        for (key, _) in given.into_iter().filter(|(key, given)| *given && !has.contains(key)) {
            require(false, key, "not a setting of this precision", all)?;
        }
        let narrow = policy.narrow.map(|narrow| self.narrow(narrow)).transpose()?;
        Ok(Policy { narrow, ..policy })
    }

    fn narrow(&self, recipe: Narrow) -> Result<Narrow, SettingError> {
        let checked = |margin: u32| {
            require(margin <= Narrow::LARGEST_MARGIN, "margin", margin, "a whole number up to 16")?;
            Ok::<_, SettingError>(margin)
        };
        let scaling = match recipe.scaling {
            Scaling::Delayed { history, margin, overflow } => {
                let history = self.history.unwrap_or(history);
                let fits = (1..=Narrow::LONGEST_HISTORY).contains(&history);
                require(fits, "history", history, "a number of steps from 1 to 65536")?;
                let margin = checked(self.margin.unwrap_or(margin))?;
                Scaling::Delayed { history, margin, overflow: self.overflow.unwrap_or(overflow) }
            }
            Scaling::Current { margin } => {
                Scaling::Current { margin: checked(self.margin.unwrap_or(margin))? }
            }
            Scaling::Mx { scale } => Scaling::Mx { scale: self.scale.unwrap_or(scale) },
            Scaling::Block128 | Scaling::Nvfp4 => recipe.scaling,
        };
        Ok(Narrow { scaling, rounding: self.rounding.unwrap_or(recipe.rounding), ..recipe })
    }
}

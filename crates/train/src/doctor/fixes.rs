//! Fixes for what was found.

use halfstep_graph::DType;
use halfstep_graph::precision::Scaling;

use super::diagnose::Doctor;
use super::diagnosis::{Cause, CodeCast, Finding};
use crate::scaler::DynamicScale;

/// Steps of a history that outlast what usual swings take.
const LONG: usize = 1024;
/// Steps of a history that soon forgets.
const SOON: usize = 16;

impl Doctor<'_, '_, '_> {
    /// What would fix it.
    pub(super) fn fixes(&self, finding: Option<&Finding>, cause: &Cause) -> Vec<String> {
        // The copy of a weight is made for its layer, which is what a pattern names.
        let copied = |f: &Finding| {
            let is_weight = f.op == "cast" && self.session.slots().iter().any(|s| s.name == f.name);
            let layer = f.name.rsplit_once('.').filter(|_| is_weight).map(|(layer, _)| layer.to_string());
            layer.unwrap_or_else(|| f.name.clone())
        };
        let cast = finding.and_then(|f| f.cast.as_ref());
        let name = match cast {
            Some(cast) => cast.layer.clone(),
            None => finding.map(copied).unwrap_or_default(),
        };
        let wide = || {
            format!(
                "keep it in f32: `overrides = [{{ pattern = \"{name}\", rule = \"f32\" }}]` in [precision]"
            )
        };
        let lr = self.session.spec().optimiser.lr();
        let rate = || {
            format!("a lower learning rate: `lr = {:e}` in [optimiser], a tenth of the present", lr / 10.0)
        };
        let clip = || "clip the gradients: `clip = 1.0` in [train]".to_string();
        let is_f16 = self.session.policy().low == Some(DType::F16);
        let mut fixes = match cause {
            Cause::StaleScale { .. } | Cause::ShortHistory { .. } | Cause::TooWide { .. } => {
                return self.cast_fixes(cast, cause);
            }
            Cause::BadInput { sample, .. } => {
                vec![format!("look at sample {sample} of the batch: clean or normalise the data")]
            }
            Cause::BadState { slot } => vec![format!("start from another checkpoint: `{slot}` is spoilt")],
            Cause::Constant { value } => vec![
                format!(
                    "a constant that fits the format in place of {value:e}: −1e4 masks as well as −1e9 does"
                ),
                wide(),
            ],
            Cause::ScaleTooHigh { fits, .. } => vec![format!(
                "`loss_scale = {{ kind = \"dynamic\", init = {:?} }}` in [precision]: it finds its scale itself",
                // Where dynamic scaling usually begins, if that is lower.
                fits.min(DynamicScale::default().init)
            )],
            Cause::ScaleTooLow { keeps, .. } => vec![
                format!(
                    "`loss_scale = {{ kind = \"dynamic\", init = {keeps:?}, ceiling = {:?} }}` in [precision]",
                    keeps.max(DynamicScale::default().ceiling)
                ),
                "and `underflow = 0.01` there, which raises the scale when gradients become zero".into(),
            ],
            Cause::OutOfRange | Cause::Underflow | Cause::Rounding => vec![wide()],
            Cause::ExplodedWeights { .. } => {
                let mut fixes = vec![rate()];
                fixes.extend(self.session.spec().clip.is_none().then(clip));
                fixes.push("a warm-up: `warmup` in [schedule]".into());
                fixes
            }
            Cause::NotFiniteInF32 => vec![
                format!(
                    "change the model or the data so that {} of {name} stays finite",
                    finding.map_or("it", |f| &f.op)
                ),
                "normalise the inputs".into(),
            ],
            Cause::Nothing => Vec::new(),
        };
        if is_f16
            && matches!(cause, Cause::OutOfRange | Cause::ScaleTooHigh { .. } | Cause::ScaleTooLow { .. })
        {
            fixes.push("train in bf16, which has f32's range".into());
        }
        fixes
    }

    /// What would fix a cast to codes, whose scale does not fit.
    fn cast_fixes(&self, cast: Option<&CodeCast>, cause: &Cause) -> Vec<String> {
        let policy = self.session.policy();
        let section = format!("[precision.{}]", policy.name);
        let mut fixes = Vec::new();
        let current =
            "scale each tensor by what it holds: `policy = \"fp8-current\"` in [precision]".to_string();
        let history = match policy.narrow.map(|n| n.scaling) {
            Some(Scaling::Delayed { history, .. }) => history,
            _ => 0,
        };
        match cause {
            Cause::StaleScale { recorded: Some(recorded), amax, .. } if amax < recorded => {
                fixes.push(current);
                if history > SOON {
                    fixes.push(format!("a history that forgets sooner: `history = {SOON}` in {section}"));
                }
            }
            Cause::StaleScale { recorded, amax, .. } => {
                fixes.push(current);
                let room = recorded.map_or(0.0, |recorded| (amax / recorded).log2().ceil());
                if (1.0..=8.0).contains(&room) {
                    fixes.push(format!("leave room above the largest: `margin = {room}` in {section}"));
                }
            }
            Cause::ShortHistory { .. } => {
                if history < LONG {
                    fixes.push(format!("a longer history: `history = {LONG}` in {section}"));
                }
                fixes.push(current);
            }
            _ if policy.narrow.is_some_and(|n| !n.in_blocks()) => {
                fixes.push("scales for blocks of a tensor: `policy = \"mxfp8\"` in [precision]".into());
            }
            _ if cast.is_some_and(|c| c.codes == "float4_e2m1fn") => {
                fixes.push("eight bits: `policy = \"mxfp8\"` in [precision]".into());
            }
            _ => {}
        }
        if let Some(cast) = cast {
            fixes.push(format!(
                "keep the layer in bf16: `overrides = [{{ pattern = \"{}\", rule = \"bf16\" }}]` in [precision]",
                cast.layer
            ));
        }
        fixes
    }
}

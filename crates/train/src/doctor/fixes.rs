//! Fixes for what was found in a step, as keys of a recipe where there are such.

use halfstep_graph::DType;
use halfstep_graph::precision::{Override, Policy, Scaling};

use super::diagnosis::{Cause, CodeCast, Finding};
use super::fix::Fix;
use super::replays::Doctor;
use crate::change::{Change, toml_number};
use crate::scaler::DynamicScale;

/// Steps of a history that outlast what usual swings take.
const LONG: usize = 1024;
/// Steps of a history that soon forgets.
const SOON: usize = 16;

/// `overrides` with these parts of the model by this rule, before those that the policy has.
fn overrides(policy: &Policy, names: &[String], rule: &str) -> Change {
    let own = names.iter().map(|name| (name.clone(), rule.to_string()));
    let rule_of = |o: &Override| format!("{:?}", o.rule).to_lowercase();
    let all = own.chain(policy.overrides.iter().map(|o| (o.pattern.clone(), rule_of(o))));
    let list: Vec<String> =
        all.map(|(pattern, rule)| format!("{{ pattern = \"{pattern}\", rule = \"{rule}\" }}")).collect();
    Change::set("precision", "overrides", format!("[{}]", list.join(", ")))
}

impl Doctor<'_, '_, '_> {
    /// What would fix it.
    pub(super) fn fixes(&self, finding: Option<&Finding>, cause: &Cause) -> Vec<Fix> {
        let policy = self.session.policy();
        let cast = finding.and_then(|f| f.cast.as_ref());
        let names = match cast {
            Some(cast) => vec![cast.layer.clone()],
            None => self.asking.clone(),
        };
        let wide = || {
            let change = overrides(policy, &names, "f32");
            (!names.is_empty() && policy.low.is_some())
                .then(|| Fix::of(vec![change], "what asks for the format is kept in f32"))
        };
        let mut fixes = match cause {
            Cause::StaleScale { .. } | Cause::ShortHistory { .. } | Cause::TooWide { .. } => {
                return self.cast_fixes(cast, cause);
            }
            Cause::BadInput { sample, .. } => vec![Fix::advice(format!(
                "look at sample {sample} of the batch: clean or normalise the data"
            ))],
            Cause::BadState { slot } | Cause::ImpossibleState { slot, .. } => {
                vec![Fix::anew(vec![slot.clone()])]
            }
            Cause::Constant { value } => {
                let advice = Fix::advice(format!(
                    "a constant that fits the format in place of {value:e}: −1e4 masks as well as −1e9 does"
                ));
                std::iter::once(advice).chain(wide()).collect()
            }
            Cause::ScaleTooHigh { fits, .. } => {
                vec![scale_fix(
                    *fits,
                    "the largest at which this step is finite, from where it finds its own",
                )]
            }
            Cause::ScaleTooLow { keeps, .. } => {
                vec![scale_fix(
                    *keeps,
                    "which keeps the gradients of this step, and finds its own from there",
                )]
            }
            Cause::OutOfRange | Cause::Underflow | Cause::Rounding => wide().into_iter().collect(),
            Cause::ExplodedWeights { setting, .. } => self.smaller_updates(setting),
            Cause::NotFiniteInF32 => {
                let (op, name) = finding.map_or(("it", "the model"), |f| (f.op.as_str(), f.name.as_str()));
                vec![Fix::advice(format!("change the model or the data so that {op} of {name} stays finite"))]
            }
            Cause::Setting { section, key, .. } if key == "margin" => {
                vec![Fix::of(vec![Change::set(section, key, "0")], "the whole range is used")]
            }
            Cause::Setting { .. }
            | Cause::Outsized { .. }
            | Cause::DeadLayer { .. }
            | Cause::DoesNotLearn { .. }
            | Cause::Nothing => Vec::new(),
        };
        let by_range =
            matches!(cause, Cause::OutOfRange | Cause::ScaleTooHigh { .. } | Cause::ScaleTooLow { .. });
        if policy.low == Some(DType::F16) && by_range {
            fixes.push(Fix::of(vec![Change::set("precision", "policy", "\"bf16\"")], "it has f32's range"));
        }
        fixes
    }

    /// What makes the updates smaller, where this setting makes them too large.
    fn smaller_updates(&self, setting: &str) -> Vec<Fix> {
        let key = setting.split(' ').next().unwrap_or("lr");
        let lr = self.session.spec().optimiser.lr();
        let rate = Fix::of(
            vec![Change::set("optimiser", "lr", toml_number(lr / 10.0))],
            "a lower learning rate, a tenth of the present",
        );
        let own = match key {
            "weight_decay" => Some(Change::set("optimiser", key, "0.01")),
            "momentum" => Some(Change::set("optimiser", key, "0.9")),
            _ => None,
        };
        let mut fixes: Vec<Fix> =
            own.map(|change| Fix::of(vec![change], "a usual value")).into_iter().collect();
        fixes.push(rate);
        if self.session.spec().clip.is_none() {
            let clip = Change::set("train", "clip", "1.0");
            fixes.push(Fix::of(vec![clip], "gradients are clipped"));
        }
        fixes
    }

    /// What would fix a cast to codes, whose scale does not fit.
    fn cast_fixes(&self, cast: Option<&CodeCast>, cause: &Cause) -> Vec<Fix> {
        let policy = self.session.policy();
        let section = format!("precision.{}", policy.name);
        let in_section =
            |key: &str, value: String, why: &str| Fix::of(vec![Change::set(&section, key, value)], why);
        let policy_of = |name: &str, why: &str| {
            Fix::of(vec![Change::set("precision", "policy", format!("\"{name}\""))], why)
        };
        let mut fixes = Vec::new();
        let current = policy_of("fp8-current", "each tensor is scaled by what it holds");
        let history = match policy.narrow.map(|n| n.scaling) {
            Some(Scaling::Delayed { history, .. }) => history,
            _ => 0,
        };
        match cause {
            Cause::StaleScale { recorded: Some(recorded), amax, .. } if amax < recorded => {
                fixes.push(current);
                if history > SOON {
                    fixes.push(in_section("history", SOON.to_string(), "a history that forgets sooner"));
                }
            }
            Cause::StaleScale { recorded, amax, .. } => {
                fixes.push(current);
                let room = recorded.map_or(0.0, |recorded| (amax / recorded).log2().ceil());
                if (1.0..=8.0).contains(&room) {
                    fixes.push(in_section("margin", room.to_string(), "room above the largest"));
                }
            }
            Cause::ShortHistory { .. } => {
                if history < LONG {
                    fixes.push(in_section("history", LONG.to_string(), "a longer history"));
                }
                fixes.push(current);
            }
            _ if policy.narrow.is_some_and(|n| !n.in_blocks()) => {
                fixes.push(policy_of("mxfp8", "blocks of a tensor have scales of their own"));
            }
            _ if cast.is_some_and(|c| c.codes == "float4_e2m1fn") => {
                fixes.push(policy_of("mxfp8", "eight bits"));
            }
            _ => {}
        }
        if let Some(cast) = cast {
            let change = overrides(policy, std::slice::from_ref(&cast.layer), "bf16");
            fixes.push(Fix::of(vec![change], "the layer is kept in bf16"));
        }
        fixes
    }
}

/// Dynamic scaling that begins here.
fn scale_fix(init: f64, why: &str) -> Fix {
    let default = DynamicScale::default();
    let floor = if init < default.floor { format!(", floor = {init:?}") } else { String::new() };
    let ceiling = if init > default.ceiling { format!(", ceiling = {init:?}") } else { String::new() };
    let value = format!("{{ kind = \"dynamic\", init = {init:?}{floor}{ceiling} }}");
    Fix::of(vec![Change::set("precision", "loss_scale", value)], why)
}

//! Loss scaling: gradients of `scale · loss` are computed, so that small ones survive a narrow
//! format, and divided by `scale` before use. The dynamic scaler's state lives in slots and its
//! rule is part of the program.

use halfstep_graph::precision::Policy;
use halfstep_graph::{
    Binary, DType, Graph, GraphError, Init, Phase, Shape, SlotId, SlotKind, ValueId, ValueType, When,
};
use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, positive_in_f32, require};

/// Name of the slot that holds the scale.
pub const SCALE_SLOT: &str = "scaler.scale";
/// Name of the slot that counts steps without overflow since the scale last changed.
pub const CLEAN_SLOT: &str = "scaler.clean";
/// Name of the slot that counts the overflows still tolerated before the scale goes down.
pub const TOLERANCE_SLOT: &str = "scaler.tolerance";

/// Name of the slot that holds the share of gradients that a probe found flushed to zero, until the
/// next step uses it.
pub const FLUSHED_SLOT: &str = "scaler.flushed";
/// Name of the slot that holds the lowest scale known to overflow: underflow alone does not raise
/// the scale to it again.
pub const LIMIT_SLOT: &str = "scaler.limit";

/// Constants of dynamic loss scaling (Micikevicius et al. 2018): torch's defaults, and limits that
/// torch lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicScale {
    /// First scale.
    pub init: f64,
    /// What the scale is multiplied with after `interval` clean steps.
    pub growth: f64,
    /// What the scale is multiplied with after an overflow.
    pub backoff: f64,
    /// Clean steps in a row after which the scale grows.
    pub interval: u32,
    /// Overflows in a row that lower the scale for the first time; 1 is torch's rule.
    pub hysteresis: u32,
    /// Smallest scale. torch has none, and its scale can fall to zero.
    pub floor: f64,
    /// Largest scale.
    pub ceiling: f64,
    /// Share of the gradients' elements flushed to zero, 0 to 1, above which the scale grows
    /// without waiting for `interval`; none does not watch underflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underflow: Option<f64>,
    /// Steps between probes of that share. A probe repeats the step twice: as it is, and in f32.
    pub probe: u32,
}

impl Default for DynamicScale {
    fn default() -> DynamicScale {
        DynamicScale {
            init: 65536.0,
            growth: 2.0,
            backoff: 0.5,
            interval: 2000,
            hysteresis: 1,
            floor: 1.0,
            ceiling: 16_777_216.0,
            underflow: None,
            probe: 500,
        }
    }
}

/// A scale that stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticScale {
    /// The scale.
    pub scale: f64,
}

/// How the loss is scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LossScale {
    /// Not at all.
    Off,
    /// By one number.
    Static(StaticScale),
    /// By a number that follows overflows.
    Dynamic(DynamicScale),
}

/// The scale of a step: its value, and its reciprocal for unscaling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub scale: ValueId,
    /// Absent where the scale is 1.
    pub reciprocal: Option<ValueId>,
}

impl LossScale {
    /// Every kind's name.
    pub const KINDS: [&'static str; 3] = ["off", "static", "dynamic"];

    /// What a policy needs: dynamic scaling for f16, whose smallest number is 2^-24; none for
    /// formats with f32's range.
    pub fn for_policy(policy: &Policy) -> LossScale {
        match policy.low {
            Some(DType::F16) => LossScale::Dynamic(DynamicScale::default()),
            _ => LossScale::Off,
        }
    }

    /// Whether the constants make sense.
    ///
    /// # Errors
    /// A constant out of range, or limits that contradict each other.
    pub fn validate(&self) -> Result<(), SettingError> {
        let positive =
            |field, x: f64| require(positive_in_f32(x), field, x, "a number above 1e-45 and below 3.4e38");
        match self {
            LossScale::Off => Ok(()),
            LossScale::Static(s) => positive("scale", s.scale),
            LossScale::Dynamic(s) => {
                positive("floor", s.floor)?;
                let reaches = s.ceiling >= s.floor && s.ceiling <= f64::from(f32::MAX);
                require(reaches, "ceiling", s.ceiling, "a number between `floor` and 3.4e38")?;
                let inside = (s.floor..=s.ceiling).contains(&s.init);
                require(inside, "init", s.init, "a number between `floor` and `ceiling`")?;
                let grows = s.growth > 1.0 && positive_in_f32(s.growth);
                require(grows, "growth", s.growth, "a number above 1 and below 3.4e38")?;
                let falls = s.backoff > 0.0 && s.backoff < 1.0;
                require(falls, "backoff", s.backoff, "a number between 0 and 1")?;
                let counts = [("interval", s.interval), ("hysteresis", s.hysteresis), ("probe", s.probe)];
                for (field, n) in counts {
                    require((1..1 << 24).contains(&n), field, n, "a count of at least 1")?;
                }
                let (share, expected) = (s.underflow.unwrap_or(0.5), "a share between 0 and 1, such as 0.01");
                require(share > 0.0 && share < 1.0, "underflow", share, expected)
            }
        }
    }

    /// Whether a step skipped at `scale` may succeed at a lower one.
    pub fn can_fall(&self, scale: f32) -> bool {
        match self {
            LossScale::Off | LossScale::Static(_) => false,
            LossScale::Dynamic(s) => f64::from(scale) > s.floor,
        }
    }

    /// Whether the share of gradients that become zero is to be measured before this attempt.
    pub(crate) fn probes(&self, attempt: u64) -> bool {
        match self {
            LossScale::Dynamic(s) => s.underflow.is_some() && attempt.is_multiple_of(s.probe.into()),
            LossScale::Off | LossScale::Static(_) => false,
        }
    }

    /// The scale of this step.
    pub(crate) fn read(&self, g: &mut Graph) -> Result<Scale, GraphError> {
        match self {
            LossScale::Off => Ok(Scale { scale: g.scalar(1.0), reciprocal: None }),
            LossScale::Static(s) => {
                let scale = g.scalar(s.scale);
                Ok(Scale { scale, reciprocal: Some(g.scalar(1.0 / s.scale)) })
            }
            LossScale::Dynamic(s) => {
                let slot = state(g, SCALE_SLOT, s.init)?;
                let scale = g.read(slot);
                let one = g.scalar(1.0);
                let reciprocal = g.in_phase(Phase::Update, |g| g.div(one, scale))?;
                Ok(Scale { scale, reciprocal: Some(reciprocal) })
            }
        }
    }

    /// Adds the scaler's own transition, which happens whether or not the step commits.
    ///
    /// Clean step: the count of clean steps goes up; when it reaches `interval` it starts again and
    /// the scale grows. The tolerance is refilled. Overflow: the count starts again and the
    /// tolerance goes down; once it is used up, the scale falls.
    ///
    /// Where underflow is watched, a clean step after a probe that found too much of it grows the
    /// scale too, but not up to one that overflowed, until `interval` clean steps have passed.
    pub(crate) fn update(&self, g: &mut Graph, commit: ValueId) -> Result<(), GraphError> {
        let LossScale::Dynamic(s) = self else { return Ok(()) };
        let scale_slot = state(g, SCALE_SLOT, s.init)?;
        let clean_slot = state(g, CLEAN_SLOT, 0.0)?;
        let tolerance_slot = state(g, TOLERANCE_SLOT, f64::from(s.hysteresis))?;
        let watched = match s.underflow {
            Some(share) => {
                let flushed = state(g, FLUSHED_SLOT, 0.0)?;
                Some((share, flushed, state(g, LIMIT_SLOT, f64::from(f32::MAX))?))
            }
            None => None,
        };
        g.scoped("scaler", |g| {
            let (scale, clean, tolerance) = (g.read(scale_slot), g.read(clean_slot), g.read(tolerance_slot));
            let (zero, one) = (g.scalar(0.0), g.scalar(1.0));
            let count = g.add(clean, one)?;
            let interval = g.scalar(f64::from(s.interval));
            let grows = g.binary(Binary::GreaterEqual, count, interval)?;
            let grown = g.scale(scale, s.growth)?;
            let ceiling = g.scalar(s.ceiling);
            let grown = g.binary(Binary::Min, grown, ceiling)?;
            let rises = match watched {
                Some((share, flushed, limit)) => {
                    let rises = rises(g, share, (flushed, limit), (grown, grows), (scale, commit))?;
                    g.binary(Binary::Max, grows, rises)?
                }
                None => grows,
            };
            let scale_if_clean = g.select(rises, grown, scale)?;
            let count_if_clean = g.select(rises, zero, count)?;

            let left = g.sub(tolerance, one)?;
            let left = g.binary(Binary::Max, left, zero)?;
            let fallen = g.scale(scale, s.backoff)?;
            let floor = g.scalar(s.floor);
            let fallen = g.binary(Binary::Max, fallen, floor)?;
            let scale_if_overflow = g.select(left, scale, fallen)?;

            let full = g.scalar(f64::from(s.hysteresis));
            let new_scale = g.select(commit, scale_if_clean, scale_if_overflow)?;
            let new_clean = g.select(commit, count_if_clean, zero)?;
            let new_tolerance = g.select(commit, full, left)?;
            g.write(scale_slot, new_scale, When::Always);
            g.write(clean_slot, new_clean, When::Always);
            g.write(tolerance_slot, new_tolerance, When::Always);
            Ok(())
        })
    }
}

/// Whether underflow alone grows the scale; also the transition of what is known of overflows.
fn rises(
    g: &mut Graph,
    share: f64,
    (flushed_slot, limit_slot): (SlotId, SlotId),
    (grown, grows): (ValueId, ValueId),
    (scale, commit): (ValueId, ValueId),
) -> Result<ValueId, GraphError> {
    let (flushed, limit) = (g.read(flushed_slot), g.read(limit_slot));
    let share = g.scalar(share);
    let too_much = g.binary(Binary::Greater, flushed, share)?;
    let below = g.binary(Binary::Greater, limit, grown)?;
    // At the ceiling there is nothing to grow to.
    let higher = g.binary(Binary::Greater, grown, scale)?;
    let rises = g.mul(too_much, below)?;
    let rises = g.mul(rises, higher)?;
    let unknown = g.scalar(f64::from(f32::MAX));
    let limit_if_clean = g.select(grows, unknown, limit)?;
    let new_limit = g.select(commit, limit_if_clean, scale)?;
    let none = g.scalar(0.0);
    g.write(limit_slot, new_limit, When::Always);
    g.write(flushed_slot, none, When::Always);
    Ok(rises)
}

fn state(g: &mut Graph, name: &str, first: f64) -> Result<SlotId, GraphError> {
    g.add_slot(name, ValueType::f32(Shape::scalar()), SlotKind::Scaler, Init::Constant(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_out_of_range_are_named() {
        let bad = |s: DynamicScale| LossScale::Dynamic(s).validate().unwrap_err().field;
        let d = DynamicScale::default;
        assert_eq!(LossScale::Dynamic(d()).validate(), Ok(()));
        assert_eq!(bad(DynamicScale { init: 0.5, ..d() }), "init");
        assert_eq!(bad(DynamicScale { growth: 1.0, ..d() }), "growth");
        assert_eq!(bad(DynamicScale { backoff: 1.0, ..d() }), "backoff");
        assert_eq!(bad(DynamicScale { interval: 0, ..d() }), "interval");
        assert_eq!(bad(DynamicScale { hysteresis: 0, ..d() }), "hysteresis");
        assert_eq!(bad(DynamicScale { floor: 0.0, ..d() }), "floor");
        assert_eq!(bad(DynamicScale { ceiling: f64::INFINITY, ..d() }), "ceiling");
        assert_eq!(bad(DynamicScale { underflow: Some(1.0), ..d() }), "underflow");
        assert_eq!(bad(DynamicScale { probe: 0, ..d() }), "probe");
        assert_eq!(LossScale::Static(StaticScale { scale: 0.0 }).validate().unwrap_err().field, "scale");
    }

    #[test]
    fn only_f16_is_scaled_unasked() {
        let named = |name: &str| LossScale::for_policy(&Policy::named(name).unwrap());
        assert_eq!(named("fp32"), LossScale::Off);
        assert_eq!(named("bf16"), LossScale::Off);
        assert_eq!(named("fp16"), LossScale::Dynamic(DynamicScale::default()));
    }

    /// Several losses are a weighted sum in one graph, scaled once: in f32, where a power of two
    /// changes no digits, each weight's gradient and their global norm are those without scaling,
    /// to the bit.
    #[test]
    fn a_sum_of_losses_is_scaled_once() {
        use halfstep_graph::differentiate;
        use halfstep_graph::interp::{Rounding, Tensor, evaluate};
        use halfstep_graph::precision::assign;

        let run = |scaling: LossScale| -> Vec<Vec<f64>> {
            let mut graph = Graph::new();
            let g = &mut graph;
            let f32 = |sizes: [usize; 2]| ValueType::f32(Shape::from(sizes));
            let x = g.input("x", f32([4, 5]));
            let y = g.input("y", ValueType::i32(Shape::from([4])));
            let slots = ["shared", "classes", "size"].map(|name| {
                let kind = SlotKind::Weight { decay: true };
                g.add_slot(
                    name,
                    f32(if name == "shared" { [6, 5] } else { [3, 6] }),
                    kind,
                    Init::Constant(0.0),
                )
                .unwrap()
            });
            let [shared, classes, size] = slots.map(|slot| g.read(slot));
            let hidden = g.matmul(x, shared, false, true).unwrap();
            let logits = g.matmul(hidden, classes, false, true).unwrap();
            let first = g.cross_entropy(logits, y).unwrap();
            let first = g.mean(first, &[0]).unwrap();
            let sizes = g.matmul(hidden, size, false, true).unwrap();
            let squares = g.mul(sizes, sizes).unwrap();
            let second = g.mean(squares, &[0, 1]).unwrap();
            let (first, second) = (g.scale(first, 0.75).unwrap(), g.scale(second, 0.1).unwrap());
            let loss = g.add(first, second).unwrap();
            let scale = scaling.read(g).unwrap();
            let gradients = differentiate(g, loss, scale.scale, &slots).unwrap();
            let norm = g.global_norm(&gradients).unwrap();
            for (i, v) in gradients.into_iter().chain([norm]).enumerate() {
                let v = scale.reciprocal.map_or(v, |r| g.mul(v, r).unwrap());
                g.add_output(&i.to_string(), v);
            }
            let (assigned, _) = assign(&graph, &Policy::named("fp32").unwrap());
            let number = |i: usize| ((i * 37 % 19) as f64 - 9.0) / 16.0;
            let filled = |shape: &Shape| Tensor::new(shape.clone(), (0..shape.count()).map(number).collect());
            let state: Vec<Tensor> = assigned
                .slots
                .iter()
                .map(|s| match s.kind {
                    SlotKind::Scaler => Tensor::filled(Shape::scalar(), 65536.0),
                    _ => filled(&s.ty.shape),
                })
                .collect();
            let targets = Tensor::new(Shape::from([4]), vec![0.0, 2.0, 1.0, 2.0]);
            let inputs = [("x", filled(&Shape::from([4, 5]))), ("y", targets)];
            let values = evaluate(&assigned, &state, &inputs, Rounding::Stored).unwrap();
            assigned.outputs.iter().map(|(_, v)| values[v.0 as usize].data.clone()).collect()
        };
        let plain = run(LossScale::Off);
        assert!(plain.iter().all(|values| values.iter().any(|v| *v != 0.0)));
        assert_eq!(plain, run(LossScale::Static(StaticScale { scale: 4096.0 })));
        assert_eq!(plain, run(LossScale::Dynamic(DynamicScale::default())));
    }
}

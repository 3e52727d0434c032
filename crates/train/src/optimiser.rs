//! Optimisers: their constants, and the nodes that update weights.

use halfstep_graph::{
    AdamWSpec, Graph, GraphError, Init, Kept, Op, SgdSpec, SlotId, SlotKind, ValueId, ValueType, When,
};
use serde::{Deserialize, Serialize};

use crate::setting::{SettingError, positive_in_f32, require};
use crate::step_options::StepOptions;

/// AdamW (Loshchilov and Hutter 2019) with torch's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate before the schedule's factor.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Decoupled weight decay of matrices; biases and norm parameters do not decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Stochastic gradient descent with momentum, as torch writes it (no dampening).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate before the schedule's factor.
    pub lr: f64,
    /// Decay of the sum of gradients.
    pub momentum: f64,
    /// Weight decay of matrices, added to the gradient; biases and norm parameters do not decay.
    pub weight_decay: f64,
    /// Whether to look ahead along the momentum (Nesterov).
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false }
    }
}

/// How gradients become new weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Optimiser {
    /// Adaptive steps with decoupled decay.
    AdamW(AdamW),
    /// Plain steps with momentum.
    Sgd(Sgd),
}

impl Default for Optimiser {
    fn default() -> Optimiser {
        Optimiser::AdamW(AdamW::default())
    }
}

/// The scalars every parameter's update reads.
pub(crate) struct UpdateInputs {
    /// Learning rate, f32.
    pub lr: ValueId,
    /// What gradients are multiplied with: clipping over loss scale.
    pub grad_scale: ValueId,
    /// The number of the step if it commits, for Adam's bias correction.
    pub step: Option<ValueId>,
    /// Not zero if the step commits.
    pub commit: ValueId,
}

impl Optimiser {
    /// Every kind's name.
    pub const KINDS: [&'static str; 2] = ["adamw", "sgd"];

    /// The learning rate before the schedule's factor.
    pub fn lr(&self) -> f64 {
        match self {
            Optimiser::AdamW(o) => o.lr,
            Optimiser::Sgd(o) => o.lr,
        }
    }

    /// Whether the constants make sense.
    ///
    /// # Errors
    /// A constant out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        let rate = |lr: f64| require(positive_in_f32(lr), "lr", lr, "a number above 1e-45 and below 3.4e38");
        let fraction =
            |field, x: f64| require((0.0..1.0).contains(&x), field, x, "a number from 0 up to but not 1");
        let decay = |x: f64| {
            let fits = x >= 0.0 && (x as f32).is_finite();
            require(fits, "weight_decay", x, "a number of at least 0 and below 3.4e38")
        };
        match self {
            Optimiser::AdamW(o) => {
                rate(o.lr)?;
                fraction("beta1", o.beta1)?;
                fraction("beta2", o.beta2)?;
                require(positive_in_f32(o.eps), "eps", o.eps, "a number above 1e-45 and below 3.4e38")?;
                decay(o.weight_decay)
            }
            Optimiser::Sgd(o) => {
                rate(o.lr)?;
                fraction("momentum", o.momentum)?;
                decay(o.weight_decay)?;
                let looks_ahead = o.momentum > 0.0 || !o.nesterov;
                require(looks_ahead, "nesterov", o.nesterov, "false, for there is no momentum")
            }
        }
    }

    /// Adds the update of every slot in `gradients`, staged for commit.
    pub(crate) fn update(
        &self,
        g: &mut Graph,
        gradients: &[(SlotId, ValueId)],
        inputs: &UpdateInputs,
        options: &StepOptions,
    ) -> Result<(), GraphError> {
        let &UpdateInputs { lr: full_lr, grad_scale, step, commit } = inputs;
        let mut rates: Vec<(f64, ValueId)> = vec![(1.0, full_lr)];
        let step = step.filter(|_| matches!(self, Optimiser::AdamW(_)));
        for &(slot, gradient) in gradients {
            let (name, ty) = (g.slot(slot).name.clone(), g.slot(slot).ty.clone());
            let decays = matches!(g.slot(slot).kind, SlotKind::Weight { decay: true });
            let group = options.group(&name);
            let of_group = group.and_then(|group| group.weight_decay);
            let decay = |x: f64| of_group.unwrap_or(if decays { x } else { 0.0 });
            let factor = group.map_or(1.0, |group| group.lr);
            let lr = match rates.iter().find(|(f, _)| *f == factor) {
                Some(&(_, lr)) => lr,
                None => {
                    let lr = g.scoped("lr", |g| g.scale(full_lr, factor))?;
                    rates.push((factor, lr));
                    lr
                }
            };
            let weight = g.read(slot);
            let mut moment = |prefix: &str| {
                let zero = Init::Constant(0.0);
                g.add_slot(&format!("optimiser.{prefix}.{name}"), ty.clone(), SlotKind::Moment, zero)
            };
            let (op, slots, mut operands) = match self {
                Optimiser::AdamW(o) => {
                    let (m, v) = (moment("m")?, moment("v")?);
                    let spec = AdamWSpec {
                        beta1: o.beta1,
                        beta2: o.beta2,
                        eps: o.eps,
                        weight_decay: decay(o.weight_decay),
                        // The precision pass says how state is kept.
                        kept: Kept::default(),
                    };
                    let operands = vec![weight, g.read(m), g.read(v)];
                    (Op::AdamW(spec), vec![slot, m, v], operands)
                }
                Optimiser::Sgd(o) => {
                    let m = moment("momentum")?;
                    let spec = SgdSpec {
                        momentum: o.momentum,
                        weight_decay: decay(o.weight_decay),
                        nesterov: o.nesterov,
                        kept: Kept::default(),
                    };
                    (Op::Sgd(spec), vec![slot, m], vec![weight, g.read(m)])
                }
            };
            operands.extend([gradient, lr, grad_scale]);
            operands.extend(step);
            operands.push(commit);
            let results = g.push_named(op, &operands, name)?;
            for (slot, value) in slots.into_iter().zip(results) {
                g.write(slot, value, When::Committed);
            }
        }
        Ok(())
    }
}

/// Name of the slot that counts committed steps, for Adam's bias correction and moving averages.
pub const STEP_SLOT: &str = "optimiser.step";

/// The number of this step if it commits, counting from 1.
///
/// Kept in f32, which counts to 2^24 and then stays: by then the bias correction is 1 in f32 for
/// any β ≤ 1 − 2^-19.
pub(crate) fn count_step(g: &mut Graph) -> Result<ValueId, GraphError> {
    let ty = ValueType::f32(halfstep_graph::Shape::scalar());
    let slot = g.add_slot(STEP_SLOT, ty, SlotKind::Counter, Init::Constant(0.0))?;
    g.scoped(STEP_SLOT, |g| {
        let (before, one) = (g.read(slot), g.scalar(1.0));
        let step = g.add(before, one)?;
        g.write(slot, step, When::Committed);
        Ok(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(optimiser: Optimiser) -> &'static str {
        optimiser.validate().unwrap_err().field
    }

    #[test]
    fn constants_out_of_range_are_named() {
        assert_eq!(Optimiser::default().validate(), Ok(()));
        assert_eq!(Optimiser::Sgd(Sgd::default()).validate(), Ok(()));
        let adamw = AdamW::default;
        assert_eq!(bad(Optimiser::AdamW(AdamW { lr: 0.0, ..adamw() })), "lr");
        for lr in [f64::NAN, f64::INFINITY, 1e39, 1e-50] {
            assert_eq!(bad(Optimiser::AdamW(AdamW { lr, ..adamw() })), "lr");
            assert_eq!(bad(Optimiser::Sgd(Sgd { lr, ..Sgd::default() })), "lr");
        }
        assert_eq!(bad(Optimiser::AdamW(AdamW { eps: 1e39, ..adamw() })), "eps");
        assert_eq!(bad(Optimiser::Sgd(Sgd { weight_decay: 1e39, ..Sgd::default() })), "weight_decay");
        assert_eq!(bad(Optimiser::AdamW(AdamW { beta1: 1.0, ..adamw() })), "beta1");
        assert_eq!(bad(Optimiser::AdamW(AdamW { beta2: -0.1, ..adamw() })), "beta2");
        assert_eq!(bad(Optimiser::AdamW(AdamW { eps: 1e-50, ..adamw() })), "eps");
        assert_eq!(bad(Optimiser::AdamW(AdamW { weight_decay: -1.0, ..adamw() })), "weight_decay");
        assert_eq!(bad(Optimiser::Sgd(Sgd { momentum: 1.0, ..Sgd::default() })), "momentum");
        let still = Sgd { momentum: 0.0, nesterov: true, ..Sgd::default() };
        assert_eq!(bad(Optimiser::Sgd(still)), "nesterov");
    }
}

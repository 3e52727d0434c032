//! What a training step needs, known before it runs, and what fits a number of bytes: by search
//! over real plans.

use halfstep_graph::engine::Target;
use halfstep_graph::precision::Policy;
use halfstep_graph::{ByteSize, GraphError, smallest_footprint};
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};
use serde::Serialize;

use crate::session::{SessionSpec, TrainError};
use crate::stages::{Stages, assigned, stages, stages_within};
use crate::step::{StepGraphs, StepSpec, step_graphs};

/// Every form of the programs of a training step.
#[derive(Clone, Debug)]
pub struct StepStages {
    /// The step; or, of a batch that is worked through in parts, one part.
    pub train: Stages,
    /// The update after the last part.
    pub apply: Option<Stages>,
}

/// Every form of the training step of a session with this spec, before the session is made.
///
/// # Errors
/// The target does not run the policy; the model does not take this input; the target's ranks
/// cannot share the batch; [`TrainError::Budget`] if `spec.memory_budget` cannot be met.
pub fn step_stages(
    model: &dyn Model,
    input: &InputSpec,
    policy: &Policy,
    spec: &SessionSpec,
    target: &dyn Target,
) -> Result<StepStages, TrainError> {
    target.supports(policy)?;
    let (batch, ranks, accumulate) = (spec.batch, target.ranks(), spec.options.accumulate);
    if !batch.is_multiple_of(ranks * accumulate) {
        return Err(TrainError::Uneven { batch, ranks, accumulate });
    }
    if ranks > 1 && policy.narrow.is_some_and(|narrow| narrow.sees_whole_tensors()) {
        return Err(TrainError::ScaleOfAPart { policy: policy.name.clone(), ranks });
    }
    let graphs = share_graphs(model, input, spec, target)?;
    let StepGraphs { train, apply } = graphs.keep_state(policy);
    let train = stages_within(train, policy, target, spec.memory_budget).map_err(|cause| {
        // The largest smaller batch that fits, if one does and the search itself does not fail.
        let parts = spec.options.accumulate.max(1) * target.ranks();
        let fits = |size| {
            let spec = SessionSpec { batch: size * parts, expose_gradients: false, ..spec.clone() };
            let needed = needed(model, input, policy, &spec, Recompute::Allowed, target)?;
            Ok::<bool, TrainError>(needed <= cause.budget)
        };
        let batch = largest((spec.batch - 1) / parts, fits).ok().flatten().map(|size| size * parts);
        TrainError::Budget { cause, policy: policy.name.clone(), batch }
    })?;
    // It reads and writes sums and state in place: a budget that holds a part holds it.
    let apply = apply.map(|graph| stages(graph, policy, target));
    Ok(StepStages { train, apply })
}

/// The programs of one of the target's ranks.
fn share_graphs(
    model: &dyn Model,
    input: &InputSpec,
    spec: &SessionSpec,
    target: &dyn Target,
) -> Result<StepGraphs, GraphError> {
    let step = StepSpec {
        model,
        input,
        batch: spec.batch / target.ranks(),
        optimiser: &spec.optimiser,
        scaling: &spec.scaling,
        clip: spec.clip,
        expose_gradients: spec.expose_gradients,
    };
    step_graphs(&step, &spec.options, target.ranks())
}

/// Whether activations may be computed again to save memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// As much as it takes.
    Allowed,
    /// None.
    Not,
}

/// The bytes an engine holds for the training step, at least.
///
/// # Errors
/// The model does not take this input.
pub fn needed(
    model: &dyn Model,
    input: &InputSpec,
    policy: &Policy,
    spec: &SessionSpec,
    recompute: Recompute,
    target: &dyn Target,
) -> Result<usize, TrainError> {
    let graph = share_graphs(model, input, spec, target)?.keep_state(policy).train;
    let (assigned, _) = assigned(&graph, policy);
    Ok(match recompute {
        Recompute::Not => halfstep_graph::plan(halfstep_graph::fuse(&assigned), target).footprint.total(),
        Recompute::Allowed => smallest_footprint(&assigned, target),
    })
}

/// The largest number from 1 to `most` that fits, if 1 does, where every smaller one fits too: by
/// doubling, then halving the interval.
///
/// # Errors
/// Those of `fits`.
pub fn largest<E>(most: usize, mut fits: impl FnMut(usize) -> Result<bool, E>) -> Result<Option<usize>, E> {
    if most == 0 || !fits(1)? {
        return Ok(None);
    }
    let (mut good, mut bad) = (1, 2);
    while bad <= most && fits(bad)? {
        (good, bad) = (bad, bad.saturating_mul(2));
    }
    bad = bad.min(most.saturating_add(1));
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

/// A way to make a model larger or smaller that keeps its other proportions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Other widths, the same depth.
    Wider,
    /// Other depths, the same width.
    Deeper,
    /// Width and depth in the proportion of the recipe.
    Both,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 3] = [Family::Wider, Family::Deeper, Family::Both];

    /// How many steps of size there are up to the model as it is; larger ones are possible.
    ///
    /// None where the family means nothing: the depth of a `resnet18` is fixed, that of a `cnn` is
    /// bound by its images.
    pub fn unit(self, spec: &ModelSpec) -> Option<usize> {
        match (spec, self) {
            (ModelSpec::Gpt(g), Family::Wider | Family::Both) => Some(g.heads),
            (ModelSpec::Gpt(g), Family::Deeper) => Some(g.layers),
            (ModelSpec::Mlp(m), Family::Deeper) => Some(m.hidden.len()).filter(|&n| n > 0),
            (ModelSpec::Mlp(m), Family::Wider | Family::Both) => greatest_divisor(&m.hidden),
            (ModelSpec::Cnn(c), Family::Wider) => greatest_divisor(&[&c.channels[..], &[c.hidden]].concat()),
            (ModelSpec::Resnet18(r), Family::Wider) => Some(r.width),
            (ModelSpec::Cnn(_) | ModelSpec::Resnet18(_), Family::Deeper | Family::Both) => None,
        }
    }

    /// The member of size `n`; that of size [`Family::unit`] is `spec`.
    ///
    /// A `gpt` is widened by heads of the same size. A deeper `mlp` has its last hidden layer more
    /// often; a shallower one lacks its last layers. Where width and depth change together, depth
    /// is rounded to the nearest whole number.
    pub fn member(self, spec: &ModelSpec, n: usize) -> Option<ModelSpec> {
        let unit = self.unit(spec)?;
        let scaled = |size: usize| (size as u128 * n as u128).div_euclid(unit as u128).max(1) as usize;
        let nearest = |size: usize| {
            ((size as u128 * n as u128 * 2 + unit as u128) / (2 * unit as u128)).max(1) as usize
        };
        let deep = |hidden: &[usize], depth: usize| -> Vec<usize> {
            let last = hidden.last().copied().unwrap_or(1);
            hidden.iter().copied().chain(std::iter::repeat(last)).take(depth).collect()
        };
        Some(match (spec, self) {
            (ModelSpec::Gpt(g), Family::Wider) => {
                ModelSpec::Gpt(GptSpec { heads: n, width: scaled(g.width), ..g.clone() })
            }
            (ModelSpec::Gpt(g), Family::Deeper) => ModelSpec::Gpt(GptSpec { layers: n, ..g.clone() }),
            (ModelSpec::Gpt(g), Family::Both) => ModelSpec::Gpt(GptSpec {
                heads: n,
                width: scaled(g.width),
                layers: nearest(g.layers),
                ..g.clone()
            }),
            (ModelSpec::Mlp(m), Family::Wider) => {
                ModelSpec::Mlp(MlpSpec { hidden: m.hidden.iter().map(|&w| scaled(w)).collect() })
            }
            (ModelSpec::Mlp(m), Family::Deeper) => ModelSpec::Mlp(MlpSpec { hidden: deep(&m.hidden, n) }),
            (ModelSpec::Mlp(m), Family::Both) => {
                let wide: Vec<usize> = m.hidden.iter().map(|&w| scaled(w)).collect();
                ModelSpec::Mlp(MlpSpec { hidden: deep(&wide, nearest(m.hidden.len())) })
            }
            (ModelSpec::Cnn(c), Family::Wider) => ModelSpec::Cnn(CnnSpec {
                channels: c.channels.iter().map(|&w| scaled(w)).collect(),
                hidden: scaled(c.hidden),
            }),
            (ModelSpec::Resnet18(_), Family::Wider) => ModelSpec::Resnet18(Resnet18Spec { width: n }),
            (ModelSpec::Cnn(_) | ModelSpec::Resnet18(_), Family::Deeper | Family::Both) => return None,
        })
    }
}

/// The greatest common divisor; none of an empty list.
fn greatest_divisor(sizes: &[usize]) -> Option<usize> {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    sizes.iter().copied().reduce(gcd)
}

/// Members of a family that are tried at most: beyond, one is taken for a mistake in the budget.
const MOST_MEMBERS: usize = 1 << 20;

/// The largest member of `family` whose training step needs at most `budget` bytes, if one does.
///
/// # Errors
/// The model does not take this input.
pub fn largest_model(
    model: &ModelSpec,
    family: Family,
    (input, outputs): (&InputSpec, usize),
    policy: &Policy,
    spec: &SessionSpec,
    (recompute, budget): (Recompute, ByteSize),
    target: &dyn Target,
) -> Result<Option<ModelSpec>, TrainError> {
    let fits = |n: usize| -> Result<bool, TrainError> {
        // A member that is too large to be built does not fit.
        let Some(Ok(model)) = family.member(model, n).map(|m| m.build(input, outputs)) else {
            return Ok(false);
        };
        Ok(needed(model.as_ref(), input, policy, spec, recompute, target)? <= budget.0)
    };
    Ok(largest(MOST_MEMBERS, fits)?.and_then(|n| family.member(model, n)))
}

/// The largest batch whose training step needs at most `budget` bytes, if one does.
///
/// # Errors
/// The model does not take this input.
pub fn largest_batch(
    model: &dyn Model,
    input: &InputSpec,
    policy: &Policy,
    spec: &SessionSpec,
    (recompute, budget): (Recompute, ByteSize),
    target: &dyn Target,
) -> Result<Option<usize>, TrainError> {
    largest(MOST_MEMBERS, |batch| {
        let spec = SessionSpec { batch, ..spec.clone() };
        Ok(needed(model, input, policy, &spec, recompute, target)? <= budget.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_is_found() {
        for most in [0usize, 1, 2, 7, 100] {
            for limit in 0..=12 {
                let mut asked = 0;
                let found = largest(most, |n| {
                    asked += 1;
                    Ok::<_, ()>(n <= limit)
                });
                assert_eq!(found, Ok(Some(limit.min(most)).filter(|&n| n > 0)), "{most} {limit}");
                assert!(asked <= 16);
            }
        }
    }

    #[test]
    fn families_hold_the_model_itself_and_keep_its_proportions() {
        let gpt =
            ModelSpec::Gpt(GptSpec { width: 384, layers: 6, heads: 6, dropout: 0.1, ..GptSpec::default() });
        let mlp = ModelSpec::Mlp(MlpSpec { hidden: vec![96, 64] });
        let cnn = ModelSpec::Cnn(CnnSpec { channels: vec![16, 32], hidden: 128 });
        for spec in [&gpt, &mlp, &cnn, &ModelSpec::Resnet18(Resnet18Spec { width: 64 })] {
            for family in Family::ALL {
                let member = family.unit(spec).map(|n| family.member(spec, n).unwrap());
                assert!(member.is_none_or(|m| m == *spec), "{spec:?} {family:?}");
            }
        }
        let wide = Family::Both.member(&gpt, 9).unwrap();
        assert_eq!(
            wide,
            ModelSpec::Gpt(GptSpec { width: 576, layers: 9, heads: 9, dropout: 0.1, ..GptSpec::default() })
        );
        let deep = Family::Deeper.member(&mlp, 4).unwrap();
        assert_eq!(deep, ModelSpec::Mlp(MlpSpec { hidden: vec![96, 64, 64, 64] }));
        assert_eq!(Family::Deeper.unit(&cnn), None);
    }
}

//! Which operation asks for a value's format, and the exceptions that keep a step in range.

use halfstep_graph::precision::{Class, Override, Policy, Reason, Rule, class};
use halfstep_graph::{Op, ValueId};

use super::observe::{Observed, Weights};
use super::replays::{Doctor, first_broken};
use crate::session::TrainError;

/// Exceptions that are tried one after another, until the step is finite.
const MOST: usize = 12;

impl Observed {
    /// Names of the operations that `value` is stored low for: the contractions that read it
    /// rounded, or the operation itself where it is one, or follows its operands.
    pub(super) fn asks_for(&self, value: ValueId) -> Vec<String> {
        let node = self.node(value);
        let is_copy = matches!(node.op, Op::Cast { .. } | Op::Reshape { .. } | Op::Permute { .. })
            && self.graph.value(value).reason != Some(Reason::Explicit);
        let rounded_for_readers = self.graph.value(value).reason == Some(Reason::ReadersTakeLow);
        let mut names = Vec::new();
        if is_copy || rounded_for_readers {
            self.readers(value, &mut names);
        }
        if names.is_empty() {
            names.push(node.name.clone());
        }
        names
    }

    /// Names of the contractions that read `value`, as it is or in another order.
    fn readers(&self, value: ValueId, names: &mut Vec<String>) {
        for node in self.graph.nodes.iter().filter(|n| n.inputs.contains(&value)) {
            match (&node.op, class(&node.op)) {
                (_, Class::Contraction) if !names.contains(&node.name) => names.push(node.name.clone()),
                (Op::Cast { .. } | Op::Reshape { .. } | Op::Permute { .. }, _) => {
                    self.readers(node.outputs[0], names);
                }
                _ => {}
            }
        }
    }
}

impl Doctor<'_, '_, '_> {
    /// Exceptions with which a replay of the step is finite: `value` in f32 for those that ask for
    /// it low, and then whatever goes out of range behind it. The first alone where they do not
    /// help.
    pub(super) fn overrides_that_fit(
        &mut self,
        low: &Observed,
        value: ValueId,
    ) -> Result<Vec<String>, TrainError> {
        let first = low.asks_for(value);
        let mut names = first.clone();
        for _ in 0..MOST {
            let mut again =
                Observed::compile_with(self.session, self.scale, &excepting(self.session.policy(), &names))?;
            self.run(&mut again, &Weights::Present)?;
            let Some(broken) = first_broken(&again)? else {
                let list: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
                self.evidence
                    .push(format!("replayed with {} in f32, every value is finite", list.join(", ")));
                return Ok(names);
            };
            let more: Vec<String> =
                again.asks_for(broken).into_iter().filter(|name| !names.contains(name)).collect();
            if more.is_empty() {
                break;
            }
            names.extend(more);
        }
        Ok(first)
    }
}

/// The policy with these parts of the model in f32.
fn excepting(policy: &Policy, names: &[String]) -> Policy {
    let mut policy = policy.clone();
    let exceptions = names.iter().map(|name| Override { pattern: name.clone(), rule: Rule::F32 });
    policy.overrides.splice(0..0, exceptions);
    policy
}

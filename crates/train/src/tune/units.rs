//! What the search decides on: the contractions of a model, each by the name it has in the graph.

use halfstep_graph::precision::{Class, Override, Policy, Rule, class};
use halfstep_graph::{Graph, Phase};

/// Names of the contractions that `policy` lowers, in the order in which they run. A contraction's
/// derivatives have its name and go with it, and what follows it is stored like its operands. One
/// that an override speaks of is decided already; one inside another's scope goes with that,
/// because an override of the outer name reaches it.
pub fn units(graph: &Graph, policy: &Policy) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for node in &graph.nodes {
        let lowered = class(&node.op) == Class::Contraction
            && node.phase == Phase::Forward
            && policy.exception(&node.name).is_none();
        if lowered && !names.contains(&node.name) {
            names.push(node.name.clone());
        }
    }
    let inside = |name: &str, outer: &str| name.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    let is_outermost = |name: &&String| !names.iter().any(|outer| inside(name, outer));
    names.iter().filter(is_outermost).cloned().collect()
}

/// `policy` with these units kept in f32. Its own overrides stand first: they hold.
pub fn keeping<'a>(policy: &Policy, kept: impl IntoIterator<Item = &'a String>) -> Policy {
    let mut policy = policy.clone();
    let keep = |name: &String| Override { pattern: name.clone(), rule: Rule::F32 };
    policy.overrides.extend(kept.into_iter().map(keep));
    policy
}

#[cfg(test)]
mod tests {
    use halfstep_graph::{Shape, ValueType};

    use super::*;

    #[test]
    fn a_unit_is_an_outermost_contraction_that_no_override_names() {
        let mut g = Graph::new();
        let x = g.input("x", ValueType::f32(Shape::from([4, 4])));
        for name in ["a", "a.inner", "ab", "c", "c"] {
            g.scoped(name, |g| g.matmul(x, x, false, false)).unwrap();
        }
        let mut policy = Policy::named("bf16").unwrap();
        assert_eq!(units(&g, &policy), ["a", "ab", "c"]);
        policy.overrides.push(Override { pattern: "c".into(), rule: Rule::F32 });
        assert_eq!(units(&g, &policy), ["a", "ab"]);
        let kept = keeping(&policy, &["a".to_string()]);
        assert_eq!(kept.exception("a"), Some(Rule::F32));
        assert_eq!(kept.exception("ab"), None);
    }
}

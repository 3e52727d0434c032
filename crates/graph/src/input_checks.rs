//! What a run is given, checked before it changes anything.

use std::ops::Range;

use crate::dtype::ValueType;
use crate::engine::{EngineError, HostSlice, Target};
use crate::graph::{Graph, Node, ValueId};
use crate::op::Op;

/// What the inputs of a program must be: present, of their types, and with indices in range.
#[derive(Clone, Debug, PartialEq)]
pub struct InputChecks {
    inputs: Vec<(String, ValueType)>,
    indices: Vec<Indices>,
}

/// Elements of an input that are row numbers.
#[derive(Clone, Debug, PartialEq)]
struct Indices {
    /// Position of the input.
    input: usize,
    /// Which elements, in ascending order.
    elements: Vec<Range<usize>>,
    /// Number of rows.
    count: usize,
    /// The first node that uses them.
    at: String,
}

/// What is known at compile time of the indices that a node uses.
enum Origin {
    /// These elements of an input.
    Input(usize, Vec<usize>),
    /// Computed, and below this number.
    Below(usize),
    /// Computed.
    Computed,
}

impl InputChecks {
    /// The checks for a program of `graph` on `target`. Indices are followed to their input through
    /// reshapes and slices.
    ///
    /// # Errors
    /// Indices that are neither from an input nor certain to be in range, unless the target checks
    /// those itself.
    pub fn of(graph: &Graph, target: &dyn Target) -> Result<InputChecks, EngineError> {
        let inputs: Vec<(String, ValueType)> =
            graph.inputs().map(|(name, v)| (name.to_string(), graph.value(v).ty.clone())).collect();
        let mut indices: Vec<Indices> = Vec::new();
        for node in &graph.nodes {
            let Some((value, count)) = indices_of(graph, node) else { continue };
            match origin(graph, &inputs, value) {
                Origin::Input(input, elements) => {
                    let elements = elements.chunk_by(|a, b| a + 1 == *b);
                    let elements: Vec<Range<usize>> =
                        elements.map(|run| run[0]..run[0] + run.len()).collect();
                    let is_known =
                        |c: &Indices| (c.input, c.count) == (input, count) && c.elements == elements;
                    if !indices.iter().any(is_known) {
                        indices.push(Indices { input, elements, count, at: node.name.clone() });
                    }
                }
                Origin::Below(bound) if bound <= count => {}
                Origin::Below(_) | Origin::Computed if target.checks_indices() => {}
                Origin::Below(_) | Origin::Computed => {
                    return Err(EngineError::Unsupported(format!(
                        "`{}` has indices that the program computes, which `{}` does not check: make them an input",
                        node.name,
                        target.name()
                    )));
                }
            }
        }
        Ok(InputChecks { inputs, indices })
    }

    /// Checks what a run is given. Allocates nothing unless it fails.
    ///
    /// # Errors
    /// A missing input; one of the wrong type or size; an index out of range.
    pub fn check(&self, given: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        for (name, ty) in &self.inputs {
            let missing = || EngineError::unknown("input", name, given.iter().map(|&(n, _)| n));
            EngineError::check(name, ty, find(name, given).ok_or_else(missing)?)?;
        }
        self.check_indices(given)
    }

    /// Checks the indices alone, of those inputs that are given.
    ///
    /// # Errors
    /// An index out of range.
    pub fn check_indices(&self, given: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        for Indices { input, elements, count, at } in &self.indices {
            let Some(HostSlice::I32(x)) = find(&self.inputs[*input].0, given) else { continue };
            let is_row = |i: i32| usize::try_from(i).is_ok_and(|i| i < *count);
            for range in elements {
                let given = x.get(range.clone()).unwrap_or_default();
                if let Some(&index) = given.iter().find(|&&i| !is_row(i)) {
                    return Err(EngineError::Index { at: at.clone(), index: index.into(), count: *count });
                }
            }
        }
        Ok(())
    }
}

fn find<'g>(name: &str, given: &[(&str, HostSlice<'g>)]) -> Option<HostSlice<'g>> {
    given.iter().find(|(n, _)| *n == name).map(|&(_, data)| data)
}

/// The operand of `node` that holds row numbers, and the number of rows.
fn indices_of(graph: &Graph, node: &Node) -> Option<(ValueId, usize)> {
    let rows = match node.op {
        Op::Gather => graph.shape(node.inputs[0])[0],
        Op::ScatterAdd { rows } => rows,
        Op::CrossEntropy | Op::CrossEntropyGrad => graph.shape(node.inputs[0]).last(),
        _ => return None,
    };
    Some((node.inputs[1], rows))
}

fn origin(graph: &Graph, inputs: &[(String, ValueType)], value: ValueId) -> Origin {
    let node = graph.node(graph.value(value).node);
    match &node.op {
        Op::Input { name } => match inputs.iter().position(|(n, _)| n == name) {
            Some(input) => Origin::Input(input, (0..graph.shape(value).count()).collect()),
            None => Origin::Computed,
        },
        Op::ArgMax => Origin::Below(graph.shape(node.inputs[0]).last()),
        Op::Reshape { .. } => origin(graph, inputs, node.inputs[0]),
        Op::Slice { axis, start, end } => match origin(graph, inputs, node.inputs[0]) {
            Origin::Input(input, elements) => {
                let shape = graph.shape(node.inputs[0]);
                let inner: usize = shape[axis + 1..].iter().product();
                let is_kept = |i: usize| (*start..*end).contains(&(i / inner % shape[*axis]));
                let kept = elements.into_iter().enumerate().filter(|&(i, _)| is_kept(i));
                Origin::Input(input, kept.map(|(_, element)| element).collect())
            }
            computed => computed,
        },
        _ => Origin::Computed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::{InterpreterEngine, Rounding};
    use crate::{Graph, ValueType};

    /// Refuses indices that the program computes.
    struct Unchecking;

    impl Target for Unchecking {
        fn name(&self) -> String {
            "an engine that checks nothing".into()
        }
        fn alignment(&self) -> usize {
            1
        }
        fn workspace_bytes(&self, _: &Graph, _: &Node) -> usize {
            0
        }
    }

    /// Rows of a table of five, by the elements 1 and 2 of each of the three rows of `tokens`.
    fn shifted() -> Graph {
        let mut g = Graph::new();
        let table = g.input("table", ValueType::f32([5, 2].into()));
        let tokens = g.input("tokens", ValueType::i32([3, 4].into()));
        let middle = g.slice(tokens, 1, 1, 3).unwrap();
        let flat = g.reshape(middle, [6]).unwrap();
        let last = g.slice(flat, 0, 0, 4).unwrap();
        let rows = g.scoped("rows", |g| g.gather(table, last)).unwrap();
        g.add_output("rows", rows);
        g
    }

    #[test]
    fn indices_are_followed_through_slices_and_reshapes() {
        let checks = InputChecks::of(&shifted(), &Unchecking).unwrap();
        let table = [0.0; 10];
        for (at, used) in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(|at| (at, matches!(at, 1 | 2 | 5 | 6))) {
            for bad in [5, -1, i32::MAX, i32::MIN] {
                let mut tokens = [4; 12];
                tokens[at] = bad;
                let found =
                    checks.check(&[("tokens", HostSlice::I32(&tokens)), ("table", HostSlice::F32(&table))]);
                let out = EngineError::Index { at: "rows".into(), index: bad.into(), count: 5 };
                assert_eq!(found, if used { Err(out) } else { Ok(()) }, "{bad} at {at}");
            }
        }
    }

    #[test]
    fn indices_that_a_program_computes_are_refused_unless_they_are_checked_or_in_range() {
        let graph = |classes: usize, cast: bool| {
            let mut g = Graph::new();
            let table = g.input("table", ValueType::f32([5, 2].into()));
            let scores = g.input("scores", ValueType::f32([3, classes].into()));
            let index = match cast {
                true => g.max(scores, &[1]).and_then(|most| g.cast(most, crate::DType::I32)),
                false => g.argmax(scores),
            };
            let rows = g.gather(table, index.unwrap()).unwrap();
            g.add_output("rows", rows);
            g
        };
        let reference = InterpreterEngine { rounding: Rounding::None };
        for (classes, cast, in_range) in [(5, false, true), (6, false, false), (5, true, false)] {
            let graph = graph(classes, cast);
            assert!(InputChecks::of(&graph, &reference).is_ok());
            let refused = InputChecks::of(&graph, &Unchecking);
            match in_range {
                true => assert!(refused.is_ok(), "{refused:?}"),
                false => assert!(matches!(refused, Err(EngineError::Unsupported(_))), "{refused:?}"),
            }
        }
    }
}

//! One program of the part [`super::operations`], its inputs, and how far its results may lie from
//! the interpreter's.

use std::collections::HashMap;

use halfstep_float::Format;

use super::{compile, numbers, tensor_of};
use crate::engine::{Engine, HostSlice, HostTensor, output_id};
use crate::graph::{Graph, ValueId};
use crate::interp::{Rounding, Tensor, evaluate};
use crate::precision::{Class, Policy, class};
use crate::{DType, GraphError, Shape, ValueType};

/// One program and the values it is run on.
pub(super) struct Case {
    pub name: String,
    pub graph: Graph,
    /// The most products or summands that any element of a result is made of.
    pub terms: usize,
    given: Vec<(String, HostTensor)>,
}

impl Case {
    /// `build` gets one f32 input per shape; its results become outputs.
    pub fn new(
        name: &str,
        terms: usize,
        shapes: &[Shape],
        build: impl FnOnce(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>, GraphError>,
    ) -> Case {
        let mut graph = Graph::new();
        let mut given = Vec::new();
        let mut inputs = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let input = format!("x{i}");
            inputs.push(graph.input(&input, ValueType::f32(shape.clone())));
            given.push((input, HostTensor::F32(numbers(i as u64, shape))));
        }
        let results = graph.scoped(name, |g| build(g, &inputs)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (i, result) in results.into_iter().enumerate() {
            graph.add_output(&format!("y{i}"), result);
        }
        Case { name: name.to_string(), graph, terms, given }
    }

    pub fn contracts(&self) -> bool {
        self.graph.nodes.iter().any(|n| class(&n.op) == Class::Contraction)
    }

    pub fn with_indices(mut self, name: &str, indices: Vec<i32>) -> Case {
        self.given.push((name.to_string(), HostTensor::I32(indices)));
        self
    }

    pub fn inputs(&self) -> Vec<(&str, HostSlice<'_>)> {
        self.given.iter().map(|(name, x)| (name.as_str(), x.as_slice())).collect()
    }

    pub fn tensors(&self, graph: &Graph) -> Vec<(&str, Tensor)> {
        let shapes: HashMap<&str, &Shape> = graph.inputs().map(|(name, v)| (name, graph.shape(v))).collect();
        let read = self.given.iter().filter(|(name, _)| shapes.contains_key(name.as_str()));
        read.map(|(name, x)| (name.as_str(), tensor_of(shapes[name.as_str()], x))).collect()
    }
}

/// Begins the names of cases that have codes and nothing else as results.
pub(super) const QUANTISE: &str = "quantise";

/// How far one result of a case may lie from the interpreter's.
///
/// Operands lie in ±1, so Σ|a||b| ≤ `terms`. Sums in f32 err by γ_n·Σ|a||b| with n = terms (Higham
/// 2002, §3.1), and f16 products made of four bf16 ones have four times the terms. Results that are
/// rounded to a type with unit roundoff u differ by at most 2u·|y| more. Where a low format is
/// used, attention rounds its probabilities too: u per term.
///
/// tf32 operands are rounded by the interpreter too: their products have the bound of f32.
///
/// A split product errs by ε·Σ|a||b| more ([`crate::Split::bound`]), and has six times the terms.
/// In attention with heads of D ≤ 16 elements a score then errs by ε√D, a probability by twice that
/// relative to itself, a result by ε(2√D + 1) and δ and dout·vᵀ by at most D times that; so a
/// gradient, which adds at most T of those, by ε·T·(6D + 4√D) ≤ 128·ε·`terms`.
fn bound(case: &Case, dtype: DType, policy: &Policy, y: f64) -> f64 {
    let lowest = policy.low.unwrap_or(DType::F32);
    let attention = case.name.starts_with("attention");
    let unit = |d: DType| d.format().unwrap_or(Format::F32).info().unit_roundoff;
    let n = policy.split.map_or(4.0, |s| s.products() as f64) * case.terms as f64 + 8.0;
    let gamma = n * unit(DType::F32) / (1.0 - n * unit(DType::F32));
    let sums = gamma * (case.terms as f64 + y.abs());
    let inner = match policy.split.filter(|split| split.allows_f32()) {
        None if attention && lowest != DType::F32 => 4.0 * unit(lowest) * (case.terms as f64).sqrt(),
        None => 0.0,
        Some(split) if case.contracts() => {
            split.bound() * case.terms as f64 * if attention { 128.0 } else { 1.0 }
        }
        Some(_) => 0.0,
    };
    // Below the normal range rounding is absolute.
    2.0 * unit(dtype) * y.abs() + sums + inner + f64::powi(2.0, -24)
}

pub(super) fn agrees_with_the_interpreter(engine: &dyn Engine, case: &Case, policy: &Policy) {
    let (graph, mut state, mut program) = compile(engine, &case.graph, policy);
    program.run(&mut state, &case.inputs()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let expected = evaluate(&graph, &[], &case.tensors(&graph), Rounding::Stored).expect("the interpreter");
    for (name, value) in &graph.outputs {
        let (dtype, expected) = (graph.dtype(*value), &expected[value.0 as usize]);
        let found = program.read(name).expect("an output");
        if !dtype.is_float() {
            let found: Vec<f64> = found.i32().iter().map(|&x| x.into()).collect();
            assert_eq!(found, expected.data, "{} of {} on {}", name, case.name, engine.name());
            continue;
        }
        assert_eq!(found.f32().len(), expected.data.len());
        if let [y] = found.f32() {
            let (id, mut scalar) = (output_id(&graph, name).expect("an output"), [0.0]);
            program.read_scalars(&[id], &mut scalar).expect("one number");
            assert_eq!(
                scalar[0].to_bits(),
                y.to_bits(),
                "{name} of {}: as a scalar and as a tensor",
                case.name
            );
        }
        for (i, (&y, &want)) in found.f32().iter().zip(&expected.data).enumerate() {
            let error = (f64::from(y) - want).abs();
            // Codes are the same or wrong: their scales are largest magnitudes and quotients, which
            // have one result.
            let allowed =
                if case.name.starts_with(QUANTISE) { 0.0 } else { bound(case, dtype, policy, want) };
            let same = error <= allowed || (y.is_nan() && want.is_nan()) || f64::from(y) == want;
            assert!(
                same,
                "{name}[{i}] of {} under {} on {}: {y} against {want}, {error:e} > {allowed:e}",
                case.name,
                policy.name,
                engine.name()
            );
        }
    }
}

//! What an assigned program will do badly in its formats, known before its first step.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::graph::{Graph, Node, ValueId};
use crate::op::{BatchNormPart, Binary, Op, ReduceKind, Unary};
use crate::reason::Reason;
use crate::state_formats::WeightFormat;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lint {
    /// A mask or another constant is beyond the range of the format it is stored in.
    ConstantBeyondRange,
    /// A constant, such as the eps of a norm, becomes zero in the format it is stored in.
    RoundsToZero,
    /// Positions or indices are stored as numbers of a format whose mantissa does not hold them
    /// all.
    PositionsBeyondMantissa,
    /// A whole number is stored in a format that only has its neighbours.
    IntegerNotHeld,
    /// A sum has more terms than its accumulator can count.
    SumTooLong,
    /// An override stores a norm in a 16-bit format.
    NormInHalf,
    /// Weights are kept in bf16 and rounded to nearest.
    UpdatesLost,
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LintFinding {
    /// What.
    pub lint: Lint,
    /// Where in the model.
    pub name: String,
    /// The operation.
    pub op: String,
    /// The format it is about.
    pub format: DType,
    /// What was found, and what the format has.
    pub message: String,
}

impl fmt::Display for LintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "the model" } else { &self.name };
        write!(f, "{} of {name}: {}", self.op, self.message)
    }
}

/// The largest number that an integer input can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// The input's name.
    pub input: &'a str,
    /// The number.
    pub largest: u64,
}

/// What is wrong with an assigned graph, in execution order; of what is wrong in the same way at
/// the same place, the first.
///
/// `extents` says of integer inputs how large they can be; of others nothing is assumed.
pub fn lint(graph: &Graph, extents: &[Extent<'_>]) -> Vec<LintFinding> {
    let mut found: Vec<LintFinding> = Vec::new();
    for node in &graph.nodes {
        for finding in constants(graph, node)
            .into_iter()
            .chain(positions(graph, node, extents))
            .chain(sum(graph, node))
            .chain(norm(graph, node))
            .chain(update(node))
        {
            if !found.iter().any(|f| (f.lint, &f.name) == (finding.lint, &finding.name)) {
                found.push(finding);
            }
        }
    }
    found
}

fn finding(node: &Node, lint: Lint, format: DType, message: String) -> LintFinding {
    LintFinding { lint, name: node.name.clone(), op: node.op.name(), format, message }
}

/// Of every weight alike, so it is said once, of the model.
fn update(node: &Node) -> Option<LintFinding> {
    let kept = match &node.op {
        Op::AdamW(spec) => spec.kept,
        Op::Sgd(spec) => spec.kept,
        _ => return None,
    };
    (kept.formats.weights == WeightFormat::Bf16).then(|| LintFinding {
        lint: Lint::UpdatesLost,
        name: String::new(),
        op: node.op.name(),
        format: DType::Bf16,
        message: "weights are kept in bf16 and rounded to nearest: an update below 1/512 of a weight is lost, and training \
                  stalls; `weights = \"bf16-stochastic\"` or `\"bf16-kahan\"` keeps it"
            .into(),
    })
}

/// 2^(mantissa bits + 1): up to here a format has every whole number.
fn whole_numbers(format: DType) -> f64 {
    format.format().map_or(f64::INFINITY, |f| f64::from(f.info().mantissa_bits + 1).exp2())
}

fn constants(graph: &Graph, node: &Node) -> Option<LintFinding> {
    if let Op::LayerNorm { eps } | Op::BatchNormPart(BatchNormPart::Apply { eps }) = node.op
        && eps != 0.0
        && DType::F32.round(eps) == 0.0
    {
        return Some(finding(node, Lint::RoundsToZero, DType::F32, format!("eps {eps:e} is zero in f32")));
    }
    // In other operations a constant is an operand in f32, and only the result is stored in the
    // format.
    let is_part_of_result = matches!(
        node.op,
        Op::Select
            | Op::Cast { .. }
            | Op::Broadcast { .. }
            | Op::Binary(Binary::Add | Binary::Sub | Binary::Max | Binary::Min)
    );
    if !is_part_of_result {
        return None;
    }
    let format = graph.dtype(node.outputs[0]);
    let info = format.format()?.info();
    node.inputs.iter().find_map(|&v| {
        let c = constant(graph, v).filter(|c| c.is_finite())?;
        let held = format.round(c);
        if !held.is_finite() || c.abs() > info.max_finite {
            let end = info.max_finite;
            let message = format!("the constant {c:e} is beyond {format}, which ends at {end:e}");
            return Some(finding(node, Lint::ConstantBeyondRange, format, message));
        }
        if c != 0.0 && held == 0.0 {
            let least = info.min_subnormal;
            let message =
                format!("the constant {c:e} is zero in {format}, whose smallest number is {least:.1e}");
            return Some(finding(node, Lint::RoundsToZero, format, message));
        }
        let counts = matches!(node.op, Op::Cast { .. } | Op::Binary(Binary::Add | Binary::Sub));
        if counts && c.fract() == 0.0 && c.abs() > whole_numbers(format) && held != c {
            let message = format!("the whole number {c} is stored as {held} in {format}");
            return Some(finding(node, Lint::IntegerNotHeld, format, message));
        }
        None
    })
}

/// The constant that a value is, behind what changes neither its magnitude nor its type of number.
fn constant(graph: &Graph, mut v: ValueId) -> Option<f64> {
    loop {
        let node = graph.node(graph.value(v).node);
        match node.op {
            Op::Const { value, .. } => return Some(value),
            Op::Cast { .. } | Op::Broadcast { .. } | Op::Reshape { .. } | Op::Unary(Unary::Neg) => {
                v = node.inputs[0]
            }
            _ => return None,
        }
    }
}

/// A cast of whole numbers that go further than the mantissa.
fn positions(graph: &Graph, node: &Node, extents: &[Extent<'_>]) -> Option<LintFinding> {
    let Op::Cast { to } = node.op else { return None };
    let largest = largest_index(graph, node.inputs[0], extents)?;
    let held = whole_numbers(to);
    (to.is_float() && largest as f64 > held).then(|| {
        // Between 2^k and 2^(k+1) they are 2^(k − mantissa bits) apart.
        let apart = (2.0 * (largest as f64).log2().floor().exp2() / held).max(2.0);
        let message = format!(
            "numbers up to {largest} are stored in {to}, which has every whole number up to {held} only: the last are \
             {apart} apart"
        );
        finding(node, Lint::PositionsBeyondMantissa, to, message)
    })
}

/// The largest whole number in a value made of integers alone.
fn largest_index(graph: &Graph, mut v: ValueId, extents: &[Extent<'_>]) -> Option<u64> {
    loop {
        let node = graph.node(graph.value(v).node);
        match &node.op {
            Op::Input { name } if graph.dtype(v) == DType::I32 => {
                return extents.iter().find(|e| e.input == name).map(|e| e.largest);
            }
            Op::ArgMax => return Some(graph.shape(node.inputs[0]).last() as u64 - 1),
            Op::Cast { .. }
            | Op::Broadcast { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Slice { .. } => v = node.inputs[0],
            _ => return None,
        }
    }
}

/// A sum that is longer than its accumulator, f32, has whole numbers: in the worst order, terms of
/// one size and sign no longer change it (Higham 2002, section 4.2).
fn sum(graph: &Graph, node: &Node) -> Option<LintFinding> {
    let shape = |i: usize| graph.shape(node.inputs[i]);
    let terms = match &node.op {
        Op::MatMul { ta, .. } => {
            let a = shape(0);
            if *ta { a[a.len() - 2] } else { a.last() }
        }
        Op::Conv2d(_) => shape(1).count() / shape(1)[0],
        Op::Conv2dGradInput { .. } => shape(1).count() / shape(1).last(),
        Op::Conv2dGradWeight { .. } => shape(1).rows(),
        Op::Reduce { kind: ReduceKind::Sum | ReduceKind::Mean, axes } => {
            axes.iter().map(|&a| shape(0)[a]).product()
        }
        Op::ScatterAdd { .. } => shape(0).rows(),
        _ => return None,
    };
    (terms as f64 > whole_numbers(DType::F32)).then(|| {
        let message =
            format!("a sum of {terms} terms in f32, which counts to {} only", whole_numbers(DType::F32));
        finding(node, Lint::SumTooLong, DType::F32, message)
    })
}

/// A norm that an override stores in a low format.
fn norm(graph: &Graph, node: &Node) -> Option<LintFinding> {
    let value = graph.value(node.outputs[0]);
    let is_norm = matches!(node.op, Op::LayerNorm { .. } | Op::BatchNormPart(BatchNormPart::Apply { .. }));
    let forced = value.reason == Some(Reason::Override) && value.ty.dtype != DType::F32;
    (is_norm && forced).then(|| {
        let format = value.ty.dtype;
        let message =
            format!("an override stores it in {format}; without one it is stored like the rows it reads");
        finding(node, Lint::NormInHalf, format, message)
    })
}

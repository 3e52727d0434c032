//! The precision plan: for each value its storage, compute and accumulation types, and why.

use std::fmt;

use halfstep_float::Format;
use serde::{Deserialize, Serialize};

use super::class::{Class, class};
use super::policy::Policy;
use crate::dtype::{DType, Shape, Split};
use crate::graph::{Graph, Node, Phase};
use crate::op::Op;
use crate::reason::Reason;

/// What operands are multiplied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Compute {
    /// A format.
    Format(DType),
    /// f32 operands as terms of fewer bits.
    Split(Split),
    /// Codes with scales in blocks, as the bf16 numbers that both stand for.
    Codes(Format),
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compute::Format(dtype) => dtype.fmt(f),
            Compute::Split(split) => split.fmt(f),
            Compute::Codes(format) => format.fmt(f),
        }
    }
}

/// What the plan says of one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// Position of the value in the graph after the pass.
    pub value: u32,
    /// Where in the model it stands.
    pub name: String,
    /// The operation that makes it.
    pub op: String,
    /// Which part of the step.
    pub phase: Phase,
    /// Sizes.
    pub shape: Shape,
    /// How it is stored.
    pub storage: DType,
    /// What its operands are multiplied in, or f32.
    pub compute: Compute,
    /// The format sums are kept in.
    pub accumulate: DType,
    /// Why.
    pub reason: Reason,
}

/// Storage, compute and accumulation types of a whole program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionPlan {
    /// The policy it was made by.
    pub policy: Policy,
    /// One entry per value, in order.
    pub entries: Vec<PlanEntry>,
}

impl PrecisionPlan {
    /// The plan that an assigned graph carries out.
    pub fn of(graph: &Graph, policy: &Policy) -> PrecisionPlan {
        let entry = |(i, value): (usize, &crate::graph::Value)| {
            let node = graph.node(value.node);
            let format = match class(&node.op) {
                Class::Contraction => graph.dtype(node.inputs[0]),
                _ if value.ty.dtype == DType::I32 => DType::I32,
                _ => DType::F32,
            };
            let compute = match (node.split, class(&node.op)) {
                (Some(split), _) => Compute::Split(split),
                (None, Class::Contraction) => {
                    codes_of(graph, node).map_or(Compute::Format(format), Compute::Codes)
                }
                _ => Compute::Format(format),
            };
            PlanEntry {
                value: i as u32,
                name: node.name.clone(),
                op: node.op.name(),
                phase: node.phase,
                shape: value.ty.shape.clone(),
                storage: value.ty.dtype,
                compute,
                accumulate: if format == DType::I32 { DType::I32 } else { DType::F32 },
                reason: value.reason.unwrap_or(Reason::PolicyIsF32),
            }
        };
        PrecisionPlan {
            policy: policy.clone(),
            entries: graph.values.iter().enumerate().map(entry).collect(),
        }
    }

    /// The casts of the plan.
    pub fn casts(&self) -> impl Iterator<Item = &PlanEntry> {
        self.entries.iter().filter(|e| e.op == "cast")
    }
}

/// The format of the codes in blocks that a contraction reads, if it does.
fn codes_of(graph: &Graph, node: &Node) -> Option<Format> {
    let operand = graph.value(node.inputs[0]);
    match &graph.node(operand.node).op {
        Op::Quantise(q) if operand.ty.dtype == DType::Bf16 => Some(q.format),
        _ => None,
    }
}

impl fmt::Display for PrecisionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "policy {}: {} values, {} casts",
            self.policy.name,
            self.entries.len(),
            self.casts().count()
        )?;
        let name_width = self.entries.iter().map(|e| e.name.len()).max().unwrap_or(0).min(40);
        for e in &self.entries {
            let types = format!("{}/{}/{}", e.storage, e.compute, e.accumulate);
            writeln!(
                f,
                "%{:<5} {:<name_width$} {:<20} {:<14} {:<18} {}",
                e.value,
                e.name,
                e.op,
                types,
                e.shape.to_string(),
                e.reason
            )?;
        }
        Ok(())
    }
}

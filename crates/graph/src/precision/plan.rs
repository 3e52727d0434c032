//! The precision plan: for each value its storage, compute and accumulation types, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::class::{Class, class};
use super::policy::{Policy, Reason};
use crate::dtype::{DType, Shape};
use crate::graph::{Graph, Phase};

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
    /// The format its operands are multiplied in, or f32.
    pub compute: DType,
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
            let compute = match class(&node.op) {
                Class::Contraction => graph.dtype(node.inputs[0]),
                _ if value.ty.dtype == DType::I32 => DType::I32,
                _ => DType::F32,
            };
            PlanEntry {
                value: i as u32,
                name: node.name.clone(),
                op: node.op.name(),
                phase: node.phase,
                shape: value.ty.shape.clone(),
                storage: value.ty.dtype,
                compute,
                accumulate: if compute == DType::I32 { DType::I32 } else { DType::F32 },
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

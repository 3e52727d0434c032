//! The graph: operations, differentiation, precision assignment, memory plan and the f64 reference interpreter.
//!
//! A model and its loss are written once into a [`Graph`]. Everything after that is a pass over it:
//! [`differentiate`], [`precision::assign`], [`fuse()`], [`group()`], [`plan()`]; then an [`engine::Engine`] compiles the plan.

#![forbid(unsafe_code)]

mod build;
pub mod conformance;
mod diff;
mod dtype;
pub mod engine;
mod fuse;
mod graph;
mod infer;
pub mod interp;
mod op;
mod plan;
pub mod precision;
mod text;

pub use diff::differentiate;
pub use dtype::{DType, Shape, ValueType};
pub use fuse::{Group, Groups, Traffic, flops, fuse, group};
pub use graph::{Graph, GraphError, Init, Node, NodeId, Phase, Slot, SlotKind, Value, ValueId, When, Write};
pub use op::*;
pub use plan::{Place, Plan, StateBytes, plan};

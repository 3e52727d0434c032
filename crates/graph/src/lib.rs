//! The graph: operations, differentiation, precision assignment, memory plan and the f64 reference
//! interpreter.
//!
//! A model and its loss are written once into a [`Graph`]. Everything after that is a pass over it:
//! [`differentiate`], [`shard()`] where several ranks share the work, [`precision::assign`],
//! [`recompute()`] where a budget asks for it, [`fuse()`], [`group()`], [`plan()`]; then an
//! [`engine::Engine`] compiles the plan.

#![forbid(unsafe_code)]

mod build;
mod byte_size;
pub mod communicator;
pub mod conformance;
mod diff;
mod dtype;
pub mod engine;
pub mod engine_info;
pub mod expression;
mod footprint;
mod fuse;
mod graph;
mod group;
mod infer;
mod input_checks;
pub mod interp;
mod memory;
mod op;
mod plan;
pub mod precision;
mod reason;
mod recompute;
mod shard;
mod state_formats;
mod target;
mod text;
mod unfused;
mod uses;

pub use byte_size::{ByteSize, ByteSizeError};
pub use diff::{differentiate, differentiate_values};
pub use dtype::{DType, Shape, Split, ValueType};
pub use footprint::Footprint;
pub use fuse::{Traffic, flops, fuse, group};
pub use graph::{
    Graph, GraphError, Init, Node, NodeId, OutputId, Phase, Slot, SlotKind, Value, ValueId, When, Write,
};
pub use group::{Group, Groups};
pub use input_checks::InputChecks;
pub use memory::{MemoryReport, Purpose, Resident};
pub use op::*;
pub use plan::{Block, Content, Place, Plan, StateBytes, plan};
pub use recompute::{BudgetError, Recomputation, recompute, smallest_footprint};
pub use shard::{RESIDUAL, Residuals, Shard, shard};
pub use state_formats::{Kept, MomentFormat, StateFormats, WeightFormat};
pub use unfused::Unfused;

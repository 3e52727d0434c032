//! Precision as a pass: a policy gives each class of operation a rule, and the pass puts every
//! value in a storage type with a reason.

mod assign;
mod class;
mod lint;
mod narrow;
mod plan;
mod policy;
mod quantise;
mod state;

pub use crate::reason::Reason;
pub use assign::assign;
pub use class::{Class, class};
pub use lint::{Extent, Lint, LintFinding, lint};
pub use narrow::{GradientRounding, Narrow, Scaling, SharedScale};
pub use plan::{Compute, PlanEntry, PrecisionPlan};
pub use policy::{Override, Policy, PolicyError, Rule};
pub use state::{COMPENSATION, keep_state};

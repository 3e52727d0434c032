//! Whether a low-precision model is as good as the reference: statistics over paired seeds, a table, a report.
//!
//! [`assess`] takes logits of any framework, one pair of files per seed, and comes to a verdict; `docs/verdict.md` says how.
//! [`Comparison::new`] takes what runs measured and says what follows; [`table::lines`] lays it out once for the
//! terminal, [`report::markdown`] and [`report::html`].

#![forbid(unsafe_code)]

pub mod assessment;
pub mod assessment_table;
pub mod bootstrap;
pub mod comparison;
pub mod curves;
mod draws;
pub mod exact;
pub mod experiment;
mod findings;
pub mod logits;
pub mod measures;
pub mod metric;
pub mod noninferiority;
pub mod power;
pub mod report;
pub mod robustness;
pub mod robustness_findings;
pub mod robustness_table;
pub mod stats;
pub mod table;
pub mod units;

pub use assessment::{Assessment, AssessmentError, Protocol, assess};
pub use comparison::{Against, Comparison, Evaluation, Outcome, Row, RunResult, Setup};
pub use exact::Divergence;
pub use metric::Metric;
pub use noninferiority::{Better, Margin, MarginTest, Question};
pub use stats::{Paired, Verdict};

//! Whether a low-precision model is as good as the reference: statistics over paired seeds, a
//! table, a report.
//!
//! [`assess()`] takes logits of any framework, one pair of files per seed, and comes to a verdict;
//! `docs/verdict.md` says how. [`Comparison::new`] takes what runs measured; a [`Study`] of one or
//! several says what follows in plain words; [`table::lines`] lays the numbers out for the
//! terminal, and a [`Report`] for HTML, Markdown and JSON alike.

#![forbid(unsafe_code)]

pub mod answers;
mod arithmetic;
mod assess;
pub mod assessment;
pub mod assessment_table;
pub mod buckets;
pub mod comparison;
pub mod cost;
pub mod crossed;
mod draws;
pub mod emissions;
pub mod exact;
pub mod experiment;
mod findings;
pub mod folds;
pub mod group_table;
pub mod heat_map;
pub mod judge;
pub mod logits;
pub mod measures;
pub mod metric;
pub mod model;
pub mod noninferiority;
pub mod power;
pub mod reference;
pub mod report;
pub mod robustness;
pub mod robustness_findings;
pub mod robustness_table;
pub mod run;
pub mod statements;
pub mod stats;
pub mod study;
pub mod table;
mod tail;
pub mod units;
pub mod worst;

pub use arithmetic::PolicyArithmetic;
pub use assess::{AssessmentError, assess};
pub use assessment::{Assessment, Protocol};
pub use comparison::{Candidate, Comparison, PolicyRow, Setup};
pub use cost::Rates;
pub use exact::Divergence;
pub use metric::Metric;
pub use noninferiority::{Better, Margin, MarginTest, Question};
pub use report::Report;
pub use run::{Inference, RunResult, Spent, Way};
pub use stats::{Paired, Verdict};
pub use study::Study;

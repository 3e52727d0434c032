//! Which evidence a model needs before it is promoted: a file of demands, and the judgement of a
//! signed verdict by them.
//!
//! The judgement fails closed: what a verdict does not say, or says in a form that is not known
//! here, is a demand that is not met.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use x509_cert::der::DateTime;

use crate::digest::Digest;
use crate::margin::Margin;
use crate::pair::{PairNaming, PairVerdict};
use crate::statement::Predicate;
use crate::trust::Verified;
use crate::verdict::{Arm, Candidate, Conclusion, Naming};

/// The precision of a reference that may be promoted where the policy allows references.
const FULL: &str = "fp32";
/// Margins that differ by less are one number that was written in two ways: 0.55pt divided by 100
/// is not the double of 0.0055.
const SAME: f64 = 1e-12;
/// How far the clock of the signer may be ahead.
const AHEAD: Duration = Duration::from_secs(300);
const DAY: u64 = 24 * 60 * 60;

/// Why a text is no policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It is not of the form.
    #[error("{0}")]
    Malformed(String),
    /// It demands nothing of the metrics.
    #[error(
        "`margins` is empty, so that a verdict with any margins would do: state the largest of each metric"
    )]
    NoMargins,
    /// It lists precisions, and none is in the list.
    #[error("`precisions` is empty, so that every verdict is refused: leave it out to accept all")]
    NoPrecisions,
}

/// What evidence a model needs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Of what the verdict has to speak.
    pub claim: Claim,
    /// The largest margin of each metric, by the metric's name; each has to have been judged, and
    /// to have passed.
    pub margins: BTreeMap<String, Margin>,
    /// Least test targets.
    pub samples: NonZeroU64,
    /// Least pairs of seeds.
    pub pairs: NonZeroU64,
    /// Precisions that may be promoted; all where none are listed.
    pub precisions: Option<Vec<String>>,
    /// Whether the weights of a reference in FP32 may be promoted, which no verdict judges. Refused
    /// unless the policy says otherwise: a signed verdict shows nothing of them but their role.
    #[serde(default)]
    pub reference: Permission,
    /// Whether a model that was converted may be promoted by a verdict of one pair: against its
    /// parent alone, so that neither pairs of seeds nor a precision are asked of it.
    #[serde(default)]
    pub converted: Permission,
    /// The greatest age of a verdict in days; any where none is stated.
    pub max_age_days: Option<NonZeroU32>,
    /// Whether an alias may be promoted or rolled back without a signature of that move. Allowed
    /// unless the policy says otherwise. Who moves an alias asks; [`Policy::judge`] does not.
    #[serde(default = "allowed")]
    pub unsigned_moves: Permission,
}

fn allowed() -> Permission {
    Permission::Allowed
}

/// Of what a verdict has to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Of other seeds on the samples that were measured, or of more.
    Samples,
    /// Of other seeds on other examples like these.
    Examples,
}

impl Claim {
    fn name(self) -> &'static str {
        match self {
            Claim::Samples => "samples",
            Claim::Examples => "examples",
        }
    }

    /// Whether a verdict of this claim, as its protocol names it, speaks of enough: new examples
    /// are more than the measured ones.
    fn is_met_by(self, claim: &str) -> bool {
        claim == "examples" || (self == Claim::Samples && claim == "samples")
    }
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// It is not.
    #[default]
    Refused,
    /// It is.
    Allowed,
}

/// A demand of the policy that a verdict does not meet.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Unmet {
    /// What is signed is no verdict.
    #[error("what is signed is something else than a verdict, and the policy asks for one")]
    NoVerdict,
    /// The verdict is of other weights.
    #[error(
        "the verdict `{verdict}` does not name these weights (SHA-256 {weights}): it says nothing of them"
    )]
    OtherWeights {
        /// Name of the comparison, or of the weights that a verdict of one pair judged.
        verdict: String,
        /// The weights that were asked about.
        weights: Digest,
    },
    /// The file is logits, a recipe or the like.
    #[error("the verdict names this file as `{0}`, which is no model")]
    NoModel(String),
    /// The weights are the reference's.
    #[error(
        "the weights are those of the reference, {0}, which nothing judged, and the policy does not allow references (`reference = \"allowed\"` does)"
    )]
    Reference(String),
    /// The weights are those of a reference of less than full precision.
    #[error(
        "the weights are those of the reference, {0}, which nothing judged; the policy allows references in {FULL} alone"
    )]
    LowReference(String),
    /// The weights were converted, and the verdict is of one pair.
    #[error(
        "the verdict is of one pair, a converted model and its parent, and the policy does not allow those (`converted = \"allowed\"` does)"
    )]
    Converted,
    /// The weights are those of the parent of a converted model.
    #[error("the weights are those of the parent of a converted model, which this verdict does not judge")]
    Parent,
    /// The verdict is no pass.
    #[error("the verdict is `{}`, and the policy asks for `pass`", .0.name())]
    NoPass(Conclusion),
    /// The precision is not among those that are allowed.
    #[error("the precision is {is}, and the policy allows {}", .allowed.join(", "))]
    Precision {
        /// That of the weights.
        is: String,
        /// Those of the policy.
        allowed: Vec<String>,
    },
    /// The verdict speaks of less.
    #[error("the verdict's claim is {is}, and the policy asks for `{}`", .asked.name())]
    Claim {
        /// What the verdict states, in words.
        is: String,
        /// What the policy asks for.
        asked: Claim,
    },
    /// It rests on too few test targets.
    #[error("the verdict rests on {is} samples, and the policy asks for {asked} or more")]
    Samples {
        /// What it rests on.
        is: u64,
        /// What the policy asks for.
        asked: u64,
    },
    /// It rests on too few pairs of seeds.
    #[error("the verdict rests on {is} pairs of seeds, and the policy asks for {asked} or more")]
    Pairs {
        /// What it rests on.
        is: u64,
        /// What the policy asks for.
        asked: u64,
    },
    /// A metric was not judged by a margin.
    #[error(
        "{metric} was not judged (judged were: {judged}), and the policy asks for a margin of {asked} or less"
    )]
    NotJudged {
        /// The metric.
        metric: String,
        /// What was judged, in words.
        judged: String,
        /// The policy's margin.
        asked: Margin,
    },
    /// The margin is no margin: not a finite number above zero, or of a kind that is not known.
    #[error("the margin of {metric} is `{is}`, which is none, and the policy asks for {asked} or less")]
    NoMargin {
        /// The metric.
        metric: String,
        /// What stands there.
        is: String,
        /// The policy's margin.
        asked: Margin,
    },
    /// The margin cannot be compared with the policy's.
    #[error(
        "the margin of {metric} is {is}, and the policy states one of the other kind, {asked}: neither is the larger"
    )]
    OtherKind {
        /// The metric.
        metric: String,
        /// That of the verdict.
        is: Margin,
        /// The policy's.
        asked: Margin,
    },
    /// The margin is wider than the policy's.
    #[error("the margin of {metric} is {is}, and the policy asks for {asked} or less")]
    Wide {
        /// The metric.
        metric: String,
        /// That of the verdict.
        is: Margin,
        /// The policy's.
        asked: Margin,
    },
    /// A metric did not pass by itself.
    #[error("{metric} came to `{is}`, and the policy asks for `pass`")]
    MetricNoPass {
        /// The metric.
        metric: String,
        /// What it came to.
        is: String,
    },
    /// The time in the verdict is none.
    #[error("the verdict states `{0}` as its time, which is none in UTC, and the policy limits its age")]
    NoTime(String),
    /// The verdict is of the future.
    #[error("the verdict states {made} as its time, which is after the time of this check, {at}")]
    Future {
        /// When it was made.
        made: DateTime,
        /// The time that is judged.
        at: DateTime,
    },
    /// The verdict is too old.
    #[error(
        "the verdict is of {made}, {days} days before {at}, and the policy asks for {asked} days or fewer"
    )]
    Old {
        /// When it was made.
        made: DateTime,
        /// The time that is judged.
        at: DateTime,
        /// Its age, in days that have passed.
        days: u64,
        /// What the policy asks for.
        asked: u32,
    },
}

impl Unmet {
    fn others(verdict: &str, weights: Digest) -> Vec<Unmet> {
        vec![Unmet::OtherWeights { verdict: verdict.into(), weights }]
    }
}

/// Why weights may be promoted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission<'a> {
    /// Their precision passed a verdict that meets every demand.
    Judged(&'a Arm, &'a Candidate),
    /// They are those of a reference in FP32, which the policy allows.
    Reference(&'a Arm),
    /// They were converted from others, against which they passed.
    Converted(&'a PairVerdict),
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// It is not of the form (with the line), or has no margin or an empty list of precisions.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let policy: Policy = toml::from_str(text).map_err(|e| PolicyError::Malformed(e.to_string()))?;
        if policy.margins.is_empty() {
            return Err(PolicyError::NoMargins);
        }
        if policy.precisions.as_ref().is_some_and(Vec::is_empty) {
            return Err(PolicyError::NoPrecisions);
        }
        Ok(policy)
    }

    /// Judges by a verdict whose signature was verified whether weights of this digest may be
    /// promoted. An age is counted to the time at which the signature was judged.
    ///
    /// # Errors
    /// Every demand that is not met.
    pub fn judge<'a>(&self, verified: &'a Verified, weights: Digest) -> Result<Admission<'a>, Vec<Unmet>> {
        let mut unmet = Vec::new();
        let admission = match &verified.statement.predicate {
            Predicate::Verdict(verdict) => {
                unmet.extend(self.age(&verdict.made, verified.at));
                let naming = verdict.naming(weights);
                self.compared(naming.ok_or_else(|| Unmet::others(&verdict.name, weights))?, &mut unmet)?
            }
            Predicate::Pair(pair) => {
                unmet.extend(self.age(&pair.made, verified.at));
                let naming = pair.naming(weights);
                let name = &pair.converted.weights.name;
                self.pair(pair, naming.ok_or_else(|| Unmet::others(name, weights))?, &mut unmet)
            }
            Predicate::Model(_) | Predicate::Move(_) => return Err(vec![Unmet::NoVerdict]),
        };
        if unmet.is_empty() { Ok(admission) } else { Err(unmet) }
    }

    /// What a comparison shows of weights. What is not met is added to the list.
    fn compared<'a>(&self, naming: Naming<'a>, unmet: &mut Vec<Unmet>) -> Result<Admission<'a>, Vec<Unmet>> {
        Ok(match naming {
            Naming::Evidence(_, subject) => return Err(vec![Unmet::NoModel(subject.name.clone())]),
            Naming::Reference(arm, run) => {
                let precision = run.policy.clone();
                match self.reference {
                    Permission::Refused => unmet.push(Unmet::Reference(precision)),
                    Permission::Allowed if precision != FULL => unmet.push(Unmet::LowReference(precision)),
                    Permission::Allowed => {}
                }
                Admission::Reference(arm)
            }
            Naming::Judged(arm, _, candidate) => {
                let Candidate { policy, verdict, pairs, protocol, metrics } = candidate;
                let refused = self.precisions.as_ref().filter(|allowed| !allowed.contains(policy));
                unmet.extend(
                    refused.map(|allowed| Unmet::Precision { is: policy.clone(), allowed: allowed.clone() }),
                );
                let asked = self.pairs.get();
                unmet.extend((*pairs < asked).then_some(Unmet::Pairs { is: *pairs, asked }));
                self.figures(*verdict, arm.samples, protocol, metrics, unmet);
                Admission::Judged(arm, candidate)
            }
        })
    }

    /// The same of a pair.
    fn pair<'a>(
        &self,
        pair: &'a PairVerdict,
        naming: PairNaming<'a>,
        unmet: &mut Vec<Unmet>,
    ) -> Admission<'a> {
        match naming {
            PairNaming::Judged => {
                unmet.extend((self.converted == Permission::Refused).then_some(Unmet::Converted));
                self.figures(pair.verdict, pair.samples, &pair.protocol, &pair.metrics, unmet);
            }
            PairNaming::Parent => unmet.push(Unmet::Parent),
            PairNaming::Evidence(subject) => unmet.push(Unmet::NoModel(subject.name.clone())),
        }
        Admission::Converted(pair)
    }

    fn figures(
        &self,
        verdict: Conclusion,
        samples: u64,
        protocol: &Value,
        metrics: &[Value],
        unmet: &mut Vec<Unmet>,
    ) {
        unmet.extend((verdict != Conclusion::Pass).then_some(Unmet::NoPass(verdict)));
        unmet.extend(self.claim(protocol));
        let asked = self.samples.get();
        unmet.extend((samples < asked).then_some(Unmet::Samples { is: samples, asked }));
        unmet.extend(self.margins.iter().flat_map(|(metric, asked)| metric_unmet(metric, *asked, metrics)));
    }

    fn claim(&self, protocol: &Value) -> Option<Unmet> {
        let claim = protocol["claim"].as_str();
        if claim.is_some_and(|claim| self.claim.is_met_by(claim)) {
            return None;
        }
        let is = claim.map_or_else(|| "not stated".into(), |claim| format!("`{claim}`"));
        Some(Unmet::Claim { is, asked: self.claim })
    }

    fn age(&self, made: &str, at: DateTime) -> Option<Unmet> {
        let asked = self.max_age_days?.get();
        let Ok(time) = made.parse::<DateTime>() else { return Some(Unmet::NoTime(made.into())) };
        let (from, to) = (time.unix_duration(), at.unix_duration());
        if from > to + AHEAD {
            return Some(Unmet::Future { made: time, at });
        }
        let age = to.saturating_sub(from);
        let days = age.as_secs() / DAY;
        (age > Duration::from_secs(u64::from(asked) * DAY)).then_some(Unmet::Old {
            made: time,
            at,
            days,
            asked,
        })
    }
}

/// What a verdict's metrics lack of a margin that the policy asks for: one metric, or accuracy in
/// every group.
fn metric_unmet(metric: &str, asked: Margin, metrics: &[Value]) -> Vec<Unmet> {
    let label = |row: &Value| row["metric"].as_str().unwrap_or("?").to_string();
    let is_it = |row: &&Value| match metric {
        "group-accuracy" => label(row).starts_with("accuracy of "),
        _ => label(row) == metric,
    };
    let rows: Vec<&Value> = metrics.iter().filter(is_it).collect();
    if rows.is_empty() {
        let all: Vec<String> = metrics.iter().map(label).collect();
        let judged = if all.is_empty() { "none".into() } else { all.join(", ") };
        return vec![Unmet::NotJudged { metric: metric.into(), judged, asked }];
    }
    let mut unmet = Vec::new();
    for row in rows {
        let (metric, test) = (label(row), &row["test"]);
        match (Margin::of_test(test), asked) {
            (None, _) => {
                let is = test["margin"]["value"].to_string();
                unmet.push(Unmet::NoMargin { metric: metric.clone(), is, asked });
            }
            (Some(Margin::Absolute(is)), Margin::Absolute(most))
            | (Some(Margin::Relative(is)), Margin::Relative(most))
                if is <= most * (1.0 + SAME) => {}
            (Some(is), _) if std::mem::discriminant(&is) == std::mem::discriminant(&asked) => {
                unmet.push(Unmet::Wide { metric: metric.clone(), is, asked });
            }
            (Some(is), _) => unmet.push(Unmet::OtherKind { metric: metric.clone(), is, asked }),
        }
        if test["verdict"] != "pass" {
            let is = test["verdict"].as_str().unwrap_or("nothing").into();
            unmet.push(Unmet::MetricNoPass { metric, is });
        }
    }
    unmet
}

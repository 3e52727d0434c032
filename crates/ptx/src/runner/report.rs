//! What is said about the schedules of a launch.

use std::fmt::Write;

use halfstep_ptx::{Arrival, Counts, Fault, Kind};
use serde_json::{Value, json};

/// An order of warps and blocks, and when copies arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub seed: u64,
    pub arrival: Arrival,
}

/// How a schedule ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Clean(Counts),
    Fault(Box<Fault>),
}

/// The schedules of a launch.
#[derive(Debug)]
pub(super) struct Report {
    module: String,
    kernel: String,
    /// With the buffers whose bits are not those of the first schedule without fault.
    runs: Vec<(Schedule, Outcome, Vec<String>)>,
}

impl Report {
    pub fn new(module: String, kernel: String) -> Report {
        Report { module, kernel, runs: Vec::new() }
    }

    pub fn add(&mut self, schedule: Schedule, outcome: Outcome, differs: Vec<String>) {
        self.runs.push((schedule, outcome, differs));
    }

    /// Whether no schedule found a fault, and all gave the same bits.
    pub fn clean(&self) -> bool {
        self.runs
            .iter()
            .all(|(_, outcome, differs)| matches!(outcome, Outcome::Clean(_)) && differs.is_empty())
    }

    /// For people: each fault once, with the schedules that found it.
    pub fn text(&self) -> String {
        let mut text = format!("{}: kernel `{}`, {} schedules\n", self.module, self.kernel, self.runs.len());
        let mut faults: Vec<(String, Vec<String>)> = Vec::new();
        for (schedule, outcome, differs) in &self.runs {
            let found = match outcome {
                Outcome::Fault(fault) => fault.to_string(),
                Outcome::Clean(_) if differs.is_empty() => continue,
                Outcome::Clean(_) => {
                    format!("other bits than under the first schedule: {}", differs.join(", "))
                }
            };
            match faults.iter_mut().find(|(text, _)| *text == found) {
                Some((_, schedules)) => schedules.push(schedule.name()),
                None => faults.push((found, vec![schedule.name()])),
            }
        }
        for (fault, schedules) in &faults {
            let _ = writeln!(text, "\nfault: {fault}\n  under {}", schedules.join("; "));
        }
        if faults.is_empty() {
            text.push_str("no fault, and the same bits under all of them\n");
        }
        let clean = |(_, outcome, _): &(_, Outcome, _)| match outcome {
            Outcome::Clean(counts) => Some(counts.clone()),
            Outcome::Fault(_) => None,
        };
        if let Some(counts) = self.runs.iter().find_map(clean) {
            let _ = writeln!(text, "\n{counts}");
        }
        text
    }

    /// For programs: one object in one line.
    pub fn json(&self) -> String {
        let runs: Vec<Value> = self.runs.iter().map(one).collect();
        let report =
            json!({ "module": self.module, "kernel": self.kernel, "clean": self.clean(), "runs": runs });
        format!("{report}\n")
    }
}

impl Schedule {
    fn name(&self) -> String {
        format!("seed {}, copies {}", self.seed, self.arrives())
    }

    fn arrives(&self) -> &'static str {
        if self.arrival == Arrival::Late { "late" } else { "early" }
    }
}

fn one((schedule, outcome, differs): &(Schedule, Outcome, Vec<String>)) -> Value {
    let mut run = json!({ "seed": schedule.seed, "delivery": schedule.arrives(), "differs": differs });
    match outcome {
        Outcome::Clean(counts) => {
            let kinds = Kind::ALL.iter().map(|kind| (kind.name().to_string(), Value::from(counts.of(*kind))));
            run["counts"] = json!({
                "instructions": kinds.collect::<serde_json::Map<_, _>>(),
                "bytes_loaded": counts.bytes_loaded,
                "bytes_stored": counts.bytes_stored,
                "sectors_loaded": counts.sectors_loaded,
                "sectors_stored": counts.sectors_stored,
                "bank_conflicts": counts.bank_conflicts,
                "unordered_sums": counts.unordered_sums,
                "tensor_operations": counts.tensor_operations,
            });
        }
        Outcome::Fault(fault) => {
            let place = &fault.place;
            run["fault"] = json!({
                "kind": kind(fault),
                "text": fault.to_string(),
                "instruction": place.instruction,
                "line": place.line,
                "block": place.block,
                "thread": place.thread,
            });
        }
    }
    run
}

/// The name of a fault's kind: that of the variant of `Cause`, such as `out-of-bounds`.
fn kind(fault: &Fault) -> String {
    let debug = format!("{:?}", fault.cause);
    let mut name = String::new();
    for (at, letter) in debug.chars().take_while(char::is_ascii_alphanumeric).enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

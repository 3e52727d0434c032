//! Each barrier, wait, fence and guard is taken out of the kernels of products, softmax and
//! attention in turn: nearly all are noticed, by a fault or by a result, and what is not is
//! harmless for a reason that is listed here. `HALFSTEP_MUTATIONS=all` tries all of them, which
//! takes many minutes; else every fifth is tried. `HALFSTEP_MUTATIONS_TABLE=FILE` writes what
//! became of them between the two marks of that file.

mod common;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/sample.rs"]
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use halfstep_gpu::command::{Action, Commands};
use halfstep_gpu::{Architecture, Module, SimulatedDevice};
use halfstep_ptx::mutations::{Change, Outcome, Survey, changes, survey};
use halfstep_ptx::{Arrival, Cause, Options};

use sample::{Sample, attention, commands, matmul, matmuls, softmax};

const ARCHITECTURE: Architecture = Architecture::MINIMUM;

/// Each so many changes one is tried: with `HALFSTEP_MUTATIONS=all` every one.
fn every() -> usize {
    if std::env::var("HALFSTEP_MUTATIONS").is_ok_and(|which| which == "all") { 1 } else { 5 }
}

/// Programs that all run the same kernels, and how the names of those begin.
struct Case {
    name: &'static str,
    kernels: &'static str,
    samples: fn() -> Vec<Sample>,
}

/// Products whose operands are copied in chunks, of several tiles and stages and of less than one;
/// the last two sum more than one stage in a block, of a part and of all of k.
fn products(turned: [bool; 2]) -> Vec<Sample> {
    let sizes = [[136, 72, 136], [72, 80, 40], [72, 80, 8], [72, 80, 520], [8, 8, 4104]];
    let sums = sizes.map(|sizes| matmul("bf16", sizes, turned));
    // More tiles than the GPU has multiprocessors: k is not cut.
    sums.into_iter().chain([matmuls("bf16", 110, [8, 8, 72], turned)]).collect()
}

/// Attention over so many places in time, causal or not.
fn attentions(policy: &str, dim: usize, lengths: &[(usize, bool)]) -> Vec<Sample> {
    lengths.iter().map(|&(time, causal)| attention(policy, time, 1, dim, causal)).collect()
}

static CASES: [Case; 6] = [
    Case { name: "product", kernels: "matmul", samples: || products([false, false]) },
    Case { name: "product_right_turned", kernels: "matmul", samples: || products([false, true]) },
    Case { name: "product_left_turned", kernels: "matmul", samples: || products([true, false]) },
    Case { name: "softmax", kernels: "softmax", samples: || vec![softmax(2, 2400)] },
    Case {
        name: "attention",
        kernels: "attention",
        samples: || attentions("bf16", 24, &[(70, true), (40, true)]),
    },
    Case {
        name: "f32_attention",
        kernels: "attention",
        samples: || attentions("fp32", 20, &[(70, true), (40, false), (70, false)]),
    },
];

const ZEROS: &str = "what is brought from behind the end are zeros, and none is multiplied";
const ONE_GROUP: &str = "where there is one group, its sum is the sum of all groups";
const TWO_WAYS: &str = "both ways read the same elements";

/// Changes without consequence: how the kernel's name begins, what the change's kind contains, and
/// why nothing comes of it.
const HARMLESS: &[(&str, &[&str], &str)] = &[
    (
        "matmul",
        &["never: @%p bra $ < setp.ge.u32 %p %r %r < add.s32 %r %r 64 <", "min.u32", "[matmul_param_3+8]"],
        ZEROS,
    ),
    (
        "matmul",
        &["never: @%p bra $ < setp.eq.s32 %p %r 1 < div.u32 %r %r %r < add.s32 %r %r -1 <"],
        ONE_GROUP,
    ),
    ("attention", &["setp.eq.s32 %p %r 0 < and.b32 %r %r 3 < ld.param"], TWO_WAYS),
];

/// Why nothing comes of a change.
fn harmless(kernel: &str, change: &Change) -> Option<&'static str> {
    let is = |words: &[&str]| words.iter().all(|words| change.kind.contains(words));
    let entry = HARMLESS.iter().find(|(begins, words, _)| kernel.starts_with(begins) && is(words));
    entry.map(|(.., why)| *why)
}

/// What became of the changes of a kernel.
#[derive(Default)]
struct Tally {
    tried: usize,
    noticed: usize,
    /// Those that nothing came of, by the reason.
    harmless: BTreeMap<&'static str, usize>,
}

/// By case and kernel.
static TALLIES: Mutex<BTreeMap<(&str, String), Tally>> = Mutex::new(BTreeMap::new());

const BEGIN: &str = "<!-- mutations: begin -->";
const END: &str = "<!-- mutations: end -->";

/// The tallies as a table between the marks of a file.
fn write_table(file: &std::ffi::OsStr) {
    let mut table =
        "| sample | kernel | tried | noticed | not noticed, and why |\n|---|---|--:|--:|---|\n".to_string();
    for ((case, kernel), Tally { tried, noticed, harmless }) in &*TALLIES.lock().unwrap() {
        let reasons: Vec<String> = harmless.iter().map(|(why, count)| format!("{count}: {why}")).collect();
        let _ = writeln!(table, "| {case} | `{kernel}` | {tried} | {noticed} | {} |", reasons.join("; "));
    }
    let text = std::fs::read_to_string(file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    std::fs::write(file, format!("{before}{BEGIN}\n{table}{END}{after}")).unwrap();
}

/// The kernels of a program whose names begin like this, with their modules.
fn kernels<'a>(commands: &'a Commands, begin: &str) -> BTreeSet<(usize, &'a str)> {
    let launched = commands.list.iter().filter_map(|command| match &command.action {
        Action::Launch(launch) => Some((launch.kernel.module, &launch.kernel.entry[..])),
        Action::Copy { .. } => None,
    });
    launched.filter(|(_, entry)| entry.starts_with(begin)).collect()
}

fn surveyed(
    device: &Arc<SimulatedDevice>,
    samples: &[Sample],
    module: &Module,
    text: &str,
    kernel: &str,
) -> Survey {
    let schedules = [(None, Arrival::Late), (Some(1), Arrival::Early), (Some(2), Arrival::Late)]
        .map(|(seed, arrival)| Options { seed, arrival, limit: 1 << 24, ..Options::default() });
    let run = |code: &halfstep_ptx::Module, options| {
        device.replace(module.clone(), code.clone());
        device.run_as(options);
        let results: Result<Vec<_>, _> = samples.iter().map(|sample| sample(device.clone())).collect();
        let steps = device.take_launches().iter().map(|(_, counts)| counts.instructions()).max();
        match results {
            Ok(bits) => Outcome::Ended(bits, steps.unwrap_or(0)),
            Err(fault) if fault.contains(&Cause::Trap.to_string()) => Outcome::Trapped,
            Err(_) => Outcome::Failed,
        }
    };
    let changes: Vec<Change> = changes(text, kernel).into_iter().step_by(every()).collect();
    let survey = survey(text, &changes, &schedules, run);
    device.replace(module.clone(), halfstep_ptx::Module::load(text).unwrap());
    survey.expect("the kernel as it is has no fault")
}

fn nearly_all_is_noticed(case: &Case) {
    let device = Arc::new(common::device(ARCHITECTURE, Options::default()));
    let samples = (case.samples)();
    // The first sample decides which kernels are looked at.
    let commands = commands(&device, &samples[0]);
    let texts = device.ptx().unwrap();
    device.take_launches();
    let (mut tried, mut unnoticed, mut harmful) = (0, 0, Vec::new());
    for (module, kernel) in kernels(&commands, case.kernels) {
        let text = String::from_utf8(texts[module].clone()).unwrap();
        let module = &commands.modules[module];
        let survey = surveyed(&device, &samples, module, &text, kernel);
        tried += survey.tried;
        unnoticed += survey.unnoticed.len();
        let mut tallies = TALLIES.lock().unwrap();
        let tally = tallies.entry((case.name, kernel.to_string())).or_default();
        tally.tried += survey.tried;
        tally.noticed += survey.tried - survey.unnoticed.len();
        for change in &survey.unnoticed {
            match harmless(kernel, change) {
                Some(why) => *tally.harmless.entry(why).or_default() += 1,
                None => harmful.push(format!("{kernel}, line {}: {}", change.line, change.kind)),
            }
        }
    }
    assert!(harmful.is_empty(), "{} of {tried} unnoticed:\n{}", harmful.len(), harmful.join("\n"));
    // One in twenty, and two more: some kernels have few changes.
    assert!(tried > 0 && unnoticed <= 2 + tried / 20, "{unnoticed} of {tried} unnoticed");
}

fn main() -> ExitCode {
    let test = |case: &'static Case| -> (String, Box<dyn FnOnce() + Send>) {
        (case.name.to_string(), Box::new(|| nearly_all_is_noticed(case)))
    };
    // The kernels in f32 have the most guards, and take as long as all others.
    let chosen = CASES.iter().filter(|case| every() == 1 || case.name != "f32_attention");
    let outcome = common::run(chosen.map(test).collect());
    if let Some(file) = std::env::var_os("HALFSTEP_MUTATIONS_TABLE") {
        write_table(&file);
    }
    outcome
}

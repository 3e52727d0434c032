//! Barriers, waits, fences and guards are taken out of kernels one at a time: nearly all of them
//! are noticed, by a fault or by a result.

use halfstep_ptx::{Cause, Module, Summation};

use crate::harness::{Launch, Schedule};
use crate::planted::{bulk_copy, gemm_mma, gemm_simt, gemm_wgmma, softmax, split_k};

/// Opcodes that order what threads do.
const ORDERS: &[&str] = &[
    "bar.",
    "barrier.",
    "membar",
    "fence.",
    "cp.async.wait",
    "cp.async.commit",
    "cp.async.bulk.wait",
    "cp.async.bulk.commit",
    "wgmma.fence",
    "wgmma.wait",
    "wgmma.commit",
];

/// What may stand in place of a line, each with a line in front of it that traps where the change
/// makes a difference.
fn changes(line: &str) -> Vec<(String, Option<String>)> {
    let line = line.trim();
    let guarded = line.strip_prefix('@').and_then(|line| line.split_once(char::is_whitespace));
    let (guard, rest) = guarded.map_or((None, line), |(guard, rest)| (Some(guard), rest.trim()));
    if let Some(rest) = rest.strip_prefix("mbarrier.try_wait") {
        // The wait is over at once.
        let predicate = rest.split_whitespace().nth(1).unwrap().trim_end_matches(',');
        return vec![(format!("setp.eq.u32 {predicate}, 0, 0;"), None)];
    }
    if ORDERS.iter().any(|order| rest.starts_with(order)) {
        return vec![(String::new(), None)];
    }
    let Some(guard) = guard else { return Vec::new() };
    let negated = guard.strip_prefix('!').map_or(format!("!{guard}"), str::to_string);
    // Executed by all, where some are not to; a branch also by none, where some are to.
    let mut changes = vec![(rest.to_string(), Some(format!("@{negated} trap;")))];
    if rest.starts_with("bra") {
        changes.push((String::new(), Some(format!("@{guard} trap;"))));
    }
    changes
}

fn with_line(text: &str, at: usize, instead: &str) -> String {
    text.lines()
        .enumerate()
        .map(|(other, line)| if other == at { instead } else { line }.to_string() + "\n")
        .collect()
}

/// How many changes were tried, and the lines, from 1, of those that nothing noticed.
fn survivors(launch: &Launch) -> (usize, Vec<usize>) {
    let text = launch.text();
    let schedules = [(None, true), (Some(1), false), (Some(2), true)];
    let schedules = schedules.map(|(seed, late)| Schedule { seed, late, summation: Summation::Exact });
    let (expected, steps) = launch.run_module(&Module::load(&text).unwrap(), schedules[0], 1 << 24).unwrap();
    let run = |text: &str, schedule| {
        let module = Module::load(text).unwrap_or_else(|error| panic!("{error}"));
        launch.run_module(&module, schedule, 2 * steps).map(|(buffers, _)| buffers)
    };
    let (mut tried, mut missed) = (0, Vec::new());
    for (at, line) in text.lines().enumerate() {
        for (instead, trap) in changes(line) {
            // What a change would change does not happen with these sizes.
            if let Some(trap) = trap {
                let text = with_line(&text, at, &format!("{trap} {line}"));
                if !run(&text, schedules[0]).is_err_and(|fault| fault.cause == Cause::Trap) {
                    continue;
                }
            }
            tried += 1;
            let text = with_line(&text, at, &instead);
            if schedules.iter().all(|schedule| run(&text, *schedule).is_ok_and(|buffers| buffers == expected))
            {
                missed.push(at + 1);
            }
        }
    }
    (tried, missed)
}

const SAME_VALUE: &str = "every lane stores the value that its warp agreed on";
const NO_BYTES: &str = "the address is not read: the copy has no bytes of it";

/// Changes without consequence: the line that is left out, and why.
const HARMLESS: &[(&str, &[usize], &str)] = &[
    ("softmax", &[125, 246], SAME_VALUE),
    ("softmax", &[55], "softmax is the same for another subtrahend than the greatest element"),
    ("split_k", &[119], SAME_VALUE),
    ("gemm_mma", &[114, 127, 145, 157, 485, 498, 516, 529], NO_BYTES),
    ("gemm_mma", &[462], "the stages behind the last have no bytes"),
    ("gemm_wgmma", &[77], "a new mbarrier counts as one whose phase before the first is over"),
];

#[test]
fn few_changes_go_unnoticed() {
    let kernels = [
        softmax("softmax"),
        split_k("split_k"),
        gemm_simt("gemm_simt"),
        gemm_mma("gemm_mma"),
        bulk_copy("bulk_copy"),
        gemm_wgmma("gemm_wgmma"),
    ];
    let (mut tried, mut missed) = (0, Vec::new());
    for launch in &kernels {
        let (more, lines) = survivors(launch);
        tried += more;
        missed.extend(lines.into_iter().map(|line| (launch.file().to_string(), line)));
    }
    let harmless =
        HARMLESS.iter().flat_map(|(file, lines, _)| lines.iter().map(|line| (file.to_string(), *line)));
    let mut harmless: Vec<_> = harmless.collect();
    harmless.sort_unstable();
    missed.sort_unstable();
    assert_eq!(missed, harmless, "of {tried} changes");
    assert!(tried >= 280 && missed.len() * 20 <= tried, "{} of {tried} changes", missed.len());
}

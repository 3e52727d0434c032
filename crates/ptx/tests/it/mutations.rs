//! Barriers, waits, fences and guards are taken out of kernels one at a time: nearly all of them
//! are noticed, by a fault or by a result.

use halfstep_ptx::mutations::{Outcome, Survey, changes, survey};
use halfstep_ptx::{Arrival, Cause, Options, Summation};

use crate::harness::Launch;
use crate::planted::{bulk_copy, gemm_mma, gemm_simt, gemm_wgmma, softmax, split_k};

fn surveyed(launch: &Launch) -> Survey {
    let text = launch.text();
    let schedules = [(None, Arrival::Late), (Some(1), Arrival::Early), (Some(2), Arrival::Late)];
    let schedules = schedules.map(|(seed, arrival)| {
        let summation = Summation::Exact;
        Options { seed, arrival, summation, limit: 1 << 24, ..Options::default() }
    });
    let run = |module: &_, options| match launch.run_module(module, options) {
        Ok((buffers, steps)) => Outcome::Ended(buffers, steps),
        Err(fault) if fault.cause == Cause::Trap => Outcome::Trapped,
        Err(_) => Outcome::Failed,
    };
    survey(&text, &changes(&text, launch.entry()), &schedules, run).unwrap()
}

const SAME_VALUE: &str = "every lane stores the value that its warp agreed on";

/// Changes without consequence: the line that is left out, and why.
const HARMLESS: &[(&str, &[usize], &str)] = &[
    ("softmax", &[125, 246], SAME_VALUE),
    ("softmax", &[55], "softmax is the same for another subtrahend than the greatest element"),
    ("split_k", &[119], SAME_VALUE),
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
        let survey = surveyed(launch);
        tried += survey.tried;
        missed.extend(survey.unnoticed.iter().map(|change| (launch.file().to_string(), change.line)));
    }
    let harmless =
        HARMLESS.iter().flat_map(|(file, lines, _)| lines.iter().map(|line| (file.to_string(), *line)));
    let mut harmless: Vec<_> = harmless.collect();
    harmless.sort_unstable();
    missed.sort_unstable();
    assert_eq!(missed, harmless, "of {tried} changes");
    assert!(tried >= 260 && missed.len() * 20 <= tried, "{} of {tried} changes", missed.len());
}

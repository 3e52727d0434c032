//! The files of a comparison's numbers and report in its run directory.

use halfstep::cpu::host;
use halfstep::evidence::report::Section;
use halfstep::evidence::{Report, RunResult, Setup, Study, emissions};
use halfstep::train::run_dir::RunDir;
use serde::Serialize;

use super::failure::Failure;

/// File of the comparison's numbers.
pub const RESULTS: &str = "results.json";
/// Costs in the form of CodeCarbon's.
pub const EMISSIONS: &str = "emissions.csv";

/// What `--json` prints, and, with the report, what `results.json` holds.
#[derive(Serialize)]
pub struct Printed<'a> {
    /// Path of the run directory.
    pub run_directory: &'a str,
    /// Numbers and conclusions.
    #[serde(flatten)]
    pub study: &'a Study,
    /// The report, in `results.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<&'a Report>,
}

/// Writes numbers, report and emissions.
pub fn write(dir: &RunDir, run_directory: &str, study: &Study, report: &Report) -> Result<(), Failure> {
    dir.write_json(RESULTS, &Printed { run_directory, study, report: Some(report) })?;
    dir.write("report.md", report.markdown()?.as_bytes())?;
    dir.write("report.html", report.html()?.as_bytes())?;
    let arms: Vec<(&Setup, &[RunResult])> =
        study.arms.iter().map(|c| (&c.setup, c.runs.as_slice())).collect();
    let memory = host::memory_bytes().map_or(0.0, |all| all as f64 / 1e9);
    dir.write(EMISSIONS, emissions::emissions_csv(&arms, memory).as_bytes())?;
    Ok(())
}

/// Puts sections into the report of a comparison that was made before, where `dir` has one.
pub fn add(dir: &RunDir, sections: Vec<Section>) -> Result<(), Failure> {
    if !dir.file(RESULTS).is_file() {
        return Ok(());
    }
    let mut results: serde_json::Value = dir.read_json(RESULTS)?;
    let mut report: Report = serde_json::from_value(results["report"].take())?;
    report.insert(sections);
    results["report"] = serde_json::to_value(&report)?;
    dir.write_json(RESULTS, &results)?;
    dir.write("report.md", report.markdown()?.as_bytes())?;
    Ok(dir.write("report.html", report.html()?.as_bytes())?)
}

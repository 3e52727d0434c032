//! Progress on stderr, hidden when that is no terminal, and the lines of `metrics.jsonl`.

use std::fmt::Write;
use std::time::Duration;

use halfstep::evidence::units;
use halfstep::train::doctor::{Diagnosis, Sample};
use halfstep::train::metrics::{EvaluationMetrics, Event, LogLine, RunningLoss, StepMetrics};
use halfstep::train::run_log::{Lines, LogPosition};
use halfstep::train::session::Session;
use halfstep::train::train_loop::{Callbacks, Proceed, RunError};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::interrupt;
use super::numerics::Numerics;

/// A bar over `steps`. Templates are fixed and known to be valid; the default style stands in
/// otherwise.
pub fn bar(label: &str, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    // What matters first: a narrow terminal cuts the end.
    let template = "{prefix}  {bar:16} {pos}/{len}  {eta} left  {rate}  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, out: &mut dyn Write| {
            // Writing to the line does not fail.
            let _ = write!(out, "{} steps/s", units::three(state.per_sec()));
        };
        bar.set_style(style.progress_chars("━━╌").with_key("rate", rate));
    }
    bar.set_prefix(label.to_string());
    bar
}

/// Something of unknown length.
pub fn spinner(label: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(label.to_string());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Prints with the bars out of the way. Where their terminal is gone they cannot be moved, and
/// `suspend` would panic.
pub fn above<T>(bars: &MultiProgress, print: impl FnOnce() -> T) -> T {
    if bars.clear().is_ok() { bars.suspend(print) } else { print() }
}

/// What `work` gives, with a spinner as long as it lasts.
pub fn during<T>(label: &str, work: impl FnOnce() -> T) -> T {
    let spinner = spinner(label);
    let result = work();
    spinner.finish_and_clear();
    result
}

/// Callbacks that move a bar and write the log of a run.
pub struct LogCallbacks<'a, 'd> {
    bar: ProgressBar,
    /// Prints above the bar.
    print: &'a dyn Fn(&str),
    lines: &'a mut Lines,
    policy: &'a str,
    seed: u64,
    /// The loss as the bar shows it.
    running: RunningLoss,
    numerics: &'a mut Numerics<'d>,
}

impl<'a, 'd> LogCallbacks<'a, 'd> {
    /// Of the run of `policy` and `seed`: messages go to `print`, which prints above the bar;
    /// measurements to `lines`, ranges and diagnoses to `numerics`.
    pub fn new(
        bar: ProgressBar,
        print: &'a dyn Fn(&str),
        lines: &'a mut Lines,
        policy: &'a str,
        seed: u64,
        numerics: &'a mut Numerics<'d>,
    ) -> LogCallbacks<'a, 'd> {
        LogCallbacks { bar, print, lines, policy, seed, running: RunningLoss::default(), numerics }
    }
}

/// Loss, loss scale and skipped steps; the latter two where there are any.
fn shown(running: &RunningLoss, step: &StepMetrics) -> String {
    let mut text = running.value().map_or(String::new(), |loss| format!("loss {loss:.4}"));
    if step.scale != 1.0 {
        text += &format!("  scale {}", units::scale(f64::from(step.scale)));
    }
    if running.skipped > 0 {
        text += &format!("  {} skipped", running.skipped);
    }
    text
}

impl Callbacks for LogCallbacks<'_, '_> {
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
        let (time, policy, seed) = (halfstep_track::now(), self.policy, self.seed);
        self.lines.push(&LogLine { time, policy, seed, event: Event::Step(metrics.clone()) })?;
        self.running.push_step(metrics);
        self.bar.inc(1);
        if !self.bar.is_hidden() {
            self.bar.set_message(shown(&self.running, metrics));
        }
        Ok(if interrupt::asked() { Proceed::Stop } else { Proceed::Continue })
    }

    fn evaluation(&mut self, metrics: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        let (time, policy, seed) = (halfstep_track::now(), self.policy, self.seed);
        self.lines.push(&LogLine { time, policy, seed, event: Event::Evaluation(metrics.clone()) })?;
        Ok(())
    }

    fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        self.numerics.sampled(sample)
    }

    fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        let text = format!("doctor: step {}: {}", diagnosis.attempt, diagnosis.sentence());
        (self.print)(&text);
        self.numerics.diagnosed(diagnosis)
    }

    fn log_position(&self) -> LogPosition {
        self.lines.position()
    }
}

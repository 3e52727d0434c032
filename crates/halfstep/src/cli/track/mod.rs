//! Trackers of a run: TensorBoard by a file, MLflow and OpenTelemetry by exporters that follow the
//! run's logs.

mod command;
mod curves;
#[cfg(any(feature = "mlflow", feature = "otel"))]
mod exports;
mod settings;
#[cfg(feature = "otel")]
mod spans;

use std::path::Path;
use std::time::Duration;

use halfstep::train::checkpoint::CheckpointEvent;
use halfstep::train::files::WriteFile;
use halfstep::train::metrics::{EvaluationMetrics, Event, Outcome, StepMetrics};
use halfstep::train::recipe::Experiment;
use halfstep::train::run_dir::{self, RunDir};
use halfstep_track::exporter::{Delivered, Ending, Exporter};
use halfstep_track::now;
use halfstep_track::tensorboard::{EventWriter, file_name};

pub use command::run;
use curves::Curves;
pub use settings::Trackers;

/// How long a run that has ended waits for a server that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);

impl Trackers {
    /// With the trackers that the run was sent to before, where none are named now.
    pub fn of_run(self, dir: &RunDir) -> Trackers {
        #[cfg(feature = "mlflow")]
        let mlflow = self.mlflow.or_else(|| exports::url(dir, exports::MLFLOW));
        #[cfg(not(feature = "mlflow"))]
        let mlflow = None;
        #[cfg(feature = "otel")]
        let otlp = self.otlp.or_else(|| exports::url(dir, exports::OTLP));
        #[cfg(not(feature = "otel"))]
        let otlp = None;
        let _ = dir;
        Trackers { mlflow, otlp, ..self }
    }
}

/// The trackers of a run while it trains. A tracker that fails causes a warning and never ends the
/// run.
pub struct Tracking {
    curves: Curves,
    events: Option<EventWriter<Box<dyn WriteFile>>>,
    #[cfg(feature = "otel")]
    spans: Option<spans::Spans>,
    exporters: Vec<(&'static str, Exporter)>,
    /// Warnings that have not been shown yet.
    warnings: Vec<String>,
}

impl Tracking {
    /// Begins at a step of a run, `skipped` of whose earlier steps changed nothing.
    pub fn begin(
        dir: &RunDir,
        experiment: &Experiment,
        trackers: &Trackers,
        step: u64,
        skipped: u64,
    ) -> Tracking {
        let recipe = &experiment.recipe;
        let mut tracking = Tracking {
            curves: Curves::new(recipe.train.batch, skipped),
            events: None,
            #[cfg(feature = "otel")]
            spans: None,
            exporters: Vec::new(),
            warnings: Vec::new(),
        };
        if recipe.track.tensorboard {
            match events(dir, step) {
                Ok(events) => tracking.events = Some(events),
                Err(e) => tracking.warnings.push(format!("TensorBoard's event file cannot be written: {e}")),
            }
        }
        #[cfg(feature = "otel")]
        if trackers.otlp.is_some() {
            match spans::Spans::begin(dir, experiment.steps_per_epoch) {
                Ok(spans) => tracking.spans = Some(spans),
                Err(e) => tracking.warnings.push(e.to_string()),
            }
        }
        #[cfg(any(feature = "mlflow", feature = "otel"))]
        for export in exports::log_exports(dir, trackers, &recipe.name) {
            let name = export.name;
            match Exporter::start(&export.log, export.service, export.notes, export.keep) {
                Ok(exporter) => tracking.exporters.push((name, exporter)),
                Err(e) => tracking.warnings.push(format!("{name}: {e}")),
            }
        }
        let _ = trackers;
        tracking
    }

    /// After a step.
    pub fn step(&mut self, step: &StepMetrics) {
        self.event(&Event::Step(step.clone()));
        #[cfg(feature = "otel")]
        self.span(|spans| spans.step(step));
    }

    /// After an evaluation.
    pub fn evaluation(&mut self, evaluation: &EvaluationMetrics) {
        self.event(&Event::Evaluation(evaluation.clone()));
        #[cfg(feature = "otel")]
        self.span(|spans| spans.evaluation(evaluation));
    }

    fn event(&mut self, event: &Event) {
        let scalars = self.curves.of(event, now());
        if let Some(Err(e)) = self.events.as_mut().map(|events| events.scalars(&scalars)) {
            self.events = None;
            self.warnings.push(format!("TensorBoard's event file can no longer be written: {e}"));
        }
    }

    /// When a checkpoint has been written, or could not be.
    pub fn checkpoint(&mut self, event: &CheckpointEvent) {
        let _ = event;
        #[cfg(feature = "otel")]
        self.span(|spans| match event {
            CheckpointEvent::Written { name, time, .. } => spans.checkpoint(name, *time, None),
            CheckpointEvent::Failed { name, error } => {
                spans.checkpoint(name, Duration::ZERO, Some(error.to_string()))
            }
        });
    }

    #[cfg(feature = "otel")]
    fn span(
        &mut self,
        push: impl FnOnce(&mut spans::Spans) -> Result<(), halfstep::train::run_dir::RunDirError>,
    ) {
        if let Some(Err(e)) = self.spans.as_mut().map(push) {
            self.spans = None;
            self.warnings.push(format!("spans are no longer recorded: {e}"));
        }
    }

    /// Warnings since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// After the run: waits a little for what is on its way. `outcome` is none where the run
    /// failed.
    pub fn finish(mut self, policy: &str, outcome: Option<&Outcome>) -> Vec<(&'static str, Delivered)> {
        let (ending, error) = match outcome {
            Some(Outcome::Finished) => (Ending::Finished, None),
            Some(Outcome::Interrupted) => (Ending::Stopped, None),
            Some(Outcome::Diverged { reason }) => (Ending::Failed, Some(reason.clone())),
            None => (Ending::Failed, Some("the run failed".into())),
        };
        let _: (&str, &Option<String>) = (policy, &error);
        #[cfg(feature = "otel")]
        self.span(|spans| {
            use halfstep_track::span::Attribute;
            spans.run(vec![("precision".into(), Attribute::Text(policy.into()))], error)
        });
        let time = now();
        self.exporters
            .drain(..)
            .map(|(name, exporter)| (name, exporter.finish(ending, time, PATIENCE)))
            .collect()
    }
}

/// A new event file, with the recipe and a summary of the plan in it.
fn events(dir: &RunDir, step: u64) -> std::io::Result<EventWriter<Box<dyn WriteFile>>> {
    let time = now();
    let file = dir.files().append(&dir.file(&file_name(time)), 0)?;
    let mut events = EventWriter::begin(file, step, time)?;
    let recipe = std::fs::read_to_string(dir.file(run_dir::RECIPE))?;
    events.text("recipe", &format!("```toml\n{recipe}```\n"), step, time)?;
    let plans: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.file(run_dir::PLAN))?)?;
    for plan in plans.as_array().into_iter().flatten() {
        events.text("plan", &plan_summary(plan), step, time)?;
    }
    Ok(events)
}

/// A plan of `plan.json` in a few lines of Markdown.
fn plan_summary(plan: &serde_json::Value) -> String {
    let mut formats = std::collections::BTreeMap::<&str, usize>::new();
    for entry in plan["precision"]["entries"].as_array().into_iter().flatten() {
        *formats.entry(entry["storage"].as_str().unwrap_or("?")).or_default() += 1;
    }
    let list: Vec<String> = formats.iter().map(|(format, n)| format!("{n} in {format}")).collect();
    let text = |key: &str| plan[key].as_str().unwrap_or_default().to_string();
    let bytes = halfstep::evidence::units::bytes(plan["arena_bytes"].as_u64().unwrap_or(0) as usize);
    format!(
        "| | |\n|---|---|\n| precision | {} |\n| engine | {} |\n| values of the step | {} |\n| its scratch | {bytes} |\n",
        text("policy"),
        text("engine"),
        list.join(", "),
    )
}

/// A sentence about what a tracker has received of the run in `run`.
pub fn delivery_message(name: &str, delivered: &Delivered, run: &Path) -> String {
    if delivered.complete() {
        let again = match delivered.retries {
            0 => String::new(),
            1 => ", after one failed attempt".into(),
            n => format!(", after {n} failed attempts"),
        };
        return format!("{name} at {} has received everything{again}.", delivered.url);
    }
    let why = delivered.trouble.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
    let lines = delivered.missing;
    format!(
        "warning: {name} at {} has not received the whole run{why}: {lines} of {} lines are missing. \
         `halfstep track {}` sends them.",
        delivered.url,
        delivered.lines + lines,
        run.display(),
    )
}

//! Telling others what a run does: TensorBoard by a file, MLflow and OpenTelemetry by exporters that follow the run's logs.

mod command;
mod curves;
#[cfg(any(feature = "mlflow", feature = "otel"))]
mod post;
mod settings;
#[cfg(feature = "otel")]
mod spans;

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

/// Everyone who is told of a run. What fails here is said and never ends the run.
pub struct Told {
    curves: Curves,
    events: Option<EventWriter<Box<dyn WriteFile>>>,
    #[cfg(feature = "otel")]
    spans: Option<spans::Spans>,
    exporters: Vec<(&'static str, Exporter)>,
    /// Troubles that have not been shown yet.
    troubles: Vec<String>,
}

impl Told {
    /// Begins to tell of a run whose next step is `step`, of which `skipped` changed nothing before.
    pub fn begin(
        dir: &RunDir,
        experiment: &Experiment,
        trackers: &Trackers,
        step: u64,
        skipped: u64,
    ) -> Told {
        let recipe = &experiment.recipe;
        let mut told = Told {
            curves: Curves::new(recipe.train.batch, skipped),
            events: None,
            #[cfg(feature = "otel")]
            spans: None,
            exporters: Vec::new(),
            troubles: Vec::new(),
        };
        if recipe.track.tensorboard {
            match events(dir, step) {
                Ok(events) => told.events = Some(events),
                Err(e) => told.troubles.push(format!("TensorBoard's event file cannot be written: {e}")),
            }
        }
        #[cfg(feature = "otel")]
        if trackers.otlp.is_some() {
            match spans::Spans::begin(dir, experiment.steps_per_epoch) {
                Ok(spans) => told.spans = Some(spans),
                Err(e) => told.troubles.push(e.to_string()),
            }
        }
        #[cfg(any(feature = "mlflow", feature = "otel"))]
        for parcel in post::parcels(dir, trackers, &recipe.name) {
            let name = parcel.name;
            match Exporter::start(&parcel.log, parcel.service, parcel.notes, parcel.keep) {
                Ok(exporter) => told.exporters.push((name, exporter)),
                Err(e) => told.troubles.push(format!("{name}: {e}")),
            }
        }
        let _ = trackers;
        told
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
            self.troubles.push(format!("TensorBoard's event file cannot be written any more: {e}"));
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
            self.troubles.push(format!("spans are not kept any more: {e}"));
        }
    }

    /// Troubles since it was last asked.
    pub fn troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// After the run: waits a little for what is on its way. `outcome` is none where the run failed.
    pub fn finish(mut self, policy: &str, outcome: Option<&Outcome>) -> Vec<(&'static str, Delivered)> {
        let ending = ending(outcome);
        let _ = policy;
        #[cfg(feature = "otel")]
        self.span(|spans| {
            use halfstep_track::span::Attribute;
            let error = match outcome {
                Some(Outcome::Diverged { reason }) => Some(reason.clone()),
                None => Some("the run failed".into()),
                Some(Outcome::Finished | Outcome::Interrupted) => None,
            };
            spans.run(vec![("precision".into(), Attribute::Text(policy.into()))], error)
        });
        let time = now();
        self.exporters
            .drain(..)
            .map(|(name, exporter)| (name, exporter.finish(ending, time, PATIENCE)))
            .collect()
    }
}

fn ending(outcome: Option<&Outcome>) -> Ending {
    match outcome {
        Some(Outcome::Finished) => Ending::Finished,
        Some(Outcome::Interrupted) => Ending::Stopped,
        Some(Outcome::Diverged { .. }) | None => Ending::Failed,
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

/// What to say of a delivery that is not complete, or had trouble.
pub fn words(name: &str, delivered: &Delivered, run: &str) -> String {
    if delivered.complete() {
        let again = match delivered.retries {
            0 => String::new(),
            1 => ", after one try that failed".into(),
            n => format!(", after {n} tries that failed"),
        };
        return format!("{name} at {} has everything{again}.", delivered.url);
    }
    let why = delivered.trouble.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
    let lines = delivered.missing;
    format!(
        "warning: {name} at {} has not got all of the run{why}: {lines} of {} lines are missing. They are kept; \
         `halfstep track {run}` sends them.",
        delivered.url,
        delivered.lines + lines,
    )
}

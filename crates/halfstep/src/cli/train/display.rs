//! Where `train` shows what it does: lines and a progress bar, or the dashboard of `--tui`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use halfstep::evidence::units;
use halfstep::train::checkpoint::CheckpointEvent;
use halfstep::train::metrics::{EvaluationMetrics, StepMetrics};
use indicatif::ProgressBar;

use super::Training;
use crate::cli::args::Train;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Messages};
use crate::cli::progress::bar;
#[cfg(feature = "tui")]
use crate::cli::{prepare, tui::Tui};

/// Time until a run without a visible bar says how far it is. It doubles each time.
const FIRST_LINE: Duration = Duration::from_secs(10);

/// The display of a run while it trains.
pub struct Display {
    messages: Messages,
    /// When a run without a visible bar prints its next line, and the time to the one after.
    next_line: Cell<(Instant, Duration)>,
    /// The progress bar; hidden while a dashboard is shown.
    pub bar: ProgressBar,
    #[cfg(feature = "tui")]
    dashboard: Option<Tui>,
}

impl Display {
    /// Begins at a step.
    ///
    /// # Errors
    /// The dashboard cannot be drawn on this terminal.
    pub fn begin(
        args: &Train,
        training: &Training<'_>,
        step: u64,
        messages: Messages,
    ) -> Result<Display, Failure> {
        let bar = bar(training.policy, training.experiment.steps);
        bar.set_position(step);
        bar.reset_eta();
        #[cfg(feature = "tui")]
        let dashboard = if args.tui {
            let experiment = training.experiment;
            let model = prepare::describe_model(experiment);
            let title = format!("{}  {model}  {}", experiment.recipe.name, training.policy);
            let tui = Tui::begin(title, experiment, step)?;
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
            Some(tui)
        } else {
            None
        };
        #[cfg(not(feature = "tui"))]
        let _ = args;
        Ok(Display {
            messages,
            next_line: Cell::new((Instant::now() + FIRST_LINE, FIRST_LINE)),
            bar,
            #[cfg(feature = "tui")]
            dashboard,
        })
    }

    /// Shows a warning.
    pub fn warn(&self, text: &str) {
        let text = format!("warning: {text}");
        #[cfg(feature = "tui")]
        if let Some(tui) = &self.dashboard {
            tui.figures().note = Some(text);
            return;
        }
        self.bar.suspend(|| output::message(&text));
    }

    /// Shows a step; the progress bar is moved by the log's callbacks.
    pub fn step(&self, metrics: &StepMetrics) {
        #[cfg(feature = "tui")]
        if let Some(tui) = &self.dashboard {
            return tui.figures().step(metrics);
        }
        let ((at, wait), now) = (self.next_line.get(), Instant::now());
        if !self.bar.is_hidden() || now < at {
            return;
        }
        self.next_line.set((now + 2 * wait, 2 * wait));
        let steps = units::count(self.bar.length().unwrap_or(0));
        let left = units::seconds(self.bar.eta().as_secs_f64());
        let (step, loss) = (metrics.attempt, metrics.loss);
        self.messages.say(&format!("step {step:>6} of {steps}   train loss {loss:.4}   about {left} left"));
    }

    /// Shows an evaluation.
    pub fn evaluation(&self, metrics: &EvaluationMetrics) {
        #[cfg(feature = "tui")]
        if let Some(tui) = &self.dashboard {
            return tui.figures().evaluation(metrics);
        }
        let validation = metrics.validation.map_or_else(String::new, |v| {
            format!("   validation loss {:.4}   accuracy {}", v.loss, units::percent(v.accuracy, None))
        });
        let text = format!(
            "step {:>6}   test loss {:.4}   test accuracy {}{validation}",
            metrics.attempt,
            metrics.loss,
            units::percent(metrics.accuracy, None)
        );
        self.bar.suspend(|| self.messages.say(&text));
        let (_, wait) = self.next_line.get();
        self.next_line.set((Instant::now() + wait, wait));
    }

    /// Shows a checkpoint.
    pub fn checkpoint(&self, event: &CheckpointEvent) {
        #[cfg(feature = "tui")]
        if let (Some(tui), CheckpointEvent::Written { name, bytes, .. }) = (&self.dashboard, event) {
            tui.figures().checkpoint(name, *bytes);
        }
        if let CheckpointEvent::Failed { error, .. } = event {
            self.warn(&format!("{error}; training goes on, and earlier checkpoints are unchanged"));
        }
    }

    /// Clears the progress bar, or gives the terminal back.
    pub fn finish(self) {
        #[cfg(feature = "tui")]
        drop(self.dashboard);
        self.bar.finish_and_clear();
    }
}

//! Trains until a step fails, or for so many steps; looks at the last one and at what the model has
//! learnt; and tries on copies what would help.

mod course;
mod probe;
mod suspects;
mod trial;

use std::path::Path;

use halfstep_graph::engine::Engine;
use serde::Serialize;

pub use self::probe::{Learning, Learns};
use course::{Beginning, Course};
use probe::{Probe, is_below};
use suspects::{Suspect, held_back, ladder, of_precision, of_state, outsized, suspects};
use trial::{Copy, Trials};

use crate::callbacks::RunError;
use crate::change::Change;
use crate::checkpoint::Latest;
use crate::doctor::{
    Cause, Diagnosis, FirstWeights, Fix, LearningStatement, Losses, Sample, Trial, diagnose, in_f32,
};
use crate::lint::Warning;
use crate::recipe::Experiment;

/// Fixes that are tried unless all are asked for.
const TRIALS: usize = 3;
/// How much higher than in f32 a loss must be to blame the precision for it.
const HARMED: f64 = 1.1;

/// What is to be examined.
#[derive(Clone, Copy)]
pub struct Examined<'r> {
    /// What computes.
    pub engine: &'r dyn Engine,
    /// The precision.
    pub policy: &'r str,
    /// The seed.
    pub seed: u64,
    /// The checkpoint to go on from.
    pub from: Option<&'r Latest>,
    /// The file of the weights that the run began with, where they were not drawn.
    pub start: Option<&'r Path>,
    /// Steps to train for at most.
    pub steps: u64,
    /// Whether every fix is tried, and for as many steps; else a few, and for at most twice the
    /// steps that were seen.
    pub thorough: bool,
}

/// What an examination found.
#[derive(Serialize)]
pub struct Examination {
    /// What is wrong with the last step or with the training, if anything is.
    pub diagnosis: Diagnosis,
    /// What lint says of the recipe.
    pub warnings: Vec<Warning>,
    /// What the model has learnt.
    pub learning: Learning,
    /// What the same run learns in f32, where that was asked.
    pub fp32: Option<Learning>,
    /// The range that every value of that step would take in f32, beside the format it is stored
    /// in.
    pub sample: Sample,
    /// Steps tried before it.
    pub steps: u64,
    /// Whether it failed; if not, so many steps were all it was asked for.
    pub failed: bool,
}

impl Examination {
    /// Whether a step failed, or a cause was found why the model does not learn.
    pub fn is_bad(&self) -> bool {
        self.failed || self.diagnosis.cause != Cause::Nothing
    }
}

impl Experiment {
    /// Trains as [`Experiment::run`] does, bit for bit, from the first step or a checkpoint, until
    /// as many steps in a row are skipped as the recipe's `[doctor]` says, the run diverges, or
    /// so many steps are done; then repeats the last step with every value observed, compares what
    /// the model has learnt with the constant predictor and with the run in f32, and tries fixes on
    /// copies. `progress` is called before each step with what is done and how many steps of it,
    /// and ends it early by false.
    ///
    /// # Errors
    /// The data cannot be drawn; the engine fails; the checkpoint or the weights do not fit.
    pub fn examine(
        &self,
        examined: &Examined<'_>,
        progress: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<Examination, RunError> {
        let Examined { engine, policy, seed, from, start, steps, thorough } = *examined;
        let in_policy = vec![Change::set("precision", "policy", format!("\"{policy}\""))];
        let (probe, beginning) = (Probe::of(self)?, Beginning { engine, seed, start, from, anew: &[] });
        let mut trials = Trials {
            experiment: self,
            beginning,
            probe: &probe,
            steps,
            thorough,
            most: if thorough { usize::MAX } else { TRIALS },
            progress,
            evidence: Vec::new(),
            unfixed: None,
        };
        let own = trials.changed(&in_policy)?;
        trials.experiment = &own;
        let warnings = [self.lint_settings()?, self.lint(policy)?].concat();
        let course = Course::run(&own, &beginning, steps, &probe, "training", trials.progress)?;
        let seen = course.learning.steps;
        if !thorough {
            trials.steps = if course.failed { seen.saturating_mul(2) } else { seen };
        }
        if course.stopped {
            trials.most = 0;
        }
        let (failed, after) = (course.failed, course.after.clone());
        trials.unfixed = Some(Copy { failed, learning: course.learning, after });
        let mut diagnosis = diagnose(&course.session, &course.replayed(), course.scale)?;
        self.locate(&mut diagnosis)?;
        let sample = in_f32(&course.session, &course.replayed(), course.scale)?;
        let mut case =
            Case { own: &own, course: &course, warnings: &warnings, fp32: None, trials, untried: Vec::new() };
        case.attribute(&mut diagnosis)?;
        let (fp32, learning) = (case.fp32.map(|(learning, _)| learning), course.learning);
        let evidence = std::mem::take(&mut case.trials.evidence);
        diagnosis.evidence.push(describe(&learning, fp32.as_ref()).to_string());
        diagnosis.evidence.extend(evidence);
        let (steps, failed) = (course.attempt, course.failed);
        Ok(Examination { diagnosis, warnings, learning, fp32, sample, steps, failed })
    }
}

/// What was seen of the losses.
fn describe(learning: &Learning, fp32: Option<&Learning>) -> LearningStatement {
    let Learning { steps, before, loss: after, constant, learns } = *learning;
    let seen = Losses { steps, before, after, constant, fp32: fp32.map(|l| l.loss) };
    match learns {
        Learns::Yes => LearningStatement::Learns { seen },
        Learns::Begins => LearningStatement::BeginsToLearn { seen },
        Learns::No => LearningStatement::DoesNotLearn { seen },
    }
}

/// A training whose cause is looked for.
struct Case<'r, 'p> {
    own: &'r Experiment,
    course: &'r Course<'r>,
    warnings: &'r [Warning],
    /// What the same run in f32 learns, and whether it is better by more than chance.
    fp32: Option<(Learning, bool)>,
    trials: Trials<'r, 'p>,
    /// Fixes of suspects that were not tried.
    untried: Vec<Fix>,
}

impl Case<'_, '_> {
    /// Puts the cause of the whole training in place of that of its last step, where it is another,
    /// and only fixes that worked or could not be tried.
    fn attribute(&mut self, diagnosis: &mut Diagnosis) -> Result<(), RunError> {
        let bad = self.course.failed || self.course.learning.learns == Learns::No;
        if let Some(spoilt) = &self.course.spoilt {
            diagnosis.cause = spoilt.clone();
            let (Cause::BadState { slot } | Cause::ImpossibleState { slot, .. }) = spoilt else {
                return Ok(());
            };
            diagnosis.finding = None;
            let fixes = vec![Fix::anew(vec![slot.clone()])];
            let suspect = Suspect { cause: spoilt.clone(), fixes, ladder: false };
            self.blame(diagnosis, suspect, None);
            return Ok(());
        }
        if matches!(diagnosis.cause, Cause::BadInput { .. }) && !self.warned() {
            return Ok(());
        }
        if !bad {
            return if self.by_setting(diagnosis)? { Ok(()) } else { self.compare(diagnosis) };
        }
        if self.by_settings(diagnosis) {
            return Ok(());
        }
        if let Some(first) = FirstWeights::of(&self.course.session)
            && let Some(suspect) = outsized(self.course, &first)
            && self.blame(diagnosis, suspect, None)
        {
            return Ok(());
        }
        for suspect in of_state(self.own) {
            if self.blame(diagnosis, suspect, None) {
                return Ok(());
            }
        }
        if diagnosis.cause != Cause::Nothing && self.by_step(diagnosis) {
            return Ok(());
        }
        if !self.course.failed {
            self.in_fp32()?;
        }
        let learns_in_f32 = self.fp32.map(|(learning, _)| learning.learns != Learns::No);
        let found = suspects(self.own, self.course, learns_in_f32).map_err(RunError::from)?;
        for suspect in found {
            if self.blame(diagnosis, suspect, None) {
                return Ok(());
            }
        }
        if diagnosis.cause == Cause::Nothing {
            let Learning { loss, constant, .. } = self.course.learning;
            let fp32 = self.fp32.map(|(learning, _)| learning.loss);
            diagnosis.cause = Cause::DoesNotLearn { loss, constant, fp32 };
        }
        diagnosis.fixes.append(&mut self.untried);
        Ok(())
    }

    /// Of a model that learns, or begins to: whether a setting that lint warns of, or one that
    /// makes nothing of gradients, is why it has not come further.
    fn by_setting(&mut self, diagnosis: &mut Diagnosis) -> Result<bool, RunError> {
        let Learning { learns, loss, .. } = self.course.learning;
        let mut found: Vec<Suspect> = self.warnings.iter().filter_map(Suspect::of).collect();
        found.retain(|suspect| !suspect.fixes.is_empty());
        if let Some(first) = FirstWeights::of(&self.course.session).filter(|_| learns == Learns::Begins) {
            found.extend(held_back(self.own, self.course, &first.moved(&self.course.session)?)?);
        }
        Ok(found.into_iter().any(|suspect| self.blame(diagnosis, suspect, Some(loss / HARMED))))
    }

    fn warned(&self) -> bool {
        self.warnings.iter().any(|warning| Suspect::of(warning).is_some())
    }

    /// Whether a setting that lint warns of is the cause.
    fn by_settings(&mut self, diagnosis: &mut Diagnosis) -> bool {
        let found: Vec<Suspect> = self.warnings.iter().filter_map(Suspect::of).collect();
        for mut suspect in found {
            if suspect.fixes.is_empty() {
                (suspect.fixes, suspect.ladder) = (ladder(&self.own.recipe.optimiser), true);
            }
            if self.blame(diagnosis, suspect, None) {
                return true;
            }
        }
        false
    }

    /// Whether what the last step showed is the cause: one of its fixes helps, or none can be
    /// tried.
    fn by_step(&mut self, diagnosis: &mut Diagnosis) -> bool {
        let mut fixes = std::mem::take(&mut diagnosis.fixes);
        let is_rate =
            |c: &Cause| matches!(c, Cause::ExplodedWeights { setting, .. } if setting.starts_with("lr "));
        let mut helped = false;
        if is_rate(&diagnosis.cause)
            && let Some(best) = self.trials.best(ladder(&self.own.recipe.optimiser), None)
        {
            helped = true;
            diagnosis.fixes.push(best);
            fixes.retain(|fix| fix.changes.iter().all(|change| change.key != "lr"));
        }
        let mut tried = false;
        for mut fix in fixes {
            // One that works is enough.
            if helped {
                fix.trial = Trial::NotTried { reason: LearningStatement::FirstFixHolds.to_string() };
                diagnosis.fixes.push(fix);
                continue;
            }
            helped = self.trials.helps(&mut fix, None);
            tried |= fix.can_be_tried();
            if helped {
                diagnosis.fixes.insert(0, fix);
            } else if matches!(fix.trial, Trial::NotTried { .. })
                && (!fix.can_be_tried() || self.trials.most == 0)
            {
                diagnosis.fixes.push(fix);
            }
        }
        helped || !tried
    }

    /// Blames a suspect if one of its fixes helps.
    fn blame(&mut self, diagnosis: &mut Diagnosis, suspect: Suspect, most: Option<f64>) -> bool {
        let is_spoilt = self.course.spoilt.is_some();
        let Suspect { cause, fixes, ladder } = suspect;
        if ladder {
            let Some(fix) = self.trials.best(fixes, most) else { return false };
            (diagnosis.cause, diagnosis.finding, diagnosis.fixes) = (cause, None, vec![fix]);
            return true;
        }
        let mut untried = Vec::new();
        for mut fix in fixes {
            if self.trials.helps(&mut fix, most) {
                (diagnosis.cause, diagnosis.finding, diagnosis.fixes) = (cause, None, vec![fix]);
                return true;
            }
            if matches!(fix.trial, Trial::NotTried { .. }) {
                untried.push(fix);
            }
        }
        if is_spoilt || matches!(cause, Cause::DeadLayer { .. }) {
            (diagnosis.cause, diagnosis.finding, diagnosis.fixes) = (cause, None, untried);
            return true;
        }
        self.untried.append(&mut untried);
        false
    }

    /// The same run in f32, unless this is it.
    fn in_fp32(&mut self) -> Result<(), RunError> {
        if self.own.recipe.precision.policy == "fp32" {
            return Ok(());
        }
        let change = Change::set("precision", "policy", "\"fp32\"");
        let wide = self.trials.changed(&[change])?;
        let (beginning, steps) = (self.trials.beginning, self.course.learning.steps);
        let trials = &mut self.trials;
        match Course::run(&wide, &beginning, steps, trials.probe, "training in f32", trials.progress) {
            Ok(course) => {
                self.fp32 = Some((course.learning, is_below(&course.after, &self.course.after)));
            }
            // State in another form than the checkpoint's cannot be compared.
            Err(RunError::Checkpoint(e)) => self.trials.evidence.push(format!("in f32: {e}")),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Of a model that learns: whether its precision keeps it from learning as well as in f32.
    fn compare(&mut self, diagnosis: &mut Diagnosis) -> Result<(), RunError> {
        let (policy, _) = self.own.session_spec(&self.own.recipe.precision.policy, 0)?;
        let unusual = !policy.state.is_f32() || !policy.overrides.is_empty();
        let was = std::mem::replace(&mut diagnosis.cause, Cause::Nothing);
        let fixes = std::mem::take(&mut diagnosis.fixes);
        let finding = diagnosis.finding.take();
        if was == Cause::Nothing && !unusual {
            return Ok(());
        }
        self.in_fp32()?;
        let learning = self.course.learning;
        let Some((fp32, true)) = self.fp32.filter(|(fp32, _)| learning.loss > HARMED * fp32.loss) else {
            return Ok(());
        };
        for suspect in of_precision(self.own) {
            if self.blame(diagnosis, suspect, Some(HARMED * fp32.loss)) {
                return Ok(());
            }
        }
        (diagnosis.cause, diagnosis.fixes, diagnosis.finding) = (was, fixes, finding);
        Ok(())
    }
}

//! Tries fixes on copies of a run.

use std::sync::Arc;

use super::course::{Beginning, Course, Progress};
use super::probe::{Learning, Learns, Probe, is_below};
use crate::change::{Change, changed};
use crate::doctor::{Fix, LearningStatement, Trial, Without};
use crate::recipe::{Experiment, RecipeError};

/// Steps from which on a copy that does not learn is no proof of a fix, though no step fails.
const FEW: u64 = 24;
/// Places in a list of falling rates below the one that is best after a few steps.
const LOWER: usize = 2;

/// The copies that a run's fixes are tried on.
pub(super) struct Trials<'r, 'p> {
    pub experiment: &'r Experiment,
    pub beginning: Beginning<'r>,
    pub probe: &'r Probe,
    /// Steps of each copy.
    pub steps: u64,
    /// Fixes that are tried at most.
    pub most: usize,
    /// Whether all alternatives are tried for all steps.
    pub thorough: bool,
    pub progress: Progress<'p>,
    /// What was tried and did not help.
    pub evidence: Vec<String>,
    /// What the run came to without any fix.
    pub unfixed: Option<Copy>,
}

/// What a copy came to.
#[derive(Clone)]
pub(super) struct Copy {
    pub failed: bool,
    pub learning: Learning,
    /// Loss of each row of the probe.
    pub after: Vec<f64>,
}

impl Copy {
    /// Whether no step failed and yet it cannot be said whether it learns.
    fn is_open(&self) -> bool {
        let Learning { steps, loss, learns, .. } = self.learning;
        let few = learns == Learns::No && loss.is_finite() && steps < FEW;
        !self.failed && (learns == Learns::Begins || few)
    }

    /// This run, which has no fix, beside a copy that has one.
    fn beside(&self, fixed: &Copy) -> Without {
        let Learning { steps, loss, .. } = self.learning;
        let with = fixed.learning.loss;
        match (self.failed || !loss.is_finite(), is_below(&fixed.after, &self.after)) {
            (true, _) => Without::Failed { steps },
            (false, true) => Without::Higher { loss, with, steps },
            (false, false) => Without::NotHigher { loss, with, steps },
        }
    }
}

impl Trials<'_, '_> {
    /// The experiment with these keys changed; data are loaded anew only if they change.
    pub fn changed(&self, changes: &[Change]) -> Result<Experiment, RecipeError> {
        let recipe = changed(&self.experiment.recipe, changes)?;
        if changes.iter().any(|change| change.section == "data") {
            return recipe.prepare();
        }
        recipe.fit(Arc::clone(&self.experiment.data), self.experiment.info.clone())
    }

    /// A copy with this fix, or why it cannot be made.
    fn copy(&mut self, fix: &Fix, steps: u64) -> Result<Copy, String> {
        let experiment = self.changed(&fix.changes).map_err(|e| e.to_string())?;
        let data = fix.changes.iter().any(|change| change.section == "data");
        let own = if data { Some(Probe::of(&experiment).map_err(|e| e.to_string())?) } else { None };
        let probe = own.as_ref().unwrap_or(self.probe);
        let beginning = Beginning { anew: &fix.anew, ..self.beginning };
        let course = Course::run(&experiment, &beginning, steps, probe, "trying a fix", self.progress)
            .map_err(|e| e.to_string())?;
        if course.stopped {
            return Err("it was asked to end".into());
        }
        Ok(Copy { failed: course.failed, learning: course.learning, after: course.after })
    }

    /// Tries a fix; whether it helps, which a loss above `most` does not. What is known then stands
    /// in the fix.
    pub fn helps(&mut self, fix: &mut Fix, most: Option<f64>) -> bool {
        if !fix.can_be_tried() {
            return false;
        }
        if self.most == 0 {
            fix.trial = Trial::NotTried {
                reason: "enough others were tried; `halfstep doctor --thorough` tries all".into(),
            };
            return false;
        }
        self.most -= 1;
        let (copy, without) = match self.longer(fix, most) {
            Ok(copies) => copies,
            Err(e) => {
                fix.trial = Trial::NotTried { reason: format!("the copy cannot be made: {e}") };
                return false;
            }
        };
        let Learning { steps, loss, constant, learns, .. } = copy.learning;
        let (failed, enough) = (copy.failed, most.is_none_or(|most| loss <= most));
        fix.trial = match (learns, without) {
            (Learns::Yes, _) if !failed && enough => Trial::Worked { steps, loss, constant },
            (_, Some(without)) if copy.is_open() && most.is_none() => {
                Trial::Finite { steps, loss, constant, without }
            }
            _ => {
                let failed_at = failed.then_some(steps);
                let no_help = LearningStatement::FixNoHelp { fix: fix.text.clone(), failed_at, loss };
                self.evidence.push(no_help.to_string());
                return false;
            }
        };
        true
    }

    /// A copy with this fix, beside the run without it after as many steps. Where that leaves open
    /// whether it learns, a copy of twice the steps that were seen, which is the most.
    fn longer(&mut self, fix: &Fix, most: Option<f64>) -> Result<(Copy, Option<Without>), String> {
        let copy = self.copy(fix, self.steps)?;
        let Some(unfixed) = &self.unfixed else { return Ok((copy, None)) };
        let (without, twice) = (unfixed.beside(&copy), unfixed.learning.steps.saturating_mul(2));
        if copy.is_open() && most.is_none() && !self.thorough && copy.learning.steps < twice {
            return Ok((self.copy(fix, twice)?, Some(without)));
        }
        Ok((copy, Some(without)))
    }

    /// Of alternatives, rates from high to low where they are rates, the one that helps most; none
    /// if none does. Each is tried for a quarter of the steps, and the best two for all of them; or
    /// all, to be thorough.
    pub fn best(&mut self, fixes: Vec<Fix>, most: Option<f64>) -> Option<Fix> {
        if self.most == 0 {
            return None;
        }
        self.most -= 1;
        let mut ranked: Vec<(f64, usize)> = Vec::new();
        for (i, fix) in fixes.iter().enumerate() {
            let steps = if self.thorough { self.steps } else { self.steps.div_ceil(4).max(4) };
            let Ok(Copy { failed: false, learning, .. }) = self.copy(fix, steps) else { continue };
            if learning.loss.is_finite() {
                ranked.push((learning.loss, i));
            }
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        // A few steps favour rates that many do not bear: then lower ones than the best are taken.
        let lower = if self.steps < 2 * FEW && fixes.len() > 2 { LOWER } else { 0 };
        let mut helped: Option<(f64, Fix)> = None;
        for (_, i) in ranked.into_iter().take(2) {
            let mut fix = fixes[(i + lower).min(fixes.len() - 1)].clone();
            self.most = self.most.saturating_add(1);
            let helps = self.helps(&mut fix, most);
            if let (true, Trial::Worked { loss, .. } | Trial::Finite { loss, .. }) = (helps, &fix.trial) {
                let loss = *loss;
                if helped.as_ref().is_none_or(|(least, _)| loss < *least) {
                    helped = Some((loss, fix));
                }
            }
        }
        helped.map(|(_, fix)| fix)
    }
}

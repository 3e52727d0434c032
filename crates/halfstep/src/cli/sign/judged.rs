//! What a comparison judged, from its folder, for a statement to be signed.
//!
//! A signature is to be of what the files show, so the logits that lie there are judged again: a
//! folder whose numbers are others than those in its `results.json` is not signed.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use halfstep::evidence::stats::Looks;
use halfstep::evidence::{Assessment, Protocol};
use halfstep::train::run_dir::{CHECKPOINTS, PLAN, PREPROCESSING, RECIPE};
use halfstep_attest::verdict::{Arm, Candidate, Conclusion, Run, Verdict};
use serde_json::Value;

use crate::cli::compare::{LOGITS_FOLDER, protocol};
use crate::cli::compared::{self, ArmRecord, CandidateRecord, ComparedArm, RunRecord};
use crate::cli::failure::Failure;
use crate::cli::report::RESULTS;
use crate::cli::signed_pair;
use crate::cli::trust;
use crate::cli::verdict::assess_files;

/// The statement of a comparison.
///
/// # Errors
/// The folder is none of a comparison; a file that was judged is missing; the logits do not give
/// what `results.json` says.
pub fn verdict(folder: &Path, threads: NonZeroUsize) -> Result<Verdict, Failure> {
    let compared = compared::read(folder)?;
    let version = compared.arms.first().map_or_else(String::new, |arm| arm.record.setup.version.clone());
    let made = trust::now()?;
    let arms = compared.arms.iter().map(|arm| Judging { folder, arm, threads }.arm());
    Ok(Verdict {
        name: compared.name.clone(),
        made: made.to_string(),
        version,
        arms: arms.collect::<Result<_, _>>()?,
    })
}

/// One arm of a comparison on its way to a statement.
struct Judging<'a> {
    folder: &'a Path,
    arm: &'a ComparedArm,
    threads: NonZeroUsize,
}

impl Judging<'_> {
    fn arm(&self) -> Result<Arm, Failure> {
        let ArmRecord { setup, candidates, runs } = &self.arm.record;
        let files: Result<_, _> = [RECIPE, PLAN, PREPROCESSING]
            .map(|name| self.arm.subject(self.folder, name))
            .into_iter()
            .collect();
        let run = |run: &RunRecord| {
            let of = |folder: &str| {
                let subject = || self.arm.subject(self.folder, &format!("{folder}/{}", run.file()));
                run.finished().then(subject).transpose()
            };
            let (policy, seed) = (run.policy.clone(), run.seed);
            Ok::<_, Failure>(Run { policy, seed, weights: of(CHECKPOINTS)?, logits: of(LOGITS_FOLDER)? })
        };
        Ok(Arm {
            name: setup.name.clone(),
            model: setup.model.clone(),
            data: setup.data.clone(),
            data_sha256: setup.fingerprint.clone(),
            engine: setup.engine.clone(),
            processor: setup.processor.clone(),
            samples: setup.targets_measured,
            seeds: setup.seeds.clone(),
            reference: setup.reference.clone(),
            files: files?,
            candidates: candidates.iter().map(|c| self.candidate(c)).collect::<Result<_, _>>()?,
            runs: runs.iter().map(run).collect::<Result<_, _>>()?,
        })
    }

    fn candidate(&self, record: &CandidateRecord) -> Result<Candidate, Failure> {
        let (policy, verdict, pairs) = (record.policy.clone(), record.verdict, record.pairs);
        let Some(stored) = &record.assessment else {
            // A pass rests on logits; divergence alone can decide otherwise.
            if verdict == Conclusion::Pass {
                return Err(self.disagreement(record));
            }
            return Ok(Candidate { policy, verdict, pairs, protocol: Value::Null, metrics: Vec::new() });
        };
        let again = self.judged_again(record, stored)?;
        let ended = record.pairs > 1 && record.missing == 0;
        let follows = if ended { again.verdict.name() } else { Conclusion::Inconclusive.name() };
        if verdict.name() != follows {
            return Err(self.disagreement(record));
        }
        let protocol = serde_json::to_value(&again.protocol)?;
        Ok(Candidate { policy, verdict, pairs, protocol, metrics: signed_pair::metrics(&again) })
    }

    /// The assessment of the logits in the folder, which has to be the stored one. Whether earlier
    /// looks had used α up stands nowhere but in the stored numbers.
    fn judged_again(&self, record: &CandidateRecord, stored: &Value) -> Result<Assessment, Failure> {
        let (reference, policy) = (&self.arm.record.setup.reference, &record.policy);
        let runs = &self.arm.record.runs;
        let of = |policy: &str, seed: u64| {
            runs.iter().find(|r| r.policy == policy && r.seed == seed).filter(|r| r.finished())
        };
        let path = |run: &RunRecord| -> PathBuf {
            self.folder.join(format!("{}{LOGITS_FOLDER}/{}", self.arm.prefix, run.file()))
        };
        let pairs = self.arm.record.setup.seeds.iter().filter_map(|&s| of(reference, s).zip(of(policy, s)));
        let (baseline, candidate): (Vec<_>, Vec<_>) = pairs.map(|(a, b)| (path(a), path(b))).unzip();
        let diverged =
            |policy: &str| runs.iter().filter(|r| r.policy == policy && r.diverged()).count() as u64;
        let stated = stored["protocol"]["looks"].as_u64().and_then(|n| u32::try_from(n).ok());
        let looks = Looks::of(stated.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN));
        for looks in [looks, looks.after(looks.number())] {
            let protocol = Protocol {
                looks,
                diverged: diverged(policy),
                baseline_diverged: diverged(reference),
                ..protocol::of(&self.arm.recipe)?
            };
            let again = assess_files(&baseline, &candidate, protocol, self.threads)
                .map_err(|e| Failure::asked(e.to_string(), ""))?;
            if serde_json::to_value(&again.rows)? == stored["rows"]
                && serde_json::to_value(again.verdict)? == stored["verdict"]
            {
                return Ok(again);
            }
        }
        Err(self.disagreement(record))
    }

    fn disagreement(&self, record: &CandidateRecord) -> Failure {
        Failure::asked(
            format!(
                "{}: what {RESULTS} says of {} is not what the logits in {}{LOGITS_FOLDER} give",
                self.folder.display(),
                record.policy,
                self.arm.prefix
            ),
            "one of them was changed, or another version of the program wrote them: `halfstep compare` makes a new comparison",
        )
    }
}

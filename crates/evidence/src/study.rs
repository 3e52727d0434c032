//! Several comparisons under one question, and its answer.

use serde::Serialize;

use crate::assessment::{Assessment, MetricRow};
use crate::comparison::{Candidate, Comparison, PolicyRow, gained, over_all, seed_sd};
use crate::cost::Amounts;
use crate::exact::clean_runs_needed;
use crate::experiment::SeedMeasures;
use crate::findings;
use crate::judge::judge_together;
use crate::noninferiority::Claim;
use crate::reference::loss_still_falling;
use crate::statements::{Headline, Pairs, StudyStatement, VerdictStatement};
use crate::stats::Verdict;

/// One model in several precisions, or several models: the arms of an ablation.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// Its name.
    pub name: String,
    /// The command that made it, which more seeds can be asked of.
    pub command: String,
    /// What follows over all candidates of all arms; none where there is no candidate.
    pub verdict: Option<Verdict>,
    /// The answers, in plain words.
    pub summary: Summary,
    /// The arms.
    pub arms: Vec<Comparison>,
}

/// Answers in sentences, each about one candidate.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What follows, in one sentence.
    pub headline: StudyStatement,
    /// What was gained.
    pub gained: Vec<StudyStatement>,
    /// What was lost.
    pub lost: Vec<StudyStatement>,
    /// What is still unknown.
    pub unknown: Vec<StudyStatement>,
    /// What to do next.
    pub next: Vec<StudyStatement>,
}

impl Summary {
    fn new(headline: StudyStatement) -> Summary {
        Summary { headline, gained: Vec::new(), lost: Vec::new(), unknown: Vec::new(), next: Vec::new() }
    }
}

/// Whether training in the reference's precision differs from itself: what another seed alone does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// Sample standard deviation of the reference's accuracy over seeds.
    pub seed_sd: Option<f64>,
    /// Sample standard deviation of the paired differences.
    pub paired_sd: Option<f64>,
    /// Correlation of reference and candidate over pairs.
    pub correlation: Option<f64>,
    /// Mean share of answers that another seed changes.
    pub flips: Option<f64>,
    /// Mean share of answers that the candidate changes.
    pub candidate_flips: Option<f64>,
}

impl Floor {
    /// Of one candidate.
    pub fn of(c: &Comparison, candidate: &Candidate) -> Floor {
        let mean = |f: fn(&SeedMeasures) -> Option<f64>| findings::mean(candidate.assessment.as_ref()?, f);
        Floor {
            seed_sd: seed_sd(&c.runs, &c.setup.reference),
            paired_sd: candidate.accuracy.and_then(|a| a.sd),
            correlation: candidate.accuracy.and_then(|a| a.correlation),
            flips: mean(|s| Some(s.floor?.flips)),
            candidate_flips: mean(|s| Some(s.agreement.flips)),
        }
    }
}

/// What it would take to resolve what is inconclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resolution {
    /// Seeds in all.
    pub seeds: usize,
    /// The first of them: where no look is left at the seeds that there are, all are new.
    pub first_seed: u64,
    /// Runs that are still to be made.
    pub runs: usize,
    /// What they cost.
    pub cost: Amounts,
}

impl Resolution {
    /// For one candidate of a comparison; none where nothing is open, or the spread does not say.
    pub fn of(c: &Comparison, candidate: &Candidate) -> Option<Resolution> {
        let have = c.setup.seeds.len();
        let looks = candidate.assessment.as_ref()?.protocol.looks;
        let seeds = c.seeds_needed(candidate).filter(|&n| n > have || looks.are_spent())?;
        let (first, last) = (c.setup.seeds.first()?, c.setup.seeds.last()?);
        let (first_seed, more) = match looks.are_left() {
            true => (*first, seeds - have),
            false => (last.wrapping_add(1), seeds),
        };
        let each = |policy: &str| c.row(policy)?.cost.per_accepted;
        let (a, b) = (each(&c.setup.reference)?, each(&candidate.policy)?);
        // Runs side by side take the clock's time together.
        let mut cost = a.with(b, |a, b| (a + b) * more as f64);
        cost.wall_seconds /= (c.timed.beside + 1) as f64;
        Some(Resolution { seeds, first_seed, runs: 2 * more, cost })
    }
}

impl Study {
    /// Sums up the arms. `command` is what was typed.
    pub fn new(name: String, command: String, mut arms: Vec<Comparison>) -> Study {
        let mut assessments: Vec<_> =
            arms.iter_mut().flat_map(|c| &mut c.candidates).filter_map(|x| x.assessment.as_mut()).collect();
        judge_together(&mut assessments);
        for candidate in arms.iter_mut().flat_map(|c| &mut c.candidates) {
            // One candidate's failure may be what chance does to one of many.
            let still_fails = candidate.assessment.as_ref().is_none_or(|a| a.verdict == Verdict::Fail);
            if candidate.verdict == Verdict::Fail && !still_fails {
                candidate.verdict = Verdict::Inconclusive;
            }
        }
        let verdict = over_all(arms.iter().flat_map(|c| c.candidates.iter().map(|x| x.verdict)));
        let mut study =
            Study { name, command, verdict, summary: Summary::new(StudyStatement::OnePrecision), arms };
        study.summary = study.sum_up();
        study
    }

    fn sum_up(&self) -> Summary {
        let mut s = Summary::new(self.headline());
        for c in &self.arms {
            let subject = |policy: &str| match self.arms.len() {
                1 => policy.to_string(),
                _ => format!("{}, {policy}", c.setup.name),
            };
            for candidate in &c.candidates {
                self.about(c, candidate, &subject(&candidate.policy), &mut s);
            }
            for row in c.rows.iter().filter(|row| row.is_emulated()) {
                let how = c.setup.arithmetic.get(&row.policy).map(|how| how.runs_on.clone());
                let said = how.map(|how| StudyStatement::Emulated { how }.of(&subject(&row.policy)));
                s.unknown.extend(said);
            }
            s.unknown.extend(c.notes.iter().cloned());
        }
        s
    }

    fn headline(&self) -> StudyStatement {
        let all = || self.arms.iter().flat_map(|c| c.candidates.iter().map(move |x| (c, x)));
        let order = [Verdict::Fail, Verdict::Pass, Verdict::Inconclusive];
        let answers: Vec<(StudyStatement, String)> = order
            .into_iter()
            .flat_map(|verdict| all().filter(move |(_, x)| x.verdict == verdict))
            .map(|(c, x)| self.said(c, x))
            .collect();
        if answers.is_empty() {
            return StudyStatement::OnePrecision;
        }
        let over = Pairs {
            pairs: all().map(|(_, x)| x.pairs).min().unwrap_or(0),
            stated: self.arms.first().map_or(0, |c| c.setup.seeds.len()),
        };
        let references = self.about_references();
        StudyStatement::Headline(Headline { answers: gathered(answers), over, references })
    }

    /// What follows of one candidate, without its name, and the name: what is said of several alike
    /// is said once.
    fn said(&self, c: &Comparison, x: &Candidate) -> (StudyStatement, String) {
        let name = match self.arms.len() {
            1 => x.policy.clone(),
            _ => format!("{} in {}", c.setup.name, x.policy),
        };
        let (names, reference, seeds) = (Vec::new(), c.setup.reference.clone(), c.setup.seeds.len());
        let diverged = c.row(&x.policy).map_or(0, |r| r.diverged as u64);
        let samples = x.assessment.as_ref().map_or(0, |a| a.seeds[0].samples);
        let on_samples = x.assessment.as_ref().is_some_and(|a| a.on_samples == Verdict::Pass && x.pairs > 1);
        let elsewhere = || x.assessment.as_ref().map(findings::on_new_examples);
        let said = match (x.verdict, c.setup.protocol.claim) {
            (Verdict::Fail, _) => StudyStatement::IsWorse { names, reference },
            (Verdict::Pass, Claim::Examples) => {
                StudyStatement::IsAsGoodOnExamples { names, reference, diverged, seeds }
            }
            (Verdict::Pass, Claim::Samples) => StudyStatement::IsAsGoodOnSamples {
                names,
                reference,
                diverged,
                seeds,
                samples,
                elsewhere: elsewhere(),
            },
            (Verdict::Inconclusive, Claim::Examples) if on_samples && x.missing == 0 => {
                StudyStatement::IsAsGoodOnSamplesOnly {
                    names,
                    reference,
                    diverged,
                    seeds,
                    samples,
                    elsewhere: elsewhere(),
                }
            }
            (Verdict::Inconclusive, _) => StudyStatement::CannotTell { names, reference },
        };
        (said, name)
    }

    /// What the references are worth, arm by arm, where that limits the answer.
    fn about_references(&self) -> Vec<StudyStatement> {
        let of_arm = |c: &Comparison| {
            let reference = match self.arms.len() {
                1 => c.setup.reference.clone(),
                _ => format!("{} in {}", c.setup.name, c.setup.reference),
            };
            let check = c.candidates.iter().find_map(|x| Some(&x.assessment.as_ref()?.reference_check));
            let worth = check.and_then(|r| r.why_inconclusive(&reference).or_else(|| r.caveat(&reference)));
            let falling = loss_still_falling(&c.runs, &c.setup.reference, &reference);
            worth.map(StudyStatement::Verdict).into_iter().chain(falling).collect::<Vec<_>>()
        };
        self.arms.iter().flat_map(of_arm).collect()
    }

    fn about(&self, c: &Comparison, candidate: &Candidate, subject: &str, s: &mut Summary) {
        let (policy, reference) = (candidate.policy.clone(), c.setup.reference.clone());
        let (row, base) = (c.row(&policy), c.row(&reference));
        let (better, mut lost) = match (row, base) {
            (Some(row), Some(base)) => gained(row, base),
            _ => (Vec::new(), Vec::new()),
        };
        // Alone each ends a sentence.
        lost = lost.into_iter().map(|worse| StudyStatement::Gains(vec![worse])).collect();
        let timed = row.is_some_and(|r| r.speed_ratio.is_some());
        let gains = match better.is_empty() {
            false => StudyStatement::Gains(better),
            true if row.into_iter().chain(base).any(PolicyRow::is_emulated) => StudyStatement::NoSpeedClaimed,
            true if timed => StudyStatement::NothingGained,
            true => StudyStatement::NoLessMemory,
        };
        s.gained.push(gains.of(subject));
        let mut unknown = Vec::new();
        if let Some(a) = &candidate.assessment {
            lost.extend(losses(a).into_iter().map(StudyStatement::Verdict));
            unknown.extend(open(a));
        } else {
            let (policy, reference) = (policy.clone(), reference.clone());
            unknown.push(StudyStatement::NoSeedFinished { policy, reference });
        }
        let (missing, stated) = (candidate.missing, c.setup.seeds.len());
        if missing > 0 {
            unknown.push(StudyStatement::SeedsMissing { missing, stated });
        } else if candidate.pairs == 1 {
            unknown.push(StudyStatement::OnePairOfModels { policy });
        }
        if lost.is_empty() && candidate.verdict != Verdict::Fail {
            lost.push(StudyStatement::NothingShownLost);
        }
        s.lost.extend(lost.into_iter().map(|said| said.of(subject)));
        if let Some(row) = row {
            let d = row.divergence;
            let allowed = c.setup.protocol.max_divergence;
            unknown.push(StudyStatement::HowOftenItDiverges {
                diverged: row.diverged,
                runs: d.runs,
                at_most: d.at_most,
                allowed,
                clean_runs: allowed.and_then(|most| clean_runs_needed(most, c.setup.protocol.looks.alpha())),
            });
            let excess = candidate.divergence_excess;
            if let Some(excess) = excess.filter(|e| d.diverged + e.baseline_diverged > 0) {
                let looks = c.setup.protocol.looks;
                unknown.push(StudyStatement::Within(findings::oftener(excess, looks)));
            }
        }
        s.unknown.extend(unknown.into_iter().map(|said| said.of(subject)));
        s.next.push(self.advice(c, candidate).of(subject));
    }

    fn advice(&self, c: &Comparison, candidate: &Candidate) -> StudyStatement {
        let (policy, reference) = (candidate.policy.clone(), c.setup.reference.clone());
        let command = self.command.clone();
        if c.row(&reference).is_some_and(|r| r.diverged > 0) {
            return StudyStatement::RepairTheRecipe;
        }
        let worthless = |a: &Assessment| !a.reference_check.is_worth_comparing_with();
        match candidate.verdict {
            Verdict::Pass => StudyStatement::TrainInIt { policy },
            Verdict::Fail => StudyStatement::StayWithReference { reference },
            Verdict::Inconclusive if candidate.missing > 0 => StudyStatement::GoOn { command },
            Verdict::Inconclusive if candidate.assessment.as_ref().is_some_and(worthless) => {
                StudyStatement::TrainTheReference { reference }
            }
            Verdict::Inconclusive => match Resolution::of(c, candidate) {
                Some(r) => StudyStatement::SeedsWouldSettle {
                    command,
                    first_seed: Some(r.first_seed).filter(|first| c.setup.seeds.first() != Some(first)),
                    seeds: r.seeds,
                    power: c.setup.protocol.power,
                    runs: r.runs,
                    cost: r.cost,
                    currency: c.setup.rates.currency.clone(),
                },
                None if c.setup.seeds.len() < 2 => StudyStatement::TakeTwoSeeds,
                None => match candidate.assessment.as_ref().and_then(examples_needed) {
                    Some(n) => StudyStatement::MoreTestData { samples: n as u64 },
                    None => StudyStatement::MoreSeedsTell,
                },
            },
        }
    }
}

/// Test samples with which every open metric would be settled after as many seeds; none if one
/// would not, or none is open.
fn examples_needed(a: &Assessment) -> Option<usize> {
    let open = a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Inconclusive));
    open.map(|r| r.examples_needed).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// What fails, why, and how much a pass may hide.
fn losses(a: &Assessment) -> Vec<VerdictStatement> {
    let named: Vec<&MetricRow> = a.rows.iter().filter(|r| r.is_named()).collect();
    let mut all: Vec<VerdictStatement> = named.iter().filter_map(|r| findings::failure(a, r)).collect();
    all.extend(findings::causes(a, &named));
    all.extend(findings::at_most(a));
    all
}

fn open(a: &Assessment) -> Vec<StudyStatement> {
    let of_metrics = findings::unknown(a).into_iter().chain(findings::unjudged(a));
    let mut all: Vec<StudyStatement> = of_metrics.map(StudyStatement::Verdict).collect();
    if a.examples == crate::buckets::TestSets::OfEachSeed {
        all.push(StudyStatement::OtherSamples);
    }
    all
}

/// Answers in order, each with all the names it is given of.
fn gathered(answers: Vec<(StudyStatement, String)>) -> Vec<StudyStatement> {
    let mut all: Vec<(StudyStatement, Vec<String>)> = Vec::new();
    for (said, name) in answers {
        match all.iter_mut().find(|(known, _)| *known == said) {
            Some((_, names)) => names.push(name),
            None => all.push((said, vec![name])),
        }
    }
    all.into_iter().map(|(said, names)| said.about(names)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::assess::assess;
    use crate::assessment::Protocol;
    use crate::comparison::tests::{run, setup};
    use crate::logits::{InMemory, Source};
    use crate::metric::Metric;
    use crate::stats::Looks;
    use std::num::{NonZeroU32, NonZeroUsize};

    /// Logits of 400 samples in two classes, of which every `wrong`-th is wrong, and a few by the
    /// seed.
    pub(crate) fn logits(seed: u64, wrong: usize) -> InMemory {
        let labels: Vec<u32> = (0..400).map(|i| i % 2).collect();
        let is_wrong = |i: usize| i.is_multiple_of(wrong) || (i * 7 + seed as usize * 13).is_multiple_of(41);
        let values = (0..400usize).flat_map(|i| {
            let answer = (i % 2) ^ usize::from(is_wrong(i));
            [0, 1].map(|k| if k == answer { 2.0 } else { 0.0f32 })
        });
        InMemory::new(format!("{seed}"), 2, values.collect(), &labels).with_seed(seed)
    }

    pub(crate) fn study(wrong: usize) -> Study {
        let seeds = [0, 1, 2];
        let of = |wrong| seeds.map(|s| logits(s, wrong));
        let (a, b) = (of(10), of(wrong));
        let sources = |x: &'_ [InMemory; 3]| x.clone().map(|m| Box::new(m) as Box<dyn Source>);
        let (a, b) = (sources(&a), sources(&b));
        let (a, b): (Vec<&dyn Source>, Vec<&dyn Source>) =
            (a.iter().map(|s| &**s).collect(), b.iter().map(|s| &**s).collect());
        let assessment = assess(&a, &b, Protocol::default(), NonZeroUsize::MIN).unwrap();
        let runs = seeds.into_iter().flat_map(|s| {
            [run("fp32", s, 0.88 + 0.001 * s as f64, 10.0), run("bf16", s, 0.88 - 0.001 * s as f64, 5.0)]
        });
        let setup = crate::comparison::Setup { data: "photos of <cats> & dogs".into(), ..setup() };
        let c = Comparison::new(setup, runs.collect(), vec![("bf16".into(), assessment)]);
        Study::new("test".into(), "halfstep compare test.toml".into(), vec![c])
    }

    #[test]
    fn a_pass_says_what_was_gained_and_a_failure_what_was_lost() {
        let good = study(10);
        assert_eq!(good.verdict, Some(Verdict::Pass), "{:?}", good.summary);
        let headline = good.summary.headline.to_string();
        assert!(headline.starts_with("On examples like these bf16 is as good as fp32"), "{headline}");
        let said = |statement: &StudyStatement, text: &str| statement.to_string().contains(text);
        assert!(said(&good.summary.gained[0], "2.00× as fast"), "{:?}", good.summary);
        assert!(said(&good.summary.next[0], "train in bf16"), "{:?}", good.summary);
        let bad = study(5);
        assert_eq!(bad.verdict, Some(Verdict::Fail));
        assert!(bad.summary.lost.iter().any(|l| said(l, "accuracy: worse by at least")), "{:?}", bad.summary);
        assert!(said(&bad.summary.next[0], "stay with fp32"), "{:?}", bad.summary);
    }

    #[test]
    fn an_inconclusive_study_says_what_would_settle_it() {
        let mut study = study(10);
        let c = &mut study.arms[0];
        c.candidates[0].verdict = Verdict::Inconclusive;
        let a = c.candidates[0].assessment.as_mut().unwrap();
        let row = a.rows.iter_mut().find(|r| r.metric == Metric::Accuracy).unwrap();
        row.test.as_mut().unwrap().verdict = Verdict::Inconclusive;
        row.seeds_needed = Some(27);
        // One look was stated, and this was it: 27 new seeds of each.
        let r = Resolution::of(c, &c.candidates[0]).unwrap();
        assert_eq!((r.first_seed, r.seeds, r.runs), (3, 27, 54));
        let advice = |study: &Study| study.advice(&study.arms[0], &study.arms[0].candidates[0]).to_string();
        let said = advice(&study);
        assert!(said.contains("`halfstep compare test.toml --first-seed 3 --seeds 27`"), "{said}");
        // Of two looks one is left: 24 more of each, 1 s and 2 core-seconds each.
        let looks = Looks::of(NonZeroU32::new(2).unwrap());
        let c = &mut study.arms[0];
        c.candidates[0].assessment.as_mut().unwrap().protocol.looks = looks;
        let r = Resolution::of(c, &c.candidates[0]).unwrap();
        assert_eq!((r.seeds, r.runs, r.cost.wall_seconds), (27, 48, 48.0));
        assert!((r.cost.core_hours - 96.0 / 3600.0).abs() < 1e-12);
        let said = advice(&study);
        assert!(
            said.contains("`halfstep compare test.toml --seeds 27`") && said.contains("48 more runs"),
            "{said}"
        );
    }
}

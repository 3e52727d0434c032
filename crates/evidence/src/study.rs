//! Several comparisons under one question, and its answer in plain words.

use serde::Serialize;

use crate::assessment::{Assessment, MetricRow};
use crate::comparison::{Candidate, Comparison, gained, over_all, seed_sd};
use crate::cost::Amounts;
use crate::exact::clean_runs_needed;
use crate::experiment::SeedMeasures;
use crate::findings;
use crate::judge::judge_together;
use crate::noninferiority::Claim;
use crate::reference::loss_still_falling;
use crate::stats::{ALPHA, Verdict};
use crate::units;

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
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// What follows, in one sentence.
    pub headline: String,
    /// What was gained.
    pub gained: Vec<String>,
    /// What was lost.
    pub lost: Vec<String>,
    /// What is still unknown.
    pub unknown: Vec<String>,
    /// What to do next.
    pub next: Vec<String>,
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
    /// Runs that are still to be made.
    pub runs: usize,
    /// What they cost.
    pub cost: Amounts,
}

impl Resolution {
    /// For one candidate of a comparison; none where nothing is open, or the spread does not say.
    pub fn of(c: &Comparison, candidate: &Candidate) -> Option<Resolution> {
        let have = c.setup.seeds.len();
        let seeds = c.seeds_needed(candidate).filter(|&n| n > have)?;
        let each = |policy: &str| c.row(policy)?.cost.per_accepted;
        let (a, b) = (each(&c.setup.reference)?, each(&candidate.policy)?);
        let more = seeds - have;
        // Runs side by side take the clock's time together.
        let mut cost = a.with(b, |a, b| (a + b) * more as f64);
        cost.wall_seconds /= (c.timed.beside + 1) as f64;
        Some(Resolution { seeds, runs: 2 * more, cost })
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
        let mut study = Study { name, command, verdict, summary: Summary::default(), arms };
        study.summary = study.sum_up();
        study
    }

    fn sum_up(&self) -> Summary {
        let mut s = Summary { headline: self.headline(), ..Summary::default() };
        for c in &self.arms {
            for candidate in &c.candidates {
                let subject = match self.arms.len() {
                    1 => candidate.policy.clone(),
                    _ => format!("{}, {}", c.setup.name, candidate.policy),
                };
                self.about(c, candidate, &subject, &mut s);
            }
            s.unknown.extend(c.notes.iter().cloned());
        }
        s
    }

    fn headline(&self) -> String {
        let all = || self.arms.iter().flat_map(|c| c.candidates.iter().map(move |x| (c, x)));
        let order = [Verdict::Fail, Verdict::Pass, Verdict::Inconclusive];
        let parts: Vec<(String, String)> = order
            .into_iter()
            .flat_map(|verdict| all().filter(move |(_, x)| x.verdict == verdict))
            .map(|(c, x)| self.said(c, x))
            .collect();
        let mut parts = gathered(parts);
        if parts.is_empty() {
            return "There is one precision, and so nothing to compare it with.".into();
        }
        let pairs = all().map(|(_, x)| x.pairs).min().unwrap_or(0);
        let stated = self.arms.first().map_or(0, |c| c.setup.seeds.len());
        let over = match (pairs, stated) {
            (1, 1) => "over one pair of runs".to_string(),
            (pairs, stated) if pairs < stated => {
                format!("over {pairs} of {stated} stated pairs, which is what ended in both")
            }
            (pairs, _) => format!("over {pairs} paired seeds"),
        };
        if let Some(last) = parts.last_mut() {
            last.push_str(&format!(", {over}"));
        }
        // Names of precisions stay as they are.
        let text = format!("{}.", parts.join("; "));
        let text = match ["on ", "whether "].iter().find(|word| text.starts_with(**word)) {
            Some(word) => text.replacen(&word[..1], &word[..1].to_uppercase(), 1),
            None => text,
        };
        std::iter::once(text).chain(self.about_references()).collect::<Vec<_>>().join(" ")
    }

    /// What follows of one candidate: its name goes where `\u{0}` stands, so that what is said of
    /// several alike is said once.
    fn said(&self, c: &Comparison, x: &Candidate) -> (String, String) {
        let name = match self.arms.len() {
            1 => x.policy.clone(),
            _ => format!("{} in {}", c.setup.name, x.policy),
        };
        let reference = &c.setup.reference;
        let diverged = c.row(&x.policy).map_or(0, |r| r.diverged);
        // Of a run that diverged nothing was measured: what is said is said of the others.
        let where_ended = match diverged {
            0 => String::new(),
            n => format!(" where no run diverged ({n} of {} did)", c.setup.seeds.len()),
        };
        let samples = units::count(x.assessment.as_ref().map_or(0, |a| a.seeds[0].samples));
        let on_samples = x.assessment.as_ref().is_some_and(|a| a.on_samples == Verdict::Pass && x.pairs > 1);
        let claim = c.setup.protocol.claim;
        let text = match (x.verdict, claim) {
            (Verdict::Fail, _) => format!("\u{0} is worse than {reference} by more than was allowed"),
            (Verdict::Pass, Claim::Examples) => {
                format!(
                    "on examples like these \u{0} is as good as {reference} within every margin{where_ended}"
                )
            }
            (Verdict::Pass, Claim::Samples) => {
                let elsewhere =
                    x.assessment.as_ref().map_or_else(String::new, |a| lower(&findings::on_new_examples(a)));
                format!(
                    "on these {samples} samples \u{0} is as good as {reference} within every margin{where_ended}; {elsewhere}"
                )
            }
            (Verdict::Inconclusive, Claim::Examples) if on_samples && x.missing == 0 => {
                let elsewhere =
                    x.assessment.as_ref().map_or_else(String::new, |a| lower(&findings::on_new_examples(a)));
                format!(
                    "on these {samples} samples \u{0} is as good as {reference}{where_ended}; {elsewhere}"
                )
            }
            (Verdict::Inconclusive, _) => {
                format!("whether \u{0} can take the place of {reference} these runs cannot tell")
            }
        };
        (text, name)
    }

    /// What the references are worth, arm by arm, where that limits the answer.
    fn about_references(&self) -> Vec<String> {
        let of_arm = |c: &Comparison| {
            let reference = match self.arms.len() {
                1 => c.setup.reference.clone(),
                _ => format!("{} in {}", c.setup.name, c.setup.reference),
            };
            let check = c.candidates.iter().find_map(|x| Some(&x.assessment.as_ref()?.reference_check));
            let worth = check.and_then(|r| r.why_inconclusive(&reference).or_else(|| r.caveat(&reference)));
            let falling = loss_still_falling(&c.runs, &c.setup.reference, &reference);
            worth.into_iter().chain(falling).collect::<Vec<_>>()
        };
        self.arms.iter().flat_map(of_arm).collect()
    }

    fn about(&self, c: &Comparison, candidate: &Candidate, subject: &str, s: &mut Summary) {
        let reference = &c.setup.reference;
        let (row, base) = (c.row(&candidate.policy), c.row(reference));
        let (better, worse) = match (row, base) {
            (Some(row), Some(base)) => gained(row, base),
            _ => (Vec::new(), Vec::new()),
        };
        let timed = row.is_some_and(|r| r.speed_ratio.is_some());
        s.gained.push(match better.is_empty() {
            false => format!("{subject}: {}.", better.join(", and ")),
            true if timed => {
                format!("{subject}: nothing on this processor: a step is no faster and needs no less memory.")
            }
            true => format!("{subject}: no less memory; times were not measured alike."),
        });
        let mut lost: Vec<String> = worse.iter().map(|w| format!("{w}.")).collect();
        if let Some(a) = &candidate.assessment {
            lost.extend(losses(a));
            s.unknown.extend(open(a).into_iter().map(|text| format!("{subject}: {text}")));
        } else {
            s.unknown.push(format!(
                "{subject}: no seed was finished in both {} and {reference}, so quality cannot be compared.",
                candidate.policy
            ));
        }
        if candidate.missing > 0 {
            s.unknown.push(format!(
                "{subject}: {} of {} stated seeds have not ended, so there is no verdict yet.",
                candidate.missing,
                c.setup.seeds.len()
            ));
        } else if candidate.pairs == 1 {
            s.unknown.push(format!(
                "{subject}: one pair says something of these two models, not of training in {}.",
                candidate.policy
            ));
        }
        if lost.is_empty() && candidate.verdict != Verdict::Fail {
            lost.push("nothing that these runs can show.".into());
        }
        s.lost.extend(lost.into_iter().map(|text| format!("{subject}: {text}")));
        if let Some(row) = row {
            let d = row.divergence;
            let at_most = units::percent(d.at_most, None);
            let (diverged, runs) = (row.diverged, d.runs);
            let allowed = c.setup.protocol.max_divergence.map_or(String::new(), |most| {
                let clean = clean_runs_needed(most, ALPHA)
                    .map_or(String::new(), |n| format!(", which {n} clean runs show"));
                format!(" At most {} is allowed{clean}.", units::percent(most, None))
            });
            s.unknown.push(format!(
                "{subject}: how often a run diverges. {diverged} of {runs} did; at 95 % confidence the chance is at most \
                 {at_most}.{allowed}"
            ));
            let excess = candidate.divergence_excess;
            if let Some(excess) = excess.filter(|e| d.diverged + e.baseline_diverged > 0) {
                let words = findings::excess_words(&excess, c.setup.protocol.looks.alpha());
                s.unknown.push(format!("{subject}: {}", lower(&words) + "."));
            }
        }
        s.next.push(self.advice(c, candidate, subject));
    }

    fn advice(&self, c: &Comparison, candidate: &Candidate, subject: &str) -> String {
        let (policy, reference) = (&candidate.policy, &c.setup.reference);
        if c.row(reference).is_some_and(|r| r.diverged > 0) {
            return format!(
                "{subject}: the reference itself diverges: repair the recipe first (a lower rate, a longer warm-up, \
                 `halfstep doctor`), then compare again."
            );
        }
        match candidate.verdict {
            Verdict::Pass => format!(
                "{subject}: train in {policy} where what it gains is wanted. The verdict holds for this recipe and these \
                 data; ask again when they change."
            ),
            Verdict::Fail => format!(
                "{subject}: stay with {reference}, or keep the layers that suffer in f32 (`overrides` in [precision]; \
                 `halfstep explain` shows them) and compare again."
            ),
            Verdict::Inconclusive if candidate.missing > 0 => {
                format!(
                    "{subject}: `{}` goes on from here; what is finished is not made again.",
                    self.command
                )
            }
            Verdict::Inconclusive
                if candidate
                    .assessment
                    .as_ref()
                    .is_some_and(|a| !a.reference_check.is_worth_comparing_with()) =>
            {
                format!(
                    "{subject}: more seeds do not settle it. Train until {reference} has learned something, and compare again."
                )
            }
            Verdict::Inconclusive => match Resolution::of(c, candidate) {
                Some(r) => format!(
                    "{subject}: `{} --seeds {}` would settle it with a chance of {:.0} % if there is no difference: {} \
                     more runs, {}. Finished runs are not made again.",
                    self.command,
                    r.seeds,
                    c.setup.protocol.power * 100.0,
                    r.runs,
                    cost_words(&r.cost, &c.setup.rates.currency)
                ),
                None if c.setup.seeds.len() < 2 => {
                    format!("{subject}: take at least two seeds: one has no spread to judge by.")
                }
                None => match candidate.assessment.as_ref().and_then(examples_needed) {
                    Some(n) => format!(
                        "{subject}: more seeds alone do not settle it: what all seeds do to the same samples takes about {} \
                         of them. Give the recipe more test data; `claim = \"samples\"` in [compare] asks about these \
                         samples alone.",
                        units::count(n as u64)
                    ),
                    None => format!("{subject}: more seeds would tell how large the difference is."),
                },
            },
        }
    }
}

/// Time, core-hours, energy and money in a few words.
pub fn cost_words(a: &Amounts, currency: &str) -> String {
    let price = a.price.map_or(String::new(), |p| format!(", {} {currency}", units::significant(p)));
    format!(
        "about {}, {} core-hours, {} kWh{price}",
        units::seconds(a.wall_seconds),
        units::significant(a.core_hours),
        units::significant(a.kwh)
    )
}

/// Test samples with which every open metric would be settled after as many seeds; none if one
/// would not, or none is open.
fn examples_needed(a: &Assessment) -> Option<usize> {
    let open = a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Inconclusive));
    open.map(|r| r.examples_needed).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// What fails, why, and how much a pass may hide.
fn losses(a: &Assessment) -> Vec<String> {
    let named: Vec<&MetricRow> = a.rows.iter().filter(|r| r.is_named()).collect();
    let mut all: Vec<String> = named.iter().map(|r| findings::failure(a, r)).collect();
    all.extend(findings::causes(a, &named));
    let passed: Vec<&MetricRow> = a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Pass)).collect();
    if !passed.is_empty() {
        let at_most = |r: &&MetricRow| {
            let most = r.test.and_then(|t| t.harm_at_most).map(|h| r.metric.show_amount(h.max(0.0)));
            most.map_or_else(|| r.label(), |most| format!("{} at most {most}", r.label()))
        };
        let list: Vec<String> = passed.iter().map(at_most).collect();
        let nothing = if named.is_empty() { "nothing beyond the margins. " } else { "" };
        all.push(format!("{nothing}At 95 % confidence it loses: {}.", list.join(", ")));
    }
    all
}

fn open(a: &Assessment) -> Vec<String> {
    let mut all = findings::unknown(a);
    all.extend(findings::unjudged(a));
    if a.examples == crate::buckets::TestSets::OfEachSeed {
        all.push("seeds were tested on different samples.".into());
    }
    all
}

/// Sentences in order, each with all the names it is said of.
fn gathered(parts: Vec<(String, String)>) -> Vec<String> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (text, name) in parts {
        match all.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => all.push((text, vec![name])),
        }
    }
    let fill = |(text, names): (String, Vec<String>)| {
        let text = if names.len() > 1 { text.replacen("\u{0} is", "\u{0} are", 1) } else { text };
        text.replace('\u{0}', &and(&names))
    };
    all.into_iter().map(fill).collect()
}

/// A sentence inside another.
fn lower(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn and(names: &[String]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::assess::assess;
    use crate::assessment::Protocol;
    use crate::comparison::tests::{run, setup};
    use crate::logits::{InMemory, Source};
    use crate::metric::Metric;
    use std::num::NonZeroUsize;

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
        assert!(
            good.summary.headline.starts_with("On examples like these bf16 is as good as fp32"),
            "{}",
            good.summary.headline
        );
        assert!(good.summary.gained[0].contains("2.00× as fast"), "{:?}", good.summary);
        let bad = study(5);
        assert_eq!(bad.verdict, Some(Verdict::Fail));
        assert!(
            bad.summary.lost.iter().any(|l| l.contains("accuracy: worse by at least")),
            "{:?}",
            bad.summary
        );
        assert!(bad.summary.next[0].contains("stay with fp32"), "{:?}", bad.summary);
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
        let r = Resolution::of(c, &c.candidates[0]).unwrap();
        // 24 more of each, 1 s and 2 core-seconds each.
        assert_eq!((r.seeds, r.runs, r.cost.wall_seconds), (27, 48, 48.0));
        assert!((r.cost.core_hours - 96.0 / 3600.0).abs() < 1e-12);
        let advice = study.advice(&study.arms[0], &study.arms[0].candidates[0], "bf16");
        assert!(
            advice.contains("`halfstep compare test.toml --seeds 27`") && advice.contains("48 more runs"),
            "{advice}"
        );
    }
}

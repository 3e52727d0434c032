//! What an assessment says: of a verdict, of each metric, of the reference, of runs that diverged.

use std::fmt;

use super::{capital, in_a_row};
use crate::exact::Excess;
use crate::metric::Metric;
use crate::noninferiority::Question;
use crate::stats::Verdict;
use crate::units;

/// Of whom a verdict speaks: the candidate, or those of its runs that left something to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Runs that diverged.
    pub diverged: u64,
    /// Runs.
    pub runs: u64,
}

/// How much of a metric is lost at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The metric, and the group if it is of one.
    pub label: String,
    /// The metric.
    pub metric: Metric,
    /// The bound; none where there is none.
    pub at_most: Option<f64>,
}

/// What has a margin and was not judged, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

halfstep_train::statements! {
    /// What an assessment says.
    pub enum VerdictStatement {
        /// The verdict is pass, asked of other seeds on examples like these, or of one pair of
        /// models.
        ["Every metric that gates passes at its margin, each at level α (intersection and union): crossed random effects \
          over seeds and examples; for one pair the exact test of changed answers.",
         "evidence it claims::on_examples_like_these_a_false_pass_is_as_rare_as_stated"]
        AsGoodOnExamples { subject: Subject, question: Question, margins: usize, accuracy_loses: Option<f64> },
        /// The verdict is pass, asked of other seeds on these samples.
        ["Every metric that gates passes at its margin: a paired t-test over seeds whose variance is not taken for less \
          than few changed answers have.",
         "evidence it claims::on_these_samples_a_false_pass_is_as_rare_as_stated"]
        AsGoodOnSamples {
            subject: Subject, question: Question, margins: usize, samples: u64, accuracy_loses: Option<f64>,
            elsewhere: Box<VerdictStatement>,
        },
        /// Examples like these were asked about, these samples alone pass.
        ["The test on these samples, and that on examples, which stays open.",
         "evidence it gates::harm_common_to_all_seeds_holds_on_these_samples_and_not_beyond"]
        AsGoodOnSamplesOnly {
            subject: Subject, question: Question, samples: u64, elsewhere: Box<VerdictStatement>,
        },
        /// The verdict is fail.
        ["A test of harm beyond the margin that holds after Holm's adjustment over all that gates.",
         "evidence lib noninferiority::tests::many_metrics_do_not_make_failures_likelier"]
        WorseThanAllowed { subject: Subject, question: Question },
        /// No metric has a margin that could gate, and none was asked for.
        ["No row gates.", "evidence it claims::nothing_judged_is_no_pass"]
        NothingJudged,
        /// The verdict is inconclusive, and nothing better holds of these samples.
        ["Neither test is significant, or a gate is open.",
         "evidence it gates::no_changed_answer_of_a_hundred_is_no_proof"]
        CannotTell,
        /// Beside an answer on these samples: the test on examples passes.
        ["The test of other seeds on other examples.",
         "evidence it gates::harm_common_to_all_seeds_holds_on_these_samples_and_not_beyond"]
        ElsewhereToo,
        /// Beside an answer on these samples: the test on examples fails.
        ["The test of other seeds on other examples.",
         "evidence it claims::harm_on_other_examples_is_said_as_rarely_as_stated"]
        ElsewhereNot,
        /// The test on examples is open, and the plan knows after how many it would pass.
        ["The plan's power with the spread and the difference that were seen, at the stated chance.",
         "evidence it claims::as_many_samples_as_are_said_to_be_needed_pass"]
        SamplesNeeded { needed: u64, now: u64, clusters: bool },
        /// The test on examples is open, and no number of examples is known to settle it.
        ["The test on examples is neither passed nor failed.",
         "evidence it claims::what_more_samples_do_not_settle_has_no_number"]
        ElsewhereOpen,
        /// The loss of a reference is not a finite number.
        ["Negative log-likelihoods of the reference.",
         "evidence lib reference::tests::a_reference_without_a_finite_loss_gives_no_verdict"]
        ReferenceNotFinite { reference: String, of: Models },
        /// A reference is not shown better than the constant predictor, so that nothing is judged.
        ["Tests of NLL, balanced accuracy and AUROC against the constant predictor, corrected for their number.",
         "evidence lib measures::constant::tests::a_model_that_knows_something_is_shown_better"]
        ReferenceWorthless {
            reference: String, of: Models, nll: f64, constant_nll: f64, balanced_accuracy: f64,
            constant_balanced_accuracy: f64, auroc: Option<f64>,
        },
        /// A reference is shown better, but not in accuracy.
        ["The same tests; that of accuracy against the most frequent class is not significant.",
         "evidence lib reference::tests::a_constant_reference_gives_no_verdict_and_a_weak_one_a_caveat"]
        ReferenceAccuracyOfMajority { reference: String, of: Models, accuracy: f64, majority: f64 },
        /// A metric fails after Holm's adjustment: the candidate is worse.
        ["The one-sided 95 % lower bound of the harm, over seeds or over seeds and examples.",
         "evidence it claims::a_bound_of_the_harm_covers_it_as_often_as_it_says"]
        WorseByAtLeast { label: String, metric: Metric, at_least: Option<f64>, beyond_seeds: bool, margin: f64 },
        /// Equivalence was asked, and a metric fails on the better side.
        ["The second of two one-sided tests.",
         "evidence lib noninferiority::tests::equivalence_does_not_pass_what_is_too_good"]
        BetterThanAllowed { label: String, metric: Metric, margin: f64 },
        /// A measure of calibration fails, and one temperature takes away over half of the excess
        /// loss.
        ["Losses before and after refitting the temperature; \"not less able\" only where accuracy passes.",
         "evidence it planted::a_wrong_temperature_is_miscalibration_and_nothing_else"]
        Miscalibrated { over: bool, accuracy_passes: bool, temperature: f64, baseline: f64, repaired: f64 },
        /// Changed answers fail: how many right ones became wrong.
        ["Negative flips beside those of another seed; accuracy is named where it does not fail.",
         "evidence it planted::equal_accuracy_with_other_answers_is_found_by_flips"]
        RightMadeWrong { share: f64, other_seed: Option<f64>, accuracy_holds: bool },
        /// Some groups fail and others do not.
        ["Accuracy by group, after Holm's adjustment; the mean hides it where accuracy does not fail.",
         "evidence it planted::harm_to_one_group_is_found_there"]
        HarmOnGroups { groups: Vec<String>, accuracy_holds: bool },
        /// Metrics that fail alone and not after Holm's adjustment.
        ["Holm's adjustment over all that gates.", "evidence it claims::one_of_many_beyond_its_margin_is_no_fail"]
        BeyondBeforeAdjustment { labels: Vec<String> },
        /// A margin that was asked for and could not be judged.
        ["The gate stays open.", "evidence it gates::a_margin_that_cannot_be_judged_is_no_pass"]
        NotJudged { what: String, why: String },
        /// Margins that the files cannot be held to, and that do not gate.
        ["Groups smaller than the least that can pass.",
         "evidence it gates::groups_gate_from_the_size_that_can_pass"]
        NotPartOfVerdict { of: Vec<Reason> },
        /// One pair of files was judged.
        ["What is tested is of these two models.", "evidence it claims::one_pair_is_judged_by_its_examples_alone"]
        OnePairOfFiles,
        /// A greatest chance to diverge was stated.
        ["Clopper and Pearson's exact bounds.",
         "evidence lib exact::tests::fifty_nine_clean_runs_for_five_per_cent"]
        DivergenceJudged {
            verdict: Verdict, diverged: u64, runs: u64, at_most: f64, allowed: f64, clean_runs: Option<u64>,
        },
        /// Runs diverged, and no limit was stated.
        ["Clopper and Pearson's exact bound.", "evidence lib exact::tests::bounds_solve_the_binomial_equation"]
        DivergenceSeen { diverged: u64, runs: u64, at_most: f64 },
        /// Fisher's test of more divergence than the baseline's is significant.
        ["Fisher's exact test, one-sided, and the difference of two exact bounds at 97.5 %.",
         "evidence it claims::equal_chances_to_diverge_are_rarely_called_oftener"]
        DivergesOftener { excess: Excess },
        /// Runs diverged, and the test is not significant.
        ["The same test, whose silence passes nothing, and the same bound.",
         "evidence lib exact::tests::a_candidate_that_diverges_oftener_is_found_and_silence_is_no_bound"]
        DivergenceNotTold { excess: Excess },
        /// A metric is open.
        ["The one-sided 95 % upper bound of the harm.",
         "evidence it claims::a_bound_of_the_harm_covers_it_as_often_as_it_says"]
        LossNotRuledOut { label: String, metric: Metric, mean: f64, at_most: f64, margin: f64 },
        /// A metric whose one pair has no spread.
        ["No bound without two pairs.", "evidence lib noninferiority::tests::no_spread_and_one_pair"]
        NoSpread { label: String },
        /// Open metrics of seeds, for which a number of seeds is known.
        ["The noncentral t distribution with the spread seen.",
         "evidence lib noninferiority::tests::without_a_difference_the_power_is_as_planned"]
        SeedsNeeded { needed: usize, have: usize, power: f64, all_new: bool },
        /// Earlier looks have used α up.
        ["The levels of all looks add up to α at most.",
         "evidence it claims::over_all_looks_stated_or_not_a_false_pass_is_as_rare_as_one_look_may_be"]
        LooksSpent { stated: u32 },
        /// Open metrics of seeds, of which the plan says that these are enough.
        ["The same plan.", "evidence lib power::tests::the_table_of_seeds"]
        SeedsEnough,
        /// Metrics pass: how much a pass may hide. That nothing is lost is said of a verdict of
        /// pass alone.
        ["The one-sided 95 % upper bound of the harm of each metric.",
         "evidence it claims::a_bound_of_the_harm_covers_it_as_often_as_it_says"]
        LosesAtMost { nothing_beyond: bool, of: Vec<Loss> },
    }
    made of them {
        /// Several in one line.
        Together(Vec<VerdictStatement>),
    }
}

/// How many of the references something is true of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Models {
    /// So many.
    pub count: usize,
    /// Of so many.
    pub all: usize,
}

impl fmt::Display for Models {
    /// ` in 2 of its 5 models`; nothing for the only one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all == 1 { Ok(()) } else { write!(f, " in {} of its {} models", self.count, self.all) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.diverged {
            0 => f.write_str("the candidate"),
            n => write!(f, "the candidate, where it did not diverge ({n} of {} runs did),", self.runs),
        }
    }
}

/// `is as good as the baseline`, and what that is said of.
fn as_good(subject: &Subject, question: Question) -> String {
    match question {
        Question::NonInferiority => format!("{subject} is as good as the baseline"),
        Question::Equivalence => format!("{subject} is equivalent to the baseline"),
    }
}

/// What a pass rests on.
fn within(question: Question, margins: usize, accuracy_loses: Option<f64>) -> String {
    let margins = if margins == 1 { "its margin".into() } else { format!("all {margins} margins") };
    let either = if question == Question::Equivalence { ", either way" } else { "" };
    let loses = accuracy_loses.map_or_else(String::new, |most| {
        format!("; of accuracy it loses {} at most", Metric::Accuracy.show_amount(most.max(0.0)))
    });
    format!("at 95 % confidence it stays within {margins}{either}{loses}")
}

fn share(x: f64) -> String {
    units::percent(x, None)
}

fn diverged_of(diverged: u64, runs: u64) -> String {
    format!("{diverged} of {runs} candidate runs diverged")
}

/// Of the baseline's divergence, what was found, and the bound.
fn excess_words(e: &Excess, found: &str) -> String {
    format!(
        "Of the baseline {} of {} did: {found} (Fisher's exact test, p = {:.3}); at 95 % confidence its chance is at most \
         {:.1} points higher.",
        e.baseline_diverged,
        e.baseline_runs,
        e.p_fail,
        e.at_most * 100.0
    )
}

impl fmt::Display for VerdictStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use VerdictStatement::*;
        match self {
            AsGoodOnExamples { subject, question, margins, accuracy_loses } => write!(
                f,
                "On examples like these {}: {}.",
                as_good(subject, *question),
                within(*question, *margins, *accuracy_loses)
            ),
            AsGoodOnSamples { subject, question, margins, samples, accuracy_loses, elsewhere } => write!(
                f,
                "On these {} samples {}: {}. {elsewhere}",
                units::count(*samples),
                as_good(subject, *question),
                within(*question, *margins, *accuracy_loses)
            ),
            AsGoodOnSamplesOnly { subject, question, samples, elsewhere } => write!(
                f,
                "On these {} samples {}. {elsewhere} That is no pass.",
                units::count(*samples),
                as_good(subject, *question)
            ),
            WorseThanAllowed { subject, question } => {
                let how = match question {
                    Question::NonInferiority => "is worse than the baseline by more than was allowed",
                    Question::Equivalence => "differs from the baseline by more than was allowed",
                };
                write!(f, "{} {how}.", capital(&subject.to_string()))
            }
            NothingJudged => {
                f.write_str("Nothing was judged: no metric has a margin that these files can be held to.")
            }
            CannotTell => {
                f.write_str("These files cannot tell whether the candidate is as good. That is no pass.")
            }
            ElsewhereToo => f.write_str("On other samples like these it is too."),
            ElsewhereNot => f.write_str("On other samples like these it is not."),
            SamplesNeeded { needed, now, clusters } => write!(
                f,
                "Whether it is on new ones is not shown yet: that needs about {} {} (now {}), if the difference stays what \
                 it is.",
                units::count(*needed),
                if *clusters { "clusters" } else { "samples" },
                units::count(*now)
            ),
            ElsewhereOpen => f.write_str("Whether it is on new ones is not shown yet."),
            ReferenceNotFinite { reference, of } => write!(
                f,
                "There is no verdict, because the loss of {reference} is not a finite number{of}."
            ),
            ReferenceWorthless {
                reference,
                of,
                nll,
                constant_nll,
                balanced_accuracy,
                constant_balanced_accuracy,
                auroc,
            } => {
                let auroc =
                    auroc.map_or_else(String::new, |a| format!(", AUROC {} (50.00 %)", share(a)));
                write!(
                    f,
                    "There is no verdict, because {reference} is not shown better than a constant predictor, which gives \
                     every sample the class frequencies of these labels{of}: NLL {nll:.4} (constant {constant_nll:.4}), \
                     balanced accuracy {} ({}){auroc}. To be as good as that is no evidence of quality. Train {reference} \
                     longer, or look for what is wrong with its data or recipe, and compare again.",
                    share(*balanced_accuracy),
                    share(*constant_balanced_accuracy)
                )
            }
            ReferenceAccuracyOfMajority { reference, of, accuracy, majority } => write!(
                f,
                "The accuracy of {reference}, {}, is not shown better than that of always answering the most frequent \
                 class, {}{of}: what it has learned shows in other measures alone.",
                share(*accuracy),
                share(*majority)
            ),
            WorseByAtLeast { label, metric, at_least, beyond_seeds, margin } => {
                let least = at_least.map_or_else(String::new, |h| metric.show_amount(h.abs()));
                let beyond = if *beyond_seeds { " beyond what another seed does" } else { "" };
                let margin = metric.show_amount(*margin);
                write!(f, "{label}: worse by at least {least}{beyond} (95 % bound); the margin is {margin}.")
            }
            BetterThanAllowed { label, metric, margin } => write!(
                f,
                "{label}: better by more than its margin of {}, which was not wanted.",
                metric.show_amount(*margin)
            ),
            Miscalibrated { over, accuracy_passes, temperature, baseline, repaired } => write!(
                f,
                "It is {}confident{}: dividing its logits by one temperature, {temperature:.2} ({baseline:.2} for the \
                 baseline), takes away {:.0} % of its excess loss.",
                if *over { "over" } else { "under" },
                if *accuracy_passes { ", not less able" } else { "" },
                (repaired * 100.0).min(100.0)
            ),
            RightMadeWrong { share, other_seed, accuracy_holds } => {
                let show = |x: f64| Metric::Flips.show(x);
                let beside = other_seed.map_or_else(String::new, |floor| {
                    format!("; between two seeds of the baseline it is {}", show(floor))
                });
                write!(
                    f,
                    "{}{} of the answers that the baseline has right the candidate has wrong{beside} (shares of all \
                     samples).",
                    if *accuracy_holds { "Accuracy alone would not show it: " } else { "" },
                    show(*share)
                )
            }
            HarmOnGroups { groups, accuracy_holds } => write!(
                f,
                "The harm is not spread evenly: it falls on {}{}.",
                groups.join(" and "),
                if *accuracy_holds { ", which the mean over all samples hides" } else { "" }
            ),
            BeyondBeforeAdjustment { labels } => write!(
                f,
                "Beyond its margin, but not after allowing for the number of metrics tested (Holm): {}.",
                labels.join(", ")
            ),
            NotJudged { what, why } => write!(f, "{what}: not judged, so there is no pass: {why}."),
            NotPartOfVerdict { of } => {
                /// Those that are named one by one.
                const NAMED: usize = 8;
                let list: Vec<String> =
                    of.iter().take(NAMED).map(|r| format!("{} ({})", r.what, r.why)).collect();
                let more = match of.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!("; and {more} more"),
                };
                write!(f, "Not judged, and not part of the verdict: {}{more}.", list.join("; "))
            }
            OnePairOfFiles => f.write_str(
                "One pair of files says something of these two models, not of training in this precision: another seed may \
                 do better or worse. Give one pair per seed to learn about that.",
            ),
            DivergenceJudged { verdict, diverged, runs, at_most, allowed, clean_runs } => {
                let enough =
                    clean_runs.map_or_else(String::new, |n| format!(" {n} clean runs would be enough."));
                write!(
                    f,
                    "Divergence: {}. {}: at 95 % confidence the chance is at most {:.1} %, {:.1} % is allowed.{enough}",
                    verdict.name(),
                    diverged_of(*diverged, *runs),
                    at_most * 100.0,
                    allowed * 100.0
                )
            }
            DivergenceSeen { diverged, runs, at_most } => write!(
                f,
                "{}; at 95 % confidence the chance is at most {:.1} %.",
                diverged_of(*diverged, *runs),
                at_most * 100.0
            ),
            DivergesOftener { excess } => f.write_str(&excess_words(
                excess,
                "the candidate diverges oftener, which chance alone does not explain",
            )),
            DivergenceNotTold { excess } => f.write_str(&excess_words(
                excess,
                "whether the candidate diverges oftener these runs do not show",
            )),
            LossNotRuledOut { label, metric, mean, at_most, margin } => write!(
                f,
                "{label}: inconclusive. It differs by {} on average, and a loss of up to {} cannot be ruled out; the margin \
                 is {}.",
                metric.show_difference(*mean),
                metric.show_amount(*at_most),
                metric.show_amount(*margin)
            ),
            NoSpread { label } => {
                write!(f, "{label}: one pair of runs has no spread to judge by; two or more are needed.")
            }
            SeedsNeeded { needed, have, power, all_new } => write!(
                f,
                "If there is no difference, {needed} seeds in all would show it with a chance of {:.0} % for the most \
                 scattered of these metrics; there are {have}.{}",
                power * 100.0,
                if *all_new { " Take new ones: by this look the old ones are used up." } else { "" }
            ),
            LooksSpent { stated } => write!(
                f,
                "These runs were judged before, and {} stated took the 5 % of wrong answers that all looks together may \
                 give. So this one gives no verdict, whatever it shows; that of the earlier ones stands. Compare with seeds \
                 that were not looked at, and state `looks` before the first if there are to be several.",
                if *stated == 1 { "the one look that was" } else { "all looks that were" }
            ),
            SeedsEnough => f.write_str(
                "By their scatter these seeds would be enough if there were no difference; more would tell how large it is.",
            ),
            LosesAtMost { nothing_beyond, of } => {
                let one = |l: &Loss| match l.at_most {
                    Some(most) => format!("{} at most {}", l.label, l.metric.show_amount(most.max(0.0))),
                    None => l.label.clone(),
                };
                let list: Vec<String> = of.iter().map(one).collect();
                let nothing = if *nothing_beyond { "nothing beyond the margins. " } else { "" };
                write!(f, "{nothing}At 95 % confidence it loses: {}.", list.join(", "))
            }
            Together(all) => f.write_str(&in_a_row(all)),
        }
    }
}

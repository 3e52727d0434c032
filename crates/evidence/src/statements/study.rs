//! What a comparison says: the answer over all candidates, what was gained and lost, what is still
//! unknown and what to do next.

use std::fmt;

use super::{VerdictStatement, capital, lower};
use crate::cost::Amounts;
use crate::units;

/// Pairs that an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Seeds that ended in both.
    pub pairs: usize,
    /// Seeds that were stated.
    pub stated: usize,
}

/// The first line: answers about candidates, over how many pairs, what the references are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Headline {
    /// Each of one or several candidates.
    pub answers: Vec<StudyStatement>,
    /// The fewest of all candidates.
    pub over: Pairs,
    /// What limits the answer.
    pub references: Vec<StudyStatement>,
}

halfstep_train::statements! {
    /// What a study says.
    pub enum StudyStatement {
        /// A candidate's verdict is fail.
        ["A test beyond a margin, Fisher's test or the limit of divergence, after Holm's adjustment over all candidates and \
          arms.",
         "evidence lib study::tests::a_pass_says_what_was_gained_and_a_failure_what_was_lost"]
        IsWorse { names: Vec<String>, reference: String },
        /// The verdict is pass, asked of examples like these.
        ["That of the assessment, with every stated seed and two pairs or more.",
         "evidence lib comparison::tests::a_seed_that_was_stated_and_not_run_leaves_the_verdict_open"]
        IsAsGoodOnExamples { names: Vec<String>, reference: String, diverged: u64, seeds: usize },
        /// The verdict is pass, asked of these samples.
        ["That of the assessment.", "evidence lib statements::study_tests::a_study_says_of_which_samples_it_speaks"]
        IsAsGoodOnSamples {
            names: Vec<String>, reference: String, diverged: u64, seeds: usize, samples: u64,
            elsewhere: Option<VerdictStatement>,
        },
        /// Examples were asked about, and these samples alone pass in every stated seed.
        ["The test on these samples.", "evidence lib statements::study_tests::a_study_says_of_which_samples_it_speaks"]
        IsAsGoodOnSamplesOnly {
            names: Vec<String>, reference: String, diverged: u64, seeds: usize, samples: u64,
            elsewhere: Option<VerdictStatement>,
        },
        /// The verdict is inconclusive.
        ["A stated seed has not ended, there is one pair, a gate is open, or nothing is significant.",
         "evidence lib comparison::tests::a_seed_that_was_stated_and_not_run_leaves_the_verdict_open"]
        CannotTell { names: Vec<String>, reference: String },
        /// There is no candidate.
        ["The list of candidates.", "evidence lib statements::study_tests::one_precision_is_compared_with_nothing"]
        OnePrecision,
        /// The train loss of the reference has not settled.
        ["The trend of the last steps against its scatter, of the mean over runs.",
         "train lib metrics::tests::a_loss_that_still_falls_is_distinguished_from_one_that_has_settled"]
        LossStillFalling { reference: String, runs: usize, fell: f64, steps: u64 },
        /// A step is over 5 % faster.
        ["Median step times of runs that ran alike.",
         "evidence lib comparison::tests::times_of_runs_that_ran_another_way_are_not_compared"]
        Faster { ratio: f64 },
        /// A step is over 5 % slower.
        ["The same times.", "evidence lib comparison::tests::a_slow_precision_is_not_called_fast"]
        Slower { ratio: f64 },
        /// A step needs 5 % less scratch memory, or less than that.
        ["Planned bytes, which are those that are allocated.",
         "evidence lib comparison::tests::a_slow_precision_is_not_called_fast"]
        LessMemory { saved: f64 },
        /// A step needs 5 % more scratch memory, or more than that.
        ["Planned bytes.", "evidence lib statements::study_tests::what_costs_more_is_named_as_lost"]
        MoreMemory { more: f64 },
        /// Times were measured alike, and neither time nor memory is 5 % better.
        ["The same times and bytes.", "evidence lib statements::study_tests::nothing_gained_is_said_within_five_per_cent_only"]
        NothingGained,
        /// Times were not measured alike, and memory is not 5 % better.
        ["The ways the runs ran.", "evidence lib statements::study_tests::nothing_gained_is_said_within_five_per_cent_only"]
        NoLessMemory,
        /// Products of one of the two are emulated, and memory is not 5 % better.
        ["What the engine says of its arithmetic, and planned bytes.",
         "evidence lib statements::study_tests::no_speed_is_claimed_of_what_is_emulated"]
        NoSpeedClaimed,
        /// Nothing fails, nothing passes and nothing costs more.
        ["The rows of the assessment.", "evidence lib statements::study_tests::one_pair_of_runs_shows_no_loss_and_says_so"]
        NothingShownLost,
        /// Seeds have test sets of their own.
        ["Labels of the files.", "evidence lib statements::study_tests::seeds_with_their_own_samples_are_named"]
        OtherSamples,
        /// No seed ended in both.
        ["Logits of pairs.", "evidence lib comparison::tests::a_run_that_did_not_finish_has_no_accuracy_to_compare"]
        NoSeedFinished { policy: String, reference: String },
        /// Stated seeds have not ended.
        ["Seeds that were stated and those that ended.",
         "evidence lib comparison::tests::a_seed_that_was_stated_and_not_run_leaves_the_verdict_open"]
        SeedsMissing { missing: usize, stated: usize },
        /// One seed ended in both.
        ["One pair never passes.",
         "evidence lib comparison::tests::a_seed_that_was_stated_and_not_run_leaves_the_verdict_open"]
        OnePairOfModels { policy: String },
        /// Always: what is known of divergence, and what would show the limit that was stated.
        ["Clopper and Pearson's exact bound.",
         "evidence lib exact::tests::fifty_nine_clean_runs_for_five_per_cent"]
        HowOftenItDiverges {
            diverged: usize, runs: u64, at_most: f64, allowed: Option<f64>, clean_runs: Option<u64>,
        },
        /// A run of the reference diverged.
        ["Outcomes of runs.", "evidence lib statements::study_tests::a_reference_that_diverges_is_to_be_repaired_first"]
        RepairTheRecipe,
        /// Advice after a pass.
        ["The verdict.", "evidence lib study::tests::a_pass_says_what_was_gained_and_a_failure_what_was_lost"]
        TrainInIt { policy: String },
        /// Advice after a failure.
        ["The verdict.", "evidence lib study::tests::a_pass_says_what_was_gained_and_a_failure_what_was_lost"]
        StayWithReference { reference: String },
        /// Advice where stated seeds have not ended.
        ["Seeds that are missing.", "evidence lib statements::study_tests::an_interrupted_study_asks_for_the_rest"]
        GoOn { command: String },
        /// Advice where the reference is not worth comparing with.
        ["The reference beside the constant predictor.",
         "evidence lib statements::study_tests::seeds_do_not_settle_what_a_worthless_reference_leaves_open"]
        TrainTheReference { reference: String },
        /// Advice where a number of seeds is known that would show equality.
        ["The plan of the metric that scatters most, and clean runs for the limit of divergence.",
         "evidence lib study::tests::an_inconclusive_study_says_what_would_settle_it"]
        SeedsWouldSettle {
            command: String, first_seed: Option<u64>, seeds: usize, power: f64, runs: usize, cost: Amounts,
            currency: String,
        },
        /// Advice for one seed.
        ["No spread without two.", "evidence lib statements::study_tests::one_pair_of_runs_shows_no_loss_and_says_so"]
        TakeTwoSeeds,
        /// Advice where no number of seeds, and a number of samples is known to settle it.
        ["The plan with what all seeds do to the same examples.", "evidence lib power::tests::limits"]
        MoreTestData { samples: u64 },
        /// Advice where no number is known.
        ["No plan reaches the stated chance.", "evidence lib statements::study_tests::without_a_plan_no_number_is_named"]
        MoreSeedsTell,
        /// Earlier looks have used α up.
        ["The levels of all looks at these runs add up to α at most.",
         "halfstep it compare::the_exit_code_is_the_verdict_and_margins_are_the_recipes"]
        LooksUsedUp { policy: String, looks: Vec<String>, alpha: f64 },
        /// A policy that splits f32 products ran on an engine that does not.
        ["What the engine says of its arithmetic.", "halfstep bin cli::compare::tests::what_was_not_split_is_said"]
        NotSplit { policies: Vec<String>, how: Vec<String> },
        /// Products of a precision are emulated on the engine: times are those of the emulation.
        ["What the engine says of its arithmetic.",
         "evidence lib statements::study_tests::no_speed_is_claimed_of_what_is_emulated"]
        Emulated { how: String },
        /// Runs on a GPU: nothing measures what it draws.
        ["The kind of the engine's device.", "halfstep bin cli::compare::tests::what_a_gpu_draws_is_said_to_be_left_out"]
        WithoutTheGpu,
    }
    made of them {
        /// What an assessment says.
        Verdict(VerdictStatement),
        /// An assessment's sentence within another: it begins small.
        Within(VerdictStatement),
        /// The first line.
        Headline(Headline),
        /// Gains together.
        Gains(Vec<StudyStatement>),
        /// Of the candidate that is named.
        Of((String, Box<StudyStatement>)),
    }
}

impl StudyStatement {
    /// The same, of a candidate.
    pub(crate) fn of(self, subject: &str) -> StudyStatement {
        StudyStatement::Of((subject.to_string(), Box::new(self)))
    }

    /// An answer about candidates, about these.
    pub(crate) fn about(mut self, about: Vec<String>) -> StudyStatement {
        use StudyStatement::*;
        match &mut self {
            IsWorse { names, .. }
            | IsAsGoodOnExamples { names, .. }
            | IsAsGoodOnSamples { names, .. }
            | IsAsGoodOnSamplesOnly { names, .. }
            | CannotTell { names, .. } => *names = about,
            _ => {}
        }
        self
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

fn and(names: &[String]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// `bf16 is`, or `bf16 and fp16 are`.
fn are(names: &[String]) -> String {
    format!("{} {}", and(names), if names.len() > 1 { "are" } else { "is" })
}

/// Of a run that diverged nothing was measured: what is said is said of the others.
fn where_ended(diverged: u64, seeds: usize) -> String {
    match diverged {
        0 => String::new(),
        n => format!(" where no run diverged ({n} of {seeds} did)"),
    }
}

fn beyond(elsewhere: &Option<VerdictStatement>) -> String {
    elsewhere.as_ref().map_or_else(String::new, lower)
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pairs, self.stated) {
            (1, 1) => f.write_str("over one pair of runs"),
            (pairs, stated) if pairs < stated => {
                write!(f, "over {pairs} of {stated} stated pairs, which is what ended in both")
            }
            (pairs, _) => write!(f, "over {pairs} paired seeds"),
        }
    }
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<String> = self.answers.iter().map(ToString::to_string).collect();
        let text = format!("{}, {}.", answers.join("; "), self.over);
        // Names of precisions stay as they are.
        let is_word = ["on ", "whether "].iter().any(|word| text.starts_with(word));
        f.write_str(&if is_word { capital(&text) } else { text })?;
        self.references.iter().try_for_each(|said| write!(f, " {said}"))
    }
}

impl fmt::Display for StudyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use StudyStatement::*;
        match self {
            IsWorse { names, reference } => {
                write!(f, "{} worse than {reference} by more than was allowed", are(names))
            }
            IsAsGoodOnExamples { names, reference, diverged, seeds } => write!(
                f,
                "on examples like these {} as good as {reference} within every margin{}",
                are(names),
                where_ended(*diverged, *seeds)
            ),
            IsAsGoodOnSamples { names, reference, diverged, seeds, samples, elsewhere } => write!(
                f,
                "on these {} samples {} as good as {reference} within every margin{}; {}",
                units::count(*samples),
                are(names),
                where_ended(*diverged, *seeds),
                beyond(elsewhere)
            ),
            IsAsGoodOnSamplesOnly { names, reference, diverged, seeds, samples, elsewhere } => write!(
                f,
                "on these {} samples {} as good as {reference}{}; {}",
                units::count(*samples),
                are(names),
                where_ended(*diverged, *seeds),
                beyond(elsewhere)
            ),
            CannotTell { names, reference } => {
                write!(f, "whether {} can take the place of {reference} these runs cannot tell", and(names))
            }
            OnePrecision => f.write_str("There is one precision, and so nothing to compare it with."),
            LossStillFalling { reference, runs, fell, steps } => write!(
                f,
                "The train loss of {reference} was still falling when {} ended, by {fell:.2} over the last {} steps: after \
                 more steps the answer may be another.",
                if *runs == 1 { "its run" } else { "its runs" },
                units::count(*steps)
            ),
            Faster { ratio } => write!(f, "a step is {ratio:.2}× as fast"),
            Slower { ratio } => write!(f, "a step takes {:.2}× the time", 1.0 / ratio),
            LessMemory { saved } => write!(f, "a step needs {:.0} % less scratch memory", saved * 100.0),
            MoreMemory { more } => write!(f, "a step needs {:.0} % more scratch memory", more * 100.0),
            NothingGained => f.write_str(
                "nothing on this processor: a step is no faster and needs no less memory, by 5 % or more.",
            ),
            NoLessMemory => f.write_str("no less memory; times were not measured alike."),
            NoSpeedClaimed => f.write_str("no less memory; no speed is claimed of products that are emulated."),
            NothingShownLost => f.write_str("nothing that these runs can show."),
            OtherSamples => f.write_str("seeds were tested on different samples."),
            NoSeedFinished { policy, reference } => write!(
                f,
                "no seed was finished in both {policy} and {reference}, so quality cannot be compared."
            ),
            SeedsMissing { missing, stated } => {
                write!(f, "{missing} of {stated} stated seeds have not ended, so there is no verdict yet.")
            }
            OnePairOfModels { policy } => {
                write!(f, "one pair says something of these two models, not of training in {policy}.")
            }
            HowOftenItDiverges { diverged, runs, at_most, allowed, clean_runs } => {
                write!(
                    f,
                    "how often a run diverges. {diverged} of {runs} did; at 95 % confidence the chance is at most {}.",
                    units::percent(*at_most, None)
                )?;
                let Some(allowed) = allowed else { return Ok(()) };
                let clean =
                    clean_runs.map_or_else(String::new, |n| format!(", which {n} clean runs show"));
                write!(f, " At most {} is allowed{clean}.", units::percent(*allowed, None))
            }
            RepairTheRecipe => f.write_str(
                "the reference itself diverges: repair the recipe first (a lower rate, a longer warm-up, `halfstep doctor`), \
                 then compare again.",
            ),
            TrainInIt { policy } => write!(
                f,
                "train in {policy} where what it gains is wanted. The verdict holds for this recipe and these data; ask \
                 again when they change."
            ),
            StayWithReference { reference } => write!(
                f,
                "stay with {reference}, or keep the layers that suffer in f32 (`overrides` in [precision]; `halfstep explain` \
                 shows them) and compare again."
            ),
            GoOn { command } => {
                write!(f, "`{command}` goes on from here; what is finished is not made again.")
            }
            TrainTheReference { reference } => write!(
                f,
                "more seeds do not settle it. Train until {reference} has learned something, and compare again."
            ),
            SeedsWouldSettle { command, first_seed, seeds, power, runs, cost, currency } => write!(
                f,
                "`{command}{} --seeds {seeds}` would settle it with a chance of {:.0} % if there is no difference: {runs} more \
                 runs, {}. {}",
                first_seed.map_or_else(String::new, |first| format!(" --first-seed {first}")),
                power * 100.0,
                cost_words(cost, currency),
                match first_seed {
                    None => "Finished runs are not made again.",
                    Some(_) => {
                        "The seeds are new, because no look at these ones is left: state `looks` in [compare] before the \
                         first where seeds may be added."
                    }
                }
            ),
            TakeTwoSeeds => f.write_str("take at least two seeds: one has no spread to judge by."),
            MoreTestData { samples } => write!(
                f,
                "more seeds alone do not settle it: what all seeds do to the same samples takes about {} of them. Give the \
                 recipe more test data; `claim = \"samples\"` in [compare] asks about these samples alone.",
                units::count(*samples)
            ),
            MoreSeedsTell => f.write_str("more seeds would tell how large the difference is."),
            LooksUsedUp { policy, looks, alpha } => write!(
                f,
                "{policy} was judged before with {} seeds, at {:.1} % over all looks.",
                looks.join(", "),
                alpha * 100.0
            ),
            NotSplit { policies, how } => write!(
                f,
                "{} {} computed as fp32 ({}). These runs say nothing about the split itself.",
                policies.join(" and "),
                if policies.len() == 1 { "was" } else { "were" },
                how.join("; ")
            ),
            Emulated { how } => write!(
                f,
                "how fast a step is on a device that has instructions for it. Here its products are {how}."
            ),
            WithoutTheGpu => f.write_str(
                "energy and cost are those of the processor's cores: what the GPU draws is not measured, and comes \
                 on top.",
            ),
            Verdict(said) => said.fmt(f),
            Within(said) => write!(f, "{}.", lower(said)),
            Headline(said) => said.fmt(f),
            Gains(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                write!(f, "{}.", all.join(", and "))
            }
            Of((subject, said)) => write!(f, "{subject}: {said}"),
        }
    }
}

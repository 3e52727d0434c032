//! What commands say of quality beside a verdict: of a model on its test data, of plans, of what
//! the doctor saw.

use std::fmt;

use crate::units;

/// A precision plan that was tried beside fp32.
#[derive(Clone, Debug, PartialEq)]
pub struct TriedPlan {
    /// Its name.
    pub name: String,
    /// Its step time over that of fp32.
    pub time: f64,
    /// Bytes that a step holds.
    pub bytes: usize,
    /// Bytes that it holds in fp32.
    pub fp32_bytes: usize,
    /// By how much of itself the mean validation loss is higher than that of fp32.
    pub loss_increase: f64,
    /// The same of the seed that lost most.
    pub worst_increase: f64,
}

halfstep_train::statements! {
    /// What a command says of quality.
    pub enum CommandStatement {
        /// `eval`: a model is not shown better than the constant predictor.
        ["Tests of NLL, balanced accuracy and AUROC, corrected for their number.",
         "halfstep it claims::eval_says_of_a_model_that_learned_nothing_that_it_is_not_shown_better"]
        NotShownBetter,
        /// `eval`, `stress`, `export`: the run has no list of the samples it was trained on.
        ["The file that a run keeps.", "halfstep it held_out::a_run_of_an_older_version_is_measured_with_a_word_of_caution"]
        CannotBeChecked { run: String },
        /// The test data are others than the run held out, and none was trained on.
        ["Hashes of samples.",
         "halfstep it held_out::test_data_of_their_own_may_change_but_hold_nothing_that_was_trained_on"]
        NoneTrainedOn { run: String, samples: u64 },
        /// `predict` with labels: the run has no list of the samples it was trained on.
        ["The file that a run keeps.", "halfstep bin cli::predict::known::tests::what_was_trained_on_is_said"]
        PredictionsCannotBeChecked,
        /// `predict` with labels: samples are among those that the model was trained on.
        ["Hashes of samples.", "halfstep it held_out::predictions_of_samples_that_were_trained_on_are_counted_apart"]
        PredictionsTrainedOn { known: u64, all: u64 },
        /// `train`: as many evaluations as `patience` allows were no better than the best.
        ["Losses of validation samples.", "train it checkpoints::a_run_that_no_longer_gets_better_ends_and_stays_ended"]
        StoppedNoBetter { step: u64, patience: u64 },
        /// `doctor`: a step failed.
        ["That the run diverged or skipped as many steps as [doctor] says.",
         "train it doctor_run::an_examination_finds_the_step_a_run_fails_at"]
        RunFails { step: u64 },
        /// `doctor`: no step failed, nothing was found, and the model begins to learn.
        ["The losses of training samples.", "halfstep it claims::the_doctors_first_line_is_what_the_losses_show"]
        TooEarlyToSay { step: u64 },
        /// `doctor`: no step failed, nothing was found, and the model learns.
        ["The losses of training samples.", "halfstep it claims::the_doctors_first_line_is_what_the_losses_show"]
        NothingWrong { step: u64 },
        /// `doctor`: no step failed, and a cause was found.
        ["The cause.", "halfstep it claims::the_doctors_first_line_is_what_the_losses_show"]
        SomethingWrong { step: u64 },
        /// `tune`: the cheapest plan within the limits.
        ["Plans trained side by side with fp32.", "train it tune::a_plan_saves_what_it_says_and_keeps_to_the_limit"]
        BestPlan { plan: TriedPlan },
        /// `tune`, in the file of a plan: what was measured, and that it is no verdict.
        ["The same trainings.", "train it tune::a_plan_saves_what_it_says_and_keeps_to_the_limit"]
        PlanMeasured { plan: TriedPlan, steps: u64, seeds: u64 },
        /// `tune`: no plan within the limits saves anything.
        ["The same trainings.", "train it tune::a_plan_slower_than_allowed_is_refused"]
        NoPlan { saves: &'static str, loss: f64, time: f64 },
        /// `compare --plan`: the heading of seeds and samples needed.
        ["The noncentral t distribution.",
         "evidence lib noninferiority::tests::without_a_difference_the_power_is_as_planned"]
        WhatAPassTakes { arm: String, power: f64 },
        /// `compare --plan`: no spread was measured or given.
        ["The plan by the ratio of spread and margin.", "evidence lib power::tests::the_table_of_seeds"]
        SpreadUnknown { seeds: Vec<(usize, f64)> },
        /// `compare --plan`: the chance of passing all margins as the recipe is.
        ["A lower bound of the joint power: one less what each metric loses (Bonferroni).",
         "evidence lib power::tests::limits"]
        PassesAsStated { policy: String, seeds: u64, samples: u64, at_least: f64 },
        /// `compare --plan`: a greatest chance to diverge was stated.
        ["(1 − chance)^n ≤ α.", "evidence lib exact::tests::fifty_nine_clean_runs_for_five_per_cent"]
        CleanRunsNeeded { runs: u64 },
    }
    made of them {}
}

/// Over that of fp32.
pub fn ratio(x: f64) -> String {
    if x.is_finite() { format!("{x:.2}×") } else { "–".into() }
}

/// A relative change with its sign.
pub fn change(x: f64) -> String {
    if x.is_finite() { format!("{:+.2} %", x * 100.0) } else { "diverged".into() }
}

fn limit(x: f64) -> String {
    format!("{:.3}", x * 100.0).trim_end_matches('0').trim_end_matches('.').to_string() + " %"
}

impl fmt::Display for CommandStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CommandStatement::*;
        match self {
            NotShownBetter => f.write_str(
                "This model is not shown better than a constant predictor, which gives every sample the class frequencies of \
                 these labels: not in loss, balanced accuracy or AUROC.",
            ),
            CannotBeChecked { run } => write!(
                f,
                "{run} does not say which samples its model was trained on (it was made by an older version, or its weights \
                 were imported): whether test samples are among them cannot be checked"
            ),
            NoneTrainedOn { run, samples } => write!(
                f,
                "the test data have changed since {run}: {} samples are measured, none of which its model was trained on",
                units::count(*samples)
            ),
            PredictionsCannotBeChecked => f.write_str(
                "the run does not say which samples its model was trained on: how many of these are among them cannot be \
                 checked",
            ),
            PredictionsTrainedOn { known, all } => write!(
                f,
                "the model was trained on {} of these {} samples, or chosen by them: how often it is right about those says \
                 nothing about new ones",
                units::count(*known),
                units::count(*all)
            ),
            StoppedNoBetter { step, patience } => write!(
                f,
                "Ended early, after step {}: {patience} evaluations in a row were no better.",
                units::count(*step)
            ),
            RunFails { step } => write!(f, "The run fails at step {}.", units::count(*step)),
            TooEarlyToSay { step } => write!(
                f,
                "No step failed up to step {}; it is too early to say whether the model learns.",
                units::count(*step)
            ),
            NothingWrong { step } => {
                write!(f, "No step failed up to step {}, and the model learns.", units::count(*step))
            }
            SomethingWrong { step } => {
                write!(f, "No step failed up to step {}, but something is wrong.", units::count(*step))
            }
            BestPlan { plan } => write!(
                f,
                "The best within the limits is `{}`: {} of fp32's time, {} where fp32 needs {}, validation loss {}.",
                plan.name,
                ratio(plan.time),
                units::bytes(plan.bytes),
                units::bytes(plan.fp32_bytes),
                change(plan.loss_increase)
            ),
            PlanMeasured { plan, steps, seeds } => write!(
                f,
                "The plan `{}`, against fp32 over {steps} steps with {}: a step takes {} of its time and {},\n\
                 the validation loss is {} ({} at worst). A short training is no verdict: `halfstep compare` gives one.",
                plan.name,
                if *seeds == 1 { "one seed".into() } else { format!("{seeds} seeds") },
                ratio(plan.time),
                units::bytes(plan.bytes),
                change(plan.loss_increase),
                change(plan.worst_increase)
            ),
            NoPlan { saves, loss, time } => write!(
                f,
                "No plan is written: on this machine none saves {saves} within a rise of {} in loss and {} in time. Keep \
                 fp32.",
                limit(*loss),
                limit(*time)
            ),
            WhatAPassTakes { arm, power } => write!(
                f,
                "{arm}: what a chance of {:.0} % to pass without any difference takes",
                power * 100.0
            ),
            SpreadUnknown { seeds } => {
                let list: Vec<String> = seeds.iter().map(|(n, at)| format!("{n} at {at}")).collect();
                write!(
                    f,
                    "Nothing is known yet of the spread. Seeds by its ratio to the margin: {}. Two or three seeds made \
                     first tell, which is a look: state `looks = 2` before.",
                    list.join(", ")
                )
            }
            PassesAsStated { policy, seeds, samples, at_least } => write!(
                f,
                "{policy}: as stated ({seeds} seeds, {} test samples) all margins hold with a chance of at least {:.0} %.",
                units::count(*samples),
                at_least * 100.0
            ),
            CleanRunsNeeded { runs } => {
                write!(f, "`max_divergence` takes {runs} clean runs of each precision to show.")
            }
        }
    }
}

//! What the doctor says of learning: whether a model does, and whether a fix brought that about.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::short;

crate::statements! {
    /// Whether a model learns, and what helped.
    pub enum LearningStatement {
        /// Of some steps: the loss of training samples lies below the constant predictor's, row by
        /// row.
        ["A paired comparison of losses: by more than three standard errors.",
         "train it learning::what_learns_is_said_to_and_what_does_not_is_not"]
        Learns { seen: Losses },
        /// The loss has fallen, and at its speed would pass the constant predictor's by the end of
        /// the run, or of one five times as long.
        ["The same comparison with the losses before and halfway, and the speed of the second half.",
         "train it learning::what_learns_is_said_to_and_what_does_not_is_not"]
        BeginsToLearn { seen: Losses },
        /// Neither.
        ["The same comparisons.", "train it learning::what_learns_is_said_to_and_what_does_not_is_not"]
        DoesNotLearn { seen: Losses },
        /// The model does not learn, no value left its range and nothing that was tried helped.
        ["Every value of the last step beside the range of its format, and the losses.",
         "train it learning::what_does_not_learn_without_a_cause_has_losses_in_place_of_one"]
        DoesNotLearnInRange { loss: f64, constant: f64, fp32: Option<f64> },
        /// A copy with the fix learns.
        ["A training of the copy: no step fails, and its loss lies below the constant predictor's; where a limit was set, \
          below that too.",
         "train it learning::a_fix_that_is_said_to_work_does_when_it_is_made"]
        FixWorked { steps: u64, loss: f64, constant: f64 },
        /// No step of a copy with the fix fails, and it is not known whether it learns; nor whether
        /// it does better than without, unless that is said.
        ["A training of the copy of too few steps, and a paired comparison of losses with the run without the fix.",
         "train it learning::after_a_few_steps_a_fix_is_finite_and_no_more"]
        FixFinite { steps: u64, loss: f64, constant: f64, without: Without },
        /// A copy with the fix fails or does not learn.
        ["A training of the copy.", "train it learning::what_does_not_help_is_said_to_be_no_help"]
        FixNoHelp { fix: String, failed_at: Option<u64>, loss: f64 },
        /// A fix was tried, and with it no step failed; the others are not tried.
        ["The trial of the first.", "train it learning::a_fix_that_is_said_to_work_does_when_it_is_made"]
        FirstFixHolds,
        /// The exceptions of the recipe are to blame: f32 learns more, and so does a copy without
        /// them.
        ["A training without the exceptions.", "train it learning::exceptions_that_harm_are_named"]
        LearnsLessWithExceptions,
        /// The precision is to blame: the same run in f32 learns, or learns more, by more than
        /// three standard errors.
        ["A training in f32.", "train it learning::a_precision_that_does_not_train_a_model_is_named"]
        PrecisionDoesNotTrainIt { policy: String },
        /// The learning rate is to blame: a copy with another was tried.
        ["Trainings with other rates.", "train it learning::what_learns_is_said_to_and_what_does_not_is_not"]
        NotAtThisRate { lr: String },
        /// Parameters that are frozen or slowed are to blame: a copy without groups was tried.
        ["A training of all parameters alike.", "train it learning::parameters_that_do_not_move_are_named"]
        TooLittleMoves,
    }
    made of them {}
}

/// What a run came to without the fix, in as many steps as its copy had up to there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Without {
    /// A step of it failed, or its loss is not finite.
    Failed {
        /// Steps up to there.
        steps: u64,
    },
    /// Its loss is higher than the copy's, by more than three standard errors over the samples.
    Higher {
        /// Its mean loss.
        loss: f64,
        /// The copy's after as many steps.
        with: f64,
        /// How many these are.
        steps: u64,
    },
    /// Its loss is not known to be higher.
    NotHigher {
        /// Its mean loss.
        loss: f64,
        /// The copy's after as many steps.
        with: f64,
        /// How many these are.
        steps: u64,
    },
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Without::Failed { steps } => write!(f, "without the fix the run fails within {steps} steps"),
            Without::Higher { loss, with, steps } => write!(
                f,
                "after {steps} steps it is {}, below the {} without the fix by more than three standard errors",
                short(*with),
                short(*loss)
            ),
            Without::NotHigher { loss, with, steps } => write!(
                f,
                "after {steps} steps it is {}, not below the {} without the fix by more than chance",
                short(*with),
                short(*loss)
            ),
        }
    }
}

/// What some steps made of the loss of training samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Steps.
    pub steps: u64,
    /// Before them.
    pub before: f64,
    /// After them.
    pub after: f64,
    /// That of the constant predictor.
    pub constant: f64,
    /// That of the same run in f32, where it was made.
    pub fp32: Option<f64>,
}

fn in_f32(fp32: Option<f64>) -> String {
    fp32.map_or(String::new(), |fp32| format!(", that of the same run in f32 {}", short(fp32)))
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} steps the loss of training samples went from {} to {}; that of the constant predictor is {}{}",
            self.steps,
            short(self.before),
            short(self.after),
            short(self.constant),
            in_f32(self.fp32)
        )
    }
}

impl fmt::Display for LearningStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LearningStatement::*;
        match self {
            Learns { seen } => write!(f, "{seen}: the model learns"),
            BeginsToLearn { seen } => {
                write!(f, "{seen}: it falls, and it is too early to say whether it falls far enough")
            }
            DoesNotLearn { seen } => write!(f, "{seen}: the model does not learn"),
            DoesNotLearnInRange { loss, constant, fp32 } => write!(
                f,
                "the model does not learn, and every value was in range: the loss of training samples is {}, that of the \
                 constant predictor {}{}",
                short(*loss),
                short(*constant),
                in_f32(*fp32)
            ),
            FixWorked { steps, loss, constant } => write!(
                f,
                "tried on a copy: it worked; after {steps} steps the loss is {}, that of the constant predictor {}",
                short(*loss),
                short(*constant)
            ),
            FixFinite { steps, loss, constant, without } => write!(
                f,
                "tried on a copy: {steps} steps were finite, and the loss is {}, which is not below the constant \
                 predictor's {} by more than chance; {without}; these steps are too few to say whether it learns, `halfstep doctor \
                 --thorough` tries more",
                short(*loss),
                short(*constant)
            ),
            FixNoHelp { fix, failed_at, loss } => {
                write!(f, "tried on a copy, and no help: {fix} (")?;
                match failed_at {
                    Some(step) => write!(f, "step {step} fails too)"),
                    None => write!(f, "the loss is {})", short(*loss)),
                }
            }
            FirstFixHolds => f.write_str("with the one before it no step failed"),
            LearnsLessWithExceptions => f.write_str("the model learns less with the exceptions than without"),
            PrecisionDoesNotTrainIt { policy } => {
                write!(f, "{policy} does not train this model as f32 does")
            }
            NotAtThisRate { lr } => write!(f, "at {lr} the model does not learn"),
            TooLittleMoves => f.write_str("what may move is not enough for the model to learn"),
        }
    }
}

//! What the doctor found, as it is printed and kept.

use std::fmt;

use halfstep_graph::{DType, Phase};
use serde::{Deserialize, Serialize};

use super::fix::Fix;
use super::statements::LearningStatement;
use super::text::{pass, percent, short};
use crate::scaler::LossScale;

/// The first value that left the range of its format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Where in the model it stands.
    pub name: String,
    /// The operation that makes it.
    pub op: String,
    /// Which part of the step.
    pub phase: Phase,
    /// How it is stored.
    pub format: DType,
    /// Largest finite number of that format.
    pub largest: f64,
    /// Smallest number above zero of that format.
    pub smallest: f64,
    /// Largest magnitude of the same value in f32; none where f32 does not hold it either.
    pub found_largest: Option<f64>,
    /// Smallest magnitude above zero of the same value in f32.
    pub found_smallest: Option<f64>,
    /// Elements that are not finite, or were flushed to zero.
    pub bad: u64,
    /// Elements.
    pub count: u64,
    /// What is known besides of a cast to codes of 8 or 4 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cast: Option<CodeCast>,
}

/// A cast of a product's operand to codes of 8 or 4 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeCast {
    /// The layer whose product reads the codes.
    pub layer: String,
    /// Which operand: `input`, `weight` or `gradient`.
    pub operand: String,
    /// Format of the codes, as `ml_dtypes` names it.
    pub codes: String,
    /// What the tensor is multiplied by before it is rounded; none in blocks, each of which has a
    /// scale of its own.
    pub scale: Option<f64>,
    /// The largest magnitude that finds room beside that scale.
    pub room: Option<f64>,
    /// The largest magnitude of the tensor.
    pub amax: f64,
    /// Share of the elements that lie beyond the room.
    pub saturated: f64,
    /// Share of the elements that are not zero and become zero.
    pub flushed: f64,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// A sample of the batch is not finite, or beyond what its format or the arithmetic on it
    /// holds.
    BadInput {
        /// Its place in the batch.
        sample: usize,
        /// The number's place in the sample.
        element: usize,
        /// The number, as text: JSON knows neither NaN nor infinity.
        value: String,
    },
    /// State held NaN or infinity before the step.
    BadState {
        /// Its name.
        slot: String,
    },
    /// State held what it cannot be before the step: a negative mean of squares.
    ImpossibleState {
        /// Its name.
        slot: String,
        /// The least of its numbers.
        value: f64,
        /// What it is.
        what: String,
    },
    /// A setting of the recipe keeps the model from learning.
    Setting {
        /// Its section.
        section: String,
        /// Its key.
        key: String,
        /// What it does.
        why: String,
    },
    /// A weight that the run was given is of another size than training can do with.
    Outsized {
        /// Its name.
        slot: String,
        /// Its root mean square, over that of the weight that a run would begin with.
        times: f64,
        /// What follows from it, if it was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A layer puts out zeros for every sample.
    DeadLayer {
        /// The operation whose result is zero.
        layer: String,
    },
    /// The model does not learn, and no cause was found.
    DoesNotLearn {
        /// Mean loss of training samples after the last step.
        loss: f64,
        /// That of the constant predictor.
        constant: f64,
        /// That of the same run in f32; none where it was not made.
        fp32: Option<f64>,
    },
    /// A constant of the model is beyond its format's range, or rounds to zero in it.
    Constant {
        /// The constant.
        value: f64,
    },
    /// Without the loss scale, or at a lower one, the gradients fit.
    ScaleTooHigh {
        /// The scale of the step.
        scale: f64,
        /// The largest power of two at which a replay of the step was finite.
        fits: f64,
    },
    /// Gradients are flushed to zero, and at a higher scale they are not.
    ScaleTooLow {
        /// The scale of the step.
        scale: f64,
        /// A power of two at which a replay of the step kept them.
        keeps: f64,
    },
    /// f32 holds the value and its format does not.
    OutOfRange,
    /// f32 keeps the value above zero and its format does not.
    Underflow,
    /// The scale of a tensor's codes was made for other magnitudes than it has in this step.
    StaleScale {
        /// The scale of the step.
        scale: f64,
        /// The one that would have fitted.
        fits: f64,
        /// The largest magnitude that the scale was made for; none where no step before had any.
        recorded: Option<f64>,
        /// That of this step.
        amax: f64,
    },
    /// A history that is full, and has swings as large as that which its scale did not foresee.
    ShortHistory {
        /// Steps that are remembered.
        steps: usize,
        /// The largest magnitude among them.
        recorded: f64,
        /// The smallest.
        least: f64,
        /// That of this step.
        amax: f64,
    },
    /// The magnitudes that share a scale lie further apart than those of its format.
    TooWide {
        /// The smallest above zero.
        smallest: f64,
        /// The largest.
        largest: f64,
    },
    /// Training made the weights so large that the loss is worse than it was at the beginning.
    ExplodedWeights {
        /// The setting of the optimiser that made the updates large, as it is written.
        setting: String,
        /// The weight that grew most.
        slot: String,
        /// By what factor, as root mean square.
        grown: f64,
    },
    /// The same value is not finite in f32 either: no format helps.
    NotFiniteInF32,
    /// The operands are in range; rounded to their format, they no longer differ where they do in
    /// f32, and the difference cancels.
    Rounding,
    /// No value left its range.
    Nothing,
}

/// What a replay of a step showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The precision policy.
    pub policy: String,
    /// The seed of the run.
    pub seed: u64,
    /// Steps tried before this one.
    pub attempt: u64,
    /// Loss scale of the step.
    pub scale: f64,
    /// Loss of the batch in the policy; none if it is not finite.
    pub loss: Option<f64>,
    /// The first value out of range, in execution order.
    pub finding: Option<Finding>,
    /// Why.
    pub cause: Cause,
    /// What each replay showed.
    pub evidence: Vec<String>,
    /// What would fix it, the likeliest first.
    pub fixes: Vec<Fix>,
}

impl fmt::Display for CodeCast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CodeCast { layer, operand, codes, .. } = self;
        let (amax, beyond, flushed) = (short(self.amax), percent(self.saturated), percent(self.flushed));
        write!(f, "cast of the {operand} of {layer} to {codes}")?;
        match (self.scale.map(short), self.room.map(short)) {
            (Some(scale), Some(room)) => write!(
                f,
                ", scaled by {scale}: it holds up to {amax}, where that leaves room up to {room}; {beyond} of its elements \
                 lie beyond, and {flushed} of those that are not zero become zero"
            ),
            _ => write!(
                f,
                ", with a scale for each block: it holds up to {amax}, and {flushed} of its elements that are not zero \
                 become zero"
            ),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cast) = &self.cast {
            return write!(f, "{cast}, in the {}", pass(self.phase));
        }
        let Finding { op, phase, format, bad, count, .. } = self;
        let name = if self.name.is_empty() { "the model" } else { &self.name };
        write!(f, "{op} of {name} in the {}, stored as {format}: {bad} of {count} elements", pass(*phase))?;
        match (self.found_largest, self.found_smallest) {
            (Some(largest), _) if largest > self.largest => {
                write!(f, ", up to {} where {format} ends at {}", short(largest), short(self.largest))
            }
            (Some(_), Some(smallest)) if smallest < self.smallest => {
                write!(f, ", down to {} where {format} ends at {}", short(smallest), short(self.smallest))
            }
            (Some(largest), _) => write!(f, ", in f32 up to {}", short(largest)),
            (None, _) => write!(f, ", not finite in f32 either"),
        }
    }
}

impl Cause {
    /// In a few words.
    pub fn sentence(&self) -> String {
        match self {
            Cause::BadInput { sample, element, value } => {
                format!("bad input: sample {sample} of the batch holds {value} (element {element})")
            }
            Cause::BadState { slot } => format!("`{slot}` held NaN or infinity before the step"),
            Cause::ImpossibleState { slot, value, what } => {
                format!("`{slot}` held {} before the step, and {what} cannot be negative", short(*value))
            }
            Cause::Setting { section, key, why } => format!("`{key}` in [{section}]: {why}"),
            Cause::Outsized { slot, times, why } => {
                let size = match *times {
                    0.0 => "is all zero".to_string(),
                    t if t.is_infinite() => "is not zero, as that of a run without given weights".into(),
                    t => format!("is {} times as large as that of a run without given weights", short(t)),
                };
                let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
                format!("`{slot}` of the weights that the run began with {size}{why}")
            }
            Cause::DeadLayer { layer } => {
                format!("`{layer}` is zero for every sample: no gradient passes it, and it stays so")
            }
            Cause::DoesNotLearn { loss, constant, fp32 } => {
                let (loss, constant, fp32) = (*loss, *constant, *fp32);
                LearningStatement::DoesNotLearnInRange { loss, constant, fp32 }.to_string()
            }
            Cause::Constant { value } => {
                format!("the constant {value:e} of the model does not fit the format it is stored in")
            }
            Cause::ScaleTooHigh { scale, fits } => {
                let (scale, fits) = (short(*scale), short(*fits));
                format!("`loss_scale`: the loss scale {scale} is too high; at {fits} the step is finite")
            }
            Cause::ScaleTooLow { scale, keeps } => {
                let (scale, keeps) = (short(*scale), short(*keeps));
                format!(
                    "`loss_scale`: the loss scale {scale} is too low, and gradients become zero; at {keeps} they do not"
                )
            }
            Cause::OutOfRange => "the operation's result is out of range of its format; f32 holds it".into(),
            Cause::Underflow => "the operation's result is too small for its format; f32 holds it".into(),
            Cause::StaleScale { scale, fits, recorded, amax } => {
                let (scale, fits, amax) = (short(*scale), short(*fits), short(*amax));
                let why = match recorded.map(short) {
                    Some(made_for) => {
                        format!("is stale: it was made for magnitudes up to {made_for}, and this step's")
                    }
                    None => "has no history yet; this step's magnitudes".into(),
                };
                format!("the scale {scale} {why} reach {amax}, which {fits} would fit")
            }
            Cause::ShortHistory { steps, recorded, least, amax } => {
                let (recorded, least, amax) = (short(*recorded), short(*least), short(*amax));
                let between = format!("its largest magnitudes lie between {least} and {recorded}");
                format!("the history of {steps} steps is too short: {between}, and this step's is {amax}")
            }
            Cause::TooWide { smallest, largest } => {
                let (from, to) = (short(*smallest), short(*largest));
                format!("magnitudes from {from} to {to} lie further apart than one scale and its format hold")
            }
            Cause::ExplodedWeights { setting, slot, grown } => format!(
                "`{setting}` in [optimiser] is too high: the weights have exploded, and `{slot}` is {} times as large as \
                 when the run began",
                short(*grown)
            ),
            Cause::NotFiniteInF32 => "it is not finite in f32 either: no format helps".into(),
            Cause::Rounding => {
                "cancellation: its operands are in range, but rounded to their format they no longer differ"
                    .into()
            }
            Cause::Nothing => "none was found".into(),
        }
    }
}

impl Diagnosis {
    /// Whether the step fails by a loss scale that goes on falling until it fits.
    pub(crate) fn recovers(&self, scaling: &LossScale) -> bool {
        match &self.cause {
            Cause::ScaleTooHigh { scale, .. } => scaling.can_fall(*scale as f32),
            _ => false,
        }
    }

    /// What was found, in one sentence.
    pub fn sentence(&self) -> String {
        match &self.finding {
            Some(finding) => format!("{}; first out of range: {finding}", self.cause.sentence()),
            None => self.cause.sentence(),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = self.loss.map_or("not finite".into(), short);
        writeln!(
            f,
            "attempt {} in {}, seed {}: loss {loss}, loss scale {}",
            self.attempt,
            self.policy,
            self.seed,
            short(self.scale)
        )?;
        if let Some(finding) = &self.finding {
            writeln!(f, "first out of range: {finding}")?;
        }
        writeln!(f, "cause: {}", self.cause.sentence())?;
        for evidence in &self.evidence {
            writeln!(f, "  · {evidence}")?;
        }
        for fix in &self.fixes {
            writeln!(f, "try: {fix}")?;
        }
        Ok(())
    }
}

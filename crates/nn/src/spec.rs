//! Models as a recipe describes them.

use serde::{Deserialize, Serialize};

use crate::Model;
use crate::input::InputSpec;
use crate::models::{Cnn, Gpt, Mlp, Resnet18};

/// Sizes beyond this are taken for mistakes: no dimension of a model that fits a computer's memory
/// is larger.
const LARGEST: usize = 1 << 24;
/// Layers beyond this as well: a program of so many takes longer to put together than to wait for.
const MOST_LAYERS: usize = 4096;

/// Sizes of an `mlp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpSpec {
    /// Widths of the hidden layers; none makes a linear classifier.
    pub hidden: Vec<usize>,
}

impl Default for MlpSpec {
    fn default() -> MlpSpec {
        MlpSpec { hidden: vec![1024, 1024] }
    }
}

/// Sizes of a `cnn`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CnnSpec {
    /// Output channels of each stage; a stage halves height and width.
    pub channels: Vec<usize>,
    /// Width of the hidden layer after the stages.
    pub hidden: usize,
}

impl Default for CnnSpec {
    fn default() -> CnnSpec {
        CnnSpec { channels: vec![16, 32], hidden: 128 }
    }
}

/// Sizes of a `resnet18`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resnet18Spec {
    /// Channels of the first stage; the others have two, four and eight times as many.
    pub width: usize,
}

impl Default for Resnet18Spec {
    fn default() -> Resnet18Spec {
        Resnet18Spec { width: 64 }
    }
}

/// Sizes of a `gpt`. Sequence length and vocabulary come from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GptSpec {
    /// Numbers per token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Probability of zero after the embedding and both parts of a block.
    pub dropout: f64,
    /// Between the two linear layers of a block.
    pub activation: GptActivation,
}

/// The function between the linear layers of a `gpt`'s block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GptActivation {
    /// x·Φ(x), exact.
    #[default]
    Gelu,
    /// GPT-2's approximation of it by tanh.
    GeluTanh,
}

impl Default for GptSpec {
    fn default() -> GptSpec {
        GptSpec { width: 384, layers: 6, heads: 6, dropout: 0.0, activation: GptActivation::Gelu }
    }
}

/// A model and its sizes, as a recipe gives them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelSpec {
    /// Linear layers with ReLU.
    Mlp(MlpSpec),
    /// A small convolutional net.
    Cnn(CnnSpec),
    /// ResNet-18 for small images.
    Resnet18(Resnet18Spec),
    /// A decoder-only transformer.
    Gpt(GptSpec),
}

/// Why a model cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// A size out of range.
    #[error("`{field}` of model `{model}` is {found}; expected {expected}")]
    Size {
        /// The model's kind.
        model: &'static str,
        /// The key in the recipe.
        field: &'static str,
        /// What was given.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The data do not have the form the model takes.
    #[error("model `{model}` takes {expected}; the data are {found}")]
    Input {
        /// The model's kind.
        model: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What the data are.
        found: String,
        /// A model that takes such data.
        instead: &'static str,
    },
    /// The images are too small for the number of stages.
    #[error(
        "`channels` of model `cnn` has {stages} stages, each halving the image; {height}×{width} pixels last for {most}"
    )]
    Stages {
        /// Stages asked for.
        stages: usize,
        /// Height of the images.
        height: usize,
        /// Width of the images.
        width: usize,
        /// Stages possible.
        most: u32,
    },
    /// The number of outputs does not fit.
    #[error("model `{model}` would have {found} outputs; expected {expected}")]
    Outputs {
        /// The model's kind.
        model: &'static str,
        /// What was given.
        found: usize,
        /// What would do.
        expected: String,
    },
}

impl ModelError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ModelError::Size { field, expected, .. } => format!("set `{field}` to {expected}"),
            ModelError::Input { instead, .. } => format!("for such data use kind = \"{instead}\""),
            ModelError::Stages { most: 0, .. } => "use kind = \"mlp\" for such small images".into(),
            ModelError::Stages { most, .. } => format!("list at most {most} stages, or resize the images"),
            ModelError::Outputs { .. } => "check the classes or the tokeniser of the data".into(),
        }
    }

    /// The key of the recipe's model section that is at fault, if one is.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            ModelError::Size { field, .. } => Some(field),
            ModelError::Input { .. } => Some("kind"),
            ModelError::Stages { .. } => Some("channels"),
            ModelError::Outputs { .. } => None,
        }
    }
}

impl ModelSpec {
    /// Every kind's name.
    pub const KINDS: [&'static str; 4] = ["mlp", "cnn", "resnet18", "gpt"];

    /// The name of this kind.
    pub fn kind(&self) -> &'static str {
        match self {
            ModelSpec::Mlp(_) => "mlp",
            ModelSpec::Cnn(_) => "cnn",
            ModelSpec::Resnet18(_) => "resnet18",
            ModelSpec::Gpt(_) => "gpt",
        }
    }

    /// Whether a model of these sizes for such data makes sense; `outputs` is the number of classes
    /// or tokens.
    ///
    /// # Errors
    /// As [`ModelError`] lists.
    pub fn validate(&self, input: &InputSpec, outputs: usize) -> Result<(), ModelError> {
        self.build(input, outputs).map(|_| ())
    }

    /// The model for such data; `outputs` is the number of classes, or of tokens for a `gpt`.
    ///
    /// # Errors
    /// A size out of range; data of another form than the model takes; images too small.
    pub fn build(&self, input: &InputSpec, outputs: usize) -> Result<Box<dyn Model>, ModelError> {
        let model = self.kind();
        if outputs == 0 || outputs > LARGEST {
            return Err(ModelError::Outputs { model, found: outputs, expected: "at least 1".into() });
        }
        let wrong = |field, found: String, expected| ModelError::Size { model, field, found, expected };
        let size = |field, found: usize| match found {
            1..=LARGEST => Ok(()),
            _ => Err(wrong(field, found.to_string(), format!("a size from 1 to {LARGEST}"))),
        };
        let layers = |field, found: usize| match found {
            0..=MOST_LAYERS => Ok(()),
            _ => Err(wrong(field, format!("{found} layers"), format!("at most {MOST_LAYERS} of them"))),
        };
        match (self, input) {
            (ModelSpec::Mlp(spec), InputSpec::Features { .. } | InputSpec::Image { .. }) => {
                layers("hidden", spec.hidden.len())?;
                spec.hidden.iter().try_for_each(|&w| size("hidden", w))?;
                let widths = [&[input.elements()], spec.hidden.as_slice(), &[outputs]].concat();
                Ok(Box::new(Mlp::new(&widths)))
            }
            (ModelSpec::Cnn(spec), &InputSpec::Image { height, width, channels }) => {
                spec.channels.iter().try_for_each(|&c| size("channels", c))?;
                size("hidden", spec.hidden)?;
                let most = height.min(width).checked_ilog2().unwrap_or(0);
                if spec.channels.len() > most as usize {
                    return Err(ModelError::Stages { stages: spec.channels.len(), height, width, most });
                }
                let image = (height, width, channels);
                Ok(Box::new(Cnn::new(image, &spec.channels, spec.hidden, outputs)))
            }
            (ModelSpec::Resnet18(spec), &InputSpec::Image { channels, .. }) => {
                size("width", spec.width)?;
                Ok(Box::new(Resnet18::new(spec.width, outputs, channels)))
            }
            (ModelSpec::Gpt(spec), &InputSpec::Tokens { length, vocab }) => {
                size("width", spec.width)?;
                size("layers", spec.layers)?;
                layers("layers", spec.layers)?;
                size("heads", spec.heads)?;
                if !spec.width.is_multiple_of(spec.heads) {
                    let expected = format!("a divisor of the width, {}", spec.width);
                    return Err(wrong("heads", spec.heads.to_string(), expected));
                }
                if !(0.0..1.0).contains(&spec.dropout) {
                    let expected = "a probability from 0 up to but not 1".into();
                    return Err(wrong("dropout", spec.dropout.to_string(), expected));
                }
                if outputs != vocab {
                    let expected = format!("the vocabulary's {vocab}, for the head is tied to its table");
                    return Err(ModelError::Outputs { model, found: outputs, expected });
                }
                Ok(Box::new(Gpt::new(vocab, length, spec)))
            }
            (ModelSpec::Mlp(_), _) => Err(misfit(model, "rows of numbers or images", input)),
            (ModelSpec::Cnn(_) | ModelSpec::Resnet18(_), _) => Err(misfit(model, "images", input)),
            (ModelSpec::Gpt(_), _) => Err(misfit(model, "sequences of tokens", input)),
        }
    }
}

fn misfit(model: &'static str, expected: &'static str, input: &InputSpec) -> ModelError {
    let instead = match input {
        InputSpec::Features { .. } => "mlp",
        InputSpec::Image { .. } => "cnn",
        InputSpec::Tokens { .. } => "gpt",
    };
    ModelError::Input { model, expected, found: input.describe(), instead }
}

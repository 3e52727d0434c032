//! The models of `halfstep bench step`, at the sizes that are measured.

use halfstep_graph::precision::Policy;
use halfstep_nn::{GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};
use halfstep_train::optimiser::{AdamW, Optimiser};
use halfstep_train::session::SessionSpec;

/// A model, what it takes and how many samples.
pub struct Measured {
    pub model: Box<dyn Model>,
    pub input: InputSpec,
    #[allow(dead_code, reason = "only estimates need it")]
    pub classes: u32,
    batch: usize,
}

/// A model by the name that `bench step` has for it.
///
/// # Errors
/// There is none of this name.
pub fn measured(name: &str) -> Result<Measured, String> {
    let (spec, input, classes, batch) = match name {
        "mlp" => {
            let spec = ModelSpec::Mlp(MlpSpec { hidden: vec![1024, 1024] });
            (spec, InputSpec::Features { width: 784 }, 10, 256)
        }
        "gpt" => {
            let spec = GptSpec { width: 384, layers: 6, heads: 6, ..GptSpec::default() };
            (ModelSpec::Gpt(spec), InputSpec::Tokens { length: 256, vocab: 256 }, 256, 8)
        }
        "resnet18" => {
            let input = InputSpec::Image { height: 32, width: 32, channels: 3 };
            (ModelSpec::Resnet18(Resnet18Spec { width: 64 }), input, 10, 64)
        }
        other => return Err(format!("no model is called `{other}`: mlp, gpt, resnet18")),
    };
    let model = spec.build(&input, classes).map_err(|e| e.to_string())?;
    Ok(Measured { model, input, classes: classes as u32, batch })
}

impl Measured {
    /// How it is trained.
    pub fn spec(&self, policy: &Policy) -> SessionSpec {
        let optimiser = Optimiser::AdamW(AdamW { lr: 1e-4, ..AdamW::default() });
        SessionSpec { optimiser, ..SessionSpec::new(policy, self.batch, 0) }
    }
}

//! Every reference model, as small as it can be and still have all of its parts.

use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};

/// A model, and what goes into it.
pub struct Case {
    pub name: &'static str,
    pub model: Box<dyn Model>,
    pub input: InputSpec,
}

/// One of each, with five classes or tokens: the ResNet with `width` channels in its first stage,
/// the GPT with `dropout`.
pub fn cases(width: usize, dropout: f64) -> Vec<Case> {
    let case = |spec: ModelSpec, input: InputSpec| Case {
        name: spec.kind(),
        model: spec.build(&input, 5).unwrap(),
        input,
    };
    let image = |channels| InputSpec::Image { height: 9, width: 8, channels };
    vec![
        case(ModelSpec::Mlp(MlpSpec { hidden: vec![17] }), image(1)),
        case(ModelSpec::Cnn(CnnSpec { channels: vec![3, 5], hidden: 7 }), image(1)),
        case(ModelSpec::Resnet18(Resnet18Spec { width }), image(3)),
        case(
            ModelSpec::Gpt(GptSpec { width: 12, layers: 2, heads: 3, dropout, ..GptSpec::default() }),
            InputSpec::Tokens { length: 7, vocab: 5 },
        ),
    ]
}

//! Sizes, names and parameter counts of the reference models.

use halfstep_graph::{Graph, GraphError, Init, Op, Phase, SlotKind, ValueId, When};
use halfstep_nn::layers::{BatchNorm, Linear};
use halfstep_nn::{
    CnnSpec, Context, GptSpec, InputSpec, MlpSpec, Model, ModelError, ModelSpec, Resnet18Spec,
    parameter_count,
};

const DIGIT: InputSpec = InputSpec::Image { height: 28, width: 28, channels: 1 };
const PHOTO: InputSpec = InputSpec::Image { height: 32, width: 32, channels: 3 };

fn built(model: &dyn Model, input: &InputSpec, batch: usize, ctx: &Context) -> (Graph, ValueId) {
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(batch));
    let logits = model.forward(&mut g, x, ctx).unwrap();
    (g, logits)
}

fn names(g: &Graph) -> Vec<&str> {
    g.slots.iter().map(|s| s.name.as_str()).collect()
}

/// Counts printed by torch 2.15 for the models of the timing peer:
/// `sum(p.numel() for p in net.parameters())`.
#[test]
fn parameter_counts_are_those_of_torch() {
    let count = |spec: ModelSpec, input: &InputSpec, outputs| {
        parameter_count(&*spec.build(input, outputs).unwrap(), input).unwrap()
    };
    let flat = InputSpec::Features { width: 784 };
    assert_eq!(count(ModelSpec::Mlp(MlpSpec::default()), &flat, 10), 1_863_690);
    assert_eq!(count(ModelSpec::Resnet18(Resnet18Spec { width: 64 }), &PHOTO, 10), 11_173_962);
    let text = InputSpec::Tokens { length: 256, vocab: 256 };
    assert_eq!(count(ModelSpec::Gpt(GptSpec::default()), &text, 256), 10_844_160);
    // 9·16 + 16 + 9·16·32 + 32 + 1568·128 + 128 + 128·10 + 10.
    assert_eq!(count(ModelSpec::Cnn(CnnSpec::default()), &DIGIT, 10), 206_922);
}

#[test]
fn logits_have_one_column_per_class() {
    let shape = |spec: ModelSpec, input: &InputSpec, outputs, ctx: &Context| {
        let (g, logits) = built(&*spec.build(input, outputs).unwrap(), input, 3, ctx);
        g.shape(logits).to_vec()
    };
    for ctx in [Context::train(), Context::eval()] {
        assert_eq!(shape(ModelSpec::Mlp(MlpSpec::default()), &DIGIT, 7, &ctx), [3, 7]);
        assert_eq!(shape(ModelSpec::Cnn(CnnSpec::default()), &DIGIT, 7, &ctx), [3, 7]);
        assert_eq!(shape(ModelSpec::Resnet18(Resnet18Spec { width: 4 }), &PHOTO, 7, &ctx), [3, 7]);
        let text = InputSpec::Tokens { length: 5, vocab: 11 };
        let spec = GptSpec { width: 12, layers: 2, heads: 3, dropout: 0.1, ..GptSpec::default() };
        assert_eq!(shape(ModelSpec::Gpt(spec), &text, 11, &ctx), [3, 5, 11]);
    }
}

#[test]
fn odd_image_sizes_are_rounded_down() {
    let input = InputSpec::Image { height: 9, width: 7, channels: 2 };
    let spec = ModelSpec::Cnn(CnnSpec { channels: vec![3, 4], hidden: 5 });
    let (g, _) = built(&*spec.build(&input, 2).unwrap(), &input, 1, &Context::eval());
    let hidden = g.slot_named("hidden.weight").unwrap();
    // 9×7 → 4×3 → 2×1, four channels.
    assert_eq!(g.slot(hidden).ty.shape.to_vec(), [5, 8]);
}

#[test]
fn slots_are_named_as_in_torch() {
    let text = InputSpec::Tokens { length: 4, vocab: 6 };
    let spec = GptSpec { width: 4, layers: 1, heads: 2, dropout: 0.0, ..GptSpec::default() };
    let (g, _) = built(&*ModelSpec::Gpt(spec).build(&text, 6).unwrap(), &text, 1, &Context::eval());
    let expected = [
        "tok.weight",
        "pos.weight",
        "blocks.0.ln1.weight",
        "blocks.0.ln1.bias",
        "blocks.0.qkv.weight",
        "blocks.0.qkv.bias",
        "blocks.0.proj.weight",
        "blocks.0.proj.bias",
        "blocks.0.ln2.weight",
        "blocks.0.ln2.bias",
        "blocks.0.up.weight",
        "blocks.0.up.bias",
        "blocks.0.down.weight",
        "blocks.0.down.bias",
        "ln.weight",
        "ln.bias",
    ];
    assert_eq!(names(&g), expected);

    let model = ModelSpec::Resnet18(Resnet18Spec { width: 2 }).build(&PHOTO, 10).unwrap();
    let (g, _) = built(&*model, &PHOTO, 2, &Context::train());
    for name in
        ["stem.0.weight", "stem.1.running_var", "blocks.2.skip.0.weight", "blocks.7.b2.bias", "head.bias"]
    {
        assert!(g.slot_named(name).is_some(), "{name} is not in {:?}", names(&g));
    }
    assert!(g.slot_named("blocks.1.skip.0.weight").is_none());
}

#[test]
fn training_and_evaluation_share_every_slot() {
    let model = ModelSpec::Resnet18(Resnet18Spec { width: 2 }).build(&PHOTO, 10).unwrap();
    let (train, _) = built(&*model, &PHOTO, 2, &Context::train());
    let (eval, _) = built(&*model, &PHOTO, 5, &Context::eval());
    assert_eq!(train.slots, eval.slots);
    assert!(eval.writes.is_empty());
    // A mean and a variance for each of 20 norms (stem, two in each of 8 blocks, 3 skips), all part
    // of the transaction.
    assert_eq!(train.writes.len(), 2 * 20);
    assert!(train.writes.iter().all(|w| w.when == When::Committed));
}

#[test]
fn weight_decay_groups_are_matrices_and_the_rest() {
    let model = ModelSpec::Cnn(CnnSpec::default()).build(&DIGIT, 10).unwrap();
    let (g, _) = built(&*model, &DIGIT, 1, &Context::train());
    for slot in &g.slots {
        let decay = slot.name.ends_with("weight");
        assert_eq!(slot.kind, SlotKind::Weight { decay }, "{}", slot.name);
    }
}

#[test]
fn first_values_follow_the_fan_in() {
    let model = ModelSpec::Cnn(CnnSpec::default()).build(&DIGIT, 10).unwrap();
    let (g, _) = built(&*model, &DIGIT, 1, &Context::train());
    let init = |name: &str| g.slot(g.slot_named(name).unwrap()).init;
    assert_eq!(init("convs.1.weight"), Init::Uniform { bound: 1.0 / 12.0 });
    assert_eq!(init("convs.1.bias"), Init::Uniform { bound: 1.0 / 12.0 });
    assert_eq!(init("head.weight"), Init::Uniform { bound: 1.0 / 128f64.sqrt() });
}

/// A bias known before the product is made can be fused into it.
#[test]
fn biases_are_read_before_the_products_they_are_added_to() {
    for (spec, input) in
        [(ModelSpec::Mlp(MlpSpec::default()), DIGIT), (ModelSpec::Cnn(CnnSpec::default()), DIGIT)]
    {
        let (g, _) = built(&*spec.build(&input, 10).unwrap(), &input, 2, &Context::train());
        let fused = halfstep_graph::fuse(&g);
        let adds = fused.nodes.iter().filter(|n| n.op.name() == "add").count();
        assert_eq!(adds, 0, "{}", spec.kind());
    }
}

#[test]
fn norm_statistics_are_updated_outside_the_forward_pass() {
    let model = ModelSpec::Resnet18(Resnet18Spec { width: 2 }).build(&PHOTO, 10).unwrap();
    let (g, _) = built(&*model, &PHOTO, 2, &Context::train());
    // A running mean and a running variance of each batch norm: one of the stem, two in each of
    // eight blocks, and one where each of the last three stages changes the shape.
    assert_eq!(g.writes.len(), 2 * (1 + 2 * 8 + 3));
    for write in &g.writes {
        assert_eq!(g.node(g.value(write.value).node).phase, Phase::Update);
    }
}

#[test]
fn one_value_per_channel_has_no_variance() {
    let mut g = Graph::new();
    let x = g.input("x", InputSpec::Features { width: 4 }.value_type(1));
    let norm = BatchNorm::new("norm", 4);
    let error = norm.forward(&mut g, x, &Context::train()).unwrap_err();
    assert!(error.to_string().contains("batch of at least 2"), "{error}");
    assert!(norm.forward(&mut g, x, &Context::eval()).is_ok());
}

#[test]
fn a_user_writes_a_model_from_layers() {
    struct Tied {
        layer: Linear,
    }
    impl Model for Tied {
        fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
            let x = self.layer.forward(g, x)?;
            self.layer.forward(g, x)
        }
    }
    let model = Tied { layer: Linear::new("layer", 4, 4) };
    let input = InputSpec::Features { width: 4 };
    assert_eq!(parameter_count(&model, &input), Ok(20));
    let (g, _) = built(&model, &input, 2, &Context::train());
    assert_eq!(g.nodes.iter().filter(|n| matches!(n.op, Op::Read { .. })).count(), 2);
    assert!(parameter_count(&model, &InputSpec::Features { width: 5 }).is_err());
}

#[test]
fn impossible_sizes_are_named_with_a_hint() {
    let field = |spec: ModelSpec, input: &InputSpec, outputs| {
        let error = spec.validate(input, outputs).unwrap_err();
        assert!(!error.hint().is_empty());
        error.field()
    };
    let text = InputSpec::Tokens { length: 4, vocab: 6 };
    let gpt = GptSpec::default;
    assert_eq!(field(ModelSpec::Gpt(GptSpec { heads: 5, ..gpt() }), &text, 6), Some("heads"));
    assert_eq!(field(ModelSpec::Gpt(GptSpec { heads: 0, ..gpt() }), &text, 6), Some("heads"));
    assert_eq!(field(ModelSpec::Gpt(GptSpec { dropout: 1.0, ..gpt() }), &text, 6), Some("dropout"));
    assert_eq!(field(ModelSpec::Gpt(gpt()), &text, 7), None);
    assert_eq!(field(ModelSpec::Gpt(gpt()), &DIGIT, 10), Some("kind"));
    assert_eq!(field(ModelSpec::Mlp(MlpSpec { hidden: vec![0] }), &DIGIT, 10), Some("hidden"));
    assert_eq!(field(ModelSpec::Mlp(MlpSpec::default()), &text, 10), Some("kind"));
    assert_eq!(field(ModelSpec::Resnet18(Resnet18Spec { width: 0 }), &PHOTO, 10), Some("width"));
    assert_eq!(field(ModelSpec::Cnn(CnnSpec::default()), &DIGIT, 0), None);
    let deep = ModelSpec::Cnn(CnnSpec { channels: vec![8; 5], hidden: 8 });
    let error = deep.validate(&DIGIT, 10).unwrap_err();
    assert_eq!(error, ModelError::Stages { stages: 5, height: 28, width: 28, most: 4 });
}

#[test]
fn specs_read_and_refuse_unknown_keys() {
    let read = |text: &str| serde_json::from_str::<ModelSpec>(text);
    assert_eq!(read(r#"{"kind": "mlp"}"#).unwrap(), ModelSpec::Mlp(MlpSpec::default()));
    let spec = read(r#"{"kind": "gpt", "width": 32, "heads": 4}"#).unwrap();
    assert_eq!(spec, ModelSpec::Gpt(GptSpec { width: 32, heads: 4, ..GptSpec::default() }));
    assert!(read(r#"{"kind": "gpt", "depth": 3}"#).unwrap_err().to_string().contains("depth"));
    for kind in ModelSpec::KINDS {
        assert_eq!(read(&format!(r#"{{"kind": "{kind}"}}"#)).unwrap().kind(), kind);
    }
}

//! Models as ONNX files: what is in them. That a runtime computes the same logits is checked by
//! `scripts/check_onnx.py`.

#![cfg(feature = "onnx")]

use halfstep_graph::engine::HostTensor;
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{Graph, ValueType};
use halfstep_nn::onnx::proto::{DataType, ModelProto, Size};
use halfstep_nn::onnx::{OnnxError, model};
use halfstep_nn::{CnnSpec, Context, GptSpec, InputSpec, ModelSpec};
use prost::Message;

fn graph(spec: &ModelSpec, input: &InputSpec, context: &Context, policy: &str) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(2));
    let logits = spec.build(input, 5).unwrap().forward(&mut g, x, context).unwrap();
    g.add_output("logits", logits);
    assign(&g, &Policy::named(policy).unwrap()).0
}

fn exported(g: &Graph) -> ModelProto {
    let weights = |name: &str| {
        let slot = g.slot(g.slot_named(name)?);
        Some(HostTensor::F32((0..slot.ty.shape.count()).map(|i| 1.0 + i as f32 / 1024.0).collect()))
    };
    let bytes = model(g, &weights, &[("note", "kept".into())]).unwrap();
    ModelProto::decode(&bytes[..]).unwrap()
}

fn gpt() -> (ModelSpec, InputSpec) {
    let spec = GptSpec { width: 8, layers: 2, heads: 2, dropout: 0.1, ..GptSpec::default() };
    (ModelSpec::Gpt(spec), InputSpec::Tokens { length: 4, vocab: 5 })
}

#[test]
fn weights_read_by_products_alone_are_stored_as_the_products_take_them() {
    let (spec, input) = gpt();
    for (policy, low) in
        [("fp32", DataType::Float), ("bf16", DataType::Bfloat16), ("fp16", DataType::Float16)]
    {
        let file = exported(&graph(&spec, &input, &Context::eval(), policy)).graph.unwrap();
        let of = |name: &str| file.initializer.iter().find(|t| t.name == name).unwrap();
        let qkv = of("blocks.0.qkv.weight");
        let bytes = if low == DataType::Float { 4 } else { 2 };
        assert_eq!((qkv.data_type, qkv.raw_data.len()), (low as i32, 24 * 8 * bytes), "{policy}");
        assert_eq!(of("blocks.1.ln1.weight").data_type, DataType::Float as i32, "norms stay in f32");
    }
    // 1 + 1/1024 is f16 and rounds to 1 in bf16: the first two elements, little-endian.
    let first = |policy: &str| {
        let file = exported(&graph(&spec, &input, &Context::eval(), policy)).graph.unwrap();
        file.initializer.into_iter().find(|t| t.name == "blocks.0.qkv.weight").unwrap().raw_data[..4].to_vec()
    };
    assert_eq!(first("bf16"), [0x80, 0x3f, 0x80, 0x3f]);
    assert_eq!(first("fp16"), [0x00, 0x3c, 0x01, 0x3c]);
}

#[test]
fn every_tensor_is_made_before_it_is_used_and_the_batch_is_open() {
    let cnn = (
        ModelSpec::Cnn(CnnSpec { channels: vec![3], hidden: 4 }),
        InputSpec::Image { height: 6, width: 6, channels: 1 },
    );
    for (spec, input) in [gpt(), cnn] {
        let file = exported(&graph(&spec, &input, &Context::eval(), "bf16"));
        assert_eq!(file.metadata_props[0].value, "kept");
        let g = file.graph.unwrap();
        let mut known: Vec<&str> = g.initializer.iter().map(|t| t.name.as_str()).collect();
        known.extend(g.input.iter().map(|i| i.name.as_str()));
        for node in &g.node {
            for name in &node.input {
                assert!(known.contains(&name.as_str()), "{}: `{name}` is not known yet", node.name);
            }
            known.extend(node.output.iter().map(String::as_str));
        }
        assert!(g.output.iter().all(|o| known.contains(&o.name.as_str())));
        let tensor = g.output[0].r#type.clone().unwrap().tensor_type.unwrap();
        assert_eq!(tensor.elem_type, DataType::Float as i32);
        assert!(matches!(tensor.shape.unwrap().dim[0].value, Some(Size::DimParam(_))));
    }
}

#[test]
fn what_trains_is_refused_by_name() {
    let (spec, input) = gpt();
    let mut g = Graph::new();
    let x = g.input("x", input.value_type(2));
    let logits = spec.build(&input, 5).unwrap().forward(&mut g, x, &Context::train()).unwrap();
    g.add_output("logits", logits);
    let error = model(
        &g,
        &|name| Some(HostTensor::F32(vec![0.0; g.slot(g.slot_named(name)?).ty.shape.count()])),
        &[],
    );
    let expected = OnnxError::Operation { op: "dropout".into(), at: "drop".into() };
    assert_eq!(error, Err(expected));
    let mut g = Graph::new();
    let x = g.input("x", ValueType::f32([2, 3].into()));
    let y = halfstep_nn::layers::Linear::new("head", 3, 2).forward(&mut g, x).unwrap();
    g.add_output("logits", y);
    let missing = OnnxError::Weight { slot: "head.weight".into(), expected: 6, found: 0 };
    assert_eq!(model(&g, &|_| None, &[]), Err(missing));
}

//! Weights from elsewhere: a GPT-2 of `scripts/golden_gpt2.py` gives torch's logits, and what does
//! not fit is listed.

use crate::common;
use std::collections::BTreeMap;

use crate::common::golden::folder;
use crate::common::rounding::deviations;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, Slot};
use halfstep_nn::{Context, GptActivation, GptSpec, InputSpec, Model, ModelSpec};
use halfstep_train::import::{NameMap, put, read};
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step::predict_graph;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const INPUT: InputSpec = InputSpec::Tokens { length: 8, vocab: 24 };
/// As in `golden_torch.rs`: 2·exp(−λ²/2) is below 10^-10 for each logit.
const LAMBDA: f64 = 7.0;

fn gpt2() -> Box<dyn Model> {
    let spec = GptSpec { width: 16, layers: 2, heads: 2, dropout: 0.0, activation: GptActivation::GeluTanh };
    ModelSpec::Gpt(spec).build(&INPUT, 24).unwrap()
}

fn map() -> NameMap {
    let map = NameMap::parse(NameMap::built_in("gpt2").unwrap()).unwrap();
    // What the golden file has besides.
    NameMap { ignore: [map.ignore.clone(), vec!["golden.{what}".into()]].concat(), ..map }
}

fn slots() -> Vec<Slot> {
    let mut g = Graph::new();
    let x = g.input("x", INPUT.value_type(2));
    gpt2().forward(&mut g, x, &Context::eval()).unwrap();
    g.slots
}

#[test]
fn random_gpt2_weights_give_torchs_logits() {
    let bytes = std::fs::read(folder().join("gpt2.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let eight = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
    let exact: Vec<f64> = file.tensor("golden.logits").unwrap().data().chunks_exact(8).map(eight).collect();
    let four = |b: &[u8]| i32::from_le_bytes(b.try_into().unwrap());
    let tokens: Vec<i32> = file.tensor("golden.tokens").unwrap().data().chunks_exact(4).map(four).collect();

    let model = gpt2();
    let (values, report) = read(&slots(), &bytes, &map()).unwrap();
    assert!(report.fits(), "{report}");
    assert!(report.taken.iter().any(|t| t.how == ["transposed"]));
    let positions = report.taken.iter().find(|t| t.to == "pos.weight").unwrap();
    assert_eq!(positions.how, ["the first 8 of 12 rows"]);

    // Bounds for f32, from the same graph in f64; it must itself be torch's function.
    let graph = predict_graph(model.as_ref(), &INPUT, 2).unwrap();
    let tensor =
        |s: &Slot| Tensor::new(s.ty.shape.clone(), values[&s.name].iter().map(|&v| f64::from(v)).collect());
    let weights: Vec<Tensor> = graph.slots.iter().map(tensor).collect();
    let x = Tensor::new(INPUT.value_type(2).shape, tokens.iter().map(|&t| f64::from(t)).collect());
    let all = evaluate(&graph, &weights, &[("x", x)], Rounding::None).unwrap();
    let logits = graph.output("logits").unwrap();
    for (ours, torchs) in all[logits.0 as usize].data.iter().zip(&exact) {
        // A few thousand roundings in f64 of numbers up to 10.
        assert!((ours - torchs).abs() < 4096.0 * f64::EPSILON * 10.0, "{ours} is not {torchs}");
    }
    let bounds = deviations(&graph, &all, &[logits]).concat();
    let policy = Policy::named("fp32").unwrap();
    for engine in common::engines() {
        let spec = SessionSpec::new(&policy, 2, 0);
        let mut session = Session::new(&*engine, model.as_ref(), &INPUT, &policy, &spec).unwrap();
        put(&mut session, &values).unwrap();
        let found = session.predict(HostSlice::I32(&tokens)).unwrap();
        assert_eq!(found.len(), exact.len());
        let mut worst = 0f64;
        for ((found, exact), sigma) in found.iter().zip(&exact).zip(&bounds) {
            let error = (f64::from(*found) - exact).abs();
            worst = worst.max(error / (LAMBDA * sigma));
            assert!(
                error <= LAMBDA * sigma,
                "{}: {found} is not {exact} ± {:e}",
                engine.name(),
                LAMBDA * sigma
            );
        }
        eprintln!("{}: logits use at most {worst:.2} of their bounds", engine.name());
    }
}

/// The golden file with some tensors changed.
fn changed(change: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<u8>)>)) -> Vec<u8> {
    let bytes = std::fs::read(folder().join("gpt2.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.tensors().into_iter().filter(|(_, t)| t.dtype() == safetensors::Dtype::F32);
    let mut tensors = floats.map(|(name, t)| (name, (t.shape().to_vec(), t.data().to_vec()))).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name.clone(), TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn everything_that_does_not_fit_is_listed() {
    let bytes = changed(|tensors| {
        tensors.remove("h.1.ln_2.bias");
        tensors.insert("h.2.ln_1.bias".into(), (vec![16], vec![0; 64]));
        tensors.insert("something".into(), (vec![1], vec![0; 4]));
        let (shape, _) = tensors.get_mut("h.0.attn.c_attn.weight").unwrap();
        *shape = vec![48, 16];
        let mut head = tensors["wte.weight"].clone();
        head.1[0] ^= 1;
        tensors.insert("lm_head.weight".into(), head);
    });
    let (_, report) = read(&slots(), &bytes, &map()).unwrap();
    assert!(!report.fits());
    assert_eq!(report.missing, ["blocks.1.ln2.bias"]);
    assert_eq!(report.unexpected, ["h.2.ln_1.bias", "something"]);
    let misfits: Vec<_> = report.misfits.iter().map(|m| (m.to.as_str(), m.reason.as_str())).collect();
    let other = "another tensor of the file is for the same place, with other values";
    assert_eq!(
        misfits,
        [("blocks.0.qkv.weight", "it is [16, 48], expected [48, 16]"), ("tok.weight", other)]
    );
    // A tied head that is equal is no mistake, nor is a prefix.
    let bytes = changed(|tensors| {
        tensors.insert("lm_head.weight".into(), tensors["wte.weight"].clone());
        let all = std::mem::take(tensors);
        tensors.extend(all.into_iter().map(|(name, t)| (format!("transformer.{name}"), t)));
    });
    assert!(read(&slots(), &bytes, &map()).unwrap().1.fits());
    assert!(read(&slots(), b"no safetensors", &map()).is_err());
}

#[test]
fn one_tensor_may_be_several() {
    let text = "[[tensor]]\nfrom = \"{n}.qkv\"\nto = [\"{n}.a\", \"{n}.b\"]\n";
    let map = NameMap::parse(text).unwrap();
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(safetensors::Dtype::F32, vec![4], &data).unwrap();
    let bytes = safetensors::serialize([("x.qkv", view)], None).unwrap();
    let all = slots();
    let bias = all.iter().find(|s| s.name == "ln.bias").unwrap();
    let two = ["x.a", "x.b"].map(|name| {
        let ty = halfstep_graph::ValueType::f32(halfstep_graph::Shape::from([2]));
        Slot { name: name.into(), ty, ..bias.clone() }
    });
    let (values, report) = read(&two, &bytes, &map).unwrap();
    assert!(report.fits(), "{report}");
    assert_eq!((&values["x.a"][..], &values["x.b"][..]), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
    assert_eq!(report.taken[1].how, ["part 2 of 2"]);
}

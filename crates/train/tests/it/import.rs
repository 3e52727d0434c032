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
    let (values, report) = read(&slots(), &INPUT, &bytes, &map()).unwrap();
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
    let (_, report) = read(&slots(), &INPUT, &bytes, &map()).unwrap();
    assert!(!report.fits());
    assert_eq!(report.missing, ["blocks.1.ln2.bias"]);
    assert_eq!(report.unexpected, ["h.2.ln_1.bias", "something"]);
    let misfits: Vec<_> = report.misfits.iter().map(|m| (m.to.as_str(), m.reason.as_str())).collect();
    let other = "another tensor of the file is for the same place, with other values";
    let turned = "it is [16, 48], expected [48, 16]; the other way round it fits: write `transpose = true` in its rule \
                  of a map";
    assert_eq!(misfits, [("blocks.0.qkv.weight", turned), ("tok.weight", other)]);
    // A tied head that is equal is no mistake, nor is a prefix.
    let bytes = changed(|tensors| {
        tensors.insert("lm_head.weight".into(), tensors["wte.weight"].clone());
        let all = std::mem::take(tensors);
        tensors.extend(all.into_iter().map(|(name, t)| (format!("transformer.{name}"), t)));
    });
    assert!(read(&slots(), &INPUT, &bytes, &map()).unwrap().1.fits());
    assert!(read(&slots(), &INPUT, b"no safetensors", &map()).is_err());
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
    let (values, report) = read(&two, &INPUT, &bytes, &map).unwrap();
    assert!(report.fits(), "{report}");
    assert_eq!((&values["x.a"][..], &values["x.b"][..]), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
    assert_eq!(report.taken[1].how, ["part 2 of 2"]);
}

/// A colour CNN whose only kernel, `[4, 3, 3, 3]`, has the same sizes in each order; its stage ends
/// in 2×2 pixels of 4 channels, the columns of a `[4, 16]`; the head is `[2, 4]`.
const PHOTO: InputSpec = InputSpec::Image { height: 4, width: 4, channels: 3 };

fn photo_slots(channels: Vec<usize>) -> Vec<Slot> {
    let model = ModelSpec::Cnn(halfstep_nn::CnnSpec { channels, hidden: 4 }).build(&PHOTO, 2).unwrap();
    let mut g = Graph::new();
    let x = g.input("x", PHOTO.value_type(2));
    model.forward(&mut g, x, &Context::eval()).unwrap();
    g.slots
}

/// A file of these tensors, whose elements are their places.
fn file(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, shape), data)| {
        (name.to_string(), TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

const PHOTO_FILE: [(&str, &[usize]); 6] = [
    ("convs.0.weight", &[4, 3, 3, 3]),
    ("convs.0.bias", &[4]),
    ("hidden.weight", &[4, 16]),
    ("hidden.bias", &[4]),
    ("head.weight", &[2, 4]),
    ("head.bias", &[2]),
];

#[test]
fn a_layout_that_nothing_shows_is_refused_and_a_map_says_it() {
    let slots = photo_slots(vec![4]);
    let (_, report) = read(&slots, &PHOTO, &file(&PHOTO_FILE), &NameMap::same_names()).unwrap();
    let refused: Vec<&str> = report.misfits.iter().map(|m| m.to.as_str()).collect();
    assert_eq!(refused, ["convs.0.weight", "hidden.weight"], "{report}");
    assert!(report.misfits[0].reason.contains("`permute = [0, 2, 3, 1]` (PyTorch)"), "{report}");
    assert!(report.misfits[1].reason.contains("`view = [4, 4, 2, 2]`"), "{report}");

    let rules = |kernel: &str, hidden: &str| {
        let text = format!(
            "[[tensor]]\nfrom = \"convs.0.weight\"\nto = \"convs.0.weight\"\npermute = {kernel}\n\
             [[tensor]]\nfrom = \"hidden.weight\"\nto = \"hidden.weight\"\n{hidden}\n\
             [[tensor]]\nfrom = \"{{a}}.{{b}}\"\nto = \"{{a}}.{{b}}\"\n\
             [[tensor]]\nfrom = \"{{a}}.{{b}}.{{c}}\"\nto = \"{{a}}.{{b}}.{{c}}\"\n"
        );
        NameMap::parse(&text).unwrap()
    };
    let torch = rules("[0, 2, 3, 1]", "view = [4, 4, 2, 2]\npermute = [0, 2, 3, 1]");
    let (values, report) = read(&slots, &PHOTO, &file(&PHOTO_FILE), &torch).unwrap();
    assert!(report.fits(), "{report}");
    // Row o, pixel (h, w), channel c, of [o, c, h, w].
    let place = |o: usize, h: usize, w: usize, c: usize| ((o * 4 + c) * 2 + h) * 2 + w;
    let hidden = &values["hidden.weight"];
    for (o, p, c) in (0..4).flat_map(|o| (0..4).flat_map(move |p| (0..4).map(move |c| (o, p, c)))) {
        assert_eq!(hidden[(o * 4 + p) * 4 + c], place(o, p / 2, p % 2, c) as f32);
    }
    // Channel 1 of the first pixel of the first kernel.
    assert_eq!(values["convs.0.weight"][1], 9.0);
    let as_it_is = rules("[0, 1, 2, 3]", "permute = [0, 1]");
    let (values, report) = read(&slots, &PHOTO, &file(&PHOTO_FILE), &as_it_is).unwrap();
    assert!(report.fits(), "{report}");
    assert_eq!(values["convs.0.weight"][1], 1.0);
    for wrong in ["[0, 1, 2]", "[0, 1, 2, 2]", "[1, 2, 3, 4]"] {
        let map = rules(wrong, "permute = [0, 1]");
        assert!(!read(&slots, &PHOTO, &file(&PHOTO_FILE), &map).unwrap().1.fits(), "{wrong}");
    }
}

/// `[4, 3, 3, 3]` again, beside a second kernel that fits in one order only.
#[test]
fn another_kernel_shows_how_a_file_lies() {
    let slots = photo_slots(vec![4, 8]);
    let mut tensors = PHOTO_FILE.to_vec();
    tensors[2].1 = &[4, 8];
    tensors.extend([("convs.1.weight", &[8, 3, 3, 4][..]), ("convs.1.bias", &[8][..])]);
    let (_, report) = read(&slots, &PHOTO, &file(&tensors), &NameMap::same_names()).unwrap();
    assert!(report.fits(), "{report}");
    tensors[6].1 = &[8, 4, 3, 3];
    let (_, report) = read(&slots, &PHOTO, &file(&tensors), &NameMap::same_names()).unwrap();
    let misfit = report.misfits.iter().find(|m| m.to == "convs.1.weight").unwrap();
    assert!(misfit.reason.contains("the order of PyTorch, it fits"), "{report}");
}

#[test]
fn a_square_matrix_alone_says_nothing_of_its_order() {
    let input = InputSpec::Features { width: 5 };
    let slots_of = |hidden: Vec<usize>| {
        let model = ModelSpec::Mlp(halfstep_nn::MlpSpec { hidden }).build(&input, 5).unwrap();
        let mut g = Graph::new();
        let x = g.input("x", input.value_type(2));
        model.forward(&mut g, x, &Context::eval()).unwrap();
        g.slots
    };
    let linear = [("layers.0.weight", &[5, 5][..]), ("layers.0.bias", &[5][..])];
    let (_, report) = read(&slots_of(vec![]), &input, &file(&linear), &NameMap::same_names()).unwrap();
    assert!(!report.fits() && report.misfits[0].reason.contains("`transpose = true` (Keras)"), "{report}");
    let mut deeper = linear.to_vec();
    deeper.extend([("layers.1.weight", &[7, 5][..]), ("layers.1.bias", &[7][..])]);
    deeper.extend([("layers.2.weight", &[5, 7][..]), ("layers.2.bias", &[5][..])]);
    let (_, report) = read(&slots_of(vec![5, 7]), &input, &file(&deeper), &NameMap::same_names()).unwrap();
    assert!(report.fits(), "{report}");
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_element() {
    let slots = photo_slots(vec![4]);
    let with = |dtype, bytes: Vec<u8>| {
        let view = TensorView::new(dtype, vec![2, 4], &bytes).unwrap();
        let file = safetensors::serialize([("head.weight", view)], None).unwrap();
        read(&slots, &PHOTO, &file, &NameMap::same_names()).unwrap().1.misfits.remove(0).reason
    };
    let f32s = |bad: f32| {
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, bad, 7.0].iter().flat_map(|v: &f32| v.to_le_bytes()).collect()
    };
    for (bad, named) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let reason = with(safetensors::Dtype::F32, f32s(bad));
        assert!(reason.starts_with(&format!("its element [1, 2] is {named};")), "{reason}");
    }
    let f64s = |bad: f64| {
        [0.0, bad, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].iter().flat_map(|v: &f64| v.to_le_bytes()).collect()
    };
    let reason = with(safetensors::Dtype::F64, f64s(-1e300));
    assert!(reason.starts_with("its element [0, 1] is -1e300, which is beyond f32"), "{reason}");
    assert!(with(safetensors::Dtype::F64, f64s(f64::NAN)).contains("[0, 1] is NaN"));
    let halves = |bad: u16| [0u16, 0, 0, 0, 0, 0, 0, bad].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(with(safetensors::Dtype::F16, halves(0x7c00)).contains("[1, 3] is inf"));
    assert!(with(safetensors::Dtype::BF16, halves(0x7fc0)).contains("[1, 3] is NaN"));
}

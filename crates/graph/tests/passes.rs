//! What the passes promise: precision, fusion and the memory plan.

use halfstep_graph::engine::Target;
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::{Compute, Override, Policy, PrecisionPlan, Reason, Rule, assign};
use halfstep_graph::{
    AttentionSpec, Blocks, ConvGeometry, DType, Graph, GraphError, Group, Init, Node, Op, Phase, Place,
    Quantise, Shape, SlotKind, Split, Unary, ValueId, ValueType, When, differentiate, flops, fuse, plan,
};
use proptest::prelude::*;

/// One transformer block with a loss, differentiated, with SGD: small, but with every class of
/// operation.
fn block() -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let weight = |g: &mut Graph, name: &str, shape: &[usize]| {
            let kind = SlotKind::Weight { decay: shape.len() > 1 };
            g.add_slot(name, ValueType::f32(Shape::new(shape)), kind, Init::Constant(0.0))
        };
        let slots = vec![
            weight(&mut g, "tok", &[11, 8])?,
            weight(&mut g, "ln.weight", &[8])?,
            weight(&mut g, "ln.bias", &[8])?,
            weight(&mut g, "qkv.weight", &[24, 8])?,
            weight(&mut g, "qkv.bias", &[24])?,
            weight(&mut g, "up.weight", &[8, 8])?,
        ];
        let tokens = g.input("x", ValueType::i32([2, 3].into()));
        let target = g.input("y", ValueType::i32([6].into()));
        let read: Vec<ValueId> = slots.iter().map(|&s| g.read(s)).collect();
        let x = g.scoped("embed", |g| g.gather(read[0], tokens))?;
        let h = g.scoped("ln", |g| g.layer_norm(x, read[1], read[2], 1e-5))?;
        let qkv = g.scoped("qkv", |g| {
            let rows = g.reshape(h, [6, 8])?;
            let product = g.matmul(rows, read[3], false, true)?;
            let qkv = g.add(product, read[4])?;
            g.reshape(qkv, [2, 3, 24])
        })?;
        let a = g.scoped("attn", |g| g.attention(qkv, AttentionSpec { heads: 2, causal: true }))?;
        let u = g.scoped("up", |g| {
            let rows = g.reshape(a, [6, 8])?;
            let product = g.matmul(rows, read[5], false, true)?;
            let active = g.unary(Unary::Gelu, product)?;
            g.reshape(active, [2, 3, 8])
        })?;
        let x = g.scoped("residual", |g| g.add(x, u))?;
        let loss = g.scoped("head", |g| {
            let rows = g.reshape(x, [6, 8])?;
            let logits = g.matmul(rows, read[0], false, true)?;
            let losses = g.cross_entropy(logits, target)?;
            g.mean(losses, &[0])
        })?;
        let seed = g.scalar(1024.0);
        let gradients = differentiate(&mut g, loss, seed, &slots)?;
        g.in_phase(Phase::Update, |g| {
            let norm = g.global_norm(&gradients)?;
            let commit = g.unary(Unary::IsFinite, norm)?;
            for ((&slot, &gradient), &w) in slots.iter().zip(&gradients).zip(&read) {
                let step = g.scale(gradient, 0.01)?;
                let new = g.sub(w, step)?;
                g.write(slot, new, When::Committed);
            }
            g.commit = Some(commit);
            g.add_output("loss", loss);
            Ok(g.clone())
        })
    };
    build().unwrap()
}

fn made_by(g: &Graph, v: ValueId) -> &Node {
    g.node(g.value(v).node)
}

fn named<'a>(g: &'a Graph, op: &'a str) -> impl Iterator<Item = &'a Node> {
    g.nodes.iter().filter(move |n| n.op.name() == op)
}

#[test]
fn fp32_changes_nothing() {
    let g = block();
    let (assigned, plan) = assign(&g, &Policy::named("fp32").unwrap());
    assert_eq!(assigned.to_string(), g.without_dead_nodes().to_string());
    assert_eq!(plan.casts().count(), 0);
}

#[test]
fn every_value_has_a_reason_and_every_product_low_operands() {
    for (name, low) in [("bf16", DType::Bf16), ("fp16", DType::F16)] {
        let (g, plan) = assign(&block(), &Policy::named(name).unwrap());
        assert_eq!(plan.entries.len(), g.values.len());
        assert!(g.values.iter().all(|v| v.reason.is_some()));
        for node in g.nodes.iter().filter(|n| matches!(n.op, Op::MatMul { .. })) {
            assert!(node.inputs[..2].iter().all(|&v| g.dtype(v) == low), "{} in {name}\n{g}", node.name);
            let out = g.value(node.outputs[0]);
            let expected = if out.gradient_of.is_some() { DType::F32 } else { low };
            assert_eq!(out.ty.dtype, expected, "{}", node.name);
        }
        // Statistics and the residual stream stay wide; what only products read is rounded where it
        // is made.
        for norm in named(&g, "layer_norm") {
            assert_eq!(g.dtype(norm.outputs[0]), low);
            assert_eq!(g.value(norm.outputs[0]).reason, Some(Reason::ReadersTakeLow));
            assert_eq!(g.dtype(norm.outputs[1]), DType::F32);
        }
        let stream = g.nodes.iter().find(|n| n.name == "embed" && n.op.name() == "add").unwrap();
        assert_eq!(g.dtype(stream.outputs[0]), DType::F32, "the gradient of the residual stream");
        let residual = g.nodes.iter().find(|n| n.name == "residual" && n.phase == Phase::Forward).unwrap();
        assert_eq!(
            g.value(residual.outputs[0]).reason,
            Some(Reason::ReadersTakeLow),
            "only the head reads it"
        );
        let lse = named(&g, "attention").next().unwrap().outputs[1];
        assert_eq!(g.dtype(lse), DType::F32);
        assert!(named(&g, "cross_entropy").all(|n| g.dtype(n.outputs[1]) == DType::F32));
        // The update works on f32.
        for node in g.nodes.iter().filter(|n| n.phase == Phase::Update) {
            assert!(
                node.inputs.iter().chain(&node.outputs).all(|&v| g.dtype(v) == DType::F32),
                "{}",
                node.op.name()
            );
        }
    }
}

#[test]
fn a_weight_is_cast_once_though_it_is_read_forward_and_backward() {
    let (g, _) = assign(&block(), &Policy::named("bf16").unwrap());
    for slot in g.weights() {
        let casts = g
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::Cast { .. }) && made_by(&g, n.inputs[0]).op == Op::Read { slot });
        assert!(casts.count() <= 1, "{}", g.slot(slot).name);
    }
}

#[test]
fn an_override_holds_for_the_operation_and_its_derivative() {
    let mut policy = Policy::named("bf16").unwrap();
    policy.overrides.push(Override { pattern: "qkv".into(), rule: Rule::F32 });
    let (g, _) = assign(&block(), &policy);
    let products: Vec<&Node> =
        g.nodes.iter().filter(|n| n.name == "qkv" && matches!(n.op, Op::MatMul { .. })).collect();
    assert_eq!(products.len(), 3, "forward, dX and dW");
    for node in products {
        assert!(node.inputs.iter().chain(&node.outputs).all(|&v| g.dtype(v) == DType::F32), "{g}");
    }
    assert!(g.nodes.iter().any(|n| n.name == "up" && g.dtype(n.outputs[0]) == DType::Bf16));
}

#[test]
fn a_split_stores_f32_and_marks_every_product_also_after_fusion() {
    for (name, split, why) in [
        ("tf32", Split::Tf32, "rounded to tf32"),
        ("bf16x3", Split::Bf16x3, "two bf16 terms"),
        ("bf16x6", Split::Bf16x6, "three bf16 terms"),
    ] {
        let mut policy = Policy::named(name).unwrap();
        policy.overrides.push(Override { pattern: "qkv".into(), rule: Rule::F32 });
        let (g, plan) = assign(&block(), &policy);
        assert_eq!(plan.casts().count(), 0);
        assert!(plan.entries.iter().all(|e| !e.storage.is_float() || e.storage == DType::F32));
        for node in &fuse(&g).nodes {
            let attention = matches!(node.op, Op::Attention(_) | Op::AttentionGrad(_));
            let contraction = matches!(node.op, Op::MatMul { .. }) || attention && split != Split::Tf32;
            let expected = (contraction && node.name != "qkv").then_some(split);
            assert_eq!(node.split, expected, "{} {}", node.name, node.op.name());
        }
        let up = plan.entries.iter().find(|e| e.name == "up" && e.op == "matmul").unwrap();
        assert_eq!((up.compute, up.accumulate), (Compute::Split(split), DType::F32));
        let text = plan.to_string();
        assert!(text.contains(&format!("f32/{name}/f32")) && text.contains(why), "{text}");
        assert_eq!(text.contains("contraction in f32: scores"), split == Split::Tf32, "{text}");
        // A plan is read back as it was written.
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<PrecisionPlan>(&json).unwrap(), plan);
        assert!(json.contains(&format!("\"compute\":\"{name}\"")), "{json}");
    }
}

#[test]
fn a_bias_is_added_in_the_accumulator() {
    let (g, _) = assign(&block(), &Policy::named("bf16").unwrap());
    let fused = fuse(&g);
    let products = |g: &Graph, operands| {
        let is = |n: &&Node| matches!(n.op, Op::MatMul { .. }) && n.inputs.len() == operands;
        g.nodes.iter().filter(is).count()
    };
    assert_eq!((products(&g, 3), products(&fused, 3)), (0, 1));
    assert_eq!(fused.nodes.len(), g.nodes.len() - 1);
}

#[test]
fn the_text_form_of_a_block_is_as_committed() {
    let (g, plan_text) = assign(&block(), &Policy::named("fp16").unwrap());
    let text = format!("{}\n{plan_text}", fuse(&g));
    committed("block_fp16.txt", &text);
}

/// Compares `text` with a committed file.
fn committed(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    if std::env::var_os("HALFSTEP_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == committed,
        "the text form changed; look, and run with HALFSTEP_BLESS=1 to accept:\n{text}"
    );
}

/// A target with this alignment, a workspace for every product, and every group there can be; it
/// may run several steps as one.
struct Roomy(usize, bool);

impl Target for Roomy {
    fn name(&self) -> String {
        "test".into()
    }
    fn alignment(&self) -> usize {
        self.0
    }
    fn workspace_bytes(&self, _: &Graph, node: &Node) -> usize {
        if matches!(node.op, Op::MatMul { .. }) { 100 } else { 0 }
    }
    fn batches(&self) -> bool {
        self.1
    }
    fn fuses(&self, _: &Graph, _: &Group) -> bool {
        true
    }
}

/// Checks groups and places of a plan by replaying it: inputs are there from the start, the bytes
/// of every other stored value are marked when its step ends and must still be its own, or those of
/// a value it shares a place with, whenever a step reads it; what has no place is read in its own
/// step only.
fn check_places(g: Graph, target: &dyn Target) {
    let p = plan(g, target);
    let g = &p.graph;
    let mut owner: Vec<Option<ValueId>> = vec![None; p.arena_bytes];
    let range = |v: ValueId| match p.places[v.0 as usize] {
        Place::Arena(offset) => Some(offset..offset + g.value(v).ty.bytes()),
        Place::Slot(_) | Place::Constant | Place::Inside | Place::Transit => None,
    };
    let mut home: Vec<ValueId> = (0..g.values.len() as u32).map(ValueId).collect();
    let mut made = vec![None; g.values.len()];
    let mut computing = 0;
    for node in &g.nodes {
        match node.op {
            Op::Reshape { .. } => home[node.outputs[0].0 as usize] = home[node.inputs[0].0 as usize],
            Op::Input { .. } => {
                range(node.outputs[0])
                    .into_iter()
                    .flatten()
                    .for_each(|byte| owner[byte] = Some(node.outputs[0]));
            }
            Op::Read { .. } | Op::Const { .. } => {}
            _ => computing += 1,
        }
    }
    let home = |v: ValueId| home[v.0 as usize];
    let is_elementwise = |op: &Op| {
        matches!(
            op,
            Op::Unary(_)
                | Op::Binary(_)
                | Op::Select
                | Op::Cast { .. }
                | Op::Broadcast { .. }
                | Op::Dropout { .. }
                | Op::Quantise(Quantise { blocks: Blocks::Tensor { .. }, .. })
        )
    };
    for (i, step) in p.groups.steps.iter().enumerate() {
        for &n in &step.nodes {
            g.node(n).outputs.iter().for_each(|o| made[o.0 as usize] = Some(i));
            computing -= 1;
        }
        assert!(step.nodes.iter().filter(|&&n| !is_elementwise(&g.node(n).op)).count() <= 1);
        for &n in &step.nodes {
            for &v in &g.node(n).inputs {
                let here = step.nodes.contains(&g.value(home(v)).node);
                assert_eq!(here, !step.reads.contains(&home(v)), "%{} in step {i}", v.0);
                assert!(here || p.places[v.0 as usize] != Place::Inside, "%{} is read in step {i}", v.0);
                let source = matches!(
                    g.node(g.value(home(v)).node).op,
                    Op::Input { .. } | Op::Read { .. } | Op::Const { .. }
                );
                let at = made[home(v).0 as usize];
                assert!(
                    source || at < Some(i) && at.is_some() || (here && at == Some(i)),
                    "%{} comes too late",
                    v.0
                );
            }
        }
        for &v in &step.reads {
            for byte in range(v).into_iter().flatten() {
                assert_eq!(owner[byte], Some(v), "%{} read in step {i} at byte {byte}", v.0);
            }
        }
        for &n in &step.nodes {
            let workspace = target.workspace_bytes(g, g.node(n));
            if workspace > 0 {
                owner[p.workspaces[n.0 as usize]..][..workspace].fill(None);
            }
        }
        for (k, &v) in step.writes.iter().enumerate() {
            for byte in range(v).into_iter().flatten() {
                owner[byte] = Some(v);
            }
            for &other in &step.writes[..k] {
                if let (Some(a), Some(b)) = (range(other), range(v)) {
                    assert!(a.end <= b.start || b.end <= a.start, "two results of step {i} overlap");
                }
            }
        }
        // What is stored over an operand that something else in the group reads elsewhere would be
        // read too late.
        for &v in &step.reads {
            let overwritten = range(v).into_iter().flatten().any(|byte| owner[byte] != Some(v));
            let readers = step.nodes.iter().filter(|&&n| g.node(n).inputs.iter().any(|&x| home(x) == v));
            let count = |n: &Node| g.shape(n.outputs[0]).count();
            for node in readers.map(|&n| g.node(n)).filter(|_| overwritten) {
                // The gradient of a cross-entropy reads each row of its logits before it writes
                // that row.
                let over_logits = node.op == Op::CrossEntropyGrad && step.nodes.len() == 1;
                assert!(
                    (is_elementwise(&node.op) || over_logits) && count(node) == g.shape(v).count(),
                    "%{} in step {i}",
                    v.0
                );
            }
        }
    }
    assert_eq!(computing, 0, "every node is in one group");
    for v in g.live_out() {
        for byte in range(v).into_iter().flatten() {
            assert_eq!(owner[byte], Some(home(v)), "root %{}", v.0);
        }
        assert_ne!(p.places[v.0 as usize], Place::Inside);
    }
    assert!(p.live_bytes <= p.arena_bytes);
}

#[test]
fn the_groups_of_a_block_are_as_committed() {
    let (g, _) = assign(&block(), &Policy::named("fp16").unwrap());
    let planned = plan(fuse(&g), &Roomy(64, false));
    committed("block_fp16_groups.txt", &planned.groups.describe(&planned.graph));
}

#[test]
fn a_group_moves_fewer_bytes_and_does_the_same_arithmetic() {
    for policy in Policy::NAMES {
        let (g, _) = assign(&block(), &Policy::named(policy).unwrap());
        let together = plan(fuse(&g), &Roomy(64, false));
        let apart = plan(fuse(&g), &InterpreterEngine { rounding: Rounding::None });
        let sum = |p: &halfstep_graph::Plan| {
            let each = p.groups.steps.iter().map(|s| p.groups.traffic(&p.graph, s));
            each.fold((0, 0, 0), |sum, t| (sum.0 + t.read + t.written, sum.1 + t.saved, sum.2 + t.flops))
        };
        let (a, b) = (sum(&together), sum(&apart));
        assert!(together.groups.steps.len() < apart.groups.steps.len());
        assert!(a.1 > 0 && b.1 == 0);
        assert_eq!((a.0 + a.1, a.2), (b.0, b.2), "{policy}");
    }
}

#[test]
fn the_arithmetic_of_products_is_counted() {
    let mut g = Graph::new();
    let f32 = |shape: &[usize]| ValueType::f32(Shape::new(shape));
    let (a, b) = (g.input("a", f32(&[3, 5])), g.input("b", f32(&[5, 7])));
    let product = g.matmul(a, b, false, false).unwrap();
    let (x, w) = (g.input("x", f32(&[2, 4, 4, 3])), g.input("w", f32(&[6, 3, 3, 3])));
    let geometry = ConvGeometry { stride: 1, pad: 0 };
    let image = g.push(Op::Conv2d(geometry), &[x, w]).unwrap()[0];
    let dx = g.push(Op::Conv2dGradInput { geometry, size: (4, 4) }, &[image, w]).unwrap()[0];
    let dw = g.push(Op::Conv2dGradWeight { geometry, window: (3, 3) }, &[x, image]).unwrap()[0];
    let count = |v| flops(&g, made_by(&g, v));
    assert_eq!(count(product), 2 * 3 * 5 * 7);
    // Every product pairs each of 2·2·2·6 outputs with each of 27 weights.
    assert_eq!([image, dx, dw].map(count), [2 * 48 * 27; 3]);
}

#[test]
fn no_value_is_overwritten_while_it_is_needed() {
    for policy in Policy::NAMES {
        let (g, _) = assign(&block(), &Policy::named(policy).unwrap());
        check_places(fuse(&g), &Roomy(64, false));
        check_places(fuse(&g), &Roomy(64, true));
        check_places(g, &InterpreterEngine { rounding: Rounding::None });
    }
}

/// Weights that are cast before the first product, if they are alive together later anyway.
#[test]
fn steps_that_read_nothing_but_state_come_first_where_that_takes_no_memory() {
    let build = |needed_later: bool| {
        let mut g = Graph::new();
        let mut x = g.input("x", ValueType::f32([64, 128].into()));
        let mut low = Vec::new();
        for name in ["a", "b", "c"] {
            let init = Init::Constant(0.0);
            let slot =
                g.add_slot(name, ValueType::f32([128, 128].into()), SlotKind::Statistic, init).unwrap();
            let weight = g.read(slot);
            low.push(g.cast(weight, DType::Bf16).unwrap());
            x = g.matmul(x, low[low.len() - 1], false, false).unwrap();
        }
        for y in low.into_iter().rev().filter(|_| needed_later) {
            x = g.matmul(x, y, false, true).unwrap();
        }
        g.add_output("y", x);
        g
    };
    let casts = |needed_later, batches| -> Vec<usize> {
        let p = plan(build(needed_later), &Roomy(64, batches));
        let is_cast = |step: &Group| matches!(p.graph.node(step.nodes[0]).op, Op::Cast { .. });
        (0..p.groups.steps.len()).filter(|&i| is_cast(&p.groups.steps[i])).collect()
    };
    assert_eq!(casts(true, true), [0, 1, 2]);
    assert_eq!(casts(true, false), [0, 2, 4]);
    assert_eq!(casts(false, true), [0, 2, 4]);
}

proptest! {
    /// Random chains of elementwise operations, reshapes, products and outputs.
    #[test]
    fn no_value_of_a_random_graph_is_overwritten(choices in prop::collection::vec((0u8..7, 0usize..40, 0usize..40), 1..40), align in 0u32..7) {
        let mut g = Graph::new();
        let mut values = vec![g.input("x", ValueType::f32([4, 4].into()))];
        for (kind, a, b) in choices {
            let (a, b) = (values[a % values.len()], values[b % values.len()]);
            let made = match kind {
                0 => g.unary(Unary::Relu, a),
                1 => g.add(a, b),
                2 => g.matmul(a, b, false, true),
                3 => g.reshape(a, [16]).and_then(|flat| g.reshape(flat, [4, 4])),
                4 => g.cast(a, DType::Bf16),
                5 => Ok(g.input(&format!("late {}", values.len()), ValueType::f32([4, 4].into()))),
                _ => g.permute(a, &[1, 0]),
            };
            values.push(made.unwrap());
        }
        let last = values[values.len() - 1];
        g.add_output("y", last);
        g.add_output("middle", values[values.len() / 2]);
        check_places(g.clone(), &Roomy(1 << align, true));
        check_places(g, &Roomy(1 << align, false));
    }
}

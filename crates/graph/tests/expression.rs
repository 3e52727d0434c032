//! Expressions of groups, evaluated in f64 as an engine would make code of them, give what the
//! interpreter gives for the same nodes one by one.

use halfstep_float::{Format, Overflow, Philox};
use halfstep_graph::engine::Target;
use halfstep_graph::expression::{Access, Dimension, Expression, Operand, Term, TermId};
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{
    Binary, Blocks, DType, Graph, GraphError, Group, Init, Node, Op, Quantise, Shape, SlotKind, Unary,
    ValueId, ValueType, When, differentiate, fuse, group,
};

/// Fuses whatever can be.
struct Everything;

impl Target for Everything {
    fn name(&self) -> String {
        "test".into()
    }
    fn alignment(&self) -> usize {
        64
    }
    fn workspace_bytes(&self, _: &Graph, _: &Node) -> usize {
        0
    }
    fn fuses(&self, _: &Graph, _: &Group) -> bool {
        true
    }
}

/// Every elementwise operation, each kind of access, a reshape between two members, and results
/// that are read again.
fn elementwise() -> Result<Graph, GraphError> {
    let mut g = Graph::new();
    let f32 = |shape: &[usize]| ValueType::f32(Shape::new(shape));
    let (x, row) = (g.input("x", f32(&[4, 3, 5])), g.input("row", f32(&[5])));
    let (column, middle) = (g.input("column", f32(&[4, 3, 1])), g.input("middle", f32(&[4, 1, 5])));
    let (scale, key) = (g.input("scale", f32(&[])), g.input("key", ValueType::i32([4].into())));
    let shifted = g.add(x, row)?;
    let flat = g.reshape(shifted, [60])?;
    let active = g.unary(Unary::Gelu, flat)?;
    let low = g.cast(active, DType::Bf16)?;
    let shaped = g.reshape(low, [4, 3, 5])?;
    let scaled = g.mul(shaped, column)?;
    let dropped = g.dropout(scaled, key, 0.4, 9)?;
    let differences = g.sub(dropped, middle)?;
    let half = g.scale(differences, 0.5)?;
    let stretched = g.broadcast(middle, &Shape::from([4, 3, 5]))?;
    let condition = g.binary(Binary::Greater, half, stretched)?;
    let chosen = g.select(condition, half, stretched)?;
    for (name, overflow, draws) in
        [("near", Overflow::Saturate, None), ("drawn", Overflow::NonFinite, Some(3))]
    {
        let quantise = Quantise { format: Format::E4m3, blocks: Blocks::Tensor { overflow }, draws };
        let operands = [chosen, scale, key];
        let codes = g.push(Op::Quantise(quantise), &operands[..2 + usize::from(draws.is_some())])?[0];
        g.add_output(name, codes);
    }
    g.add_output("low", low);
    g.add_output("chosen", chosen);
    Ok(g)
}

/// A step of two layers with a norm, a loss and SGD: chains behind anchors.
fn step() -> Result<Graph, GraphError> {
    let mut g = Graph::new();
    let names = [("up", &[8, 6][..]), ("up.bias", &[8]), ("ln", &[8]), ("ln.bias", &[8]), ("down", &[6, 8])];
    let weight = |g: &mut Graph, (name, shape): (&str, &[usize])| {
        let kind = SlotKind::Weight { decay: false };
        g.add_slot(name, ValueType::f32(Shape::new(shape)), kind, Init::Constant(0.0))
    };
    let slots = names.iter().map(|&slot| weight(&mut g, slot)).collect::<Result<Vec<_>, _>>()?;
    let w: Vec<ValueId> = slots.iter().map(|&slot| g.read(slot)).collect();
    let (x, y) = (g.input("x", ValueType::f32([4, 6].into())), g.input("y", ValueType::i32([4].into())));
    let key = g.input("key", ValueType::i32([4].into()));
    let up = g.matmul(x, w[0], false, true)?;
    let up = g.add(up, w[1])?;
    let active = g.gelu(up)?;
    let dropped = g.dropout(active, key, 0.25, 1)?;
    let normed = g.layer_norm(dropped, w[2], w[3], 1e-5)?;
    let sum = g.add(normed, dropped)?;
    let down = g.matmul(sum, w[4], false, true)?;
    let logits = g.add(down, x)?;
    let losses = g.cross_entropy(logits, y)?;
    let loss = g.mean(losses, &[0])?;
    let seed = g.scalar(64.0);
    let gradients = differentiate(&mut g, loss, seed, &slots)?;
    for ((&slot, &w), gradient) in slots.iter().zip(&w).zip(gradients) {
        let change = g.scale(gradient, 0.01 / 64.0)?;
        let new = g.sub(w, change)?;
        g.write(slot, new, When::Committed);
    }
    g.add_output("loss", loss);
    Ok(g)
}

/// Numbers from -2 to 2, exact in f32.
fn numbers(stream: u32, count: usize) -> Vec<f64> {
    let draw = |i: usize| Philox::new(7).block([stream, 0, 0, i as u32])[0];
    (0..count).map(|i| f64::from((f64::from(draw(i)) / 2f64.powi(30) - 2.0) as f32)).collect()
}

/// What an operation makes of these numbers, as one dimension.
fn apply(op: Op, operands: &[(&[f64], ValueType)]) -> Vec<f64> {
    let mut g = Graph::new();
    let named: Vec<(String, Tensor)> = operands
        .iter()
        .enumerate()
        .map(|(i, (data, ty))| (format!("x{i}"), Tensor::new(ty.shape.clone(), data.to_vec())))
        .collect();
    let inputs: Vec<ValueId> =
        named.iter().zip(operands).map(|((name, _), (_, ty))| g.input(name, ty.clone())).collect();
    let result = g.push(op, &inputs).unwrap()[0];
    let given: Vec<(&str, Tensor)> = named.iter().map(|(name, t)| (name.as_str(), t.clone())).collect();
    evaluate(&g, &[], &given, Rounding::None).unwrap()[result.0 as usize].data.clone()
}

/// The elements of an operand that go with those of the results.
fn loaded(operand: &Operand, memory: &[f64], count: usize) -> Vec<f64> {
    let place = |i: usize| match &operand.access {
        Access::Same => i,
        Access::Strided(dimensions) => {
            let split =
                |(rest, at): (usize, usize), d: &Dimension| (rest / d.size, at + rest % d.size * d.stride);
            dimensions.iter().rev().fold((i, 0), split).1
        }
    };
    (0..count).map(|i| memory[place(i)]).collect()
}

/// The results of an expression over these values of the graph, `anchor` among them.
///
/// Terms that members make are f32, and f64 arithmetic is rounded to it. The interpreter rounds to
/// 16 bits straight from f64, which differs where f32 falls halfway between two: one result in 2^13
/// or fewer, and none of those here.
fn run(graph: &Graph, expression: &Expression, anchor: Option<ValueId>, values: &[Tensor]) -> Vec<Vec<f64>> {
    let count = expression.count;
    let data = |v: ValueId| &values[v.0 as usize].data[..];
    let f32 = |shape: &[usize]| ValueType::f32(Shape::new(shape));
    let key_of = |v: ValueId| (data(v), ValueType::i32([4].into()));
    let mut terms: Vec<Vec<f64>> = Vec::new();
    for term in &expression.terms {
        let t = |TermId(i): TermId| (&terms[i as usize][..], f32(&[count]));
        let made = match *term {
            Term::Operand(n) => {
                let operand = &expression.operands[n];
                loaded(operand, data(operand.source.or(anchor).unwrap()), count)
            }
            Term::Const(x) => vec![x; count],
            Term::Round(to, x) => t(x).0.iter().map(|&x| to.round(x)).collect(),
            Term::Unary(f, x) => apply(Op::Unary(f), &[t(x)]),
            Term::Binary(f, a, b) => apply(Op::Binary(f), &[t(a), t(b)]),
            Term::Select(condition, a, b) => apply(Op::Select, &[t(condition), t(a), t(b)]),
            Term::Quantise { format, overflow, draws, value, scale } => {
                let (number, key) = draws.unzip();
                let op = Quantise { format, blocks: Blocks::Tensor { overflow }, draws: number };
                let scale = (&t(scale).0[..1], f32(&[]));
                let operands: Vec<_> = [t(value), scale].into_iter().chain(key.map(key_of)).collect();
                apply(Op::Quantise(op), &operands)
            }
            Term::Dropout { rate, id, per_sample, key, value } => {
                let samples = (t(value).0, f32(&[count / per_sample, per_sample]));
                apply(Op::Dropout { rate, id }, &[samples, key_of(key)])
            }
        };
        terms.push(made.into_iter().map(|x| DType::F32.round(x)).collect());
    }
    let stored = |&(v, TermId(term)): &(ValueId, TermId)| {
        terms[term as usize].iter().map(|&x| graph.dtype(v).round(x)).collect()
    };
    expression.outputs.iter().map(stored).collect()
}

/// Compares every group with the interpreter; the number of terms of each kind of operand that were
/// seen.
fn check(graph: &Graph) -> (usize, usize, usize) {
    let slots: Vec<Tensor> = graph
        .slots
        .iter()
        .enumerate()
        .map(|(i, slot)| {
            let values = match slot.init {
                Init::Constant(x) if x != 0.0 => vec![x; slot.ty.shape.count()],
                _ => numbers(100 + i as u32, slot.ty.shape.count()),
            };
            Tensor::new(slot.ty.shape.clone(), values.iter().map(|&x| slot.ty.dtype.round(x)).collect())
        })
        .collect();
    let mut inputs: Vec<(&str, Tensor)> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let Op::Input { name } = &node.op else { continue };
        let ty = &graph.value(node.outputs[0]).ty;
        let data = match ty.dtype {
            DType::I32 => vec![3.0, 1.0, 4.0, 1.0],
            _ => numbers(i as u32, ty.shape.count()),
        };
        inputs.push((name.as_str(), Tensor::new(ty.shape.clone(), data)));
    }
    let values = evaluate(graph, &slots, &inputs, Rounding::Stored).unwrap();
    let (mut behind_anchors, mut rounded, mut stretched) = (0, 0, 0);
    for group in group(graph, &Everything).steps {
        let anchor = group.anchor(graph);
        if anchor.is_some() && group.nodes.len() == 1 {
            continue;
        }
        let expression = Expression::of(graph, &group);
        behind_anchors += usize::from(anchor.is_some());
        rounded += expression.terms.iter().filter(|t| matches!(t, Term::Round(..))).count();
        stretched += expression.operands.iter().filter(|o| o.access != Access::Same).count();
        let anchor = anchor.map(|n| graph.node(n).outputs[0]);
        let results = run(graph, &expression, anchor, &values);
        for (&(v, _), result) in expression.outputs.iter().zip(results) {
            assert_eq!(result, values[v.0 as usize].data, "%{} of {group:?}\n{expression:?}", v.0);
        }
        let written = group.writes.iter().filter(|&&v| {
            Some(graph.value(v).node) != anchor.map(|v| graph.value(v).node) || Some(v) == anchor
        });
        assert_eq!(expression.outputs.len(), written.count(), "every result has a term");
    }
    (behind_anchors, rounded, stretched)
}

#[test]
fn chains_of_every_operation_mean_what_their_nodes_mean() {
    let g = elementwise().unwrap();
    let (_, rounded, stretched) = check(&g);
    // The cast; the row, the column, the middle twice, and the scale twice.
    assert_eq!((rounded, stretched), (1, 6), "{g}");
}

#[test]
fn chains_of_a_step_mean_what_their_nodes_mean() {
    for policy in ["fp32", "bf16", "fp16", "fp8", "fp8-current"] {
        let (g, _) = assign(&step().unwrap(), &Policy::named(policy).unwrap());
        let (behind_anchors, rounded, _) = check(&fuse(&g));
        assert!(behind_anchors > 3, "{policy}: {behind_anchors}");
        assert_eq!(rounded > 0, policy != "fp32", "{policy}: {rounded}");
    }
}

#[test]
fn an_access_has_as_few_dimensions_as_can_be() {
    let strided = |dimensions: &[(usize, usize)]| {
        Some(Access::Strided(dimensions.iter().map(|&(size, stride)| Dimension { size, stride }).collect()))
    };
    assert_eq!(Access::broadcast(&[3, 4], &[3, 4]), Some(Access::Same));
    assert_eq!(Access::broadcast(&[3, 1, 4], &[3, 1, 4]), Some(Access::Same));
    assert_eq!(Access::broadcast(&[], &[3, 4]), strided(&[(12, 0)]));
    assert_eq!(Access::broadcast(&[3, 4], &[2, 3, 4]), strided(&[(2, 0), (12, 1)]));
    assert_eq!(Access::broadcast(&[2, 1, 1], &[2, 3, 4]), strided(&[(2, 1), (12, 0)]));
    assert_eq!(Access::broadcast(&[2, 1, 4], &[2, 3, 4]), strided(&[(2, 4), (3, 0), (4, 1)]));
    assert_eq!(Access::broadcast(&[3], &[4]), None);
    assert_eq!(Access::broadcast(&[1, 3], &[3]), None);
}

//! A program has the same bits with and without groups, on every instruction set: random programs.
//! Those of models are a part of the conformance suite, which `engine.rs` runs.

use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::conformance::{fusible_programs, same_bits};
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::Policy;
use halfstep_graph::{Binary, DType, Graph, Shape, Unary, Unfused, ValueId, ValueType, plan};
use proptest::prelude::*;

#[test]
fn groups_are_made() {
    for policy in Policy::NAMES {
        for (name, graph) in fusible_programs(&Policy::named(policy).unwrap()) {
            for isa in Isa::available() {
                let engine = CpuEngine::new(isa, NonZeroUsize::MIN);
                assert_ne!(engine.identity(), Unfused(&engine).identity());
                let together = plan(graph.clone(), &engine).groups.steps.len();
                let apart = plan(graph.clone(), &Unfused(&engine)).groups.steps.len();
                assert!(together + 5 < apart, "{name}: {together} steps with groups, {apart} without");
            }
        }
    }
}

/// One of the operations that a chain can have.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Unary(Unary),
    Binary(Binary),
    Select,
    Cast(DType),
    /// Through another shape and back.
    Reshape,
    Product,
    Dropout,
    Output,
}

fn choice() -> impl Strategy<Value = Choice> {
    let unary =
        [Unary::Neg, Unary::Relu, Unary::Step, Unary::Gelu, Unary::GeluGrad, Unary::Square, Unary::Tanh];
    let binary = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Greater];
    prop_oneof![
        3 => prop::sample::select(unary.to_vec()).prop_map(Choice::Unary).boxed(),
        4 => prop::sample::select(binary.to_vec()).prop_map(Choice::Binary).boxed(),
        1 => Just(Choice::Select).boxed(),
        2 => prop::sample::select(&[DType::F32, DType::Bf16, DType::F16][..]).prop_map(Choice::Cast).boxed(),
        1 => Just(Choice::Reshape).boxed(),
        1 => Just(Choice::Product).boxed(),
        1 => Just(Choice::Dropout).boxed(),
        1 => Just(Choice::Output).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Random chains between products, with operands that are stretched in every way.
    #[test]
    fn groups_of_random_graphs_change_no_bit(
        n in 1usize..70,
        choices in prop::collection::vec((choice(), 0usize..64, 0usize..64, 0usize..64), 1..24),
        threads in 1usize..3,
    ) {
        let mut g = Graph::new();
        let shapes: [&[usize]; 5] = [&[n, n], &[n], &[n, 1], &[], &[1, n]];
        let mut stretched: Vec<ValueId> =
            shapes.iter().enumerate().map(|(i, s)| g.input(&format!("x{i}"), ValueType::f32(Shape::new(s)))).collect();
        let mut whole = vec![stretched.remove(0)];
        let key = g.input("key", ValueType::i32([4].into()));
        for (choice, a, b, c) in choices {
            let any = |at: usize| {
                let all = whole.len() + stretched.len();
                if at % all < whole.len() { whole[at % all] } else { stretched[at % all - whole.len()] }
            };
            let a = whole[a % whole.len()];
            let made = match choice {
                Choice::Unary(f) => g.unary(f, a),
                Choice::Binary(f) if c % 2 == 0 => g.binary(f, a, any(b)),
                Choice::Binary(f) => g.binary(f, any(b), a),
                Choice::Select => g.select(any(b), a, any(c)),
                Choice::Cast(to) => g.cast(a, to),
                Choice::Reshape => g.reshape(a, [n * n]).and_then(|x| g.reshape(x, [n, n])),
                Choice::Product => {
                    // Both operands in one type, as the precision pass would have it.
                    let b = whole[b % whole.len()];
                    let to = g.dtype(a);
                    let b = if g.dtype(b) == to { b } else { g.cast(b, to).unwrap() };
                    g.matmul(a, b, false, true)
                }
                Choice::Dropout => g.dropout(a, key, 0.3, c as u32),
                Choice::Output => {
                    g.add_output(&format!("y{}", g.outputs.len()), a);
                    Ok(a)
                }
            };
            whole.push(made.unwrap());
        }
        g.add_output("last", whole[whole.len() - 1]);
        for isa in [Isa::PORTABLE, Isa::best()] {
            let engine = CpuEngine::new(isa, NonZeroUsize::new(threads).unwrap());
            same_bits(&engine, &g.without_dead_nodes());
        }
    }
}

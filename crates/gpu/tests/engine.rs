//! The GPU engine passes what every engine must, on a simulated GPU that checks every access of its
//! kernels. `HALFSTEP_CONFORMANCE=all` tests every precision on both architectures.

mod common;

use std::process::ExitCode;

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::Policy;
use halfstep_graph::{BatchNormPart, Graph, GraphError, Op, ValueId, ValueType, conformance, plan};
use halfstep_ptx::{Arrival, Options};

fn late() -> Options {
    Options::default()
}

fn shuffled() -> Options {
    Options { arrival: Arrival::Early, seed: Some(7), ..Options::default() }
}

fn nothing_is_left_out(left_out: Vec<String>) {
    assert!(left_out.is_empty(), "not tested: {left_out:?}");
}

/// Sums over so many rows and columns that each is taken apart agree with the interpreter's.
///
/// Numbers lie in 0 .. 1, so that a sum of n of them errs by at most n·2^-24 of itself (Higham
/// 2002, §4.2), and each is made of at most 256 that are added one after another, and of less than
/// 256 parts.
fn sums_in_parts(engine: &GpuEngine) {
    let mut g = Graph::new();
    let x = g.input("x", ValueType::f32([600, 33].into()));
    let dy = g.input("dy", ValueType::f32([600, 33].into()));
    let long = g.input("long", ValueType::f32([3, 20_000].into()));
    let ones = g.input("ones", ValueType::f32([33].into()));
    let rows = g.input("rows", ValueType::f32([600].into()));
    let build = |g: &mut Graph| -> Result<Vec<ValueId>, GraphError> {
        let mut results = vec![g.sum(x, &[0])?, g.sum(long, &[1])?, g.max(long, &[0, 1])?];
        results.push(g.global_norm(&[long, x])?);
        let mean = g.push(Op::BatchNormPart(BatchNormPart::Mean), &[x])?[0];
        let zeros = g.sub(ones, ones)?;
        results.extend([mean, g.push(Op::BatchNormPart(BatchNormPart::Variance), &[x, zeros])?[0]]);
        results.extend(g.push(Op::BatchNormPart(BatchNormPart::Sums), &[x, zeros, ones, dy])?);
        let still = g.sub(rows, rows)?;
        results.extend(&g.push(Op::LayerNormGrad, &[x, ones, still, rows, dy])?[1..]);
        Ok(results)
    };
    let results = build(&mut g).unwrap();
    for (i, &result) in results.iter().enumerate() {
        g.add_output(&i.to_string(), result);
    }
    let draw = |n: usize| (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0).collect::<Vec<f32>>();
    let data = [("x", draw(600 * 33)), ("dy", draw(600 * 33)), ("long", draw(60_000))];
    let data = data.into_iter().chain([("ones", vec![1.0; 33]), ("rows", vec![1.0; 600])]);
    let data: Vec<(&str, Vec<f32>)> = data.collect();
    let planned = plan(g.clone(), engine.target());
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    let inputs: Vec<(&str, HostSlice<'_>)> = data.iter().map(|(n, x)| (*n, HostSlice::F32(x))).collect();
    program.run(&mut state, &inputs).unwrap();
    let tensors = data.iter().map(|(name, x)| {
        let shape = g.inputs().find(|(n, _)| n == name).map(|(_, v)| g.shape(v).clone()).unwrap();
        (*name, Tensor::new(shape, x.iter().map(|&x| x.into()).collect()))
    });
    let wanted = evaluate(&g, &[], &tensors.collect::<Vec<_>>(), Rounding::None).unwrap();
    for (i, result) in results.iter().enumerate() {
        let found = program.read(&i.to_string()).unwrap();
        for (&y, t) in found.f32().iter().zip(&wanted[result.0 as usize].data) {
            let error = (f64::from(y) - t).abs();
            assert!(error <= 520.0 * f64::powi(2.0, -24) * t.abs(), "result {i}: {y} against {t}");
        }
    }
}

/// What is tested by default of operations: all that the oldest architecture multiplies by code of
/// its own, and what later ones multiply otherwise. fp16 and bf16x3 are the code of bf16 and bf16x6
/// for another type and fewer terms.
fn operations_by_default(architecture: Architecture, policy: &str) -> bool {
    match architecture {
        Architecture::MINIMUM => !["fp16", "bf16x3"].contains(&policy),
        _ => ["fp8", "fp8-current"].contains(&policy),
    }
}

/// Of groups, behind each kind of product once: in f32, of 16 bits, of terms, and of codes.
fn fusion_by_default(architecture: Architecture, policy: &str) -> bool {
    match architecture {
        Architecture::MINIMUM => ["fp32", "bf16", "bf16x6"].contains(&policy),
        _ => policy == "fp8-current",
    }
}

/// Programs with groups and without have the same bits under a policy.
fn fusion(engine: &GpuEngine, policy: &Policy) {
    engine.target().supports(policy).unwrap();
    for (_, graph) in conformance::fusible_programs(policy) {
        conformance::same_bits(engine, &graph);
    }
}

fn main() -> ExitCode {
    type Part = fn(&GpuEngine);
    type ByPolicy = fn(&GpuEngine, &Policy);
    type Chosen = fn(Architecture, &str) -> bool;
    let parts: [(&str, Part); 3] = [
        ("sums_in_parts", sums_in_parts),
        ("step", |engine| nothing_is_left_out(conformance::step(engine))),
        ("state", |engine| conformance::state(engine)),
    ];
    let by_policy: [(&str, Chosen, ByPolicy); 2] = [
        ("operations", operations_by_default, |engine, policy| {
            nothing_is_left_out(conformance::operations_under(engine, policy));
        }),
        ("fusion", fusion_by_default, fusion),
    ];
    let devices =
        [(Architecture::MINIMUM, late as fn() -> Options), (Architecture::of_device(9, 0), shuffled)];
    type Test = (String, Box<dyn FnOnce() + Send>);
    let mut tests: Vec<Test> = Vec::new();
    let all = common::thorough();
    for (architecture, options) in devices {
        for (part, by_default, check) in by_policy {
            for name in Policy::NAMES.iter().filter(|name| all || by_default(architecture, name)) {
                let test = move || {
                    let policy = Policy::named(name).unwrap();
                    check(&common::engine(architecture, options()), &policy);
                };
                tests.push((format!("{architecture}::{part}::{name}"), Box::new(test)));
            }
        }
        for (part, check) in parts {
            let test = move || check(&common::engine(architecture, options()));
            tests.push((format!("{architecture}::{part}"), Box::new(test)));
        }
    }
    common::run(tests)
}

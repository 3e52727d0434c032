//! Attention of many shapes on a simulated GPU, beside the interpreter's.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::{Engine, HostSlice, HostTensor};
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{AttentionSpec, Graph, Op, Shape, ValueType, fuse, plan};
use halfstep_ptx::{Arrival, Counts, Options};

/// Sizes of an attention, and whether q, k and v are parts of one tensor.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    time: usize,
    dim: usize,
    causal: bool,
    packed: bool,
}

impl Case {
    /// Attention and its gradients, of operands `x0…` and a gradient of the result, the last.
    fn graph(&self) -> Graph {
        let (mut graph, width) = (Graph::new(), self.heads * self.dim);
        let mut input = |i: usize, width: usize| {
            let shape = Shape::from([self.batch, self.time, width]);
            graph.input(&format!("x{i}"), ValueType::f32(shape))
        };
        let operands = if self.packed {
            vec![input(0, 3 * width)]
        } else {
            vec![input(0, width), input(1, width), input(2, width)]
        };
        let dout = input(operands.len(), width);
        let spec = AttentionSpec { heads: self.heads, causal: self.causal };
        let y = graph.push(Op::Attention(spec), &operands).unwrap();
        let grads = [&operands[..], &[y[0], y[1], dout]].concat();
        let grads = graph.push(Op::AttentionGrad(spec), &grads).unwrap();
        for (i, result) in [y, grads].concat().into_iter().enumerate() {
            graph.add_output(&format!("y{i}"), result);
        }
        graph
    }
}

/// Numbers in ±1 that bf16 holds, other ones for each tensor.
fn numbers(tensor: usize, count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32.wrapping_mul(tensor as u32 + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as f32 / 128.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Results by name, and what was launched.
type Found = (Vec<(String, HostTensor)>, Vec<(String, Counts)>);

fn run(graph: &Graph, architecture: Architecture, options: Options) -> Found {
    let device = Arc::new(common::device(architecture, options));
    let engine = GpuEngine::new(device.clone());
    let planned = plan(fuse(graph), engine.target());
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    let inputs: Vec<(String, Vec<f32>)> = graph
        .inputs()
        .enumerate()
        .map(|(i, (name, value))| (name.to_string(), numbers(i, graph.shape(value).count())))
        .collect();
    let slices: Vec<(&str, HostSlice<'_>)> =
        inputs.iter().map(|(name, x)| (name.as_str(), HostSlice::F32(x))).collect();
    program.run(&mut state, &slices).unwrap();
    let results = graph.outputs.iter().map(|(name, _)| (name.clone(), program.read(name).unwrap()));
    (results.collect(), device.take_launches())
}

/// How far a tensor lies from the true one, and how long that is, as root mean squares.
fn distance(found: &HostTensor, wanted: &Tensor) -> (f64, f64) {
    let mean = |squares: f64| (squares / wanted.data.len() as f64).sqrt();
    let pairs = || found.f32().iter().zip(&wanted.data);
    (
        mean(pairs().map(|(&y, t)| (f64::from(y) - t).powi(2)).sum()),
        mean(wanted.data.iter().map(|t| t * t).sum()),
    )
}

/// Results agree with what the interpreter computes in f64 of the same numbers without rounding.
///
/// What is rounded to a format of unit roundoff u errs by at most u of itself: probabilities, their
/// gradients, the results, and the result of which δ is made. Errors of that many numbers add like
/// random ones, so that a tensor errs by less than u of its root mean square for each of the four.
/// Sums in f32 err by (terms) · 2^-24 of the sum of magnitudes: scores of numbers in ±1 by
/// D · 2^-24 · √D, probabilities and results by as much of themselves, and of gradients terms are
/// at most D. Where D is one and sequences are of one place, nothing else is there.
fn agrees(case: Case, policy: &Policy) {
    let graph = case.graph();
    let (assigned, _) = assign(&graph, policy);
    let (found, _) = run(&assigned, Architecture::MINIMUM, Options::default());
    let tensors: Vec<(&str, Tensor)> = graph
        .inputs()
        .enumerate()
        .map(|(i, (name, value))| {
            let shape = graph.shape(value).clone();
            let data = numbers(i, shape.count()).into_iter().map(f64::from).collect();
            (name, Tensor::new(shape, data))
        })
        .collect();
    let wanted = evaluate(&graph, &[], &tensors, Rounding::None).unwrap();
    let unit = match policy.low {
        Some(low) => low.format().unwrap().info().unit_roundoff,
        None => 0.0,
    };
    let (dim, terms) = (case.dim as f64, (case.dim + case.time) as f64);
    for ((name, y), (_, value)) in found.iter().zip(&graph.outputs) {
        let (error, size) = distance(y, &wanted[value.0 as usize]);
        let allowed = 4.0 * unit * size + f64::powi(2.0, -24) * terms * dim.sqrt();
        assert!(error <= allowed, "{name} of {case:?} under {}: {error:e} > {allowed:e}", policy.name);
    }
}

/// Sequences and heads of sizes around those of tiles: each length with four of the widths, with
/// the mask and without, packed and not.
fn many_sizes(policy: &str) {
    let policy = Policy::named(policy).unwrap();
    let dims = [1, 8, 12, 16, 40, 48, 64, 96, 128, 136];
    for (i, time) in [1, 3, 17, 33, 64, 65, 129].into_iter().enumerate() {
        for j in 0..4 {
            let (causal, packed) = ((i + j) % 3 != 0, (i + j) % 2 == 0);
            let (batch, heads, dim) = (1 + (i + j) % 2, 1 + j % 3, dims[(i + 3 * j) % dims.len()]);
            agrees(Case { batch, heads, time, dim, causal, packed }, &policy);
        }
    }
}

/// No number of places is too many: the scores of a query are nowhere all at once.
fn long_sequence(policy: &str) {
    let case = Case { batch: 1, heads: 1, time: 1100, dim: 8, causal: true, packed: true };
    agrees(case, &Policy::named(policy).unwrap());
}

/// Blocks, warps and copies in another order change no bit.
fn same_bits(policy: &str) {
    for dim in [64, 128] {
        let case = Case { batch: 2, heads: 2, time: 150, dim, causal: dim == 64, packed: true };
        let (graph, _) = assign(&case.graph(), &Policy::named(policy).unwrap());
        let architecture = Architecture::of_device(9, 0);
        let (wanted, _) = run(&graph, architecture, Options::default());
        for seed in [1, 2] {
            let options = Options { seed: Some(seed), arrival: Arrival::Early, ..Options::default() };
            assert_eq!(run(&graph, architecture, options).0, wanted, "{policy} {case:?} {seed}");
        }
    }
}

/// No two lanes meet in a bank, of each sector that is asked for all bytes are, and where Tensor
/// Cores multiply there are no more products than the method has.
fn within_budget(policy: &str, dim: usize) {
    let case = Case { batch: 1, heads: 2, time: 192, dim, causal: true, packed: true };
    let (graph, _) = assign(&case.graph(), &Policy::named(policy).unwrap());
    let (_, launches) = run(&graph, Architecture::MINIMUM, Options::default());
    // Squares of 64 queries and keys at or below the diagonal of each head, and operations of one
    // product of each.
    let (squares, product) = (2 * (1 + 2 + 3), 2 * 64 * 64 * dim as u64);
    let kernels = [("attention", 2), ("attention_grad_queries", 3), ("attention_grad_keys", 4)];
    for (kernel, products) in kernels {
        let found: Vec<_> = launches.iter().filter(|(name, _)| name == kernel).collect();
        let [(_, counts)] = found[..] else { panic!("{kernel}: {} launches", found.len()) };
        let at = format!("{kernel} under {policy}, {dim}: {counts}");
        assert_eq!(counts.bank_conflicts, 0, "{at}");
        let within = |sectors: u64, bytes: u64| sectors as f64 <= 1.05 * bytes as f64 / 32.0;
        assert!(within(counts.sectors_loaded, counts.bytes_loaded), "{at}");
        // In f32 a warp has two rows, whose sums it stores in a sector of their own.
        let sums = if policy == "fp32" && kernel == "attention" { 2 * 192 / 2 } else { 0 };
        assert!(within(counts.sectors_stored - sums, counts.bytes_stored - 8 * sums), "{at}");
        let operations = if policy == "fp32" { 0 } else { products * squares * product };
        assert_eq!(counts.tensor_operations, operations, "{at}");
    }
}

fn main() -> ExitCode {
    type Test = (String, Box<dyn FnOnce() + Send>);
    let of = |part: &str, policy: &'static str, test: fn(&str)| -> Test {
        (format!("{part}::{policy}"), Box::new(move || test(policy)))
    };
    let mut tests = Vec::new();
    // fp16 is the code of bf16 for another type: the conformance suite and models have it too.
    let policies: &[_] = if common::thorough() { &["fp32", "bf16", "fp16"] } else { &["fp32", "bf16"] };
    for &policy in policies {
        tests.push(of("many_sizes", policy, many_sizes));
        tests.push(of("long_sequence", policy, long_sequence));
        tests.push(of("same_bits", policy, same_bits));
        for dim in [16, 48, 64, 96, 128] {
            let name = format!("within_budget::{policy}::{dim}");
            tests.push((name, Box::new(move || within_budget(policy, dim))));
        }
    }
    common::run(tests)
}

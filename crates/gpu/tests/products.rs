//! Products whose operands are copied in chunks, at the edges of tiles and in parts of k, have the
//! interpreter's bits where every sum is exact, on a simulated GPU that checks every access.

mod common;

use std::process::ExitCode;

use halfstep_float::{Format, Overflow};
use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::{Override, Policy, Rule, assign};
use halfstep_graph::{
    Blocks, ConvGeometry, Graph, GraphError, Op, Quantise, Shape, ValueId, ValueType, fuse, plan,
};
use halfstep_ptx::{Arrival, Options};

/// Whole numbers between -7 and 7: all types hold them, and f32 holds every sum of fewer than 2^18
/// of their products. As codes they are multiplied by 448 / 7 = 64.
fn whole_numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + seed) * 7919 + i / 7 * 13) % 15) as f32 - 7.0).collect()
}

type Build = dyn Fn(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>, GraphError>;

/// The results of a program of inputs of these shapes are the interpreter's.
fn exact(engine: &GpuEngine, policy: &str, shapes: &[Shape], build: &Build) {
    let mut g = Graph::new();
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let inputs: Vec<ValueId> =
        names.iter().zip(shapes).map(|(name, shape)| g.input(name, ValueType::f32(shape.clone()))).collect();
    let results = build(&mut g, &inputs).unwrap();
    for (i, result) in results.iter().enumerate() {
        g.add_output(&i.to_string(), *result);
    }
    let mut assigned = Policy::named(policy).unwrap();
    if assigned.narrow.is_some() {
        // A program of one product would keep it in 16 bits as its last.
        assigned.overrides.push(Override { pattern: "*".into(), rule: Rule::Low });
    }
    let (g, _) = assign(&g, &assigned);
    let planned = plan(fuse(&g), engine.target());
    let data: Vec<Vec<f32>> =
        shapes.iter().enumerate().map(|(i, s)| whole_numbers(s.iter().product(), i * 1000)).collect();
    let slices: Vec<(&str, HostSlice<'_>)> =
        names.iter().zip(&data).map(|(name, x)| (name.as_str(), HostSlice::F32(x))).collect();
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    program.run(&mut state, &slices).unwrap();
    let tensor =
        |(x, shape): (&Vec<f32>, &Shape)| Tensor::new(shape.clone(), x.iter().map(|&x| x.into()).collect());
    let tensors: Vec<(&str, Tensor)> =
        names.iter().map(String::as_str).zip(data.iter().zip(shapes).map(tensor)).collect();
    let graph = &planned.graph;
    let wanted = evaluate(graph, &[], &tensors, Rounding::Stored).unwrap();
    for (name, value) in &graph.outputs {
        let found: Vec<f64> = program.read(name).unwrap().f32().iter().map(|&x| x.into()).collect();
        let wrong = found.iter().zip(&wanted[value.0 as usize].data).position(|(y, t)| y != t);
        assert_eq!(wrong, None, "{policy} {shapes:?}: the first wrong element of result {name}");
    }
}

/// A product with a bias and what follows it, of operands stored in all ways.
fn matrices(engine: &GpuEngine, policy: &str, [m, n, k]: [usize; 3]) {
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        let a: Shape = if ta { [k, m].into() } else { [m, k].into() };
        let b: Shape = if tb { [n, k].into() } else { [k, n].into() };
        let shapes = [a, b, [n].into(), [m, n].into()];
        exact(engine, policy, &shapes, &move |g: &mut Graph, x: &[ValueId]| {
            let product = g.matmul(x[0], x[1], ta, tb)?;
            let biased = g.add(product, x[2])?;
            let sum = g.add(biased, x[3])?;
            Ok(vec![g.relu(sum)?])
        });
    }
}

/// A convolution of 2 images and its gradients.
fn convolution(
    engine: &GpuEngine,
    policy: &str,
    size: usize,
    window: usize,
    stride: usize,
    [c, o]: [usize; 2],
) {
    let geometry = ConvGeometry { stride, pad: window / 2 };
    let out = geometry.output(size, window).unwrap();
    let shapes = [[2, size, size, c].into(), [o, window, window, c].into(), [2, out, out, o].into()];
    exact(engine, policy, &shapes, &move |g: &mut Graph, x: &[ValueId]| {
        let y = g.conv2d(x[0], x[1], geometry)?;
        let dx = g.push(Op::Conv2dGradInput { geometry, size: (size, size) }, &[x[2], x[1]])?;
        let window = (window, window);
        let dw = g.push(Op::Conv2dGradWeight { geometry, window }, &[x[0], x[2]])?;
        Ok(vec![y, dx[0], dw[0]])
    });
}

fn products(engine: &GpuEngine, policy: &str) {
    // Whole chunks at the edges of tiles of every size; some and no whole chunks; parts of k.
    for sizes in [[72, 40, 104], [264, 136, 40], [40, 24, 20], [33, 35, 70], [16, 12, 2400], [9, 10, 2501]] {
        matrices(engine, policy, sizes);
    }
    for (size, window, stride, channels) in
        [(9, 3, 1, [8, 16]), (8, 3, 2, [16, 8]), (7, 1, 2, [8, 24]), (6, 3, 1, [3, 8]), (40, 3, 1, [8, 8])]
    {
        convolution(engine, policy, size, window, stride, channels);
    }
}

/// Products of codes of two formats, either of them on the left, of operands stored in all ways.
fn codes(engine: &GpuEngine) {
    let blocks = Blocks::Tensor { overflow: Overflow::Saturate };
    let quantised = move |g: &mut Graph, x: ValueId, format: Format| {
        let one = g.scalar(1.0);
        Ok::<_, GraphError>(g.push(Op::Quantise(Quantise { format, blocks, draws: None }), &[x, one])?[0])
    };
    for formats in [[Format::E4m3, Format::E5m2], [Format::E5m2, Format::E4m3]] {
        for ([m, n, k], ta, tb) in [
            ([80, 48, 96], false, true),
            ([80, 48, 96], true, true),
            ([80, 48, 96], false, false),
            ([33, 35, 70], true, false),
        ] {
            let a: Shape = if ta { [k, m].into() } else { [m, k].into() };
            let b: Shape = if tb { [n, k].into() } else { [k, n].into() };
            exact(engine, "fp32", &[a, b], &move |g: &mut Graph, x: &[ValueId]| {
                let (a, b) = (quantised(g, x[0], formats[0])?, quantised(g, x[1], formats[1])?);
                Ok(vec![g.matmul(a, b, ta, tb)?])
            });
        }
        let geometry = ConvGeometry { stride: 1, pad: 1 };
        let image: Shape = [2, 8, 8, 16].into();
        exact(engine, "fp32", &[image.clone(), image], &move |g: &mut Graph, x: &[ValueId]| {
            let (x, dy) = (quantised(g, x[0], formats[0])?, quantised(g, x[1], formats[1])?);
            g.push(Op::Conv2dGradWeight { geometry, window: (3, 3) }, &[x, dy])
        });
    }
}

fn main() -> ExitCode {
    let late = Options::default();
    let shuffled = Options { arrival: Arrival::Early, seed: Some(7), ..Options::default() };
    let of = |architecture: Architecture, options: Options, policy: &'static str| {
        let test = move || products(&common::engine(architecture, options), policy);
        (format!("{architecture}::{policy}"), Box::new(test) as Box<dyn FnOnce() + Send>)
    };
    let ampere =
        ["fp32", "tf32", "bf16", "bf16x6", "fp8-current"].map(|p| of(Architecture::MINIMUM, late, p));
    let hopper = ["bf16", "fp16", "tf32", "fp8-current"]
        .map(|policy| of(Architecture::of_device(9, 0), shuffled, policy));
    let blackwell = ["fp8-current"].map(|policy| of(Architecture::of_device(12, 0), late, policy));
    let mixed = [Architecture::of_device(9, 0), Architecture::of_device(12, 0)].map(|architecture| {
        let test = move || codes(&common::engine(architecture, Options::default()));
        (format!("{architecture}::codes"), Box::new(test) as Box<dyn FnOnce() + Send>)
    });
    let mut tests: Vec<_> = ampere.into_iter().chain(hopper).chain(blackwell).chain(mixed).collect();
    if !common::thorough() {
        // The conformance suite has products in every precision too, if of fewer shapes.
        tests.retain(|(name, _)| name == "sm_80::bf16" || name.ends_with("::codes"));
    }
    common::run(tests)
}

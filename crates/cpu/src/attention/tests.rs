use proptest::prelude::*;

use super::unit;
use halfstep_graph::Split;

use super::*;
use crate::gemm::scheme::with_scheme;
use crate::gemm::simulated::SimulatedTiles;
use crate::gemm::tests::Unit;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::storage::Dst;
use crate::rows::support::*;

/// The formats that attention multiplies in: tf32 is for the other products.
const COMPUTES: [ProductFormat; 5] = [
    ProductFormat::F32,
    ProductFormat::Bf16,
    ProductFormat::F16,
    ProductFormat::Split(Split::Bf16x3),
    ProductFormat::Split(Split::Bf16x6),
];

/// q, k and v, or gradients of them, in one packed tensor or in three.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Packing {
    Packed,
    Separate,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: HeadShape,
    mask: AttentionMask,
    storage: Storage,
    compute: ProductFormat,
    packing: Packing,
}

/// What a case runs on.
#[derive(Clone, Copy, Debug)]
enum On {
    Isa(Isa),
    SimulatedTiles { with_f16: bool },
}

impl On {
    fn unit(self) -> Unit {
        match self {
            On::Isa(isa) => Unit::of(isa),
            On::SimulatedTiles { with_f16: false } => Unit::Tiles,
            On::SimulatedTiles { with_f16: true } => Unit::TilesWithF16,
        }
    }
}

/// Runs `$body` on the unit that is simulated for a compute format.
macro_rules! simulated {
    ($compute:expr, $with_f16:expr, $unit:ident => $body:expr) => {
        with_scheme!($compute, $with_f16, S => {
            let tiles = SimulatedTiles::<S>::new();
            let $unit = unit::Unit(Some(&tiles));
            $body
        }, else unreachable!("f32 has no tiles"))
    };
}

/// How much a product may leave out or round away of Σ|a||b|, and how many terms it has for each.
fn product(case: &Case, unit: Unit) -> (f64, usize) {
    let (passes, left_out) = unit.passes(case.compute);
    (left_out, passes)
}

/// The fraction by which an operand that a kernel makes itself is rounded, or what is left out of
/// its products.
fn operand_error(case: &Case, unit: Unit) -> f64 {
    match operand_format(case.compute) {
        Storage::F32 => product(case, unit).0,
        low => unit_roundoff(low),
    }
}

/// Everything in f64, and bounds: naive attention with the score matrix.
struct Reference {
    out: Vec<f64>,
    out_bound: Vec<f64>,
    lse: Vec<f64>,
    lse_bound: Vec<f64>,
}

/// Row (b, t, h) of a dense `[B, T, H, D]` tensor.
fn row(shape: &HeadShape, b: usize, t: usize, h: usize) -> std::ops::Range<usize> {
    let start = ((b * shape.time + t) * shape.heads + h) * shape.dim;
    start..start + shape.dim
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn abs_dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum()
}

fn heads(shape: HeadShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.batch).flat_map(move |b| (0..shape.heads).map(move |h| (b, h)))
}

fn seen(case: &Case, t: usize) -> usize {
    if case.mask == AttentionMask::Causal { t + 1 } else { case.shape.time }
}

fn scale(shape: &HeadShape) -> f32 {
    1.0 / (shape.dim as f32).sqrt()
}

/// Error of a product of D terms as a fraction of the sum of magnitudes.
fn dot_error(case: &Case, unit: Unit) -> f64 {
    let (left_out, passes) = product(case, unit);
    // Products of terms add up to a little more than the product.
    left_out + gamma(passes * case.shape.dim + 1) * if left_out > 0.0 { 1.0 + 1.0 / 32.0 } else { 1.0 }
}

/// Error of a scaled score: D products and additions, and the scaling.
fn score_error(case: &Case, unit: Unit, q: &[f64], k: &[f64]) -> f64 {
    f64::from(scale(&case.shape)) * dot_error(case, unit) * abs_dot(q, k)
}

fn forward(case: &Case, on: Unit, [q, k, v]: [&[f64]; 3]) -> Reference {
    let shape = &case.shape;
    let count = q.len();
    let rows = shape.batch * shape.heads * shape.time;
    let passes = product(case, on).1;
    let mut r = Reference {
        out: vec![0.0; count],
        out_bound: vec![0.0; count],
        lse: vec![0.0; rows],
        lse_bound: vec![0.0; rows],
    };
    let unit = operand_error(case, on);
    // Below this a probability in f16 is subnormal and its rounding absolute.
    let tiny = if case.compute == ProductFormat::F16 { 2f64.powi(-25) } else { 0.0 };
    for (b, h) in heads(*shape) {
        for t in 0..shape.time {
            let at = row(shape, b, t, h);
            let q = &q[at.clone()];
            let keys: Vec<usize> = (0..seen(case, t)).collect();
            let score = |j: usize| f64::from(scale(shape)) * dot(q, &k[row(shape, b, j, h)]);
            let scores: Vec<f64> = keys.iter().map(|&j| score(j)).collect();
            let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let range = scores.iter().fold(0.0, |a: f64, &b| a.max(largest - b));
            let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            let worst =
                keys.iter().map(|&j| score_error(case, on, q, &k[row(shape, b, j, h)])).fold(0.0, f64::max);
            // The difference from the maximum, an exponential within 2 ulp, and for every later
            // block a rescaling by another exponential.
            let blocks = (shape.time.div_ceil(BLOCK) + 1) as f64;
            let relative = worst + blocks * (range + 6.0) * U;
            let i = (b * shape.heads + h) * shape.time + t;
            r.lse[i] = largest + total.ln();
            r.lse_bound[i] = worst + relative + gamma(BLOCK) + 2.0 * U * r.lse[i].abs() + U;
            for (d, o) in at.enumerate() {
                let terms = || {
                    scores
                        .iter()
                        .zip(&keys)
                        .map(|(s, &j)| ((s - largest).exp() / total, v[row(shape, b, j, h)][d]))
                };
                r.out[o] = terms().map(|(p, v)| p * v).sum();
                let size: f64 = terms().map(|(p, v)| p * v.abs()).sum();
                let values: f64 = terms().map(|(_, v)| v.abs()).sum();
                // Errors of probabilities and of their sum, their rounding, and the product's sum.
                r.out_bound[o] = size
                    * (2.0 * relative + unit + 2.0 * gamma(passes * BLOCK) + blocks * 2.0 * U)
                    + values * tiny / total;
            }
        }
    }
    r
}

struct Gradients {
    values: [Vec<f64>; 3],
    bounds: [Vec<f64>; 3],
}

/// The gradients, given out and lse as the kernel gets them.
fn backward(case: &Case, on: Unit, [q, k, v, out, dout]: [&[f64]; 5], lse: &[f64]) -> Gradients {
    let shape = &case.shape;
    let zero = || [vec![0.0; q.len()], vec![0.0; q.len()], vec![0.0; q.len()]];
    let mut g = Gradients { values: zero(), bounds: zero() };
    let unit = operand_error(case, on);
    let tiny = if case.compute == ProductFormat::F16 { 2f64.powi(-25) } else { 0.0 };
    // With keys in parts, one more addition for each.
    let sums = gamma(product(case, on).1 * shape.time + 2 + CHUNKS);
    let s = f64::from(scale(shape));
    for (b, h) in heads(*shape) {
        for t in 0..shape.time {
            let qt = row(shape, b, t, h);
            let lse = lse[(b * shape.heads + h) * shape.time + t];
            let (qr, dor, outr) = (&q[qt.clone()], &dout[qt.clone()], &out[qt.clone()]);
            let delta = dot(dor, outr);
            let delta_error = gamma(shape.dim) * abs_dot(dor, outr);
            for j in 0..seen(case, t) {
                let kt = row(shape, b, j, h);
                let (kr, vr) = (&k[kt.clone()], &v[kt.clone()]);
                let score = s * dot(qr, kr);
                let p = (score - lse).exp();
                let p_error = p
                    * (score_error(case, on, qr, kr) + ((score - lse).abs() + score.abs() + 6.0) * U)
                    + 2f64.powi(-126);
                let dp = dot(dor, vr);
                let ds = p * (dp - delta);
                let ds_error = p_error * (dp - delta).abs()
                    + p * (dot_error(case, on) * abs_dot(dor, vr) + delta_error)
                    + 3.0 * U * p * (dp.abs() + delta.abs());
                // As operands of products: rounded to the compute format.
                let (p_total, ds_total) = (
                    p_error + unit * p + tiny + sums * p,
                    ds_error + unit * (ds.abs() + ds_error) + tiny + sums * ds.abs(),
                );
                for d in 0..shape.dim {
                    g.values[0][qt.start + d] += s * ds * kr[d];
                    g.bounds[0][qt.start + d] += s * (ds_total + 2.0 * U * ds.abs()) * kr[d].abs();
                    g.values[1][kt.start + d] += s * ds * qr[d];
                    g.bounds[1][kt.start + d] += s * (ds_total + 2.0 * U * ds.abs()) * qr[d].abs();
                    g.values[2][kt.start + d] += p * dor[d];
                    g.bounds[2][kt.start + d] += p_total * dor[d].abs();
                }
            }
        }
    }
    g
}

/// A dense tensor as f32 numbers, put into packed or separate storage.
fn place(case: &Case, parts: [&[f32]; 3]) -> (Vec<Stored>, [(usize, HeadLayout); 3]) {
    let shape = &case.shape;
    match case.packing {
        Packing::Separate => (
            parts.iter().map(|p| Stored::new(case.storage, p)).collect(),
            [0, 1, 2].map(|i| (i, HeadLayout::dense(shape))),
        ),
        Packing::Packed => {
            let mut all = vec![0.0; 3 * parts[0].len()];
            let layouts = [0, 1, 2].map(|i| HeadLayout::packed(i, shape));
            for (part, layout) in parts.iter().zip(layouts) {
                for (b, h) in heads(*shape) {
                    for t in 0..shape.time {
                        let to = layout.row(b, t, h);
                        all[to..to + shape.dim].copy_from_slice(&part[row(shape, b, t, h)]);
                    }
                }
            }
            (vec![Stored::new(case.storage, &all)], layouts.map(|l| (0, l)))
        }
    }
}

/// The dense values of a tensor with a layout.
fn dense(shape: &HeadShape, data: &Stored, layout: HeadLayout) -> Vec<f64> {
    let values = data.values();
    let mut dense = vec![0.0; shape.batch * shape.time * shape.heads * shape.dim];
    for (b, h) in heads(*shape) {
        for t in 0..shape.time {
            let from = layout.row(b, t, h);
            dense[row(shape, b, t, h)].copy_from_slice(&values[from..from + shape.dim]);
        }
    }
    dense
}

/// The values as the products see them: rounded to the compute format.
fn seen_by_products(case: &Case, values: Vec<f64>) -> Vec<f64> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Stored::new(operand_format(case.compute), &values).values()
}

fn check(case: Case) {
    let shape = case.shape;
    let count = shape.batch * shape.time * shape.heads * shape.dim;
    let rows = shape.batch * shape.heads * shape.time;
    let inputs = [1, 2, 3].map(|seed| random(seed, count, 2.0));
    let (stored, layouts) = place(&case, [&inputs[0], &inputs[1], &inputs[2]]);
    let views = layouts.map(|(i, layout)| HeadView { data: stored[i].src(), layout });
    let dout = random_stored(4, case.storage, count, 1.0);
    let packed = case.packing == Packing::Packed;
    let run = |on: On, pool: &Pool| {
        let mut out = Stored::empty(case.storage, count);
        let mut lse = vec![0.0; rows];
        let [q, k, v] = views;
        let (mask, compute, scale) = (case.mask, case.compute, scale(&shape));
        let threads = pool.threads();
        let len = match on {
            On::Isa(isa) => attention_forward_scratch_len(isa, threads, &shape, compute),
            On::SimulatedTiles { with_f16 } => {
                simulated!(compute, with_f16, unit => forward::scratch_len(unit, threads, &shape))
            }
        };
        let mut scratch = vec![f32::NAN; len];
        let heads = HeadOperands { shape, mask, scale, compute, q, k, v };
        let kernel = AttentionForward {
            heads,
            out: out.dst(),
            out_layout: HeadLayout::dense(&shape),
            lse: &mut lse,
            scratch: &mut scratch,
        };
        match on {
            On::Isa(isa) => kernel.run(isa, pool),
            On::SimulatedTiles { with_f16 } => {
                simulated!(compute, with_f16, unit => kernel.run_on(unit, Isa::best(), pool))
            }
        }
        .unwrap();
        let mut grads: Vec<Stored> = if packed {
            vec![Stored::empty(case.storage, 3 * count)]
        } else {
            (0..3).map(|_| Stored::empty(case.storage, count)).collect()
        };
        let len = match on {
            On::Isa(isa) => attention_backward_scratch_len(isa, threads, &shape, compute),
            On::SimulatedTiles { with_f16 } => {
                simulated!(compute, with_f16, unit => backward::scratch_len(unit, threads, &shape))
            }
        };
        let mut scratch = vec![f32::NAN; len];
        let [lq, lk, lv] = layouts.map(|(_, layout)| layout);
        let targets = match &mut grads[..] {
            [all] => Grads::Packed { data: all.dst(), q: lq, k: lk, v: lv },
            [dq, dk, dv] => Grads::Separate { q: (dq.dst(), lq), k: (dk.dst(), lk), v: (dv.dst(), lv) },
            _ => unreachable!(),
        };
        let dense = HeadLayout::dense(&shape);
        let kernel = AttentionBackward {
            heads,
            out: HeadView { data: out.src(), layout: dense },
            dout: HeadView { data: dout.src(), layout: dense },
            lse: &lse,
            grads: targets,
            scratch: &mut scratch,
        };
        match on {
            On::Isa(isa) => kernel.run(isa, pool),
            On::SimulatedTiles { with_f16 } => {
                simulated!(compute, with_f16, unit => kernel.run_on(unit, Isa::best(), pool))
            }
        }
        .unwrap();
        let mut all = vec![out, Stored::F32(lse)];
        all.extend(grads);
        all
    };
    let mut everywhere: Vec<On> = isas().into_iter().map(On::Isa).collect();
    let tiles = case.compute != ProductFormat::F32;
    everywhere.extend(tiles.then_some(On::SimulatedTiles { with_f16: false }));
    everywhere.extend((case.compute == ProductFormat::F16).then_some(On::SimulatedTiles { with_f16: true }));
    let parts = layouts.map(|(i, layout)| seen_by_products(&case, dense(&shape, &stored[i], layout)));
    let bits = |result: &[Stored]| result.iter().map(Stored::bits).collect::<Vec<_>>();
    for on in everywhere {
        let result = run(on, &pool(1));
        for threads in [2, 3] {
            let other = run(on, &pool(threads));
            assert!(bits(&other) == bits(&result), "{on:?}: {threads} threads differ from one");
        }
        let reference = forward(&case, on.unit(), [&parts[0], &parts[1], &parts[2]]);
        assert_close("lse", &result[1].values(), &reference.lse, |i| reference.lse_bound[i]);
        assert_close("out", &result[0].values(), &reference.out, |i| {
            let bound = reference.out_bound[i];
            bound + rounding(case.storage, reference.out[i].abs() + bound)
        });
        let out = result[0].values();
        let dout = seen_by_products(&case, dout.values());
        let g =
            backward(&case, on.unit(), [&parts[0], &parts[1], &parts[2], &out, &dout], &result[1].values());
        for (which, (i, layout)) in layouts.into_iter().enumerate() {
            let actual = dense(&shape, &result[2 + i], layout);
            assert_close(["dq", "dk", "dv"][which], &actual, &g.values[which], |i| {
                let bound = g.bounds[which][i];
                bound + rounding(case.storage, g.values[which][i].abs() + bound)
            });
        }
    }
}

#[test]
fn one_block() {
    edges(&[(1, 1, 1, 1), (1, 2, 33, 33)]);
}

#[test]
fn several_blocks() {
    edges(&[(2, 3, 64, 64), (1, 2, 65, 33), (1, 1, 130, 8), (1, 2, 200, 40)]);
}

/// More heads than chunks are wanted, so that none is cut.
#[test]
fn many_heads() {
    edges(&[(CHUNKS / 2, 2, 66, 3)]);
}

fn edges(shapes: &[(usize, usize, usize, usize)]) {
    for &(batch, heads, time, dim) in shapes {
        for mask in [AttentionMask::Causal, AttentionMask::Full] {
            for compute in COMPUTES {
                let (shape, storage) = (HeadShape { batch, heads, time, dim }, operand_format(compute));
                check(Case { shape, mask, storage, compute, packing: Packing::Packed });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape(batch in 1usize..3, heads in 1usize..4, time in 1usize..150, dim in 1usize..70, causal in any::<bool>(),
                 storage in 0usize..3, compute in 0usize..5, packed in any::<bool>()) {
        let mask = if causal { AttentionMask::Causal } else { AttentionMask::Full };
        let packing = if packed { Packing::Packed } else { Packing::Separate };
        let storage = STORAGES[storage];
        // 16-bit storage is computed in its own format; f32 in any.
        let own = COMPUTES.into_iter().find(|&c| operand_format(c) == storage);
        let compute = if storage == Storage::F32 { COMPUTES[compute] } else { own.unwrap() };
        check(Case { shape: HeadShape { batch, heads, time, dim }, mask, storage, compute, packing });
    }
}

#[test]
fn a_long_sequence_with_growing_scores() {
    // Every block has a larger maximum than the one before, so every block rescales.
    let shape = HeadShape { batch: 1, heads: 1, time: 256, dim: 1 };
    let q = vec![1.0; 256];
    let k: Vec<f32> = (0..256).map(|t| t as f32 / 4.0).collect();
    let v: Vec<f32> = (0..256).map(|t| (t % 7) as f32).collect();
    let case = Case {
        shape,
        mask: AttentionMask::Full,
        storage: Storage::F32,
        compute: ProductFormat::F32,
        packing: Packing::Separate,
    };
    let values = |x: &[f32]| x.iter().map(|&x| x.into()).collect::<Vec<f64>>();
    let reference = forward(&case, Unit::Vector, [&values(&q), &values(&k), &values(&v)]);
    for isa in isas() {
        let (mut out, mut lse) = (vec![0.0; 256], vec![0.0; 256]);
        let layout = HeadLayout::dense(&shape);
        let mut scratch = vec![0.0; attention_forward_scratch_len(isas()[0], 1, &shape, ProductFormat::F32)];
        let view = |x| HeadView { data: Src::F32(x), layout };
        let (mask, compute) = (AttentionMask::Full, ProductFormat::F32);
        let (q, k, v) = (view(&q), view(&k), view(&v));
        AttentionForward {
            heads: HeadOperands { shape, mask, scale: 1.0, compute, q, k, v },
            out: Dst::F32(&mut out),
            out_layout: layout,
            lse: &mut lse,
            scratch: &mut scratch,
        }
        .run(isa, &pool(1))
        .unwrap();
        assert_close("lse", &values(&lse), &reference.lse, |i| reference.lse_bound[i]);
        assert_close("out", &values(&out), &reference.out, |i| reference.out_bound[i] + U * reference.out[i]);
    }
}

#[test]
fn nan_in_one_head_stays_in_it_and_shows() {
    let shape = HeadShape { batch: 1, heads: 2, time: 70, dim: 8 };
    let count = 70 * 16;
    let mut q = random(1, count, 1.0);
    q[row(&shape, 0, 3, 1)][0] = f32::NAN;
    let (k, v) = (random(2, count, 1.0), random(3, count, 1.0));
    for isa in isas() {
        let (mut out, mut lse) = (vec![0.0; count], vec![0.0; 140]);
        let layout = HeadLayout::dense(&shape);
        let mut scratch = vec![0.0; attention_forward_scratch_len(isas()[0], 1, &shape, ProductFormat::F32)];
        let view = |x| HeadView { data: Src::F32(x), layout };
        let (mask, compute) = (AttentionMask::Causal, ProductFormat::F32);
        let (q, k, v) = (view(&q), view(&k), view(&v));
        AttentionForward {
            heads: HeadOperands { shape, mask, scale: 1.0, compute, q, k, v },
            out: Dst::F32(&mut out),
            out_layout: layout,
            lse: &mut lse,
            scratch: &mut scratch,
        }
        .run(isa, &pool(1))
        .unwrap();
        for t in 0..70 {
            assert!(out[row(&shape, 0, t, 0)].iter().all(|x| x.is_finite()));
            assert_eq!(out[row(&shape, 0, t, 1)].iter().all(|x| x.is_nan()), t == 3);
        }
    }
}

#[test]
fn overlapping_or_short_tensors_are_errors() {
    let shape = HeadShape { batch: 2, heads: 2, time: 3, dim: 4 };
    assert!(HeadLayout::dense(&shape).is_disjoint(&shape, None));
    let packed = HeadLayout::packed(0, &shape);
    assert!(packed.is_disjoint(&shape, Some(8)) && packed.is_disjoint(&shape, Some(16)));
    assert!(!packed.is_disjoint(&shape, Some(4)) && !packed.is_disjoint(&shape, Some(0)));
    // [B, T, H, 3, D].
    let inner = HeadLayout { offset: 0, batch: 72, time: 24, head: 12 };
    assert!(inner.is_disjoint(&shape, Some(4)) && inner.is_disjoint(&shape, Some(8)));
    assert!(!HeadLayout { head: 3, ..HeadLayout::dense(&shape) }.is_disjoint(&shape, None));
    assert!(!HeadLayout { time: 0, ..HeadLayout::dense(&shape) }.is_disjoint(&shape, None));

    let x = vec![0.0; 48];
    let (mut out, mut lse) = (vec![0.0; 48], vec![0.0; 12]);
    let mut scratch = vec![0.0; attention_forward_scratch_len(isas()[0], 1, &shape, ProductFormat::F32)];
    let mut run = |shape, out_layout, q: &[f32]| {
        let layout = HeadLayout::dense(&HeadShape { batch: 2, heads: 2, time: 3, dim: 4 });
        let view = |x| HeadView { data: Src::F32(x), layout };
        let (mask, compute) = (AttentionMask::Full, ProductFormat::F32);
        let (q, k, v) = (view(q), view(&x), view(&x));
        AttentionForward {
            heads: HeadOperands { shape, mask, scale: 1.0, compute, q, k, v },
            out: Dst::F32(&mut out),
            out_layout,
            lse: &mut lse,
            scratch: &mut scratch,
        }
        .run(isas()[0], &pool(1))
    };
    let layout = HeadLayout::dense(&shape);
    assert!(run(shape, layout, &x).is_ok());
    assert!(run(shape, layout, &x[..47]).is_err());
    assert!(run(shape, HeadLayout { time: 4, ..layout }, &x).is_err());
    assert!(run(shape, HeadLayout { offset: 1, ..layout }, &x).is_err());
    assert!(run(HeadShape { batch: 0, ..shape }, layout, &x).is_err());
}

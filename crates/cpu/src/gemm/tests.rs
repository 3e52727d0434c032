//! Products against sums in f64, with bounds derived from the formats.

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use halfstep_float::{
    Format, bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16, round_to, round_to_tf32,
};
use proptest::prelude::*;

use super::scheme::with_scheme;
use super::simulated::SimulatedTiles;
use super::*;

const TF32: ProductFormat = ProductFormat::Split(Split::Tf32);

/// Every compute format.
pub(crate) const COMPUTES: [ProductFormat; 6] = [
    ProductFormat::F32,
    TF32,
    ProductFormat::Bf16,
    ProductFormat::F16,
    ProductFormat::Split(Split::Bf16x3),
    ProductFormat::Split(Split::Bf16x6),
];

/// One pool per number of threads, 1 to 3.
static POOLS: LazyLock<[Pool; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|n| Pool::new(NonZeroUsize::new(n).expect("positive"))));

/// Every instruction set that is here; says which are not.
pub(crate) fn instruction_sets() -> Vec<Isa> {
    let here = Isa::available();
    for level in Level::ALL {
        if let Err(error) = Isa::new(level) {
            eprintln!("skipped: {error}");
        }
    }
    here
}

/// Numbers by counter: deterministic, spread over `2^±spread`, both signs, some zeros.
pub(crate) fn numbers(seed: u64, count: usize, spread: i32) -> Vec<f32> {
    let p = halfstep_float::Philox::new(seed);
    let number = |i: usize| {
        let word = p.word(0, i as u64);
        let exponent = (word >> 8) as i32 % (2 * spread + 1) - spread;
        let mantissa = 1.0 + f32::from_bits(0x3f80_0000 | p.word(1, i as u64) >> 9) / 2.0;
        let sign = if word & 1 == 0 { 1.0 } else { -1.0 };
        if word & 0xf0 == 0 { 0.0 } else { sign * mantissa * 2f32.powi(exponent) }
    };
    (0..count).map(number).collect()
}

/// f32 values as codes of a storage format, and the values of those codes.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub format: Format,
    pub f32s: Vec<f32>,
    pub codes: Vec<u16>,
}

impl Tensor {
    pub fn new(format: Format, mut f32s: Vec<f32>) -> Tensor {
        let codes =
            f32s.iter().map(|&x| if format == Format::F16 { f16_from_f32(x) } else { bf16_from_f32(x) });
        let codes: Vec<u16> = codes.collect();
        if format != Format::F32 {
            f32s = codes.iter().map(|&c| value(format, c)).collect();
        }
        Tensor { format, f32s, codes }
    }

    pub fn data(&self) -> Src<'_> {
        match self.format {
            Format::F16 => Src::F16(&self.codes),
            Format::Bf16 => Src::Bf16(&self.codes),
            _ => Src::F32(&self.f32s),
        }
    }

    pub fn data_mut(&mut self) -> Dst<'_> {
        match self.format {
            Format::F16 => Dst::F16(&mut self.codes),
            Format::Bf16 => Dst::Bf16(&mut self.codes),
            _ => Dst::F32(&mut self.f32s),
        }
    }

    pub fn get(&self, i: usize) -> f32 {
        if self.format == Format::F32 { self.f32s[i] } else { value(self.format, self.codes[i]) }
    }

    pub fn bits(&self) -> Vec<u32> {
        match self.format {
            Format::F32 => self.f32s.iter().map(|x| x.to_bits()).collect(),
            _ => self.codes.iter().map(|&c| c.into()).collect(),
        }
    }
}

fn value(format: Format, code: u16) -> f32 {
    if format == Format::F16 { f32_from_f16(code) } else { f32_from_bf16(code) }
}

pub(crate) fn format_of(compute: ProductFormat) -> Format {
    match compute {
        ProductFormat::F32 | ProductFormat::Split(_) => Format::F32,
        ProductFormat::Bf16 => Format::Bf16,
        ProductFormat::F16 => Format::F16,
    }
}

/// The value that an operand is multiplied as.
pub(crate) fn multiplied(compute: ProductFormat, x: f32) -> f64 {
    match compute {
        TF32 => round_to_tf32(x).into(),
        _ => round_to(format_of(compute), x.into()),
    }
}

/// How a kernel multiplies, as far as bounds know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    /// f32 multiply-add.
    Vector,
    /// Pairs of bf16 products.
    Dots,
    /// Tiles of bf16.
    Tiles,
    /// Tiles of bf16 and of f16.
    TilesWithF16,
}

impl Unit {
    pub fn of(isa: Isa) -> Unit {
        match isa.level() {
            Level::AmxFp16 => Unit::TilesWithF16,
            Level::Amx => Unit::Tiles,
            Level::Avx512Bf16 => Unit::Dots,
            _ => Unit::Vector,
        }
    }

    /// Products of tiles for one product of matrices, and what fraction of Σ|a||b| they leave out.
    pub fn passes(self, compute: ProductFormat) -> (usize, f64) {
        match (self, compute) {
            (Unit::Vector | Unit::Dots, _) => (1, 0.0),
            (_, ProductFormat::F32 | TF32 | ProductFormat::Bf16) => (1, 0.0),
            (Unit::TilesWithF16, ProductFormat::F16) => (1, 0.0),
            (Unit::Tiles, ProductFormat::F16) => (4, 0.0),
            (_, ProductFormat::Split(split)) => (split.products(), split.bound()),
        }
    }
}

/// What a kernel may differ by from the exact value `exact` of a sum of `k` products (and up to two
/// more terms) whose magnitudes add up to `magnitude`, stored as `out`.
///
/// γ_n·Σ|terms| with n = k + 2 for the sum and the two additions of the epilogue, as many times the
/// products as tiles take passes; what a split leaves out ([`Split::bound`]), whose products of
/// terms add up to at most (1 + 2^-7)² times the magnitude; half an ulp of the output. Underflow:
/// half the smallest f32 for every product, or on tiles of bf16 2^-126 for each product and each
/// sum of each pass and for each term of an operand, times the other operand.
pub(crate) fn bound(
    unit: Unit,
    compute: ProductFormat,
    k: usize,
    exact: f64,
    magnitude: f64,
    largest: f64,
    out: Format,
) -> f64 {
    let f32 = Format::F32.info();
    let (passes, left_out) = unit.passes(compute);
    let flushed = match compute {
        ProductFormat::Bf16 if unit != Unit::Vector => 1.0 + 2.0 * largest,
        TF32 => 0.0,
        ProductFormat::Split(_) if matches!(unit, Unit::Tiles | Unit::TilesWithF16) => {
            2.0 * passes as f64 + 4.0 * largest
        }
        _ => 0.0,
    };
    let n = (passes * k + 2) as f64;
    let gamma = n * f32.unit_roundoff / (1.0 - n * f32.unit_roundoff);
    let terms = if left_out > 0.0 { (1.0 + 1.0 / 128.0) * (1.0 + 1.0 / 128.0) } else { 1.0 };
    let underflow = k as f64 * (f32.min_normal * flushed + f32.min_subnormal);
    let before = (gamma * terms + left_out) * magnitude + underflow;
    let info = out.info();
    before + info.unit_roundoff * (exact.abs() + before) + info.min_subnormal / 2.0
}

#[derive(Clone, Debug)]
struct Case {
    batch: [usize; 2],
    mnk: [usize; 3],
    compute: ProductFormat,
    /// Storage of A, B and C.
    storage: [Format; 3],
    transposed: [bool; 2],
    /// Elements between the end of a row and the next, for A, B and C.
    gap: [usize; 3],
    repeat_b: bool,
    bias: bool,
    seed: u64,
}

fn size(large: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![1..=4usize, 1..=40usize, 30..=34usize, 94..=98usize, large]
}

fn case() -> impl Strategy<Value = Case> {
    let compute = prop::sample::select(COMPUTES.to_vec());
    let out = prop_oneof![Just(Format::F32), Just(Format::Bf16), Just(Format::F16)];
    let shape = (
        [1..=3usize, 1..=2usize],
        [size(100..=130), size(500..=540)],
        prop_oneof![
            0..=3usize,
            1..=70usize,
            254..=260usize,
            510..=700usize,
            // Whole runs of 16 and of 32 are read in place.
            (1..=20usize).prop_map(|runs| 32 * runs),
            (1..=20usize).prop_map(|runs| 16 * runs),
        ],
    );
    let layout =
        (any::<[bool; 2]>(), [0..=3usize, 0..=3usize, 0..=3usize], any::<bool>(), any::<[bool; 2]>());
    let end = (any::<bool>(), any::<u64>());
    (shape, compute, out, layout, end).prop_map(
        |((batch, [m, n], k), compute, out, (transposed, gap, repeat_b, wide), (bias, seed))| {
            let low = format_of(compute);
            // Keep the f64 reference affordable.
            let batch = if m * n * k > 1_000_000 { [1, 1] } else { batch };
            Case {
                batch,
                mnk: [m, n, k],
                compute,
                storage: [
                    if wide[0] { Format::F32 } else { low },
                    if wide[1] { Format::F32 } else { low },
                    out,
                ],
                transposed,
                gap,
                repeat_b,
                bias,
                seed,
            }
        },
    )
}

fn layout(
    rows: usize,
    columns: usize,
    transposed: bool,
    gap: usize,
    batch: [usize; 2],
    repeat: bool,
) -> Layout {
    let (r, c) = if transposed { (columns, rows) } else { (rows, columns) };
    let matrix = r * (c + gap) + gap;
    let strides = if repeat { [0, 0] } else { [batch[1] * matrix, matrix] };
    let l = Layout { row_stride: c + gap, batch_strides: strides, ..Layout::row_major(r, c) };
    if transposed { l.transposed() } else { l }
}

fn elements(l: &Layout, batch: [usize; 2]) -> usize {
    l.span(batch).unwrap()
}

fn at(l: &Layout, batch: [usize; 2], i: usize, j: usize) -> usize {
    batch[0] * l.batch_strides[0] + batch[1] * l.batch_strides[1] + i * l.row_stride + j * l.column_stride
}

/// What a case runs on: an instruction set, or the code for tiles with simulated tile instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Isa(Isa),
    SimulatedTiles { with_f16: bool },
}

/// Where to run a case; simulating is slow, so only up to a size.
fn everywhere(case: &Case) -> Vec<On> {
    let products = case.batch.iter().chain(&case.mnk).product::<usize>();
    let simulate = case.compute.has_tiles() && products <= 5_000_000;
    let mut on: Vec<On> = instruction_sets().into_iter().map(On::Isa).collect();
    on.extend(simulate.then_some(On::SimulatedTiles { with_f16: false }));
    on.extend(
        (simulate && case.compute == ProductFormat::F16).then_some(On::SimulatedTiles { with_f16: true }),
    );
    on
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

fn run_case(
    on: On,
    pool: &Pool,
    case: &Case,
    [a, b]: [&Tensor; 2],
    c: &mut Tensor,
    bias: Option<&[f32]>,
    epilogue: Option<&dyn BlockEpilogue>,
) {
    let [m, n, k] = case.mnk;
    let mut scratch = Scratch::new();
    let la = layout(m, k, case.transposed[0], case.gap[0], case.batch, false);
    let lb = layout(k, n, case.transposed[1], case.gap[1], case.batch, case.repeat_b);
    let args = GemmArgs {
        batch: case.batch,
        a: Operand { data: a.data(), layout: la },
        b: Operand { data: b.data(), layout: lb },
        c: Output { data: c.data_mut(), layout: layout(m, n, false, case.gap[2], case.batch, false) },
        compute: case.compute,
        bias,
    };
    let isa = match on {
        On::Isa(isa) => isa,
        On::SimulatedTiles { with_f16 } => {
            let (problem, extents, operands) = super::check(args, epilogue).unwrap();
            let mut ctx = Ctx { isa: Isa::PORTABLE, pool, scratch: &mut scratch };
            with_scheme!(case.compute, with_f16, S => {
                let tiles = SimulatedTiles::<S>::new();
                let plan = Plan::new(tiles, extents, operands, pool.threads(), epilogue.is_some());
                run::run(tiles, &mut ctx, &problem, &plan);
            }, else unreachable!("no tiles"));
            return;
        }
    };
    gemm(&mut Ctx { isa, pool, scratch: &mut scratch }, args, epilogue).unwrap();
    let extents = Extents { batches: case.batch.iter().product(), m, n, k };
    let (operands, in_strips) = (operands(case.batch, &la, &lb), epilogue.is_some());
    let announced = bytes(isa, pool.threads(), case.compute, extents, operands, in_strips);
    assert_eq!(scratch.bytes(), announced.next_multiple_of(64), "not what was announced");
}

/// Takes each element once.
#[derive(Debug)]
struct Collected(std::sync::Mutex<Vec<Option<f32>>>);

impl BlockEpilogue for Collected {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    unsafe fn apply(&self, results: &[f32], rows: usize, width: usize, at: &dyn Fn(usize) -> usize) {
        let mut all = self.0.lock().unwrap();
        for (i, &result) in results[..rows * width].iter().enumerate() {
            let before = all[at(i / width) + i % width].replace(result);
            assert_eq!(before, None, "an element came twice");
        }
    }
}

/// Strips of one packed block of rows and of several, of all columns and of some, and sums that
/// wait in memory between blocks of k.
#[test]
fn an_epilogue_takes_every_result_once() {
    for (mnk, gap) in
        [([300, 16, 70], 0), ([700, 33, 40], 0), ([300, 20, 900], 3), ([70, 1700, 32], 0), ([9, 5, 33], 1)]
    {
        for compute in [ProductFormat::F32, ProductFormat::Bf16, ProductFormat::F16] {
            let case = Case { gap: [0, 0, gap], ..plain(mnk, compute, [false, false]) };
            let [m, n, k] = mnk;
            let [a, b] = [m * k, k * n].map(|count| Tensor::new(case.storage[0], numbers(7, count, 2)));
            for (on, pool) in everywhere(&case).into_iter().flat_map(|on| POOLS.each_ref().map(|p| (on, p))) {
                let count = elements(&layout(m, n, false, gap, case.batch, false), case.batch);
                let mut c = Tensor::new(Format::F32, vec![0.5; count]);
                run_case(on, pool, &case, [&a, &b], &mut c, None, None);
                let collected = Collected(std::sync::Mutex::new(vec![None; count]));
                run_case(on, pool, &case, [&a, &b], &mut c.clone(), None, Some(&collected));
                for (i, taken) in collected.0.into_inner().unwrap().into_iter().enumerate() {
                    let expected = (i % (n + gap) < n).then(|| c.get(i).to_bits());
                    assert_eq!(taken.map(f32::to_bits), expected, "{on:?} {mnk:?} {compute:?} at {i}");
                }
            }
        }
    }
}

fn rounded(t: &Tensor, compute: ProductFormat) -> Vec<f64> {
    t.f32s.iter().map(|&x| multiplied(compute, x)).collect()
}

fn check(case: &Case) {
    let [m, n, k] = case.mnk;
    let la = layout(m, k, case.transposed[0], case.gap[0], case.batch, false);
    let lb = layout(k, n, case.transposed[1], case.gap[1], case.batch, case.repeat_b);
    let lc = layout(m, n, false, case.gap[2], case.batch, false);
    // f16 ends at 2^16: values, and sums of up to 700 products, stay inside where C is f16.
    let spread = if case.compute == ProductFormat::F16 || case.storage[2] == Format::F16 { 2 } else { 20 };
    let a = Tensor::new(case.storage[0], numbers(case.seed, elements(&la, case.batch), spread));
    let b =
        Tensor::new(case.storage[1], numbers(case.seed.wrapping_add(1), elements(&lb, case.batch), spread));
    let c0 =
        Tensor::new(case.storage[2], numbers(case.seed.wrapping_add(2), elements(&lc, case.batch), spread));
    let bias = case.bias.then(|| numbers(case.seed.wrapping_add(3), n, spread));
    let (av, bv) = (rounded(&a, case.compute), rounded(&b, case.compute));
    let largest = av.iter().chain(&bv).fold(0.0, |x: f64, y| x.max(y.abs()));

    // Exact value and sum of magnitudes of each element of C; none between rows.
    let mut exact = vec![None; elements(&lc, case.batch)];
    let columns =
        (0..case.batch[0]).flat_map(|p| (0..case.batch[1]).flat_map(move |q| (0..n).map(move |j| (p, q, j))));
    for (p, q, j) in columns {
        let column: Vec<f64> = (0..k).map(|l| bv[at(&lb, [p, q], l, j)]).collect();
        for i in 0..m {
            let (mut value, mut magnitude) = (0.0, 0.0);
            let mut term = |x: f64| {
                value += x;
                magnitude += x.abs();
            };
            for (l, b) in column.iter().enumerate() {
                term(av[at(&la, [p, q], i, l)] * b);
            }
            term(bias.as_ref().map_or(0.0, |b| b[j].into()));
            let place = at(&lc, [p, q], i, j);
            exact[place] = Some((value, magnitude));
        }
    }

    for on in everywhere(case) {
        let results = POOLS.each_ref().map(|pool| {
            let mut c = c0.clone();
            run_case(on, pool, case, [&a, &b], &mut c, bias.as_deref(), None);
            c
        });
        let c = &results[0];
        for other in &results[1..] {
            assert!(c.bits() == other.bits(), "{on:?}: the number of threads changes the result");
        }
        for (place, exact) in exact.iter().enumerate() {
            let got = c.get(place);
            let Some((value, magnitude)) = *exact else {
                assert_eq!(got.to_bits(), c0.get(place).to_bits(), "{on:?}: wrote between rows at {place}");
                continue;
            };
            let bound = bound(on.unit(), case.compute, k, value, magnitude, largest, case.storage[2]);
            let error = (f64::from(got) - value).abs();
            assert!(error <= bound, "{on:?} at {place}: {got} against {value} ± {bound}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]
    #[test]
    fn products_lie_within_the_bound(case in case()) {
        check(&case);
    }
}

fn plain(mnk: [usize; 3], compute: ProductFormat, transposed: [bool; 2]) -> Case {
    let low = format_of(compute);
    Case {
        batch: [1, 1],
        mnk,
        compute,
        storage: [low, low, Format::F32],
        transposed,
        gap: [0; 3],
        repeat_b: false,
        bias: false,
        seed: 11,
    }
}

/// Few outputs and a long K: the sum is split, as for weight gradients.
#[test]
fn split_sums_lie_within_the_bound() {
    for (mnk, compute) in [
        ([3, 5, 4200], ProductFormat::F32),
        ([64, 27, 16384], ProductFormat::Bf16),
        ([7, 33, 4099], ProductFormat::F16),
        ([100, 70, 6000], ProductFormat::F32),
    ] {
        for transposed in [[true, false], [false, true]] {
            check(&Case { bias: true, ..plain(mnk, compute, transposed) });
        }
    }
}

/// Big enough that a job has several strips, and B several column jobs.
#[test]
fn larger_products_lie_within_the_bound() {
    check(&plain([250, 1100, 300], ProductFormat::F32, [false, false]));
    check(&plain([400, 520, 270], ProductFormat::Bf16, [true, false]));
    check(&Case { batch: [2, 1], ..plain([250, 530, 300], ProductFormat::F16, [false, true]) });
}

/// Several strips in a job, an odd number of panels, one and several k blocks, on tiles: what the
/// order of pending blocks and kept sums has to get right.
#[test]
fn tiles_with_several_strips_lie_within_the_bound() {
    for compute in COMPUTES.into_iter().filter(|c| c.has_tiles()) {
        check(&Case { batch: [2, 1], ..plain([100, 70, 40], compute, [false, false]) });
        check(&Case { batch: [1, 2], bias: true, ..plain([70, 33, 700], compute, [true, true]) });
        check(&plain([33, 65, 1300], compute, [false, true]));
    }
}

/// Non-finite operands give what IEEE arithmetic gives: NaN where NaN or ∞ · 0 or ∞ − ∞ takes part,
/// else ∞.
#[test]
fn non_finite_values_pass_through() {
    let k = 40;
    for compute in COMPUTES {
        for on in everywhere(&plain([5, 9, k], compute, [false, false])) {
            for (x, y, expected) in [
                (f32::NAN, 1.0, f64::NAN),
                (f32::NAN, 0.0, f64::NAN),
                (f32::INFINITY, 0.0, f64::NAN),
                (f32::INFINITY, 2.0, f64::INFINITY),
                (f32::INFINITY, -2.0, f64::NEG_INFINITY),
                (f32::NEG_INFINITY, f32::NEG_INFINITY, f64::INFINITY),
            ] {
                for place in [0, 17, k - 1] {
                    let case = plain([5, 9, k], compute, [false, false]);
                    let mut a = numbers(1, 5 * k, 2);
                    let mut b = numbers(2, k * 9, 2);
                    a[2 * k + place] = x;
                    b[place * 9 + 4] = y;
                    let (a, b) = (Tensor::new(case.storage[0], a), Tensor::new(case.storage[1], b));
                    let mut c = Tensor::new(Format::F32, vec![0.0; 45]);
                    run_case(on, &POOLS[0], &case, [&a, &b], &mut c, None, None);
                    let got = f64::from(c.get(2 * 9 + 4));
                    // Products of terms keep that the result is not finite and NaN, but not
                    // infinities (see `split_f16`).
                    let parts = match (compute, on.unit()) {
                        (TF32, _) | (_, Unit::Vector) => false,
                        (ProductFormat::F16, unit) => unit == Unit::Tiles,
                        (compute, _) => matches!(compute, ProductFormat::Split(_)),
                    };
                    assert!(
                        got == expected || got.is_nan() && (expected.is_nan() || parts),
                        "{on:?} {compute:?}: {x} · {y} gives {got}"
                    );
                    let clean = (0..5)
                        .filter(|&i| i != 2)
                        .all(|i| (0..9).filter(|&j| j != 4).all(|j| c.get(i * 9 + j).is_finite()));
                    assert!(clean, "{on:?}: other elements are untouched by {x}");
                }
            }
        }
    }
}

/// Splits take every finite f32: above bf16's maximum, where the first term would round to
/// infinity, and down to the subnormals, where terms are flushed.
#[test]
fn splits_take_the_whole_range() {
    let (m, n, k) = (5, 9, 40);
    let edges = [
        f32::MAX,
        -f32::MAX,
        f32::from_bits(0x7f7f_8000),
        f32::from_bits(0x7f7f_7fff),
        3.0e38,
        -2.9e38,
        1.0e38,
    ];
    let huge: Vec<f32> = (0..m * k).map(|i| edges[i % edges.len()]).collect();
    let small = numbers(5, k * n, 4).into_iter().map(|x| x * 2f32.powi(-20)).collect::<Vec<_>>();
    let tiny = numbers(6, m * k, 9).into_iter().map(|x| x * 2f32.powi(-125)).collect::<Vec<_>>();
    let ones = numbers(7, k * n, 0);
    for split in [Split::Bf16x3, Split::Bf16x6] {
        let case = plain([m, n, k], ProductFormat::Split(split), [false, false]);
        // Terms of the huge and the small are never flushed, and neither are their products.
        for (a, b, largest) in [(&huge, &small, 0.0), (&tiny, &ones, 2.0)] {
            let (a, b) = (Tensor::new(Format::F32, a.clone()), Tensor::new(Format::F32, b.clone()));
            for on in everywhere(&case) {
                let mut c = Tensor::new(Format::F32, vec![0.0; m * n]);
                run_case(on, &POOLS[0], &case, [&a, &b], &mut c, None, None);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let terms = || (0..k).map(|l| f64::from(a.get(i * k + l)) * f64::from(b.get(l * n + j)));
                    let (exact, magnitude) = (terms().sum::<f64>(), terms().map(f64::abs).sum());
                    let bound = bound(on.unit(), case.compute, k, exact, magnitude, largest, Format::F32);
                    let got = f64::from(c.get(i * n + j));
                    assert!(
                        (got - exact).abs() <= bound,
                        "{on:?} {split}: {got:e} against {exact:e} ± {bound:e}"
                    );
                }
            }
        }
    }
}

/// A result beyond the output's range becomes an infinity.
#[test]
fn overflow_of_the_output() {
    let case = Case { storage: [Format::F16; 3], ..plain([1, 1, 2], ProductFormat::F16, [false, false]) };
    for on in everywhere(&case) {
        let a = Tensor::new(Format::F16, vec![60000.0, 60000.0]);
        let b = Tensor::new(Format::F16, vec![1.0, 1.0]);
        let mut c = Tensor::new(Format::F16, vec![0.0]);
        run_case(on, &POOLS[0], &case, [&a, &b], &mut c, None, None);
        assert_eq!(c.get(0), f32::INFINITY);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let (a, b) = ([0f32; 6], [0f32; 12]);
    let codes = [0u16; 12];
    let bias = [0f32; 3];
    let mut scratch = Scratch::new();
    let mut ctx = Ctx { isa: Isa::PORTABLE, pool: &POOLS[0], scratch: &mut scratch };
    let mut call = |change: fn(&mut GemmArgs<'_>), b: Src<'_>, bias: Option<&[f32]>| {
        let mut c = [0f32; 8];
        let mut args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: Src::F32(&a), layout: Layout::row_major(2, 3) },
            b: Operand { data: b, layout: Layout::row_major(3, 4) },
            c: Output { data: Dst::F32(&mut c), layout: Layout::row_major(2, 4) },
            compute: ProductFormat::F32,
            bias,
        };
        change(&mut args);
        gemm(&mut ctx, args, None)
    };
    let b = Src::F32(&b);
    assert_eq!(call(|_| {}, b, None), Ok(()));
    let shape = |r| matches!(r, Err(KernelError::Shape { .. }));
    assert!(shape(call(|x| x.a.layout.columns = 2, b, None)));
    assert!(shape(call(|x| x.c.layout.rows = 1, b, None)));
    assert!(shape(call(|_| {}, b, Some(&bias))));
    let short = |r| matches!(r, Err(KernelError::TooShort { .. }));
    assert!(short(call(|x| x.a.layout.row_stride = 4, b, None)));
    assert!(short(call(|x| x.a.layout.row_stride = usize::MAX, b, None)));
    assert!(short(call(|x| x.batch = [2, 1], Src::F32(&[0.0; 11]), None)));
    let overlap = |r| matches!(r, Err(KernelError::Overlap { .. }));
    assert!(overlap(call(|x| x.c.layout.row_stride = 3, b, None)));
    assert!(overlap(call(|x| x.batch = [2, 1], b, None)));
    assert!(
        overlap(call(|x| x.c.layout.column_stride = 2, b, None))
            || short(call(|x| x.c.layout.column_stride = 2, b, None))
    );
    assert!(matches!(call(|_| {}, Src::Bf16(&codes), None), Err(KernelError::Storage { operand: "B", .. })));
}

/// After the first call nothing grows.
#[test]
fn scratch_is_kept() {
    let mut scratch = Scratch::new();
    let case = plain([70, 40, 300], ProductFormat::F32, [false, false]);
    let a = Tensor::new(Format::F32, numbers(1, 70 * 300, 2));
    let b = Tensor::new(Format::F32, numbers(2, 300 * 40, 2));
    let mut c = vec![0.0; 70 * 40];
    let mut before = None;
    for _ in 0..3 {
        let args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: a.data(), layout: Layout::row_major(70, 300) },
            b: Operand { data: b.data(), layout: Layout::row_major(300, 40) },
            c: Output { data: Dst::F32(&mut c), layout: Layout::row_major(70, 40) },
            compute: case.compute,
            bias: None,
        };
        gemm(&mut Ctx { isa: Isa::best(), pool: &POOLS[1], scratch: &mut scratch }, args, None).unwrap();
        assert!(before.is_none_or(|b| b == scratch.bytes()));
        before = Some(scratch.bytes());
    }
}

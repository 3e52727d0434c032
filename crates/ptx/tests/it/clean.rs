//! Kernels without fault: no fault is reported, results are within bounds of f64 ones, and they
//! have the same bits under every schedule.
//!
//! u = 2^-24 is the unit roundoff of f32.

use halfstep_ptx::formats::Format;
use halfstep_ptx::{Summation, Swizzle};

use crate::harness::{Arg, Launch, Map, every_schedule};
use crate::numbers::{Numbers, bytes_of, f32s, u32s};

const U: f64 = 1.0 / (1u64 << 24) as f64;

#[track_caller]
fn close(got: &[f32], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len());
    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let (error, bound) = ((f64::from(got) - expected).abs(), bound(at));
        assert!(error <= bound, "element {at}: {got} for {expected}: off by {error:e}, bound {bound:e}");
    }
}

#[test]
fn softmax() {
    for columns in [1, 33, 128, 300] {
        let (rows, mut numbers) = (3, Numbers(1));
        let (codes, x) = numbers.codes(Format::Bf16, rows * columns, 8.0);
        let launch = Launch::new("softmax", "softmax", [rows as u32, 1, 1], 128).with([
            Arg::In(bytes_of(&codes, Format::Bf16)),
            Arg::Out(rows * columns * 4),
            Arg::S32(columns as i32),
        ]);
        let y = f32s(&every_schedule(&launch, Summation::Exact)[1]);
        let mut expected = Vec::new();
        for row in x.chunks(columns) {
            let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = row.iter().map(|x| (x - greatest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            expected.extend(powers.iter().map(|power| power / sum));
        }
        // The exponent, at most 16·1.443 = 23.1, is rounded three times (difference, constant,
        // product): 70u absolute, times ln 2 relative to the power: 48u; ex2.approx adds 4u. The
        // sum has columns / 128 + 7 roundings and the error of its powers, the reciprocal and the
        // product two more.
        let steps = columns as f64 / 128.0 + 9.0;
        close(&y, &expected, |at| expected[at] * (2.0 * 52.0 + steps) * U + f64::from(f32::MIN_POSITIVE));
    }
}

#[test]
fn layer_norm() {
    for columns in [32, 100, 77, 256] {
        let (rows, mut numbers) = (6, Numbers(2));
        let (x, vx) = numbers.codes(Format::F32, rows * columns, 2.0);
        let (gain, vg) = numbers.codes(Format::F32, columns, 1.0);
        let (bias, vb) = numbers.codes(Format::F32, columns, 1.0);
        let arg = |codes: &[u32]| Arg::In(bytes_of(codes, Format::F32));
        let launch = Launch::new("layer_norm", "layer_norm", [2, 1, 1], 128).with([
            arg(&x),
            arg(&gain),
            arg(&bias),
            Arg::Out(rows * columns * 4),
            Arg::S32(rows as i32),
            Arg::S32(columns as i32),
            Arg::F32(1e-5),
        ]);
        let y = f32s(&every_schedule(&launch, Summation::Exact)[3]);
        let mut expected = Vec::new();
        for row in vx.chunks(columns) {
            let mean = row.iter().sum::<f64>() / columns as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
            let scale = 1.0 / (variance + 1e-5f32 as f64).sqrt();
            expected.extend(row.iter().zip(&vg).zip(&vb).map(|((x, g), b)| (x - mean) * scale * g + b));
        }
        // The standard deviation is at least 0.9, and |x| ≤ 2: values are at most 5. Sums have 8 +
        // 5 roundings, so the mean is off by at most 14u·2, the variance by a relative 2·14u + 16u,
        // its root by half that; four more to the end.
        close(&y, &expected, |_| (2.0 * 14.0 * 1.2 + 5.0 * (0.5 * 44.0 + 6.0) + 2.0) * U);
    }
}

#[test]
fn gelu() {
    let mut numbers = Numbers(3);
    let n = 1000;
    let (codes, x) = numbers.codes(Format::F32, n, 6.0);
    let launch = Launch::new("gelu", "gelu", [3, 1, 1], 96).with([
        Arg::In(bytes_of(&codes, Format::F32)),
        Arg::Out(n * 4),
        Arg::S32(n as i32),
    ]);
    let y = f32s(&every_schedule(&launch, Summation::Exact)[1]);
    let expected: Vec<f64> = x.iter().map(|&x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))).collect();
    // NVIDIA states 2 ulp for erff (CUDA C++ Programming Guide): 4u of at most 1. The rounded
    // argument moves erf, whose slope times its argument is at most 0.49, by 2u·0.49; 1 + erf ≤ 2
    // is rounded by 2u, and two products by u each.
    close(&y, &expected, |at| (x[at].abs() * 0.5 * (4.0 + 1.0 + 2.0) + 3.0 * expected[at].abs()) * U);
}

/// erf by its Taylor series, or by the continued fraction of erfc (Abramowitz and Stegun 7.1.5,
/// 7.1.14).
fn erf(x: f64) -> f64 {
    if x.abs() > 3.0 {
        let fraction = (1..=60).rev().fold(0.0, |tail, i| f64::from(i) / 2.0 / (x.abs() + tail));
        let complement = (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + fraction);
        return x.signum() * (1.0 - complement);
    }
    let (mut sum, mut term) = (x, x);
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// A · B by f64, and Σ |a·b| for bounds: A is m × k, B is n × k (its rows are the columns).
fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    let dot = |at: usize, f: &dyn Fn(f64) -> f64| -> f64 {
        let (row, column) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
        row.iter().zip(column).map(|(x, y)| f(x * y)).sum()
    };
    let all = |f: &dyn Fn(f64) -> f64| (0..m * n).map(|at| dot(at, f)).collect();
    (all(&|x| x), all(&f64::abs))
}

#[test]
fn gemm_simt() {
    for [m, n, k] in [[32, 32, 16], [33, 65, 17], [1, 7, 50]] {
        let mut numbers = Numbers(4);
        let (a, va) = numbers.codes(Format::F32, m * k, 1.0);
        let (b, vb) = numbers.codes(Format::F32, k * n, 1.0);
        let grid = [n.div_ceil(32) as u32, m.div_ceil(32) as u32, 1];
        let arg = |codes: &[u32]| Arg::In(bytes_of(codes, Format::F32));
        let sizes = [m, n, k].map(|size| Arg::S32(size as i32));
        let launch = Launch::new("gemm_simt", "gemm_simt", grid, 64)
            .with([arg(&a), arg(&b), Arg::Out(m * n * 4)])
            .with(sizes);
        let c = f32s(&every_schedule(&launch, Summation::Exact)[2]);
        let across: Vec<f64> = (0..n * k).map(|at| vb[at % k * n + at / k]).collect();
        let (expected, absolute) = product(&va, &across, [m, n, k]);
        // k fused multiplications and additions.
        close(&c, &expected, |at| k as f64 * U * absolute[at] * 1.01);
    }
}

/// A format of operands, the variant of a kernel for it, and how the truncated model adds its
/// products: at once, fraction bits and bits of the result.
type Case = (Format, &'static str, f64, i32, i32);

#[test]
fn gemm_mma() {
    let cases: [Case; 4] = [
        (Format::Bf16, "gemm_mma", 8.0, 24, 23),
        (Format::F16, "gemm_mma.f16", 8.0, 24, 23),
        (Format::Tf32, "gemm_mma.tf32", 4.0, 24, 23),
        (Format::E4m3, "gemm_mma.e4m3", 16.0, 13, 13),
    ];
    for case in cases {
        let (format, ..) = case;
        let bytes = format.bits() as usize / 8;
        for [m, n, row] in [[64, 64, 64], [70, 33, 144], [5, 130, 16]] {
            let k = row / bytes;
            let mut numbers = Numbers(5);
            let (a, va) = numbers.codes(format, m * k, 1.0);
            let (b, vb) = numbers.codes(format, n * k, 1.0);
            let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
            let launch = Launch::new(case.1, "gemm_mma", grid, 128)
                .dynamic(2 * 3 * 64 * 64)
                .with([Arg::In(bytes_of(&a, format)), Arg::In(bytes_of(&b, format)), Arg::Out(m * n * 4)])
                .with([m, n, row].map(|size| Arg::S32(size as i32)));
            check(&launch, 2, &va, &vb, [m, n, k], case);
        }
    }
}

/// Both models against f64.
fn check(launch: &Launch, output: usize, a: &[f64], b: &[f64], [m, n, k]: [usize; 3], case: Case) {
    let (_, _, products, fraction, result) = case;
    let (expected, absolute) = product(a, b, [m, n, k]);
    // The exact model rounds once for each instruction, which has at least four products.
    let exact = f32s(&every_schedule(launch, Summation::Exact)[output]);
    close(&exact, &expected, |at| (k as f64 / 4.0 + 2.0) * U * absolute[at] * 1.01);
    // A step of p products loses less than 2^-F of the greatest term for each of them and for the
    // accumulator, then its result is truncated; no term and no partial sum exceeds Σ|a·b| (1 + the
    // error so far).
    let truncated = f32s(&every_schedule(launch, Summation::Truncated)[output]);
    let step = (products + 1.0) * 2f64.powi(-fraction) + 2f64.powi(-result);
    let steps = (k as f64 / products).ceil() + 2.0;
    close(&truncated, &expected, |at| steps * step * absolute[at] * 1.1);
    let differ = exact.iter().zip(&truncated).filter(|(x, y)| x != y).count();
    assert!(k < 32 || differ > 0, "{}: the models give the same", launch.file());
}

#[test]
fn transposing_loads_stores_and_moves() {
    let (k, mut numbers) = (48, Numbers(6));
    let (a, va) = numbers.codes(Format::Bf16, k * 16, 1.0);
    let (b, vb) = numbers.codes(Format::Bf16, k * 16, 1.0);
    let launch = Launch::new("transposed", "transposed", [1, 1, 1], 32).with([
        Arg::In(bytes_of(&a, Format::Bf16)),
        Arg::In(bytes_of(&b, Format::Bf16)),
        Arg::Out(512),
        Arg::Out(512),
        Arg::S32(k as i32),
    ]);
    let buffers = every_schedule(&launch, Summation::Exact);
    let turn = |values: &[f64]| -> Vec<f64> { (0..16 * k).map(|at| values[at % k * 16 + at / k]).collect() };
    let (expected, absolute) = product(&turn(&va), &turn(&vb), [16, 16, k]);
    let read = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(2).map(|c| Format::Bf16.decode(u32::from(c[0]) | u32::from(c[1]) << 8)).collect()
    };
    let (c, turned) = (read(&buffers[2]), read(&buffers[3]));
    // Three instructions, each rounded once, then one rounding to bf16 (2^-8 of the value).
    close(&c, &expected, |at| expected[at].abs() * 2f64.powi(-8) + 4.0 * U * absolute[at]);
    for at in 0..256 {
        assert_eq!(c[at], turned[at % 16 * 16 + at / 16], "element {at}");
    }
}

#[test]
fn histogram() {
    let mut numbers = Numbers(7);
    let x: Vec<u8> = (0..1500).map(|_| (numbers.bits() % 40) as u8).collect();
    let launch = Launch::new("histogram", "histogram", [3, 1, 1], 128).with([
        Arg::In(x.clone()),
        Arg::InOut(vec![0; 1024]),
        Arg::S32(x.len() as i32),
    ]);
    let counts = u32s(&every_schedule(&launch, Summation::Exact)[1]);
    for (value, &count) in counts.iter().enumerate() {
        assert_eq!(count as usize, x.iter().filter(|&&byte| byte as usize == value).count(), "byte {value}");
    }
}

#[test]
fn split_k() {
    let (rows, columns, parts, mut numbers) = (3, 500, 4, Numbers(8));
    let (codes, x) = numbers.codes(Format::F32, rows * columns, 1.0);
    let launch = Launch::new("split_k", "split_k", [parts as u32, rows as u32, 1], 64).with([
        Arg::In(bytes_of(&codes, Format::F32)),
        Arg::Scratch(rows * parts * 4),
        Arg::InOut(vec![0; rows * 4]),
        Arg::Out(rows * 4),
        Arg::S32(columns as i32),
    ]);
    let buffers = every_schedule(&launch, Summation::Exact);
    assert_eq!(u32s(&buffers[2]), [0; 3]);
    let expected: Vec<f64> = x.chunks(columns).map(|row| row.iter().sum()).collect();
    let absolute: Vec<f64> = x.chunks(columns).map(|row| row.iter().map(|x| x.abs()).sum()).collect();
    // A value is added at most columns / (64 · parts) + 1 times by its thread, 6 times in its block
    // and `parts` times.
    let additions = columns as f64 / (64 * parts) as f64 + 7.0 + parts as f64;
    close(&f32s(&buffers[3]), &expected, |at| additions * U * absolute[at]);
}

#[test]
fn bulk_copies() {
    let mut numbers = Numbers(9);
    let (codes, x) = numbers.codes(Format::F32, 1024, 1.0);
    let launch = Launch::new("bulk_copy", "bulk_copy", [4, 1, 1], 64)
        .with([Arg::In(bytes_of(&codes, Format::F32)), Arg::Out(4096)]);
    let y = f32s(&every_schedule(&launch, Summation::Exact)[1]);
    assert!(y.iter().zip(&x).all(|(y, x)| f64::from(*y) == 2.0 * x));
}

#[test]
fn gemm_wgmma() {
    let cases: [Case; 4] = [
        (Format::Bf16, "gemm_wgmma", 16.0, 25, 23),
        (Format::Bf16, "gemm_wgmma.across", 16.0, 25, 23),
        (Format::Tf32, "gemm_wgmma.tf32", 8.0, 25, 23),
        (Format::E4m3, "gemm_wgmma.e4m3", 32.0, 13, 13),
    ];
    for case in cases {
        let (format, file, ..) = case;
        let bytes = format.bits() as usize / 8;
        let per_row = 128 / bytes;
        for [m, n, steps] in [[64, 64, 1], [72, 136, 5]] {
            let k = steps * per_row - 16 / bytes;
            let mut numbers = Numbers(10);
            let (a, va) = numbers.codes(format, m * k, 1.0);
            let (b, vb) = numbers.codes(format, n * k, 1.0);
            let map = |buffer, outer: usize, inner: usize| Map {
                buffer,
                element_bytes: bytes,
                sizes: vec![inner as u64, outer as u64],
                strides: vec![(inner * bytes) as u64],
                tile: vec![per_row as u32, 64],
                swizzle: Swizzle::Bytes128,
            };
            let (map_b, vb): (Map, Vec<f64>) = if file.ends_with("across") {
                (map(1, k, n), (0..n * k).map(|at| vb[at % k * n + at / k]).collect())
            } else {
                (map(1, n, k), vb)
            };
            let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
            let launch = Launch::new(file, "gemm_wgmma", grid, 160)
                .with([
                    Arg::Mapped(map(0, m, k), bytes_of(&a, format)),
                    Arg::Mapped(map_b, bytes_of(&b, format)),
                    Arg::Out(m * n * 4),
                ])
                .with([m, n, k].map(|size| Arg::S32(size as i32)));
            check(&launch, 2, &va, &vb, [m, n, k], case);
        }
    }
}

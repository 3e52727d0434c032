//! Convolutions against sums in f64, with the bounds of the matrix product.

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use halfstep_float::Format;
use proptest::prelude::*;

use super::*;
use crate::gemm::Scratch;
use crate::gemm::tests::{COMPUTES, Tensor, Unit, bound, format_of, instruction_sets, multiplied, numbers};
use crate::pool::Pool;

static POOLS: LazyLock<[Pool; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|n| Pool::new(NonZeroUsize::new(n).expect("positive"))));

/// A sum of products as it is collected: value, sum of magnitudes, number of terms.
#[derive(Clone, Copy, Default)]
struct Exact {
    value: f64,
    magnitude: f64,
    terms: usize,
}

impl Exact {
    fn add(&mut self, x: f64) {
        self.value += x;
        self.magnitude += x.abs();
        self.terms += 1;
    }
}

/// Calls `f(index in x, index in w, index in y)` for every product of the convolution.
fn products(conv: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = conv.output().unwrap();
    let [h, w] = conv.input;
    let [kh, kw] = conv.window;
    for n in 0..conv.images {
        for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
            for (u, v) in (0..kh).flat_map(|u| (0..kw).map(move |v| (u, v))) {
                let (y, x) = (i * conv.stride + u, j * conv.stride + v);
                let inside = |at: usize, size: usize| at >= conv.padding && at < size + conv.padding;
                if !inside(y, h) || !inside(x, w) {
                    continue;
                }
                let pixel = (n * h + y - conv.padding) * w + x - conv.padding;
                for o in 0..conv.out_channels {
                    for c in 0..conv.channels {
                        f(
                            pixel * conv.channels + c,
                            ((o * kh + u) * kw + v) * conv.channels + c,
                            ((n * oh + i) * ow + j) * conv.out_channels + o,
                        );
                    }
                }
            }
        }
    }
}

struct Outcome<'a> {
    pass: ConvPass,
    isa: Isa,
    compute: ProductFormat,
    exact: &'a [Exact],
    largest: f64,
}

fn compare(outcome: &Outcome<'_>, results: &[Tensor]) {
    let Outcome { pass, isa, compute, exact, largest } = *outcome;
    for other in &results[1..] {
        assert!(
            results[0].bits() == other.bits(),
            "{isa} {pass:?}: the number of threads changes the result"
        );
    }
    for (i, e) in exact.iter().enumerate() {
        let got = f64::from(results[0].get(i));
        let bound = bound(Unit::of(isa), compute, e.terms, e.value, e.magnitude, largest, results[0].format);
        assert!((got - e.value).abs() <= bound, "{isa} {pass:?} {i}: {got} against {} ± {bound}", e.value);
    }
}

fn check(conv: &Conv2d, compute: ProductFormat, out: Format, seed: u64) {
    let [x_len, w_len, y_len] = conv.lengths().unwrap();
    let low = format_of(compute);
    let tensor = |offset, len, format| Tensor::new(format, numbers(seed.wrapping_add(offset), len, 2));
    let (x, w, dy) = (tensor(0, x_len, low), tensor(1, w_len, low), tensor(2, y_len, low));
    let bias = numbers(seed.wrapping_add(3), conv.out_channels, 2);
    let olds = [tensor(4, y_len, out), tensor(5, x_len, out), tensor(6, w_len, out)];

    let mut exact = olds.clone().map(|old| vec![Exact::default(); old.f32s.len()]);
    for (i, e) in exact[0].iter_mut().enumerate() {
        e.add(bias[i % conv.out_channels].into());
    }
    let value = |t: &Tensor, i: usize| multiplied(compute, t.get(i));
    products(conv, |xi, wi, yi| {
        exact[0][yi].add(value(&x, xi) * value(&w, wi));
        exact[1][xi].add(value(&dy, yi) * value(&w, wi));
        exact[2][wi].add(value(&dy, yi) * value(&x, xi));
    });
    let largest =
        [&x, &w, &dy].iter().flat_map(|t| &t.f32s).fold(0.0, |m: f64, &v| m.max(f64::from(v).abs()));

    for isa in instruction_sets() {
        for (i, pass) in
            [ConvPass::Forward, ConvPass::GradInput, ConvPass::GradWeight].into_iter().enumerate()
        {
            let results: Vec<Tensor> = POOLS
                .iter()
                .map(|pool| {
                    let mut result = olds[i].clone();
                    let mut scratch = Scratch::new();
                    let mut ctx = Ctx { isa, pool, scratch: &mut scratch };
                    let to = result.data_mut();
                    let (a, b, bias) = match pass {
                        ConvPass::Forward => (x.data(), w.data(), Some(&bias[..])),
                        ConvPass::GradInput => (dy.data(), w.data(), None),
                        ConvPass::GradWeight => (x.data(), dy.data(), None),
                    };
                    Convolution { conv: *conv, pass, a, b, to, compute, bias, epilogue: None }
                        .run(&mut ctx)
                        .unwrap();
                    let announced = conv.scratch_bytes(pass, isa, pool.threads(), compute, false).unwrap();
                    assert_eq!(scratch.bytes(), announced.next_multiple_of(64));
                    result
                })
                .collect();
            compare(&Outcome { pass, isa, compute, exact: &exact[i], largest }, &results);
        }
    }
}

fn conv() -> impl Strategy<Value = Conv2d> {
    let size = || prop_oneof![1..=3usize, 4..=9usize];
    // Multiples of 16 and of 32 are read in place.
    let channels = || prop_oneof![1..=4usize, Just(16usize), 30..=35usize, Just(32usize), Just(64usize)];
    (1..=3usize, [size(), size()], channels(), channels(), [1..=4usize, 1..=3usize], 1..=3usize, 0..=2usize)
        .prop_map(|(images, input, channels, out_channels, window, stride, padding)| Conv2d {
            images,
            input,
            channels,
            out_channels,
            window,
            stride,
            padding,
        })
        .prop_filter("the window fits", |c| c.output().is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn convolutions_lie_within_the_bound(
        conv in conv(),
        compute in prop::sample::select(COMPUTES.to_vec()),
        out in prop_oneof![Just(Format::F32), Just(Format::Bf16), Just(Format::F16)],
        seed: u64,
    ) {
        check(&conv, compute, out, seed);
    }
}

/// The first layer of a network on 28 × 28 images: three taps by one channel, and a K long enough
/// to be split.
#[test]
fn weight_gradient_of_a_first_layer() {
    let conv = Conv2d {
        images: 9,
        input: [28, 28],
        channels: 1,
        out_channels: 16,
        window: [3, 3],
        stride: 1,
        padding: 1,
    };
    for compute in COMPUTES {
        check(&conv, compute, Format::F32, 5);
    }
}

/// Enough pixels for several strips of rows, with windows at every edge: images of few channels,
/// and of as many as half a step of tiles has, to as many results as half a panel has.
#[test]
fn narrow_convolutions() {
    for (channels, out_channels, stride) in [(1, 16, 1), (3, 5, 2), (16, 16, 1), (16, 33, 2)] {
        let conv =
            Conv2d { images: 2, input: [17, 19], channels, out_channels, window: [3, 3], stride, padding: 1 };
        for compute in COMPUTES {
            check(&conv, compute, Format::F32, 9);
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let conv = Conv2d {
        images: 1,
        input: [3, 3],
        channels: 2,
        out_channels: 2,
        window: [2, 2],
        stride: 1,
        padding: 0,
    };
    let size = |c: Conv2d| matches!(c.output(), Err(KernelError::Size { .. }));
    assert!(size(Conv2d { stride: 0, ..conv }));
    assert!(size(Conv2d { window: [4, 1], ..conv }));
    assert!(size(Conv2d { window: [1, 0], ..conv }));
    assert!(size(Conv2d { images: 1 << 40, ..conv }));
    let mut scratch = Scratch::new();
    let mut ctx = Ctx { isa: Isa::PORTABLE, pool: &POOLS[0], scratch: &mut scratch };
    let (x, w) = ([0.0; 18], [0.0; 16]);
    let mut y = [0.0; 8];
    let mut call = |x: &[f32], bias: Option<&[f32]>| {
        let (x, w) = (Src::F32(x), Src::F32(&w));
        let (to, compute) = (Dst::F32(&mut y), ProductFormat::F32);
        Convolution { conv, pass: ConvPass::Forward, a: x, b: w, to, compute, bias, epilogue: None }
            .run(&mut ctx)
    };
    assert_eq!(call(&x, None), Ok(()));
    assert!(matches!(call(&x[1..], None), Err(KernelError::Shape { .. })));
    assert!(matches!(call(&x, Some(&[0.0; 3])), Err(KernelError::Shape { .. })));
}

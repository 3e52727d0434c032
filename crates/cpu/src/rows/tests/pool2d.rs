use proptest::prelude::*;

use super::support::*;
use crate::rows::pool2d::*;
use crate::rows::storage::{Dst, Src, Storage};

/// The places of the image under window (oh, ow), in scan order.
fn places(w: &PoolWindow, oh: usize, ow: usize) -> Vec<(usize, usize)> {
    let mut places = vec![];
    for i in 0..w.kernel[0] {
        for j in 0..w.kernel[1] {
            let (y, x) = (oh * w.stride[0] + i, ow * w.stride[1] + j);
            let (y, x) = (y.wrapping_sub(w.padding[0]), x.wrapping_sub(w.padding[1]));
            if y < w.h && x < w.w {
                places.push((y, x));
            }
        }
    }
    places
}

fn check(w: PoolWindow, padding: PadCount, from: Storage, to: Storage) {
    let [oh, ow] = w.out().unwrap();
    let (image, result) = (w.n * w.h * w.w * w.c, w.n * oh * ow * w.c);
    // Few different values, so that there are ties.
    let coarse: Vec<f32> = random(1, image, 4.0).iter().map(|x| x.round()).collect();
    let (x, dy) = (Stored::new(from, &coarse), random_stored(2, from, result, 1.0));
    let results = everywhere(|isa, pool| {
        let mut out: Vec<Stored> =
            [result, result, image, image].iter().map(|&len| Stored::empty(to, len)).collect();
        let mut scratch = vec![f32::NAN; pool_backward_scratch_len(pool.threads(), &w)];
        let pooling = Pooling::Max;
        Pool2d { window: w, pooling, x: x.src(), y: out[0].dst() }.run(isa, pool).unwrap();
        Pool2d { window: w, pooling: Pooling::Mean(padding), x: x.src(), y: out[1].dst() }
            .run(isa, pool)
            .unwrap();
        Pool2dBackward {
            window: w,
            pooling,
            x: x.src(),
            dy: dy.src(),
            dx: out[2].dst(),
            scratch: &mut scratch,
        }
        .run(isa, pool)
        .unwrap();
        let pooling = Pooling::Mean(padding);
        Pool2dBackward {
            window: w,
            pooling,
            x: x.src(),
            dy: dy.src(),
            dx: out[3].dst(),
            scratch: &mut scratch,
        }
        .run(isa, pool)
        .unwrap();
        out
    });
    let (xs, dys) = (x.values(), dy.values());
    let mut expected = [vec![0.0; result], vec![0.0; result], vec![0.0; image], vec![0.0; image]];
    let mut sizes = expected.clone();
    for n in 0..w.n {
        for y in 0..oh {
            for x in 0..ow {
                let window = places(&w, y, x);
                let count = match padding {
                    PadCount::Included => w.kernel[0] * w.kernel[1],
                    PadCount::Excluded => window.len(),
                } as f64;
                for c in 0..w.c {
                    let o = ((n * oh + y) * ow + x) * w.c + c;
                    let at = |&(y, x): &(usize, usize)| ((n * w.h + y) * w.w + x) * w.c + c;
                    let mut best = at(&window[0]);
                    for i in window.iter().map(at) {
                        if xs[i] > xs[best] {
                            best = i;
                        }
                        expected[1][o] += xs[i] / count;
                        sizes[1][o] += xs[i].abs() / count;
                        expected[3][i] += dys[o] / count;
                        sizes[3][i] += dys[o].abs() / count;
                    }
                    expected[0][o] = xs[best];
                    expected[2][best] += dys[o];
                    sizes[2][best] += dys[o].abs();
                }
            }
        }
    }
    // As many additions as a window has places (or windows cover a place), and two more roundings.
    let additions = w.kernel[0] * w.kernel[1] + 3;
    for result in results {
        for (which, what) in ["max", "mean", "max backward", "mean backward"].iter().enumerate() {
            assert_close(what, &result[which].values(), &expected[which], |i| {
                let sum = gamma(additions) * sizes[which][i];
                sum + rounding(to, expected[which][i].abs() + sum)
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_window(n in 1usize..3, h in 1usize..9, w in 1usize..9, c in 1usize..70, kernel in (1usize..4, 1usize..4),
                  stride in (1usize..4, 1usize..4), pad in (0usize..2, 0usize..2), included in any::<bool>(),
                  from in 0usize..3, to in 0usize..3) {
        let window = PoolWindow {
            n, h, w, c,
            kernel: [kernel.0.min(h), kernel.1.min(w)],
            stride: [stride.0, stride.1],
            padding: [pad.0.min(kernel.0.min(h) / 2), pad.1.min(kernel.1.min(w) / 2)],
        };
        let padding = if included { PadCount::Included } else { PadCount::Excluded };
        check(window, padding, STORAGES[from], STORAGES[to]);
    }
}

#[test]
fn square_windows_of_the_models() {
    for storage in STORAGES {
        check(PoolWindow::square([2, 28, 28, 3], 2, 2), PadCount::Included, storage, storage);
        check(PoolWindow::square([1, 9, 9, 130], 3, 2), PadCount::Included, storage, Storage::F32);
    }
}

#[test]
fn nan_propagates_and_takes_the_gradient() {
    let x = [1.0, f32::NAN, 3.0, 2.0];
    let window = PoolWindow::square([1, 2, 2, 1], 2, 2);
    for isa in isas() {
        let (mut y, mut dx) = ([0.0], [9.0; 4]);
        let mut scratch = vec![0.0; pool_backward_scratch_len(1, &window)];
        let pooling = Pooling::Max;
        Pool2d { window, pooling, x: Src::F32(&x), y: Dst::F32(&mut y) }.run(isa, &pool(1)).unwrap();
        assert!(y[0].is_nan());
        let (dy, dx_dst) = (Src::F32(&[1.0]), Dst::F32(&mut dx));
        Pool2dBackward { window, pooling, x: Src::F32(&x), dy, dx: dx_dst, scratch: &mut scratch }
            .run(isa, &pool(1))
            .unwrap();
        assert_eq!(dx.iter().sum::<f32>(), 1.0);
    }
}

#[test]
fn impossible_windows_are_errors() {
    let w = PoolWindow::square([1, 4, 4, 1], 2, 2);
    assert!(PoolWindow { kernel: [5, 1], ..w }.out().is_err());
    assert!(PoolWindow { kernel: [0, 1], ..w }.out().is_err());
    assert!(PoolWindow { stride: [0, 1], ..w }.out().is_err());
    assert!(PoolWindow { padding: [2, 0], ..w }.out().is_err());
}

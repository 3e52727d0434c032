//! Convolution and pooling, channels last.

use super::Tensor;
use crate::dtype::Shape;
use crate::op::{ConvGeometry, PoolKind};

/// Calls `f(n, oh, ow, kh, kw, h, w)` for every window place that lies inside the image.
fn places(
    g: ConvGeometry,
    [n, h, w]: [usize; 3],
    window: (usize, usize),
    mut f: impl FnMut([usize; 3], [usize; 2], [usize; 2]),
) {
    let (Some(oh), Some(ow)) = (g.output(h, window.0), g.output(w, window.1)) else { return };
    for i in 0..n {
        for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            for (ky, kx) in (0..window.0).flat_map(|ky| (0..window.1).map(move |kx| (ky, kx))) {
                let (at_y, at_x) = (y * g.stride + ky, x * g.stride + kx);
                if (g.pad..h + g.pad).contains(&at_y) && (g.pad..w + g.pad).contains(&at_x) {
                    f([i, y, x], [ky, kx], [at_y - g.pad, at_x - g.pad]);
                }
            }
        }
    }
}

fn row(t: &Tensor, i: [usize; 3]) -> usize {
    ((i[0] * t.shape[1] + i[1]) * t.shape[2] + i[2]) * t.shape[3]
}

pub(super) fn conv2d(g: ConvGeometry, x: &[&Tensor]) -> Tensor {
    let (image, w) = (x[0], x[1]);
    let [n, h, wd, c] = [0, 1, 2, 3].map(|i| image.shape[i]);
    let [o, kh, kw] = [0, 1, 2].map(|i| w.shape[i]);
    let size = [n, g.output(h, kh).unwrap_or(0), g.output(wd, kw).unwrap_or(0), o];
    let mut y = Tensor::filled(Shape::from(size), 0.0);
    if let Some(bias) = x.get(2) {
        y.data.chunks_mut(o).for_each(|row| row.copy_from_slice(&bias.data));
    }
    places(g, [n, h, wd], (kh, kw), |out, k, at| {
        let (to, from) = (row(&y, out), row(image, [out[0], at[0], at[1]]));
        for f in 0..o {
            let weights = row(w, [f, k[0], k[1]]);
            y.data[to + f] += (0..c).map(|i| image.data[from + i] * w.data[weights + i]).sum::<f64>();
        }
    });
    y
}

pub(super) fn conv2d_grad_input(g: ConvGeometry, size: (usize, usize), x: &[&Tensor]) -> Tensor {
    let (dy, w) = (x[0], x[1]);
    let [o, kh, kw, c] = [0, 1, 2, 3].map(|i| w.shape[i]);
    let n = dy.shape[0];
    let mut dx = Tensor::filled(Shape::from([n, size.0, size.1, c]), 0.0);
    places(g, [n, size.0, size.1], (kh, kw), |out, k, at| {
        let (from, to) = (row(dy, out), row(&dx, [out[0], at[0], at[1]]));
        for f in 0..o {
            let weights = row(w, [f, k[0], k[1]]);
            (0..c).for_each(|i| dx.data[to + i] += dy.data[from + f] * w.data[weights + i]);
        }
    });
    dx
}

pub(super) fn conv2d_grad_weight(g: ConvGeometry, window: (usize, usize), x: &[&Tensor]) -> Tensor {
    let (image, dy) = (x[0], x[1]);
    let [n, h, wd, c] = [0, 1, 2, 3].map(|i| image.shape[i]);
    let o = dy.shape[3];
    let mut dw = Tensor::filled(Shape::from([o, window.0, window.1, c]), 0.0);
    places(g, [n, h, wd], window, |out, k, at| {
        let (from, pixel) = (row(dy, out), row(image, [out[0], at[0], at[1]]));
        for f in 0..o {
            let to = row(&dw, [f, k[0], k[1]]);
            (0..c).for_each(|i| dw.data[to + i] += dy.data[from + f] * image.data[pixel + i]);
        }
    });
    dw
}

/// For each window and channel: output position, and the positions it covers in scan order.
fn windows(x: &Tensor, window: usize, stride: usize, mut f: impl FnMut(usize, &[usize])) -> Shape {
    let [n, h, w, c] = [0, 1, 2, 3].map(|i| x.shape[i]);
    let g = ConvGeometry { stride, pad: 0 };
    let (oh, ow) = (g.output(h, window).unwrap_or(0), g.output(w, window).unwrap_or(0));
    let mut covered = Vec::new();
    for out in 0..n * oh * ow {
        let (i, y, at) = (out / (oh * ow), out / ow % oh, out % ow);
        for channel in 0..c {
            covered.clear();
            for k in 0..window * window {
                let pixel = [i, y * stride + k / window, at * stride + k % window];
                covered.push(row(x, pixel) + channel);
            }
            f(out * c + channel, &covered);
        }
    }
    Shape::from([n, oh, ow, c])
}

/// The first largest of the covered elements; NaN wins.
fn largest(x: &Tensor, covered: &[usize]) -> usize {
    let better = |best: usize, i: usize| {
        let (a, b) = (x.data[i], x.data[best]);
        if a > b || (a.is_nan() && !b.is_nan()) { i } else { best }
    };
    covered.iter().copied().reduce(better).unwrap_or(0)
}

pub(super) fn pool(kind: PoolKind, window: usize, stride: usize, x: &Tensor) -> Tensor {
    let mut data = Vec::new();
    let shape = windows(x, window, stride, |_, covered| {
        data.push(match kind {
            PoolKind::Max => x.data[largest(x, covered)],
            PoolKind::Mean => covered.iter().map(|&i| x.data[i]).sum::<f64>() / covered.len() as f64,
        });
    });
    Tensor { shape, data }
}

pub(super) fn pool_grad(kind: PoolKind, window: usize, stride: usize, x: &Tensor, dy: &Tensor) -> Tensor {
    let mut dx = Tensor::filled(x.shape.clone(), 0.0);
    windows(x, window, stride, |out, covered| match kind {
        PoolKind::Max => dx.data[largest(x, covered)] += dy.data[out],
        PoolKind::Mean => covered.iter().for_each(|&i| dx.data[i] += dy.data[out] / covered.len() as f64),
    });
    dx
}

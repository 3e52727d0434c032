//! Matrix product and attention.

use super::Tensor;
use super::norm::log_sum_exp;
use crate::dtype::Shape;
use crate::op::AttentionSpec;

pub(super) fn matmul(ta: bool, tb: bool, x: &[&Tensor]) -> Tensor {
    let (a, b) = (x[0], x[1]);
    let r = a.shape.len();
    let (m, k) = if ta { (a.shape[r - 1], a.shape[r - 2]) } else { (a.shape[r - 2], a.shape[r - 1]) };
    let n = if tb { b.shape[r - 2] } else { b.shape[r - 1] };
    let batch: usize = a.shape[..r - 2].iter().product();
    let mut shape = a.shape[..r - 2].to_vec();
    shape.extend([m, n]);
    let mut data = Vec::with_capacity(batch * m * n);
    for s in 0..batch {
        let (a, b) = (&a.data[s * m * k..][..m * k], &b.data[s * k * n..][..k * n]);
        for i in 0..m {
            for j in 0..n {
                let left = |p: usize| if ta { a[p * m + i] } else { a[i * k + p] };
                let right = |p: usize| if tb { b[j * k + p] } else { b[p * n + j] };
                let sum: f64 = (0..k).map(|p| left(p) * right(p)).sum();
                data.push(sum + x.get(2).map_or(0.0, |bias| bias.data[j]));
            }
        }
    }
    Tensor { shape: Shape::from(shape), data }
}

/// q, k and v by (which, batch, time, head, element), whether packed or not.
struct Heads<'a> {
    x: &'a [&'a Tensor],
    batch: usize,
    time: usize,
    heads: usize,
    dim: usize,
    causal: bool,
}

impl<'a> Heads<'a> {
    fn new(spec: AttentionSpec, x: &'a [&'a Tensor]) -> Heads<'a> {
        let shape = &x[0].shape;
        let width = if x.len() == 1 { shape[2] / 3 } else { shape[2] };
        let AttentionSpec { heads, causal } = spec;
        Heads { x, batch: shape[0], time: shape[1], heads, dim: width / heads, causal }
    }

    fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn offset(&self, which: usize, b: usize, t: usize, h: usize) -> (usize, usize) {
        let row = b * self.time + t;
        match self.x.len() {
            1 => (0, row * 3 * self.width() + which * self.width() + h * self.dim),
            _ => (which, row * self.width() + h * self.dim),
        }
    }

    fn row(&self, which: usize, b: usize, t: usize, h: usize) -> &[f64] {
        let (tensor, at) = self.offset(which, b, t, h);
        &self.x[tensor].data[at..at + self.dim]
    }

    /// Scores of query `t` against the keys it may see.
    fn scores(&self, b: usize, t: usize, h: usize) -> Vec<f64> {
        let seen = if self.causal { t + 1 } else { self.time };
        let q = self.row(0, b, t, h);
        (0..seen).map(|s| dot(q, self.row(1, b, s, h)) / (self.dim as f64).sqrt()).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn attention(spec: AttentionSpec, x: &[&Tensor]) -> Vec<Tensor> {
    let s = Heads::new(spec, x);
    let mut out = Tensor::filled(Shape::from([s.batch, s.time, s.width()]), 0.0);
    let mut lse = Tensor::filled(Shape::from([s.batch, s.heads, s.time]), 0.0);
    for b in 0..s.batch {
        for h in 0..s.heads {
            for t in 0..s.time {
                let scores = s.scores(b, t, h);
                let total = log_sum_exp(&scores);
                lse.data[(b * s.heads + h) * s.time + t] = total;
                for (j, score) in scores.iter().enumerate() {
                    let p = (score - total).exp();
                    for (d, v) in s.row(2, b, j, h).iter().enumerate() {
                        out.data[(b * s.time + t) * s.width() + h * s.dim + d] += p * v;
                    }
                }
            }
        }
    }
    vec![out, lse]
}

pub(super) fn attention_grad(spec: AttentionSpec, x: &[&Tensor]) -> Vec<Tensor> {
    let (operands, rest) = x.split_at(x.len() - 3);
    let (out, lse, dout) = (rest[0], rest[1], rest[2]);
    let s = Heads::new(spec, operands);
    let mut grads: Vec<Tensor> = operands.iter().map(|t| Tensor::filled(t.shape.clone(), 0.0)).collect();
    let scale = 1.0 / (s.dim as f64).sqrt();
    let mut add = |which: usize, b, t, h, factor: f64, row: &[f64]| {
        let (tensor, at) = s.offset(which, b, t, h);
        row.iter().enumerate().for_each(|(d, v)| grads[tensor].data[at + d] += factor * v);
    };
    for b in 0..s.batch {
        for h in 0..s.heads {
            for t in 0..s.time {
                let at = (b * s.time + t) * s.width() + h * s.dim;
                let (o, d_o) = (&out.data[at..at + s.dim], &dout.data[at..at + s.dim]);
                let delta = dot(o, d_o);
                for (j, score) in s.scores(b, t, h).iter().enumerate() {
                    let p = (score - lse.data[(b * s.heads + h) * s.time + t]).exp();
                    let ds = p * (dot(d_o, s.row(2, b, j, h)) - delta) * scale;
                    add(2, b, j, h, p, d_o);
                    add(0, b, t, h, ds, s.row(1, b, j, h));
                    add(1, b, j, h, ds, s.row(0, b, t, h));
                }
            }
        }
    }
    grads
}

//! Normalisation, softmax and cross-entropy.

use super::{Tensor, index};
use crate::dtype::Shape;
use crate::engine::EngineError;
use crate::graph::Node;
use crate::op::BatchNormPart;

fn vector(data: Vec<f64>) -> Tensor {
    Tensor { shape: Shape::from([data.len()]), data }
}

fn mean_and_rstd(row: &[f64], eps: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, 1.0 / (var + eps).sqrt())
}

pub(super) fn softmax(x: &Tensor) -> Tensor {
    let row = |row: &[f64]| {
        let lse = log_sum_exp(row);
        row.iter().map(|v| (v - lse).exp()).collect::<Vec<_>>()
    };
    Tensor { shape: x.shape.clone(), data: x.data.chunks(x.shape.last()).flat_map(row).collect() }
}

pub(super) fn log_sum_exp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, super::pointwise::max);
    if max.is_infinite() {
        return max;
    }
    max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

pub(super) fn layer_norm(eps: f64, x: &[&Tensor]) -> Vec<Tensor> {
    let (x, gamma, beta) = (x[0], x[1], x[2]);
    let width = x.shape.last();
    let (mut y, mut means, mut rstds) = (x.clone(), Vec::new(), Vec::new());
    for row in y.data.chunks_mut(width) {
        let (mean, rstd) = mean_and_rstd(row, eps);
        for (i, v) in row.iter_mut().enumerate() {
            *v = (*v - mean) * rstd * gamma.data[i] + beta.data[i];
        }
        means.push(mean);
        rstds.push(rstd);
    }
    vec![y, vector(means), vector(rstds)]
}

pub(super) fn layer_norm_grad(x: &[&Tensor]) -> Vec<Tensor> {
    let [x, gamma, mean, rstd, dy] = x else { return Vec::new() };
    let width = x.shape.last();
    let mut dx = (*x).clone();
    let (mut dgamma, mut dbeta) = (vec![0.0; width], vec![0.0; width]);
    for r in 0..x.shape.rows() {
        let at = r * width;
        let normal = |i: usize| (x.data[at + i] - mean.data[r]) * rstd.data[r];
        let scaled = |i: usize| dy.data[at + i] * gamma.data[i];
        let sum: f64 = (0..width).map(scaled).sum();
        let dot: f64 = (0..width).map(|i| scaled(i) * normal(i)).sum();
        for i in 0..width {
            dx.data[at + i] = rstd.data[r] * (scaled(i) - (sum + normal(i) * dot) / width as f64);
            dgamma[i] += dy.data[at + i] * normal(i);
            dbeta[i] += dy.data[at + i];
        }
    }
    vec![dx, vector(dgamma), vector(dbeta)]
}

pub(super) fn batch_norm_part(part: BatchNormPart, x: &[&Tensor]) -> Vec<Tensor> {
    let (all, rows, width) = (x[0], x[0].shape.rows(), x[0].shape.last());
    let at = |t: &Tensor, r: usize, c: usize| t.data[r * width + c];
    let sums = |f: &dyn Fn(usize, usize) -> f64, over: usize| {
        vector((0..width).map(|c| (0..rows).map(|r| f(r, c)).sum::<f64>() / over as f64).collect())
    };
    let each = |f: &dyn Fn(usize, usize) -> f64| {
        let data = (0..rows * width).map(|i| f(i / width, i % width)).collect();
        Tensor { shape: all.shape.clone(), data }
    };
    match (part, x) {
        (BatchNormPart::Mean, [x]) => vec![sums(&|r, c| at(x, r, c), rows)],
        (BatchNormPart::Variance, [x, mean]) => {
            vec![sums(&|r, c| (at(x, r, c) - mean.data[c]).powi(2), rows)]
        }
        (BatchNormPart::Apply { eps }, [x, gamma, beta, mean, var]) => {
            let rstd = var.map(|v| 1.0 / (v + eps).sqrt());
            let normal = |r: usize, c: usize| (at(x, r, c) - mean.data[c]) * rstd.data[c];
            vec![each(&|r, c| normal(r, c) * gamma.data[c] + beta.data[c]), rstd]
        }
        (BatchNormPart::Sums, [x, mean, rstd, dy]) => {
            let normal = |r: usize, c: usize| (at(x, r, c) - mean.data[c]) * rstd.data[c];
            vec![sums(&|r, c| at(dy, r, c) * normal(r, c), 1), sums(&|r, c| at(dy, r, c), 1)]
        }
        (BatchNormPart::Dx { rows }, [x, gamma, mean, rstd, dy, dgamma, dbeta]) => {
            let normal = |r: usize, c: usize| (at(x, r, c) - mean.data[c]) * rstd.data[c];
            let rest = |r: usize, c: usize| (dbeta.data[c] + normal(r, c) * dgamma.data[c]) / rows as f64;
            vec![each(&|r, c| gamma.data[c] * rstd.data[c] * (at(dy, r, c) - rest(r, c)))]
        }
        // The shape rule has counted the operands.
        _ => Vec::new(),
    }
}

pub(super) fn cross_entropy(x: &[&Tensor], node: &Node) -> Result<Vec<Tensor>, EngineError> {
    let (logits, target) = (x[0], x[1]);
    let classes = logits.shape[1];
    let (mut loss, mut lses) = (Vec::new(), Vec::new());
    for (row, &t) in logits.data.chunks(classes).zip(&target.data) {
        let lse = log_sum_exp(row);
        loss.push(lse - row[index(t, classes, node)?]);
        lses.push(lse);
    }
    Ok(vec![vector(loss), vector(lses)])
}

pub(super) fn cross_entropy_grad(x: &[&Tensor], node: &Node) -> Result<Vec<Tensor>, EngineError> {
    let [logits, target, lse, dloss] = x else { return Ok(Vec::new()) };
    let classes = logits.shape[1];
    let mut dlogits = (*logits).clone();
    for (r, row) in dlogits.data.chunks_mut(classes).enumerate() {
        let t = index(target.data[r], classes, node)?;
        for (c, v) in row.iter_mut().enumerate() {
            *v = ((*v - lse.data[r]).exp() - f64::from(c == t)) * dloss.data[r];
        }
    }
    Ok(vec![dlogits])
}

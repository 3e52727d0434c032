//! How far a program computed in f32 may be from exact: probabilistic rounding error analysis
//! (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci.
//! Comput. 2019).
//!
//! Every node's own arithmetic adds an error of at most b to each element of its result:
//! γ_n·Σ|terms| for a sum of n terms in any order, u·|result| for one operation, and what the
//! kernels state for their functions. To first order the error of a result is Σ a·δ over all those
//! errors δ, |δ| ≤ b, with a the result's derivative. If they are independent with mean zero, it
//! exceeds λ·σ with a probability of at most 2·exp(−λ²/2) (Hoeffding), where σ² = Σ a²b². That is
//! the variance of the result when each δ is b or −b by the toss of a coin, so it is measured by
//! running the program that way in f64.

use halfstep_float::Philox;
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::{AttentionSpec, DType, Graph, Node, Op, ReduceKind, Unary, ValueId, ValueType};

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Relative error of exp and log, which are within 2 ulp.
const EXP: f64 = 4.0 * U;
/// Runs from which σ is taken: 9 % of it is its own standard error.
const RUNS: u64 = 64;

/// γ_n: the relative error of n roundings in a row.
fn gamma(n: usize) -> f64 {
    let nu = n as f64 * U;
    nu / (1.0 - nu)
}

/// σ of the f32 rounding error of each element of `wanted`, for exact values of all nodes as
/// [`evaluate`] gives them.
///
/// # Panics
/// On an operation whose own error is not stated here.
pub fn deviations(graph: &Graph, values: &[Tensor], wanted: &[ValueId]) -> Vec<Vec<f64>> {
    let mut needed = vec![false; graph.values.len()];
    wanted.iter().for_each(|v| needed[v.0 as usize] = true);
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|o| needed[o.0 as usize]) {
            node.inputs.iter().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    let is_needed = |node: &&Node| node.outputs.iter().any(|o| needed[o.0 as usize]);
    let nodes: Vec<&Node> = graph.nodes.iter().filter(is_needed).collect();
    let of = |ids: &[ValueId], values: &[Tensor]| -> Vec<Tensor> {
        ids.iter().map(|v| values[v.0 as usize].clone()).collect()
    };
    let dtypes = |node: &Node| -> Vec<DType> { node.inputs.iter().map(|v| graph.dtype(*v)).collect() };
    let own: Vec<Vec<Tensor>> = (nodes.iter())
        .map(|n| own_errors(n, &of(&n.inputs, values), &of(&n.outputs, values), &dtypes(n)))
        .collect();

    let mut sums: Vec<Vec<f64>> = wanted.iter().map(|v| vec![0.0; values[v.0 as usize].data.len()]).collect();
    for run in 0..RUNS {
        let coin = Philox::new(run);
        let mut rough = values.to_vec();
        for (node, own) in nodes.iter().zip(&own) {
            let fixed = matches!(node.op, Op::Input { .. } | Op::Read { .. } | Op::Const { .. });
            let results = match fixed {
                true => of(&node.outputs, values),
                false => apply(&node.op, &of(&node.inputs, &rough), &dtypes(node)),
            };
            for ((output, mut result), own) in node.outputs.iter().zip(results).zip(own) {
                for (i, (value, bound)) in result.data.iter_mut().zip(&own.data).enumerate() {
                    let heads = coin.word(output.0.into(), i as u64) & 1 == 1;
                    *value += if heads { *bound } else { -bound };
                }
                rough[output.0 as usize] = result;
            }
        }
        for (sum, v) in sums.iter_mut().zip(wanted) {
            let pairs = rough[v.0 as usize].data.iter().zip(&values[v.0 as usize].data);
            sum.iter_mut().zip(pairs).for_each(|(s, (a, b))| *s += (a - b).powi(2));
        }
    }
    sums.into_iter().map(|s| s.into_iter().map(|s| (s / RUNS as f64).sqrt()).collect()).collect()
}

/// `op` of these operands, in f64.
fn apply(op: &Op, inputs: &[Tensor], dtypes: &[DType]) -> Vec<Tensor> {
    let mut g = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| i.to_string()).collect();
    let operands: Vec<ValueId> = (names.iter().zip(inputs).zip(dtypes))
        .map(|((name, t), &dtype)| g.input(name, ValueType { shape: t.shape.clone(), dtype }))
        .collect();
    let results = g.push(op.clone(), &operands).unwrap();
    let given: Vec<(&str, Tensor)> = names.iter().map(String::as_str).zip(inputs.iter().cloned()).collect();
    let values = evaluate(&g, &[], &given, Rounding::None).unwrap();
    results.iter().map(|v| values[v.0 as usize].clone()).collect()
}

fn map(t: &Tensor, f: impl Fn(f64) -> f64) -> Tensor {
    Tensor::new(t.shape.clone(), t.data.iter().map(|&v| f(v)).collect())
}

/// What one node's own arithmetic adds to the error of each of its results `y`.
fn own_errors(node: &Node, x: &[Tensor], y: &[Tensor], dtypes: &[DType]) -> Vec<Tensor> {
    let none = || y.iter().map(|t| map(t, |_| 0.0)).collect();
    let rounded = || y.iter().map(|t| map(t, |v| U * v.abs())).collect();
    // γ of the operation itself with all operands made positive: the sum of its terms' magnitudes.
    let sum_of = |terms: usize| {
        let positive =
            |(t, d): (&Tensor, &DType)| if *d == DType::I32 { t.clone() } else { map(t, f64::abs) };
        let operands: Vec<Tensor> = x.iter().zip(dtypes).map(positive).collect();
        vec![map(&apply(&node.op, &operands, dtypes)[0], |v| gamma(terms + 1) * v)]
    };
    match &node.op {
        Op::Input { .. } | Op::Read { .. } => none(),
        Op::Const { .. } | Op::Binary(_) => rounded(),
        Op::Unary(Unary::Relu | Unary::Step | Unary::Neg) => none(),
        Op::Unary(Unary::Square) => rounded(),
        // Within 4 ulp.
        Op::Unary(Unary::Sigmoid) => y.iter().map(|t| map(t, |v| 8.0 * U * v.abs())).collect(),
        Op::Unary(f @ (Unary::Gelu | Unary::GeluGrad)) => {
            let bound = |(&x, &y): (&f64, &f64)| match f {
                Unary::Gelu => (5.0 + x * x / 2.0) * 2.0 * U * y.abs(),
                _ => 16.0 * U,
            };
            vec![Tensor::new(y[0].shape.clone(), x[0].data.iter().zip(&y[0].data).map(bound).collect())]
        }
        // Elements are moved, or chosen by a mask that rounding does not change: the golden runs
        // keep away from kinks.
        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Broadcast { .. }
        | Op::Gather
        | Op::Pool { .. }
        | Op::PoolGrad { .. }
        | Op::Reduce { kind: ReduceKind::Max, .. } => none(),
        Op::Reduce { .. } => sum_of(x[0].shape.count() / y[0].shape.count()),
        Op::ScatterAdd { .. } => sum_of(x[1].shape.count()),
        Op::MatMul { ta, .. } => sum_of(x[0].shape[x[0].shape.len() - if *ta { 2 } else { 1 }]),
        Op::Conv2d(_) => sum_of(x[1].shape.count() / x[1].shape[0]),
        Op::Conv2dGradInput { .. } | Op::Conv2dGradWeight { .. } => {
            sum_of(x[1].shape.count() / x[1].shape.last())
        }
        Op::LayerNorm { .. } => layer_norm(x, y),
        Op::LayerNormGrad => layer_norm_grad(x, y),
        Op::CrossEntropy => cross_entropy(x, y),
        Op::CrossEntropyGrad => vec![cross_entropy_grad(x, &y[0])],
        Op::Attention(spec) => attention(*spec, &x[0], y),
        Op::AttentionGrad(spec) => vec![attention_grad(*spec, x)],
        other => panic!("the rounding of {} is not stated", other.name()),
    }
}

/// Errors of the mean, and of d(rstd)/rstd: −½·rstd²·d(var), where the variance is a mean of
/// squares of differences from the mean, and a root and a quotient follow.
fn mean_and_rstd(row: &[f64], mean: f64, rstd: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean_error = gamma(row.len() + 1) * row.iter().map(|v| v.abs()).sum::<f64>() / n;
    let spread = row.iter().map(|v| (v - mean).abs() * (mean_error + U * (v - mean).abs())).sum::<f64>() / n;
    (mean_error, rstd * rstd * spread + 0.5 * gamma(row.len() + 3) + 3.0 * U)
}

fn layer_norm(x: &[Tensor], y: &[Tensor]) -> Vec<Tensor> {
    let (gains, width) = (&x[1].data, x[0].shape.last());
    let [mut ey, mut em, mut er] = [0, 1, 2].map(|i| map(&y[i], |_| 0.0));
    for (r, row) in x[0].data.chunks(width).enumerate() {
        let (mean, rstd) = (y[1].data[r], y[2].data[r]);
        let (mean_error, relative) = mean_and_rstd(row, mean, rstd);
        for i in 0..width {
            let normal = (row[i] - mean).abs() * rstd;
            let normal_error = mean_error * rstd + normal * (relative + 2.0 * U);
            let at = r * width + i;
            ey.data[at] = (normal_error + U * normal) * gains[i].abs() + U * y[0].data[at].abs();
        }
        (em.data[r], er.data[r]) = (mean_error, rstd * relative);
    }
    vec![ey, em, er]
}

fn layer_norm_grad(x: &[Tensor], y: &[Tensor]) -> Vec<Tensor> {
    let [input, gains, mean, rstd, dy] = x else { panic!("five operands") };
    let (rows, width) = (input.shape.rows(), input.shape.last());
    let [mut edx, mut edg, mut edb] = [0, 1, 2].map(|i| map(&y[i], |_| 0.0));
    for r in 0..rows {
        let s = rstd.data[r];
        let at = |i: usize| r * width + i;
        let normal = |i: usize| (input.data[at(i)] - mean.data[r]).abs() * s;
        let up = |i: usize| (dy.data[at(i)] * gains.data[i]).abs();
        let average = |f: &dyn Fn(usize) -> f64| (0..width).map(f).sum::<f64>() / width as f64;
        let (a, b) = (average(&up), average(&|i| up(i) * normal(i)));
        // dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·γ and x̂ of two roundings.
        for i in 0..width {
            let means = gamma(width + 2) * a + normal(i) * b * (gamma(width + 4) + 3.0 * U);
            edx.data[at(i)] = s * (means + 5.0 * U * (up(i) + a + normal(i) * b));
            let d = dy.data[at(i)].abs();
            edg.data[i] += gamma(rows + 3) * d * normal(i);
            edb.data[i] += gamma(rows) * d;
        }
    }
    vec![edx, edg, edb]
}

/// Error of log Σ exp(z): each term's difference from the largest is rounded, then exp; the sum;
/// the log; and the largest added again.
fn log_sum_exp(z: &[f64], lse: f64) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let terms: f64 = z.iter().map(|z| (z - lse).exp() * (U * (largest - z) + EXP)).sum();
    terms + gamma(z.len()) + EXP * (lse - largest).abs() + 2.0 * U * (lse.abs() + largest.abs())
}

fn cross_entropy(x: &[Tensor], y: &[Tensor]) -> Vec<Tensor> {
    let classes = x[0].shape[1];
    let mut bounds = y.to_vec();
    for (r, z) in x[0].data.chunks(classes).enumerate() {
        bounds[1].data[r] = log_sum_exp(z, y[1].data[r]);
        // The loss may be made of the log-sum-exp before or after that is rounded.
        bounds[0].data[r] = bounds[1].data[r] + U * y[0].data[r].abs();
    }
    bounds
}

fn cross_entropy_grad(x: &[Tensor], y: &Tensor) -> Tensor {
    let [logits, _, lse, dloss] = x else { panic!("four operands") };
    let classes = logits.shape[1];
    let bound = |i: usize| {
        let below = logits.data[i] - lse.data[i / classes];
        let p_error = below.exp() * (U * below.abs() + EXP);
        dloss.data[i / classes].abs() * p_error + 2.0 * U * y.data[i].abs()
    };
    Tensor::new(y.shape.clone(), (0..y.data.len()).map(bound).collect())
}

/// One head of one sample of packed qkv.
struct Head {
    /// Row of qkv at time 0.
    first: usize,
    /// Column within the width.
    column: usize,
    time: usize,
    size: usize,
    width: usize,
    spec: AttentionSpec,
}

impl Head {
    fn all(spec: AttentionSpec, qkv: &Tensor) -> Vec<Head> {
        let (batch, time, width) = (qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3);
        let size = width / spec.heads;
        let head = |i: usize| {
            let (b, h) = (i / spec.heads, i % spec.heads);
            Head { first: b * time, column: h * size, time, size, width, spec }
        };
        (0..batch * spec.heads).map(head).collect()
    }

    /// Where element `d` of q, k or v (0, 1, 2) at time `t` is.
    fn packed(&self, which: usize, t: usize, d: usize) -> usize {
        (self.first + t) * 3 * self.width + which * self.width + self.column + d
    }

    fn out(&self, t: usize, d: usize) -> usize {
        (self.first + t) * self.width + self.column + d
    }

    fn lse(&self, t: usize) -> usize {
        let sample = self.first / self.time;
        (sample * self.spec.heads + self.column / self.size) * self.time + t
    }

    /// Times that time `t` sees.
    fn seen(&self, t: usize) -> std::ops::Range<usize> {
        0..if self.spec.causal { t + 1 } else { self.time }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.size as f64).sqrt()
    }

    /// The score of times i and j, and its error: a dot product, scaled.
    fn score(&self, qkv: &Tensor, i: usize, j: usize) -> (f64, f64) {
        let term = |d| qkv.data[self.packed(0, i, d)] * qkv.data[self.packed(1, j, d)];
        let sum: f64 = (0..self.size).map(term).sum();
        let size: f64 = (0..self.size).map(|d| term(d).abs()).sum();
        (sum * self.scale(), gamma(self.size + 2) * size * self.scale())
    }
}

fn attention(spec: AttentionSpec, qkv: &Tensor, y: &[Tensor]) -> Vec<Tensor> {
    let mut bounds: Vec<Tensor> = y.iter().map(|t| map(t, |_| 0.0)).collect();
    for head in Head::all(spec, qkv) {
        for i in 0..head.time {
            let (z, e): (Vec<f64>, Vec<f64>) = head.seen(i).map(|j| head.score(qkv, i, j)).unzip();
            let lse = y[1].data[head.lse(i)];
            let weighted: f64 = z.iter().zip(&e).map(|(z, e)| (z - lse).exp() * e).sum();
            let lse_error = weighted + log_sum_exp(&z, lse);
            bounds[1].data[head.lse(i)] = lse_error;
            for d in 0..head.size {
                let part = |j: usize| {
                    let relative = e[j] + lse_error + U * (z[j] - lse).abs() + EXP + gamma(z.len() + 2);
                    (z[j] - lse).exp() * relative * qkv.data[head.packed(2, j, d)].abs()
                };
                bounds[0].data[head.out(i, d)] = head.seen(i).map(part).sum();
            }
        }
    }
    bounds
}

/// With p = exp(s − lse) and δ = Σ dout·out: dv = pᵀ·dout, ds = p·(dout·vᵀ − δ), dq = ds·k and dk =
/// dsᵀ·q, scaled.
fn attention_grad(spec: AttentionSpec, x: &[Tensor]) -> Tensor {
    let [qkv, out, lse, dout] = x else { panic!("packed operands") };
    let mut bound = map(qkv, |_| 0.0);
    for head in Head::all(spec, qkv) {
        for i in 0..head.time {
            let delta_term = |d| out.data[head.out(i, d)] * dout.data[head.out(i, d)];
            let delta: f64 = (0..head.size).map(delta_term).sum();
            let delta_error = gamma(head.size) * (0..head.size).map(|d| delta_term(d).abs()).sum::<f64>();
            for j in head.seen(i) {
                let (z, z_error) = head.score(qkv, i, j);
                let below = z - lse.data[head.lse(i)];
                let (p, relative) = (below.exp(), z_error + U * below.abs() + EXP);
                let dp_term = |d| qkv.data[head.packed(2, j, d)] * dout.data[head.out(i, d)];
                let dp: f64 = (0..head.size).map(dp_term).sum();
                let dp_error = gamma(head.size) * (0..head.size).map(|d| dp_term(d).abs()).sum::<f64>();
                let ds = (p * (dp - delta)).abs();
                let ds_error = (relative + 2.0 * U) * ds + p * (dp_error + delta_error);
                let summed = head.scale() * (ds_error + gamma(head.time + 2) * ds);
                for d in 0..head.size {
                    let [q, k, v] = [(0, i), (1, j), (2, j)].map(|(which, t)| head.packed(which, t, d));
                    bound.data[q] += summed * qkv.data[k].abs();
                    bound.data[k] += summed * qkv.data[q].abs();
                    bound.data[v] += p * (relative + gamma(head.time)) * dout.data[head.out(i, d)].abs();
                }
            }
        }
    }
    bound
}

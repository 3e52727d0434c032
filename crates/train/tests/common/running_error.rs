//! Running error analysis (Wilkinson; Higham, "Accuracy and Stability of Numerical Algorithms", section 3.3): bounds on how
//! far a program computed in f32 may be from exact, element by element, to first order in u = 2^-24.
//!
//! For every node, in order: what the errors of its operands come to by its derivative, all with the same sign, plus what
//! its own arithmetic adds. A sum of n terms in any order adds γ_n·Σ|terms|; one operation adds u·|result|; exp and log
//! are within 2 ulp (4·u), GELU within (5 + x²/2)·2^-23 relative and its derivative within 8·2^-23, as the kernels state.

use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::{AttentionSpec, Binary, DType, Graph, Node, Op, ReduceKind, Unary, ValueId, ValueType};

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Relative error of exp and log.
const EXP: f64 = 4.0 * U;

/// γ_n: the relative error of n roundings in a row.
pub fn gamma(n: usize) -> f64 {
    let nu = n as f64 * U;
    nu / (1.0 - nu)
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

fn abs(t: &Tensor) -> Tensor {
    Tensor::new(t.shape.clone(), t.data.iter().map(|v| v.abs()).collect())
}

/// An operand: its exact value and the bound on its error.
#[derive(Clone)]
struct Operand {
    value: Tensor,
    error: Tensor,
    dtype: DType,
}

impl Operand {
    fn whole(&self) -> bool {
        self.dtype == DType::I32
    }
}

/// Bounds on the errors of `wanted`, for exact values of all nodes as [`evaluate`] gives them.
///
/// Panics on an operation for which no bound is derived here.
pub fn bounds(graph: &Graph, values: &[Tensor], wanted: &[ValueId]) -> Vec<Vec<f64>> {
    let mut needed = vec![false; graph.values.len()];
    wanted.iter().for_each(|v| needed[v.0 as usize] = true);
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|o| needed[o.0 as usize]) {
            node.inputs.iter().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    let mut errors: Vec<Option<Tensor>> = vec![None; graph.values.len()];
    for node in &graph.nodes {
        if !node.outputs.iter().any(|o| needed[o.0 as usize]) {
            continue;
        }
        let operand = |v: &ValueId| Operand {
            value: values[v.0 as usize].clone(),
            error: errors[v.0 as usize].clone().unwrap(),
            dtype: graph.dtype(*v),
        };
        let operands: Vec<Operand> = node.inputs.iter().map(operand).collect();
        let results: Vec<Tensor> = node.outputs.iter().map(|o| values[o.0 as usize].clone()).collect();
        for (output, error) in node.outputs.iter().zip(node_bounds(node, &operands, &results)) {
            errors[output.0 as usize] = Some(error);
        }
    }
    wanted.iter().map(|v| errors[v.0 as usize].clone().unwrap().data).collect()
}

/// Bounds on the results of one node.
fn node_bounds(node: &Node, x: &[Operand], y: &[Tensor]) -> Vec<Tensor> {
    let zero = |t: &Tensor| Tensor::filled(t.shape.clone(), 0.0);
    match &node.op {
        // Inputs and weights are exact; so are the constants of these programs, powers of two or 1/n rounded once.
        Op::Input { .. } | Op::Read { .. } => y.iter().map(zero).collect(),
        Op::Const { .. } => y.iter().map(|t| scaled(&abs(t), U)).collect(),
        Op::Unary(f) => {
            let parts = x[0].value.data.iter().zip(&x[0].error.data).zip(&y[0].data);
            let bound = |((&v, &e), &y): ((&f64, &f64), &f64)| unary(*f, v, e, y);
            vec![Tensor::new(y[0].shape.clone(), parts.map(bound).collect())]
        }
        Op::Binary(f) => vec![binary(*f, x, &y[0])],
        // Elements are moved, or chosen by a mask that rounding does not change: the golden runs keep away from kinks.
        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Broadcast { .. }
        | Op::Gather
        | Op::Pool { .. } => linear(node, x, 0, 0),
        Op::PoolGrad { .. } => {
            // Linear in dy only; the windows do not overlap, so nothing is added up.
            apply(&node.op, &[x[0].value.clone(), x[1].error.clone()], &[DType::F32; 2])
        }
        Op::Reduce { kind, .. } => {
            let terms = x[0].value.shape.count() / y[0].shape.count();
            linear(node, x, if *kind == ReduceKind::Max { 0 } else { terms + 1 }, 0)
        }
        Op::ScatterAdd { .. } => linear(node, x, x[1].value.shape.count(), 0),
        Op::MatMul { ta, .. } => {
            let s = &x[0].value.shape;
            linear(node, x, s[s.len() - if *ta { 2 } else { 1 }], 1)
        }
        Op::Conv2d(_) => linear(node, x, x[1].value.shape.count() / x[1].value.shape[0], 1),
        Op::Conv2dGradInput { .. } => linear(node, x, x[1].value.shape.count() / x[1].value.shape[3], 1),
        Op::Conv2dGradWeight { .. } => linear(node, x, x[1].value.shape.count() / x[1].value.shape[3], 1),
        Op::LayerNorm { .. } => layer_norm(x, y),
        Op::LayerNormGrad => layer_norm_grad(x, y),
        Op::CrossEntropy => cross_entropy(x, y),
        Op::CrossEntropyGrad => vec![cross_entropy_grad(x, &y[0])],
        Op::Attention(spec) => attention(*spec, x, y),
        Op::AttentionGrad(spec) => vec![attention_grad(*spec, x)],
        other => panic!("no error bound for {}", other.name()),
    }
}

fn scaled(t: &Tensor, factor: f64) -> Tensor {
    Tensor::new(t.shape.clone(), t.data.iter().map(|v| v * factor).collect())
}

fn unary(f: Unary, x: f64, e: f64, y: f64) -> f64 {
    match f {
        Unary::Relu => {
            if x > 0.0 {
                e
            } else {
                0.0
            }
        }
        Unary::Step => 0.0,
        Unary::Gelu => {
            // |d gelu| ≤ 1.13 everywhere.
            1.13 * e + (5.0 + x * x / 2.0) * 2.0 * U * y.abs()
        }
        // |d² gelu| ≤ 2φ(0) < 0.8.
        Unary::GeluGrad => 0.8 * e + 16.0 * U,
        Unary::Neg => e,
        other => panic!("no error bound for {other:?}"),
    }
}

fn binary(f: Binary, x: &[Operand], y: &Tensor) -> Tensor {
    let stretch = |t: &Tensor| {
        let op = Op::Broadcast { shape: y.shape.clone() };
        apply(&op, std::slice::from_ref(t), &[DType::F32]).remove(0).data
    };
    let [a, b] = [0, 1].map(|i| stretch(&x[i].value));
    let [ea, eb] = [0, 1].map(|i| stretch(&x[i].error));
    let bound = |i: usize| {
        let operands = match f {
            Binary::Add | Binary::Sub => ea[i] + eb[i],
            Binary::Mul => ea[i] * b[i].abs() + a[i].abs() * eb[i],
            Binary::Div => (ea[i] + (a[i] / b[i]).abs() * eb[i]) / b[i].abs(),
            other => panic!("no error bound for {other:?}"),
        };
        operands + U * y.data[i].abs()
    };
    Tensor::new(y.shape.clone(), (0..y.data.len()).map(bound).collect())
}

/// An operation linear in each operand, with coefficients that are not negative, summing `terms` products of `factors + 1`
/// operands: its own error is γ of itself with all operands made positive, and an operand's error goes through it.
fn linear(node: &Node, x: &[Operand], terms: usize, factors: usize) -> Vec<Tensor> {
    let dtypes: Vec<DType> = x.iter().map(|o| o.dtype).collect();
    let positive: Vec<Tensor> =
        x.iter().map(|o| if o.whole() { o.value.clone() } else { abs(&o.value) }).collect();
    let mut total = scaled(&apply(&node.op, &positive, &dtypes)[0], gamma(terms + factors));
    for (i, operand) in x.iter().enumerate().filter(|(_, o)| !o.whole()) {
        let mut operands = positive.clone();
        operands[i] = operand.error.clone();
        let part = apply(&node.op, &operands, &dtypes);
        total.data.iter_mut().zip(&part[0].data).for_each(|(t, p)| *t += p);
    }
    vec![total]
}

/// Row by row: the mean and what it is subtracted from, the variance, and the result.
fn layer_norm(x: &[Operand], y: &[Tensor]) -> Vec<Tensor> {
    let (input, g, b) = (&x[0], &x[1], &x[2]);
    let width = input.value.shape.last();
    let n = width as f64;
    let [mut ey, mut em, mut er] = [0, 1, 2].map(|i| Tensor::filled(y[i].shape.clone(), 0.0));
    for (r, (row, e)) in input.value.data.chunks(width).zip(input.error.data.chunks(width)).enumerate() {
        let (mean, rstd) = (y[1].data[r], y[2].data[r]);
        let size: f64 = row.iter().map(|v| v.abs()).sum::<f64>() / n;
        let mean_error = e.iter().sum::<f64>() / n + gamma(width + 1) * size;
        let centred: Vec<f64> = row.iter().map(|v| v - mean).collect();
        let centred_error: Vec<f64> =
            e.iter().zip(&centred).map(|(e, c)| e + mean_error + U * c.abs()).collect();
        // d(rstd)/rstd = −½·rstd²·d(var); the variance is a mean of squares, then come a sum, a root and a quotient.
        let dvar: f64 = 2.0 * centred.iter().zip(&centred_error).map(|(c, e)| c.abs() * e).sum::<f64>() / n;
        let relative = 0.5 * rstd * rstd * dvar + 0.5 * gamma(width + 3) + 3.0 * U;
        for i in 0..width {
            let normal = (centred[i] * rstd).abs();
            let normal_error = centred_error[i] * rstd + normal * (relative + U);
            let at = r * width + i;
            ey.data[at] = normal_error * g.value.data[i].abs()
                + normal * (g.error.data[i] + U * g.value.data[i].abs())
                + b.error.data[i]
                + U * y[0].data[at].abs();
        }
        (em.data[r], er.data[r]) = (mean_error, rstd * relative);
    }
    vec![ey, em, er]
}

fn layer_norm_grad(x: &[Operand], y: &[Tensor]) -> Vec<Tensor> {
    let [input, g, mean, rstd, dy] = x else { panic!("five operands") };
    let (rows, width) = (input.value.shape.rows(), input.value.shape.last());
    let n = width as f64;
    let [mut edx, mut edg, mut edb] = [0, 1, 2].map(|i| Tensor::filled(y[i].shape.clone(), 0.0));
    for r in 0..rows {
        let (m, em) = (mean.value.data[r], mean.error.data[r]);
        let (s, es) = (rstd.value.data[r], rstd.error.data[r] / rstd.value.data[r]);
        let at = |i: usize| r * width + i;
        let normal = |i: usize| ((input.value.data[at(i)] - m) * s).abs();
        let normal_error = |i: usize| s * (input.error.data[at(i)] + em) + normal(i) * (es + 2.0 * U);
        let up = |i: usize| (dy.value.data[at(i)] * g.value.data[i]).abs();
        let up_error = |i: usize| {
            let (d, ed) = (dy.value.data[at(i)].abs(), dy.error.data[at(i)]);
            ed * g.value.data[i].abs() + d * g.error.data[i] + U * up(i)
        };
        let sum = |f: &dyn Fn(usize) -> f64| (0..width).map(f).sum::<f64>() / n;
        let a_error = sum(&up_error) + gamma(width + 1) * sum(&up);
        let b = sum(&|i| up(i) * normal(i));
        let b_error = sum(&|i| up_error(i) * normal(i) + up(i) * normal_error(i)) + gamma(width + 2) * b;
        let a = sum(&up);
        for i in 0..width {
            let inner = up_error(i) + a_error + normal_error(i) * b + normal(i) * b_error;
            edx.data[at(i)] =
                s * (inner + 4.0 * U * (up(i) + a + normal(i) * b)) + es * y[0].data[at(i)].abs();
            let (d, ed) = (dy.value.data[at(i)].abs(), dy.error.data[at(i)]);
            edg.data[i] += ed * normal(i) + d * normal_error(i) + gamma(rows + 1) * d * normal(i);
            edb.data[i] += ed + gamma(rows) * d;
        }
    }
    vec![edx, edg, edb]
}

/// Bound on log Σ exp(z) for scores with these errors, and the weights it was summed with.
fn log_sum_exp(z: &[f64], e: &[f64], lse: f64) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Each term: the difference from the largest is rounded, then exp; the sum; the log; the largest added again.
    let terms = z.iter().zip(e).map(|(z, e)| (z - lse).exp() * (e + U * (largest - z) + EXP));
    terms.sum::<f64>() + gamma(z.len()) + EXP * (lse - largest).abs() + 2.0 * U * (lse.abs() + largest.abs())
}

fn cross_entropy(x: &[Operand], y: &[Tensor]) -> Vec<Tensor> {
    let (logits, target) = (&x[0], &x[1].value);
    let classes = logits.value.shape[1];
    let (mut loss, mut lse) = (y[0].clone(), y[1].clone());
    for r in 0..target.data.len() {
        let at = r * classes;
        let (z, e) = (&logits.value.data[at..at + classes], &logits.error.data[at..at + classes]);
        let t = target.data[r] as usize;
        lse.data[r] = log_sum_exp(z, e, y[1].data[r]);
        loss.data[r] = lse.data[r] + e[t] + U * y[0].data[r].abs();
    }
    vec![loss, lse]
}

fn cross_entropy_grad(x: &[Operand], y: &Tensor) -> Tensor {
    let [logits, _, lse, dloss] = x else { panic!("four operands") };
    let classes = logits.value.shape[1];
    let mut bound = y.clone();
    for (i, b) in bound.data.iter_mut().enumerate() {
        let r = i / classes;
        let (z, l, d) = (logits.value.data[i], lse.value.data[r], dloss.value.data[r].abs());
        let p = (z - l).exp();
        let p_error = p * (logits.error.data[i] + lse.error.data[r] + U * (z - l).abs() + EXP);
        let difference = (y.data[i] / dloss.value.data[r]).abs();
        *b = d * (p_error + 2.0 * U * difference) + difference * dloss.error.data[r];
    }
    bound
}

/// One head of one sample of packed qkv.
struct Head {
    /// Rows of qkv.
    first: usize,
    column: usize,
    time: usize,
    size: usize,
    width: usize,
    causal: bool,
}

impl Head {
    fn all(spec: AttentionSpec, qkv: &Tensor) -> Vec<Head> {
        let (batch, time, width) = (qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3);
        let size = width / spec.heads;
        let head = |b: usize, h: usize| Head {
            first: b * time,
            column: h * size,
            time,
            size,
            width,
            causal: spec.causal,
        };
        (0..batch).flat_map(|b| (0..spec.heads).map(move |h| (b, h))).map(|(b, h)| head(b, h)).collect()
    }

    /// Where element `d` of q, k or v (0, 1, 2) at time `t` is.
    fn packed(&self, which: usize, t: usize, d: usize) -> usize {
        (self.first + t) * 3 * self.width + which * self.width + self.column + d
    }

    fn out(&self, t: usize, d: usize) -> usize {
        (self.first + t) * self.width + self.column + d
    }

    fn lse(&self, heads: usize, t: usize) -> usize {
        let sample = self.first / self.time;
        (sample * heads + self.column / self.size) * self.time + t
    }

    fn seen(&self, t: usize) -> usize {
        if self.causal { t + 1 } else { self.time }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.size as f64).sqrt()
    }

    /// The score of times i and j and its error.
    fn score(&self, qkv: &Operand, i: usize, j: usize) -> (f64, f64) {
        let (mut sum, mut error) = (0.0, 0.0);
        for d in 0..self.size {
            let (q, k) = (self.packed(0, i, d), self.packed(1, j, d));
            let (a, b) = (qkv.value.data[q], qkv.value.data[k]);
            sum += a * b;
            error += qkv.error.data[q] * b.abs() + a.abs() * qkv.error.data[k];
            error += gamma(self.size + 2) * (a * b).abs();
        }
        (sum * self.scale(), error * self.scale())
    }
}

fn attention(spec: AttentionSpec, x: &[Operand], y: &[Tensor]) -> Vec<Tensor> {
    let qkv = &x[0];
    let (mut out, mut lses) = (y[0].clone(), y[1].clone());
    for head in Head::all(spec, &qkv.value) {
        for i in 0..head.time {
            let seen = head.seen(i);
            let (z, e): (Vec<f64>, Vec<f64>) = (0..seen).map(|j| head.score(qkv, i, j)).unzip();
            let lse = y[1].data[head.lse(spec.heads, i)];
            let lse_error = log_sum_exp(&z, &e, lse);
            lses.data[head.lse(spec.heads, i)] = lse_error;
            for d in 0..head.size {
                let mut error = 0.0;
                for j in 0..seen {
                    let at = head.packed(2, j, d);
                    let p = (z[j] - lse).exp();
                    let relative = e[j] + lse_error + U * (z[j] - lse).abs() + EXP + gamma(seen + 2);
                    error += p * (relative * qkv.value.data[at].abs() + qkv.error.data[at]);
                }
                out.data[head.out(i, d)] = error;
            }
        }
    }
    vec![out, lses]
}

fn attention_grad(spec: AttentionSpec, x: &[Operand]) -> Tensor {
    let [qkv, out, lse, dout] = x else { panic!("packed operands") };
    let mut bound = Tensor::filled(qkv.value.shape.clone(), 0.0);
    for head in Head::all(spec, &qkv.value) {
        let scale = head.scale();
        for i in 0..head.time {
            let (l, el) = (lse.value.data[head.lse(spec.heads, i)], lse.error.data[head.lse(spec.heads, i)]);
            let (mut dot, mut dot_size, mut dot_error) = (0.0, 0.0, 0.0);
            for d in 0..head.size {
                let at = head.out(i, d);
                let (o, g) = (out.value.data[at], dout.value.data[at]);
                dot += o * g;
                dot_size += (o * g).abs();
                dot_error += out.error.data[at] * g.abs() + o.abs() * dout.error.data[at];
            }
            dot_error += gamma(head.size) * dot_size;
            for j in 0..head.seen(i) {
                let (z, ez) = head.score(qkv, i, j);
                let p = (z - l).exp();
                let relative = ez + el + U * (z - l).abs() + EXP;
                let (mut dp, mut dp_error) = (0.0, 0.0);
                for d in 0..head.size {
                    let (v, g) = (head.packed(2, j, d), head.out(i, d));
                    let (value, gradient) = (qkv.value.data[v], dout.value.data[g]);
                    dp += value * gradient;
                    dp_error += qkv.error.data[v] * gradient.abs() + value.abs() * dout.error.data[g];
                    dp_error += gamma(head.size) * (value * gradient).abs();
                    bound.data[v] +=
                        p * ((relative + gamma(head.time)) * gradient.abs() + dout.error.data[g]);
                }
                let ds = (p * (dp - dot)).abs();
                let ds_error = relative * ds + p * (dp_error + dot_error) + 2.0 * U * ds;
                for d in 0..head.size {
                    let (q, k) = (head.packed(0, i, d), head.packed(1, j, d));
                    let (a, b) = (qkv.value.data[q].abs(), qkv.value.data[k].abs());
                    let own = ds_error + gamma(head.time + 2) * ds;
                    bound.data[q] += scale * (own * b + ds * qkv.error.data[k]);
                    bound.data[k] += scale * (own * a + ds * qkv.error.data[q]);
                }
            }
        }
    }
    bound
}

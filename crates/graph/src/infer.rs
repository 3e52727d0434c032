//! The shape rule of every operation: from operand types to result types, or what does not fit.

use halfstep_float::Format;

use crate::dtype::{DType, Shape, ValueType};
use crate::op::{BatchNormPart, Blocks, ConvGeometry, Op, Quantise};
use crate::state_formats::Kept;

/// Result types of `op` for these operand types. New float results are f32 until a precision plan
/// says otherwise.
pub(crate) fn infer(op: &Op, x: &[&ValueType]) -> Result<Vec<ValueType>, String> {
    let one = |shape: Shape| Ok(vec![ValueType::f32(shape)]);
    let same = |shape: Shape, like: &ValueType| Ok(vec![ValueType { shape, dtype: like.dtype }]);
    match op {
        Op::Input { name } => Err(format!("input {name:?} is made by Graph::input, which gives its type")),
        Op::Read { .. } => Err("a slot is read by Graph::read".into()),
        Op::Const { shape, .. } => {
            arity(x, 0)?;
            one(shape.clone())
        }
        Op::Unary(_) => {
            arity(x, 1)?;
            floats(x)?;
            one(x[0].shape.clone())
        }
        Op::Binary(_) => {
            arity(x, 2)?;
            floats(x)?;
            one(broadcast(&x[0].shape, &x[1].shape)?)
        }
        Op::Select => {
            arity(x, 3)?;
            floats(x)?;
            one(broadcast(&broadcast(&x[0].shape, &x[1].shape)?, &x[2].shape)?)
        }
        Op::Cast { to } => {
            arity(x, 1)?;
            Ok(vec![ValueType { shape: x[0].shape.clone(), dtype: *to }])
        }
        Op::Quantise(q) => quantise(q, x),
        Op::Broadcast { shape } => {
            arity(x, 1)?;
            let fits = x[0].shape.broadcast(shape).as_ref() == Some(shape);
            ensure(fits, || format!("{} does not broadcast to {shape}", x[0].shape))?;
            one(shape.clone())
        }
        Op::Dropout { rate, .. } => {
            arity(x, 2)?;
            floats(&x[..1])?;
            let is_share = (0.0..1.0).contains(rate);
            ensure(is_share, || format!("the rate is {rate}; expected at least 0 and below 1"))?;
            key(x[1])?;
            one(x[0].shape.clone())
        }
        Op::Reshape { shape } => {
            arity(x, 1)?;
            if shape.count() != x[0].shape.count() || shape.contains(&0) {
                return Err(format!(
                    "{} has {} elements, {shape} has {}",
                    x[0].shape,
                    x[0].shape.count(),
                    shape.count()
                ));
            }
            same(shape.clone(), x[0])
        }
        Op::Permute { perm } => {
            arity(x, 1)?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if sorted != (0..x[0].shape.len()).collect::<Vec<_>>() {
                return Err(format!("{perm:?} is not an order of the dimensions of {}", x[0].shape));
            }
            same(Shape::from(perm.iter().map(|&p| x[0].shape[p]).collect::<Vec<_>>()), x[0])
        }
        Op::Slice { axis, start, end } => {
            arity(x, 1)?;
            let size = axis_size(x[0], *axis)?;
            let is_within = start < end && *end <= size;
            ensure(is_within, || format!("{start}..{end} is not a range within 0..{size}"))?;
            same(with_size(&x[0].shape, *axis, end - start), x[0])
        }
        Op::Pad { axis, before, after } => {
            arity(x, 1)?;
            let size = axis_size(x[0], *axis)?;
            same(with_size(&x[0].shape, *axis, before + size + after), x[0])
        }
        Op::Concat { axis } => {
            let first = x.first().ok_or("expected at least one operand")?;
            let mut size = 0;
            for other in x {
                size += axis_size(other, *axis)?;
                expect_shape("an operand", other, &with_size(&first.shape, *axis, other.shape[*axis]))?;
            }
            same(with_size(&first.shape, *axis, size), first)
        }
        Op::Gather => {
            arity(x, 2)?;
            rank("the table", x[0], 2)?;
            integers("the index", x[1])?;
            one(joined(&x[1].shape, x[0].shape[1]))
        }
        Op::ScatterAdd { rows } => {
            arity(x, 2)?;
            integers("the index", x[1])?;
            let width = x[0].shape.last();
            expect_shape("dy", x[0], &joined(&x[1].shape, width))?;
            one(Shape::from([*rows, width]))
        }
        Op::Reduce { axes, .. } => {
            arity(x, 1)?;
            floats(x)?;
            if !axes.is_sorted_by(|a, b| a < b) || axes.iter().any(|&a| a >= x[0].shape.len()) {
                return Err(format!("{axes:?} are not sorted dimensions of {}", x[0].shape));
            }
            let kept = (0..x[0].shape.len()).filter(|i| !axes.contains(i));
            one(Shape::from(kept.map(|i| x[0].shape[i]).collect::<Vec<_>>()))
        }
        Op::ArgMax => {
            arity(x, 1)?;
            at_least_rank("x", x[0], 1)?;
            Ok(vec![ValueType::i32(Shape::new(&x[0].shape[..x[0].shape.len() - 1]))])
        }
        Op::Softmax => {
            arity(x, 1)?;
            at_least_rank("x", x[0], 1)?;
            one(x[0].shape.clone())
        }
        Op::LayerNorm { .. } => {
            arity(x, 3)?;
            at_least_rank("x", x[0], 1)?;
            let width = Shape::from([x[0].shape.last()]);
            expect_shape("gamma", x[1], &width)?;
            expect_shape("beta", x[2], &width)?;
            let rows = Shape::from([x[0].shape.rows()]);
            Ok(vec![ValueType::f32(x[0].shape.clone()), ValueType::f32(rows.clone()), ValueType::f32(rows)])
        }
        Op::LayerNormGrad => layer_norm_grad(x),
        Op::BatchNormPart(part) => batch_norm_part(*part, x),
        Op::CrossEntropy => {
            arity(x, 2)?;
            rank("logits", x[0], 2)?;
            let rows = Shape::from([x[0].shape[0]]);
            integers("the target", x[1])?;
            expect_shape("the target", x[1], &rows)?;
            Ok(vec![ValueType::f32(rows.clone()), ValueType::f32(rows)])
        }
        Op::CrossEntropyGrad => {
            arity(x, 4)?;
            rank("logits", x[0], 2)?;
            let rows = Shape::from([x[0].shape[0]]);
            for (what, operand) in [("the target", x[1]), ("lse", x[2]), ("dloss", x[3])] {
                expect_shape(what, operand, &rows)?;
            }
            one(x[0].shape.clone())
        }
        Op::GlobalNorm => {
            floats(x)?;
            one(Shape::scalar())
        }
        Op::MatMul { ta, tb } => matmul(*ta, *tb, x),
        Op::Conv2d(geometry) => {
            if x.len() != 3 {
                arity(x, 2)?;
            }
            rank("x", x[0], 4)?;
            rank("w", x[1], 4)?;
            let (s, w) = (&x[0].shape, &x[1].shape);
            ensure(s[3] == w[3], || format!("x has {} channels, w expects {}", s[3], w[3]))?;
            if let Some(bias) = x.get(2) {
                expect_shape("the bias", bias, &Shape::from([w[0]]))?;
            }
            let (height, width) = conv_output(*geometry, (s[1], s[2]), (w[1], w[2]))?;
            one(Shape::from([s[0], height, width, w[0]]))
        }
        Op::Conv2dGradInput { geometry, size } => {
            arity(x, 2)?;
            rank("dy", x[0], 4)?;
            rank("w", x[1], 4)?;
            let (dy, w) = (&x[0].shape, &x[1].shape);
            let (height, width) = conv_output(*geometry, *size, (w[1], w[2]))?;
            expect_shape("dy", x[0], &Shape::from([dy[0], height, width, w[0]]))?;
            one(Shape::from([dy[0], size.0, size.1, w[3]]))
        }
        Op::Conv2dGradWeight { geometry, window } => {
            arity(x, 2)?;
            rank("x", x[0], 4)?;
            rank("dy", x[1], 4)?;
            let (s, dy) = (&x[0].shape, &x[1].shape);
            let (height, width) = conv_output(*geometry, (s[1], s[2]), *window)?;
            expect_shape("dy", x[1], &Shape::from([s[0], height, width, dy[3]]))?;
            one(Shape::from([dy[3], window.0, window.1, s[3]]))
        }
        Op::Attention(spec) => {
            let (out, lse) = attention_shapes(spec.heads, x)?;
            Ok(vec![ValueType::f32(out), ValueType::f32(lse)])
        }
        Op::AttentionGrad(spec) => {
            let operands = match x.len() {
                4 => 1,
                6 => 3,
                n => return Err(format!("expected 4 operands (packed) or 6, found {n}")),
            };
            let (out, lse) = attention_shapes(spec.heads, &x[..operands])?;
            expect_shape("out", x[operands], &out)?;
            expect_shape("lse", x[operands + 1], &lse)?;
            expect_shape("dout", x[operands + 2], &out)?;
            Ok(x[..operands].iter().map(|t| ValueType::f32(t.shape.clone())).collect())
        }
        Op::Pool { window, stride, .. } => {
            arity(x, 1)?;
            one(pooled(&x[0].shape, *window, *stride)?)
        }
        Op::PoolGrad { window, stride, .. } => {
            arity(x, 2)?;
            expect_shape("dy", x[1], &pooled(&x[0].shape, *window, *stride)?)?;
            one(x[0].shape.clone())
        }
        Op::AdamW(spec) => update(x, 2, 4, spec.kept),
        Op::Sgd(spec) => update(x, 1, 3, spec.kept),
        Op::AllReduceStart { over } => {
            floats(x)?;
            let count = x.iter().map(|t| t.shape.count()).sum();
            Ok(vec![ValueType { shape: Shape::from([count]), dtype: *over }])
        }
        Op::AllReduceWait { shapes, .. } => {
            arity(x, 1)?;
            let count = shapes.iter().map(Shape::count).sum();
            expect_shape("what is under way", x[0], &Shape::from([count]))?;
            Ok(shapes.iter().map(|shape| ValueType::f32(shape.clone())).collect())
        }
    }
}

fn quantise(q: &Quantise, x: &[&ValueType]) -> Result<Vec<ValueType>, String> {
    let scales = usize::from(matches!(q.blocks, Blocks::Tensor { .. } | Blocks::Nvfp4 { .. }));
    arity(x, 1 + scales + usize::from(q.draws.is_some()))?;
    floats(&x[..=scales])?;
    if scales == 1 {
        by_first_axis(q, &x[0].shape, &x[1].shape)?;
    }
    if q.draws.is_some() {
        key(x[scales + 1])?;
    }
    match q.blocks {
        Blocks::Mx { axis, .. } | Blocks::Nvfp4 { axis } | Blocks::Row128 { axis } => {
            axis_size(x[0], axis)?;
        }
        Blocks::Square128 => at_least_rank("x", x[0], 2)?,
        Blocks::Tensor { .. } => {}
    }
    let dtype = match (q.blocks, q.format) {
        (Blocks::Tensor { .. }, Format::E4m3) => DType::E4m3,
        (Blocks::Tensor { .. }, Format::E5m2) => DType::E5m2,
        (Blocks::Mx { .. }, Format::E4m3 | Format::E5m2 | Format::E2m1)
        | (Blocks::Nvfp4 { .. }, Format::E2m1)
        | (Blocks::Row128 { .. } | Blocks::Square128, Format::E4m3 | Format::E5m2) => DType::Bf16,
        (_, format) => return Err(format!("there are no such blocks of {format}")),
    };
    Ok(vec![ValueType { shape: x[0].shape.clone(), dtype }])
}

/// Whether a scale is one number, or one for each place of the first axis of `x`.
fn by_first_axis(q: &Quantise, x: &Shape, scale: &Shape) -> Result<(), String> {
    let is_along_first = matches!(q.blocks, Blocks::Nvfp4 { axis: 0 });
    let places = x.first().copied().unwrap_or(1);
    let each = x.iter().enumerate().map(|(i, _)| if i == 0 { places } else { 1 });
    let fits = scale.is_empty() || (!is_along_first && scale.iter().copied().eq(each));
    ensure(fits, || format!("the scale: expected one number or one for each of {places}, found {scale}"))
}

/// The tensors of a parameter and its moments, then the gradient, then scalars, before the last of
/// which a key may stand.
fn update(x: &[&ValueType], moments: usize, scalars: usize, kept: Kept) -> Result<Vec<ValueType>, String> {
    let shape = x.first().map(|p| p.shape.clone()).unwrap_or_default();
    let state = kept.formats.types(&shape, moments);
    let draws = kept.formats.draws();
    arity(x, state.len() + 1 + scalars + usize::from(draws))?;
    for (i, (&found, expected)) in x.iter().zip(&state).enumerate() {
        ensure(found == expected, || format!("tensor {i} of the state must be {expected}, found {found}"))?;
    }
    expect_shape("the gradient", x[state.len()], &shape)?;
    let (last, rest) = x[state.len() + 1..].split_last().expect("the arity was checked");
    let (rest, keys) = rest.split_at(scalars - 1);
    for operand in rest.iter().chain([last]) {
        expect_shape("a scalar operand", operand, &Shape::scalar())?;
    }
    keys.iter().try_for_each(|t| key(t))?;
    Ok(state)
}

fn matmul(ta: bool, tb: bool, x: &[&ValueType]) -> Result<Vec<ValueType>, String> {
    if x.len() != 3 {
        arity(x, 2)?;
    }
    floats(x)?;
    let (a, b) = (&x[0].shape, &x[1].shape);
    if a.len() < 2 || a.len() != b.len() {
        return Err(format!("expected two matrices or two equal batches of them, found {a} and {b}"));
    }
    let batch = a.len() - 2;
    let (m, ka) = if ta { (a[batch + 1], a[batch]) } else { (a[batch], a[batch + 1]) };
    let (kb, n) = if tb { (b[batch + 1], b[batch]) } else { (b[batch], b[batch + 1]) };
    if ka != kb || a[..batch] != b[..batch] {
        let t = |on| if on { "ᵀ" } else { "" };
        return Err(format!("a{} = {a} and b{} = {b} do not multiply", t(ta), t(tb)));
    }
    if let Some(bias) = x.get(2) {
        expect_shape("the bias", bias, &Shape::from([n]))?;
    }
    let mut shape = a[..batch].to_vec();
    shape.extend([m, n]);
    Ok(vec![ValueType::f32(Shape::from(shape))])
}

fn layer_norm_grad(x: &[&ValueType]) -> Result<Vec<ValueType>, String> {
    arity(x, 5)?;
    let (width, stat) = (Shape::from([x[0].shape.last()]), Shape::from([x[0].shape.rows()]));
    expect_shape("gamma", x[1], &width)?;
    expect_shape("mean", x[2], &stat)?;
    expect_shape("rstd", x[3], &stat)?;
    expect_shape("dy", x[4], &x[0].shape)?;
    Ok(vec![ValueType::f32(x[0].shape.clone()), ValueType::f32(width.clone()), ValueType::f32(width)])
}

/// `x` comes first and `dy` has its shape; everything else is a vector over channels.
fn batch_norm_part(part: BatchNormPart, x: &[&ValueType]) -> Result<Vec<ValueType>, String> {
    let (operands, dy) = match part {
        BatchNormPart::Mean => (1, None),
        BatchNormPart::Variance => (2, None),
        BatchNormPart::Apply { .. } => (5, None),
        BatchNormPart::Sums => (4, Some(3)),
        BatchNormPart::Dx { .. } => (7, Some(4)),
    };
    arity(x, operands)?;
    floats(x)?;
    at_least_rank("x", x[0], 2)?;
    let channels = Shape::from([x[0].shape.last()]);
    for (i, &operand) in x.iter().enumerate().skip(1) {
        let expected = if Some(i) == dy { &x[0].shape } else { &channels };
        expect_shape("an operand", operand, expected)?;
    }
    let (whole, vector) = (ValueType::f32(x[0].shape.clone()), ValueType::f32(channels));
    Ok(match part {
        BatchNormPart::Mean | BatchNormPart::Variance => vec![vector],
        BatchNormPart::Apply { .. } => vec![whole, vector],
        BatchNormPart::Sums => vec![vector.clone(), vector],
        BatchNormPart::Dx { .. } => vec![whole],
    })
}

fn attention_shapes(heads: usize, x: &[&ValueType]) -> Result<(Shape, Shape), String> {
    floats(x)?;
    for operand in x {
        rank("an operand", operand, 3)?;
    }
    let width = match x.len() {
        1 => x[0].shape[2] / 3,
        3 => x[0].shape[2],
        n => return Err(format!("expected qkv, or q, k and v; found {n} operands")),
    };
    if heads == 0
        || width == 0
        || !width.is_multiple_of(heads)
        || (x.len() == 1 && x[0].shape[2] != 3 * width)
    {
        return Err(format!("a width of {} is not divided by {heads} heads", x[0].shape[2]));
    }
    for operand in &x[1..] {
        expect_shape("k and v", operand, &x[0].shape)?;
    }
    let (batch, time) = (x[0].shape[0], x[0].shape[1]);
    Ok((Shape::from([batch, time, width]), Shape::from([batch, heads, time])))
}

fn pooled(shape: &Shape, window: usize, stride: usize) -> Result<Shape, String> {
    ensure(shape.len() == 4, || format!("expected [N,H,W,C], found {shape}"))?;
    let (height, width) =
        conv_output(ConvGeometry { stride, pad: 0 }, (shape[1], shape[2]), (window, window))?;
    Ok(Shape::from([shape[0], height, width, shape[3]]))
}

fn conv_output(
    g: ConvGeometry,
    size: (usize, usize),
    window: (usize, usize),
) -> Result<(usize, usize), String> {
    if g.stride == 0 || window.0 == 0 || window.1 == 0 {
        return Err("stride and window must be at least 1".into());
    }
    match (g.output(size.0, window.0), g.output(size.1, window.1)) {
        (Some(height), Some(width)) => Ok((height, width)),
        _ => Err(format!(
            "a window of {}×{} with padding {} does not fit in {}×{}",
            window.0, window.1, g.pad, size.0, size.1
        )),
    }
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

fn arity(x: &[&ValueType], expected: usize) -> Result<(), String> {
    ensure(x.len() == expected, || format!("expected {expected} operands, found {}", x.len()))
}

fn floats(x: &[&ValueType]) -> Result<(), String> {
    x.iter().try_for_each(|t| ensure(t.dtype.is_float(), || format!("expected numbers, found {t}")))
}

fn integers(what: &str, t: &ValueType) -> Result<(), String> {
    ensure(t.dtype == DType::I32, || format!("{what} must be i32, found {t}"))
}

fn key(t: &ValueType) -> Result<(), String> {
    expect_shape("the key", t, &Shape::from([4]))?;
    integers("the key", t)
}

fn rank(what: &str, t: &ValueType, expected: usize) -> Result<(), String> {
    ensure(t.shape.len() == expected, || format!("{what} must have {expected} dimensions, found {}", t.shape))
}

fn at_least_rank(what: &str, t: &ValueType, least: usize) -> Result<(), String> {
    ensure(t.shape.len() >= least, || {
        format!("{what} must have at least {least} dimensions, found {}", t.shape)
    })
}

fn expect_shape(what: &str, t: &ValueType, expected: &Shape) -> Result<(), String> {
    ensure(&t.shape == expected, || format!("{what}: expected {expected}, found {}", t.shape))
}

fn axis_size(t: &ValueType, axis: usize) -> Result<usize, String> {
    t.shape.get(axis).copied().ok_or_else(|| format!("{} has no dimension {axis}", t.shape))
}

fn with_size(shape: &Shape, axis: usize, size: usize) -> Shape {
    let mut sizes = shape.to_vec();
    sizes[axis] = size;
    Shape::from(sizes)
}

fn joined(shape: &Shape, last: usize) -> Shape {
    let mut sizes = shape.to_vec();
    sizes.push(last);
    Shape::from(sizes)
}

fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    a.broadcast(b).ok_or_else(|| format!("{a} and {b} do not broadcast together"))
}

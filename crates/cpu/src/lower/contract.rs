//! Contractions: matrix product, convolution, attention.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{AttentionSpec, ConvGeometry, DType, Graph, Node, Op};

use super::group::{After, Borrowed, nothing};
use super::{Lowering, Step};
use crate::attention::{
    AttentionBackward, AttentionForward, AttentionMask, Grads, HeadLayout, HeadOperands, HeadShape, HeadView,
    attention_backward_scratch_len, attention_forward_scratch_len,
};
use crate::conv::{Conv2d, ConvPass, Convolution};
use crate::gemm::{BlockEpilogue, Ctx, GemmArgs, Layout, Operand, Output, ProductFormat, gemm};
use crate::isa::Isa;
use crate::memory::{Span, View, ViewMut};
use crate::pool::Pool;

/// The format a contraction's operands are multiplied in: their own, which the precision plan made
/// the same, or the split that it asks for.
pub(super) fn compute(graph: &Graph, node: &Node) -> ProductFormat {
    let packed = matches!(node.op, Op::Attention(_) | Op::AttentionGrad(_)) && is_packed(node);
    let [a, b] = [0, if packed { 0 } else { 1 }].map(|i| graph.dtype(node.inputs[i]));
    match (a, b, node.split) {
        (DType::Bf16 | DType::E4m3 | DType::E5m2, DType::Bf16 | DType::E4m3 | DType::E5m2, _) => {
            ProductFormat::Bf16
        }
        (DType::F16, DType::F16, _) => ProductFormat::F16,
        (_, _, Some(split)) => ProductFormat::Split(split),
        _ => ProductFormat::F32,
    }
}

/// A bias is a row of f32: it is added to the accumulator.
fn check_bias(l: &Lowering<'_>) -> Result<Option<Span>, EngineError> {
    if l.node.inputs.len() < 3 {
        return Ok(None);
    }
    let bias = l.input(2);
    if bias.dtype == DType::F32 {
        return Ok(Some(bias));
    }
    Err(EngineError::Unsupported(format!("`{}`: the bias is {}, expected f32", l.node.name, bias.dtype)))
}

pub(super) fn matmul(l: &Lowering<'_>, ta: bool, tb: bool) -> Result<Step, EngineError> {
    let (a, b, at) = (l.input(0), l.input(1), l.at());
    let (sa, sb, sc) = (l.shape(0), l.shape(1), l.result_shape());
    let rank = sa.len();
    let batch: usize = sa[..rank - 2].iter().product();
    let stored = |s: &[usize], transposed: bool| {
        let layout = Layout::row_major(s[rank - 2], s[rank - 1]);
        let layout = layout.with_batch_strides([0, s[rank - 2] * s[rank - 1]]);
        if transposed { layout.transposed() } else { layout }
    };
    let (la, lb, lc) = (stored(sa, ta), stored(sb, tb), stored(sc, false));
    let (compute, bias) = (compute(l.graph, l.node), check_bias(l)?);
    let after = After::new(l, &[a, b, bias.unwrap_or(nothing())], &[])?;
    Ok(Box::new(move |frame, run| {
        let Borrowed { operands: [av, bv, bias_row, ..], results: [result, ..], chain } =
            after.borrow(frame, run, &at)?;
        let mut ctx = Ctx { isa: run.machine.isa, pool: &run.machine.pool, scratch: run.scratch };
        let args = GemmArgs {
            batch: [1, batch],
            a: Operand { data: av.src(), layout: la },
            b: Operand { data: bv.src(), layout: lb },
            c: Output { data: result.dst(), layout: lc },
            compute,
            bias: bias.map(|_| bias_row.f32()),
        };
        let epilogue = chain.as_ref().map(|chain| -> &dyn BlockEpilogue { chain });
        gemm(&mut ctx, args, epilogue).map_err(|e| at.error(e))
    }))
}

fn heads(graph: &Graph, node: &Node, spec: AttentionSpec) -> HeadShape {
    let shape = graph.shape(node.inputs[0]);
    let packed = is_packed(node);
    let width = if packed { shape[2] / 3 } else { shape[2] };
    HeadShape { batch: shape[0], heads: spec.heads, time: shape[1], dim: width / spec.heads }
}

fn is_packed(node: &Node) -> bool {
    matches!((&node.op, node.inputs.len()), (Op::Attention(_), 1) | (Op::AttentionGrad(_), 4))
}

pub(super) fn attention_words(
    graph: &Graph,
    node: &Node,
    spec: AttentionSpec,
    isa: Isa,
    threads: usize,
) -> usize {
    let (shape, compute) = (heads(graph, node, spec), compute(graph, node));
    match node.op {
        Op::Attention(_) => attention_forward_scratch_len(isa, threads, &shape, compute),
        _ => attention_backward_scratch_len(isa, threads, &shape, compute),
    }
}

/// What both directions need: where q, k and v are.
struct Heads {
    shape: HeadShape,
    mask: AttentionMask,
    scale: f32,
    compute: ProductFormat,
    layouts: [HeadLayout; 3],
    /// Spans of q, k and v; all the same where they are packed.
    operands: [Span; 3],
}

impl Heads {
    fn new(l: &Lowering<'_>, spec: AttentionSpec) -> Heads {
        let shape = heads(l.graph, l.node, spec);
        let packed = is_packed(l.node);
        let operands = [0, 1, 2].map(|i| l.input(if packed { 0 } else { i }));
        let dense = HeadLayout::dense(&shape);
        let layouts =
            if packed { [0, 1, 2].map(|part| HeadLayout::packed(part, &shape)) } else { [dense; 3] };
        let compute = compute(l.graph, l.node);
        let mask = if spec.causal { AttentionMask::Causal } else { AttentionMask::Full };
        Heads { shape, mask, scale: 1.0 / (shape.dim as f32).sqrt(), compute, layouts, operands }
    }

    fn views<'a>(&self, views: [View<'a>; 3]) -> HeadOperands<'a> {
        let [q, k, v] = std::array::from_fn(|i| HeadView { data: views[i].src(), layout: self.layouts[i] });
        HeadOperands { shape: self.shape, mask: self.mask, scale: self.scale, compute: self.compute, q, k, v }
    }
}

pub(super) fn attention(l: &Lowering<'_>, spec: AttentionSpec, work: Span) -> Result<Step, EngineError> {
    let h = Heads::new(l, spec);
    l.step(h.operands, [l.output(0), l.output(1), work], move |isa, pool, [q, k, v], [out, lse, work]| {
        AttentionForward {
            heads: h.views([q, k, v]),
            out: out.dst(),
            out_layout: HeadLayout::dense(&h.shape),
            lse: lse.f32(),
            scratch: work.f32(),
        }
        .run(isa, pool)
    })
}

pub(super) fn attention_grad(l: &Lowering<'_>, spec: AttentionSpec, work: Span) -> Result<Step, EngineError> {
    let h = Heads::new(l, spec);
    let first = l.node.inputs.len() - 3;
    let [[q, k, v], [out, lse, dout]] = [h.operands, [0, 1, 2].map(|i| l.input(first + i))];
    let reads = [q, k, v, out, lse, dout];
    let [lq, lk, lv] = h.layouts;
    let backward = move |isa, pool: &Pool, reads: [View<'_>; 6], grads: Grads<'_>, work: ViewMut<'_>| {
        let [q, k, v, out, lse, dout] = reads;
        let layout = HeadLayout::dense(&h.shape);
        AttentionBackward {
            heads: h.views([q, k, v]),
            out: HeadView { data: out.src(), layout },
            dout: HeadView { data: dout.src(), layout },
            lse: lse.f32(),
            grads,
            scratch: work.f32(),
        }
        .run(isa, pool)
    };
    if is_packed(l.node) {
        return l.step(reads, [l.output(0), work], move |isa, pool, reads, [to, work]| {
            backward(isa, pool, reads, Grads::Packed { data: to.dst(), q: lq, k: lk, v: lv }, work)
        });
    }
    let writes = [l.output(0), l.output(1), l.output(2), work];
    l.step(reads, writes, move |isa, pool, reads, [dq, dk, dv, work]| {
        let grads = Grads::Separate { q: (dq.dst(), lq), k: (dk.dst(), lk), v: (dv.dst(), lv) };
        backward(isa, pool, reads, grads, work)
    })
}

pub(super) fn sizes(image: &[usize], weights: &[usize], g: ConvGeometry) -> Conv2d {
    Conv2d {
        images: image[0],
        input: [image[1], image[2]],
        channels: weights[3],
        out_channels: weights[0],
        window: [weights[1], weights[2]],
        stride: g.stride,
        padding: g.pad,
    }
}

pub(super) fn conv2d(l: &Lowering<'_>, g: ConvGeometry) -> Result<Step, EngineError> {
    convolution(l, sizes(l.shape(0), l.shape(1), g), ConvPass::Forward)
}

pub(super) fn conv2d_grad_input(l: &Lowering<'_>, g: ConvGeometry) -> Result<Step, EngineError> {
    convolution(l, sizes(l.result_shape(), l.shape(1), g), ConvPass::GradInput)
}

pub(super) fn conv2d_grad_weight(l: &Lowering<'_>, g: ConvGeometry) -> Result<Step, EngineError> {
    convolution(l, sizes(l.shape(0), l.result_shape(), g), ConvPass::GradWeight)
}

fn convolution(l: &Lowering<'_>, conv: Conv2d, pass: ConvPass) -> Result<Step, EngineError> {
    let (a, b, at) = (l.input(0), l.input(1), l.at());
    let (compute, bias) = (compute(l.graph, l.node), check_bias(l)?);
    let after = After::new(l, &[a, b, bias.unwrap_or(nothing())], &[])?;
    Ok(Box::new(move |frame, run| {
        let Borrowed { operands: [a, b, row, ..], results: [result, ..], chain } =
            after.borrow(frame, run, &at)?;
        let (a, b, to) = (a.src(), b.src(), result.dst());
        let mut ctx = Ctx { isa: run.machine.isa, pool: &run.machine.pool, scratch: run.scratch };
        let epilogue = chain.as_ref().map(|chain| -> &dyn BlockEpilogue { chain });
        let bias = bias.map(|_| row.f32());
        Convolution { conv, pass, a, b, to, compute, bias, epilogue }.run(&mut ctx).map_err(|e| at.error(e))
    }))
}

//! Attention by heads, and its gradients.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{AttentionSpec, DType, Graph, Node, Op};

use super::{Call, Lowering, MOST_BLOCKS};
use crate::command::Argument;
use crate::kernels::Source;
use crate::stored::Stored;

/// How the heads of an attention lie.
struct Heads {
    batch: usize,
    heads: usize,
    time: usize,
    dim: usize,
    causal: bool,
    /// Whether q, k and v are parts of one tensor.
    packed: bool,
}

impl Heads {
    fn of(graph: &Graph, node: &Node, spec: AttentionSpec) -> Heads {
        let shape = graph.shape(node.inputs[0]);
        let packed =
            matches!((&node.op, node.inputs.len()), (Op::Attention(_), 1) | (Op::AttentionGrad(_), 4));
        let width = if packed { shape[2] / 3 } else { shape[2] };
        let (heads, dim) = (spec.heads, width / spec.heads);
        Heads { batch: shape[0], heads, time: shape[1], dim, causal: spec.causal, packed }
    }

    fn rows(&self) -> usize {
        self.batch * self.heads * self.time
    }

    fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn argument(&self) -> Argument {
        let stride = self.width() * if self.packed { 3 } else { 1 };
        let sizes = [self.heads, self.time, self.dim, stride, self.causal.into()];
        let sizes = sizes.into_iter().map(|n| Argument::U32(n as u32));
        let scale = Argument::F32(1.0 / (self.dim as f32).sqrt());
        Argument::Struct(sizes.chain([scale]).collect())
    }

    /// q, k and v, or their gradients, of which `first` is the first or all.
    fn three(&self, first: impl Fn(usize) -> Stored) -> [Stored; 3] {
        [0, 1, 2].map(|i| {
            if !self.packed {
                return first(i);
            }
            // From the first element of the part on, to the end of the tensor.
            let mut part = first(0);
            let skip = i * self.width() * part.dtype.bytes();
            part.span.offset += skip;
            part.span.bytes -= skip;
            part
        })
    }

    /// Blocks with one query or key each, if scores of so many rows fit into shared memory.
    fn grid(&self, l: &Lowering<'_>, rows: usize) -> Result<([usize; 3], usize), EngineError> {
        let shared = 4 * rows * self.time;
        // Besides what the kernel declares itself.
        if shared + 1024 > l.facts.shared_bytes || self.heads.max(self.batch) > MOST_BLOCKS {
            return Err(l.unsupported(format!(
                "attention over {} places needs {shared} bytes of shared memory; {} has {}",
                self.time, l.facts.name, l.facts.shared_bytes
            )));
        }
        Ok(([self.time, self.heads, self.batch], shared))
    }
}

pub(super) fn attention(l: &mut Lowering<'_>, spec: AttentionSpec) -> Result<(), EngineError> {
    let heads = Heads::of(l.graph, l.node, spec);
    let [q, k, v] = heads.three(|i| l.input(i));
    let (out, lse) = (l.result(0), l.result(1));
    let (grid, shared) = heads.grid(l, 1)?;
    let kernel = l.kernel(Source::Attention, &[("TypeX", q.dtype), ("TypeY", out.dtype)], "attention");
    let call = Call::new(kernel, grid, 128).shared(shared).read(q).read(k).read(v).write(out).write(lse);
    l.launch(call.with(heads.argument()));
    Ok(())
}

pub(super) fn workspace_bytes(graph: &Graph, node: &Node, spec: AttentionSpec) -> usize {
    4 * Heads::of(graph, node, spec).rows()
}

pub(super) fn attention_grad(l: &mut Lowering<'_>, spec: AttentionSpec) -> Result<(), EngineError> {
    let heads = Heads::of(l.graph, l.node, spec);
    let [q, k, v] = heads.three(|i| l.input(i));
    let [dq, dk, dv] = heads.three(|i| l.result(i));
    let first = l.node.inputs.len() - 3;
    let [out, lse, dout] = [0, 1, 2].map(|i| l.input(first + i));
    if out.dtype != dout.dtype || dq.dtype != q.dtype {
        return Err(l.unsupported("attention whose gradients have other types than what they are of"));
    }
    let delta = l.work(0, heads.rows(), DType::F32);
    let types = [("TypeX", q.dtype), ("TypeY", out.dtype)];
    let kernel = l.kernel(Source::Attention, &types, "attention_delta");
    let call = Call::each(kernel, heads.rows()).read(out).read(dout).write(delta);
    l.launch(call.sizes([heads.rows()]).with(heads.argument()));
    let (grid, shared) = heads.grid(l, 1)?;
    let kernel = l.kernel(Source::Attention, &types, "attention_grad_queries");
    let call = Call::new(kernel, grid, 128).shared(shared).read(q).read(k).read(v).read(dout);
    l.launch(call.read(lse).read(delta).write(dq).with(heads.argument()));
    let (grid, shared) = heads.grid(l, 2)?;
    let kernel = l.kernel(Source::Attention, &types, "attention_grad_keys");
    let call = Call::new(kernel, grid, 128).shared(shared).read(q).read(k).read(v).read(dout);
    l.launch(call.read(lse).read(delta).write(dk).write(dv).with(heads.argument()));
    Ok(())
}

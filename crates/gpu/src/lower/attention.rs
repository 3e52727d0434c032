//! Attention by heads, and its gradients: on Tensor Cores where they take the operands, else in
//! f32.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{AttentionSpec, DType, Graph, Node, Op};

use super::{Call, Lowering, MOST_BLOCKS};
use crate::command::{Argument, Kernel};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// Rows of a block of threads, and the elements of results that it has where it does not have all.
const SIDE: usize = 64;
/// Threads that add up a row of delta.
const DELTA_LANES: usize = 16;
/// The widest head that one block of threads has on Tensor Cores.
const WIDEST: usize = 128;

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

    /// Elements of a row of a tile of Tensor Cores.
    fn tile_width(&self) -> usize {
        self.dim.next_multiple_of(16)
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
}

/// Kernels that compute it.
enum Unit {
    /// Those of Tensor Cores, for operands of this type.
    Tensor(DType),
    /// Those in f32, for operands of the first type, and results of the second.
    Vector(DType, DType),
}

impl Unit {
    /// For q, k and v of one type, and the result of the other. Tensor Cores take rows whose chunks
    /// of 16 bytes are aligned.
    fn of(heads: &Heads, operand: DType, result: DType) -> Unit {
        let half = matches!(operand, DType::Bf16 | DType::F16) && operand == result;
        if half && heads.dim.is_multiple_of(8) && heads.dim <= WIDEST {
            Unit::Tensor(operand)
        } else {
            Unit::Vector(operand, result)
        }
    }

    fn kernel(
        &self,
        l: &mut Lowering<'_>,
        heads: &Heads,
        [tensor, vector]: [Source; 2],
        entry: &str,
    ) -> Kernel {
        match self {
            Unit::Tensor(half) => {
                let width = heads.tile_width().to_string();
                let macros = [("HALF", c_type(*half)), ("WIDTH", width.as_str())];
                l.output.modules.kernel(tensor, &macros, entry)
            }
            Unit::Vector(x, y) => l.kernel(vector, &[("TypeX", *x), ("TypeY", *y)], entry),
        }
    }

    /// A launch with a block of threads for each 64 queries or keys of a head, whose dynamic memory
    /// is of so many tiles on Tensor Cores.
    fn call(
        &self,
        l: &Lowering<'_>,
        heads: &Heads,
        kernel: Kernel,
        tiles: usize,
    ) -> Result<Call, EngineError> {
        let (parts, threads, tiles) = match self {
            Unit::Tensor(_) => (1, 128, tiles),
            Unit::Vector(..) => (heads.dim.div_ceil(SIDE), 256, 0),
        };
        let grid = [heads.heads * parts, heads.batch, heads.time.div_ceil(SIDE)];
        if grid[1].max(grid[2]) > MOST_BLOCKS {
            return Err(l.unsupported("attention of this size is too long or too wide for a GPU"));
        }
        Ok(Call::new(kernel, grid, threads).shared(tiles * SIDE * heads.tile_width() * 2))
    }
}

pub(super) fn attention(l: &mut Lowering<'_>, spec: AttentionSpec) -> Result<(), EngineError> {
    let heads = Heads::of(l.graph, l.node, spec);
    let [q, k, v] = heads.three(|i| l.input(i));
    let (out, lse) = (l.result(0), l.result(1));
    let unit = Unit::of(&heads, q.dtype, out.dtype);
    let kernel = unit.kernel(l, &heads, [Source::AttentionTensor, Source::Attention], "attention");
    let call = unit.call(l, &heads, kernel, 4)?.read(q).read(k).read(v).write(out).write(lse);
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
    let kernel = l.kernel(Source::AttentionDelta, &[("TypeY", out.dtype)], "attention_delta");
    let call = Call::each(kernel, heads.rows() * DELTA_LANES).read(out).read(dout).write(delta);
    l.launch(call.sizes([heads.rows()]).with(heads.argument()));
    let unit = Unit::of(&heads, q.dtype, out.dtype);
    let sources = [Source::AttentionTensorGrad, Source::AttentionGrad];
    let kernel = unit.kernel(l, &heads, sources, "attention_grad_queries");
    let call = unit.call(l, &heads, kernel, 4)?.read(q).read(k).read(v).read(dout);
    l.launch(call.read(lse).read(delta).write(dq).with(heads.argument()));
    let kernel = unit.kernel(l, &heads, sources, "attention_grad_keys");
    let tiles = if heads.tile_width() > 64 { 6 } else { 4 };
    let call = unit.call(l, &heads, kernel, tiles)?.read(q).read(k).read(v).read(dout);
    l.launch(call.read(lse).read(delta).write(dk).write(dv).with(heads.argument()));
    Ok(())
}

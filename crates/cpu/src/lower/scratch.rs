//! What a node's kernel will take of the packing buffers that all programs of an engine share.

use halfstep_graph::{ConvGeometry, Graph, Group, Node, Op};

use super::contract::{compute, sizes};
use crate::conv::ConvPass;
use crate::gemm::{Extents, Operands, Packing, bytes};
use crate::isa::Isa;

/// Bytes of [`crate::gemm::Scratch`] that `step` will ask for, exactly: the same blocking decides
/// both.
pub(crate) fn scratch_bytes(graph: &Graph, step: &Group, isa: Isa, threads: usize) -> usize {
    let node = graph.node(step.root(graph));
    let chained = step.nodes.len() > 1;
    let convolution = |image: usize, weights: usize, geometry: ConvGeometry, pass| {
        let values = [&node.inputs[..], &node.outputs[..]].concat();
        let shape = |i: usize| graph.shape(values[i]);
        // A convolution that cannot be computed is refused when it is lowered.
        let needed = sizes(shape(image), shape(weights), geometry);
        needed.scratch_bytes(pass, isa, threads, compute(graph, node), chained).unwrap_or(0)
    };
    // Counted over operands and results, one after another: where image and weights are.
    let result = node.inputs.len();
    match &node.op {
        Op::MatMul { ta, tb } => matmul_bytes(graph, node, (*ta, *tb), isa, threads, chained),
        Op::Conv2d(g) => convolution(0, 1, *g, ConvPass::Forward),
        Op::Conv2dGradInput { geometry, .. } => convolution(result, 1, *geometry, ConvPass::GradInput),
        Op::Conv2dGradWeight { geometry, .. } => convolution(0, result, *geometry, ConvPass::GradWeight),
        _ => 0,
    }
}

fn matmul_bytes(
    graph: &Graph,
    node: &Node,
    (ta, tb): (bool, bool),
    isa: Isa,
    threads: usize,
    chained: bool,
) -> usize {
    let (a, b) = (graph.shape(node.inputs[0]), graph.shape(node.inputs[1]));
    let rank = a.len();
    let (m, k) = if ta { (a[rank - 1], a[rank - 2]) } else { (a[rank - 2], a[rank - 1]) };
    let n = if tb { b[rank - 2] } else { b[rank - 1] };
    let batches: usize = a[..rank - 2].iter().product();
    let packing = if batches == 1 { Packing::Once } else { Packing::PerJob };
    // Rows of A run along memory unless it is stored transposed; a single row always does.
    let operands = Operands { a: packing, a_rows_run: !ta || m <= 1, b: packing };
    bytes(isa, threads, compute(graph, node), Extents { batches, m, n, k }, operands, chained)
}

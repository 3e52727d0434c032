//! A bias added to a matrix product or convolution becomes its third operand; added to a rescaled
//! product of codes, it is added before the one rounding.

use crate::dtype::{DType, ValueType};
use crate::graph::{Graph, NodeId, Rewrite, ValueId};
use crate::op::{Binary, Op};

/// Whether a node multiplies a contraction's f32 sum by one number, or by one for each place of its
/// first dimension.
fn rescales(graph: &Graph, node: NodeId) -> bool {
    let node = graph.node(node);
    let is_sum = |v: ValueId| {
        let made_by = graph.node(graph.value(v).node);
        matches!(made_by.op, Op::MatMul { .. } | Op::Conv2d(_)) && graph.dtype(v) == DType::F32
    };
    let is_scale = |v: ValueId| {
        let shape = graph.shape(v);
        shape.is_empty() || (shape.len() > 1 && shape[1..].iter().all(|&size| size == 1))
    };
    node.op == Op::Binary(Binary::Mul) && is_sum(node.inputs[0]) && is_scale(node.inputs[1])
}

/// The same program with additions of a bias moved into the contractions they follow.
pub fn fuse(graph: &Graph) -> Graph {
    let users = graph.users();
    let mut is_live_out = vec![false; graph.values.len()];
    graph.live_out().for_each(|v| is_live_out[v.0 as usize] = true);

    // For each contraction whose only reader adds a bias: that reader and the bias.
    let mut bias_of: Vec<Option<(NodeId, ValueId)>> = vec![None; graph.nodes.len()];
    let mut absorbed = vec![false; graph.nodes.len()];
    // Rescaled sums of codes whose only reader adds a bias: rounded after it, as a product with a
    // bias is.
    let mut rounds_later = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let Op::Binary(Binary::Add) = node.op else { continue };
        for (sum, bias) in [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])] {
            let made_by = graph.value(sum).node;
            let contraction = matches!(graph.node(made_by).op, Op::MatMul { .. } | Op::Conv2d(_));
            let is_row = graph.shape(bias).len() == 1
                && graph.shape(bias).count() == graph.shape(sum).last()
                && graph.shape(sum).len() > 1;
            let known_before = graph.value(bias).node < made_by;
            let alone = users[sum.0 as usize].len() == 1 && !is_live_out[sum.0 as usize];
            if is_row && alone && rescales(graph, made_by) {
                rounds_later[made_by.0 as usize] = true;
                break;
            }
            if contraction && is_row && known_before && alone && graph.node(made_by).inputs.len() == 2 {
                bias_of[made_by.0 as usize] = Some((NodeId(i as u32), bias));
                absorbed[i] = true;
                break;
            }
        }
    }

    let mut rewrite = Rewrite::new(graph);
    for (i, node) in graph.nodes.iter().enumerate() {
        if absorbed[i] {
            continue;
        }
        if rounds_later[i] {
            let inputs: Vec<ValueId> = node.inputs.iter().map(|&v| rewrite.get(v)).collect();
            let wide = ValueType::f32(graph.shape(node.outputs[0]).clone());
            rewrite.replace(node, node.op.clone(), &inputs, vec![wide]);
            continue;
        }
        let Some((add, bias)) = bias_of[i] else {
            rewrite.copy(node);
            continue;
        };
        let add = graph.node(add);
        let inputs: Vec<ValueId> = node.inputs.iter().chain([&bias]).map(|&v| rewrite.get(v)).collect();
        rewrite.replace(node, node.op.clone(), &inputs, vec![graph.value(add.outputs[0]).ty.clone()]);
        let fused = rewrite.get(node.outputs[0]);
        rewrite.set(add.outputs[0], fused);
    }
    rewrite.finish()
}

//! A bias added to a matrix product or convolution becomes its third operand.

use crate::graph::{Graph, NodeId, Rewrite, ValueId};
use crate::op::{Binary, Op};

/// The same program with additions of a bias moved into the contractions they follow.
pub fn fuse(graph: &Graph) -> Graph {
    let users = graph.users();
    let mut is_root = vec![false; graph.values.len()];
    graph.roots().for_each(|v| is_root[v.0 as usize] = true);

    // For each contraction whose only reader adds a bias: that reader and the bias.
    let mut bias_of: Vec<Option<(NodeId, ValueId)>> = vec![None; graph.nodes.len()];
    let mut absorbed = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let Op::Binary(Binary::Add) = node.op else { continue };
        for (sum, bias) in [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])] {
            let made_by = graph.value(sum).node;
            let contraction = matches!(graph.node(made_by).op, Op::MatMul { .. } | Op::Conv2d(_));
            let is_row = graph.shape(bias).len() == 1
                && graph.shape(bias).count() == graph.shape(sum).last()
                && graph.shape(sum).len() > 1;
            let known_before = graph.value(bias).node < made_by;
            let alone = users[sum.0 as usize].len() == 1 && !is_root[sum.0 as usize];
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

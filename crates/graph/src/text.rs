//! The text form of a graph: what `explain` prints and golden tests compare.

use std::fmt;

use crate::graph::{Graph, Node, When};
use crate::op::Op;

impl Graph {
    /// A node as it is printed.
    pub(crate) fn line(&self, node: &Node) -> String {
        let results: Vec<String> =
            node.outputs.iter().map(|&o| format!("%{}: {}", o.0, self.value(o).ty)).collect();
        let operands: Vec<String> = node.inputs.iter().map(|v| format!("%{}", v.0)).collect();
        let mut line = format!("{} = {}({})", results.join(", "), node.op.name(), operands.join(", "));
        let attributes = match &node.op {
            Op::Read { slot } => self.slot(*slot).name.clone(),
            op => op.attributes(),
        };
        if !attributes.is_empty() {
            line += &format!(" {{{attributes}}}");
        }
        if !node.name.is_empty() && !matches!(node.op, Op::Read { .. } | Op::Input { .. }) {
            line += &format!("  # {}", node.name);
        }
        line
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, slot) in self.slots.iter().enumerate() {
            writeln!(f, "slot {i}: {} {} {:?}", slot.ty, slot.name, slot.kind)?;
        }
        let mut phase = None;
        for node in &self.nodes {
            if phase != Some(node.phase) {
                writeln!(f, "# {}", format!("{:?}", node.phase).to_lowercase())?;
                phase = Some(node.phase);
            }
            writeln!(f, "{}", self.line(node))?;
        }
        for (name, value) in &self.outputs {
            writeln!(f, "output {name} = %{}", value.0)?;
        }
        if let Some(commit) = self.commit {
            writeln!(f, "commit if %{}", commit.0)?;
        }
        for write in &self.writes {
            let when = if write.when == When::Always { " always" } else { "" };
            writeln!(f, "write{when} {} = %{}", self.slot(write.slot).name, write.value.0)?;
        }
        Ok(())
    }
}

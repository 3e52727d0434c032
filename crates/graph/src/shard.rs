//! The pass that lets several ranks share a step, each with its part of the batch.
//!
//! Every rank runs the same program over its own samples and holds all state. What the samples of
//! all ranks have to say is summed up: gradients and loss at the border to the update, and the
//! statistics of batch norms where they stand. So state, norm, predicate and update have the same
//! bits on every rank.
//!
//! Gradients travel in buckets. A bucket's sum begins where the last of its gradients is made and
//! is waited for where the update first reads one, so that it goes on beside the rest of the
//! backward pass (Li et al. 2020, "PyTorch Distributed").

use std::collections::{HashMap, HashSet};

use crate::dtype::{DType, Shape, ValueType};
use crate::graph::{Graph, GraphError, Init, Node, Phase, Rewrite, SlotKind, ValueId, When};
use crate::op::{BatchNormPart, Binary, Op};

/// Begins the name of the slot with what rounding has left of a gradient; the weight's name
/// follows. Each rank has its own, and a run that is resumed begins with none: it forgets less than
/// one rounding of one gradient.
pub const RESIDUAL: &str = "residual.";

/// How gradients are rounded to bf16 before they travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residuals {
    /// The loss scale and its reciprocal, where gradients are scaled: residuals are not.
    pub scale: Option<(ValueId, ValueId)>,
}

/// What is to be summed over ranks.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    /// How many ranks.
    pub ranks: usize,
    /// Values of which each rank has a part: the update reads their sums. f32.
    pub sums: &'a [ValueId],
    /// Values of which the update and the caller read the mean over ranks. f32.
    pub means: &'a [ValueId],
    /// Where sums travel in bf16: with error feedback (Karimireddy et al. 2019, "Error feedback
    /// fixes SignSGD and other gradient compression schemes"). What rounding takes from a
    /// contribution is added to the next one. The sum on its way back is rounded too, by at most
    /// 2^-8 of itself, which needs no feedback: it goes to zero with the sum. None: they travel in
    /// f32.
    pub bf16: Option<Residuals>,
    /// Bytes of gradients that begin a sum.
    pub bucket_bytes: usize,
}

/// The same program as one rank's part of it; the program itself if there is one rank.
///
/// # Errors
/// A value that is to be summed is not known to the graph as it must be.
pub fn shard(graph: &Graph, spec: &Shard<'_>) -> Result<Graph, GraphError> {
    if spec.ranks == 1 {
        return Ok(graph.clone());
    }
    let wanted = |values: &[ValueId]| values.iter().copied().collect::<HashSet<_>>();
    let mut pass = Pass {
        graph,
        spec,
        rewrite: Rewrite::new(graph),
        sums: wanted(spec.sums),
        means: wanted(spec.means),
        bucket: Vec::new(),
        under_way: Vec::new(),
        totals: HashMap::new(),
        whole: HashMap::new(),
    };
    for node in &graph.nodes {
        pass.visit(node)?;
    }
    pass.finish()
}

struct Pass<'a> {
    graph: &'a Graph,
    spec: &'a Shard<'a>,
    rewrite: Rewrite<'a>,
    sums: HashSet<ValueId>,
    means: HashSet<ValueId>,
    /// Values of the old graph whose sum is to begin.
    bucket: Vec<ValueId>,
    /// Sums that nobody has waited for: the flight, what is in it, and their factor.
    under_way: Vec<(ValueId, Vec<ValueId>, f64)>,
    /// Sums and means in the new graph.
    totals: HashMap<ValueId, ValueId>,
    /// The sums of batch norms' gradients over all ranks, in the new graph.
    whole: HashMap<ValueId, ValueId>,
}

impl Pass<'_> {
    fn visit(&mut self, node: &Node) -> Result<(), GraphError> {
        match &node.op {
            Op::BatchNormPart(part) => self.batch_norm_part(node, *part)?,
            _ => {
                let mut inputs = Vec::new();
                for &v in &node.inputs {
                    let total = node.phase == Phase::Update && self.is_shared(v);
                    inputs.push(if total { self.total(v)? } else { self.rewrite.get(v) });
                }
                self.rewrite.with_inputs(node, &inputs);
            }
        }
        for &output in &node.outputs {
            if self.means.contains(&output) {
                self.begin(&[output], DType::F32, 1.0 / self.spec.ranks as f64)?;
            } else if self.is_shared(output) {
                self.bucket.push(output);
                let bytes: usize = self.bucket.iter().map(|&v| self.graph.value(v).ty.bytes()).sum();
                if bytes >= self.spec.bucket_bytes {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Whether a rank has its own part of `v`. A constant is the same everywhere: the gradient of
    /// what the loss does not depend on.
    fn is_shared(&self, v: ValueId) -> bool {
        let constant = || matches!(self.graph.node(self.graph.value(v).node).op, Op::Const { .. });
        self.means.contains(&v) || (self.sums.contains(&v) && !constant())
    }

    /// Begins the sum of the bucket.
    fn flush(&mut self) -> Result<(), GraphError> {
        let bucket = std::mem::take(&mut self.bucket);
        if bucket.is_empty() {
            return Ok(());
        }
        let over = if self.spec.bf16.is_some() { DType::Bf16 } else { DType::F32 };
        self.begin(&bucket, over, 1.0)
    }

    fn begin(&mut self, values: &[ValueId], over: DType, factor: f64) -> Result<(), GraphError> {
        let mut contributions = Vec::new();
        for &v in values {
            let here = self.rewrite.get(v);
            contributions.push(match self.spec.bf16 {
                Some(residuals) if over == DType::Bf16 => self.rounded(v, here, residuals)?,
                _ => here,
            });
        }
        let name = self.name(values[0]);
        let flight = self
            .rewrite
            .new
            .in_phase(Phase::Update, |g| g.push_named(Op::AllReduceStart { over }, &contributions, name))?[0];
        self.under_way.push((flight, values.to_vec(), factor));
        Ok(())
    }

    /// The weight that `v` is the gradient of, or what made it.
    fn name(&self, v: ValueId) -> String {
        match self.graph.value(v).gradient_of {
            Some(slot) => self.graph.slot(slot).name.clone(),
            None => self.graph.node(self.graph.value(v).node).name.clone(),
        }
    }

    /// `here` and what was left over of it, rounded to bf16; what is left over now is staged.
    fn rounded(&mut self, v: ValueId, here: ValueId, residuals: Residuals) -> Result<ValueId, GraphError> {
        let name = self.name(v);
        let scale = residuals.scale.map(|(s, r)| (self.rewrite.get(s), self.rewrite.get(r)));
        let g = &mut self.rewrite.new;
        let ty = ValueType::f32(g.shape(here).clone());
        let slot = g.add_slot(&format!("{RESIDUAL}{name}"), ty, SlotKind::Moment, Init::Constant(0.0))?;
        g.in_phase(Phase::Update, |g| {
            let before = g.read(slot);
            g.scoped(&name, |g| {
                let before = match scale {
                    Some((scale, _)) => g.mul(before, scale)?,
                    None => before,
                };
                let whole = g.add(here, before)?;
                let sent = g.cast(whole, DType::Bf16)?;
                let left = g.binary(Binary::Sub, whole, sent)?;
                let left = match scale {
                    Some((_, reciprocal)) => g.mul(left, reciprocal)?,
                    None => left,
                };
                g.write(slot, left, When::Committed);
                Ok(sent)
            })
        })
    }

    /// The sum or mean of `v` over all ranks.
    fn total(&mut self, v: ValueId) -> Result<ValueId, GraphError> {
        if self.bucket.contains(&v) {
            self.flush()?;
        }
        if let Some(at) = self.under_way.iter().position(|(_, values, _)| values.contains(&v)) {
            // In the order in which they began.
            for (flight, values, factor) in self.under_way.drain(..=at).collect::<Vec<_>>() {
                let sums = self.wait(flight, &values, factor, Phase::Update)?;
                for (&value, &sum) in values.iter().zip(&sums) {
                    self.rewrite.new.values[sum.0 as usize].gradient_of = self.graph.value(value).gradient_of;
                    self.totals.insert(value, sum);
                }
            }
        }
        self.totals
            .get(&v)
            .copied()
            .ok_or_else(|| GraphError::Derivative(format!("`{}` is read before it is made", self.name(v))))
    }

    fn wait(
        &mut self,
        flight: ValueId,
        values: &[ValueId],
        factor: f64,
        phase: Phase,
    ) -> Result<Vec<ValueId>, GraphError> {
        let shapes: Vec<Shape> = values.iter().map(|&v| self.graph.shape(v).clone()).collect();
        let name = self.name(values[0]);
        let op = Op::AllReduceWait { shapes, factor };
        self.rewrite.new.in_phase(phase, |g| g.push_named(op, &[flight], name))
    }

    /// Values of the new graph summed over ranks where they stand, times `factor`.
    fn sum_now(&mut self, node: &Node, values: &[ValueId], factor: f64) -> Result<Vec<ValueId>, GraphError> {
        let g = &mut self.rewrite.new;
        let shapes = values.iter().map(|&v| g.shape(v).clone()).collect();
        g.in_phase(node.phase, |g| {
            let start = Op::AllReduceStart { over: DType::F32 };
            let flight = g.push_named(start, values, node.name.clone())?[0];
            g.push_named(Op::AllReduceWait { shapes, factor }, &[flight], node.name.clone())
        })
    }

    /// Statistics are means over ranks: that of their means, then that of their variances about it,
    /// which is as accurate as in one process. dx needs the sums dγ and dβ over the whole batch; as
    /// gradients they stay this rank's part, like any other.
    fn batch_norm_part(&mut self, node: &Node, part: BatchNormPart) -> Result<(), GraphError> {
        let mut inputs: Vec<ValueId> = node.inputs.iter().map(|&v| self.rewrite.get(v)).collect();
        let mut part = part;
        if let BatchNormPart::Dx { rows } = &mut part {
            *rows *= self.spec.ranks;
            for (input, v) in inputs.iter_mut().zip(&node.inputs) {
                *input = self.whole.get(v).copied().unwrap_or(*input);
            }
        }
        self.rewrite.replace(node, Op::BatchNormPart(part), &inputs, self.rewrite.types(node));
        let here: Vec<ValueId> = node.outputs.iter().map(|&v| self.rewrite.get(v)).collect();
        match part {
            BatchNormPart::Mean | BatchNormPart::Variance => {
                let mean = self.sum_now(node, &here, 1.0 / self.spec.ranks as f64)?;
                self.rewrite.set(node.outputs[0], mean[0]);
            }
            BatchNormPart::Sums => {
                let whole = self.sum_now(node, &here, 1.0)?;
                self.whole.extend(node.outputs.iter().copied().zip(whole));
            }
            BatchNormPart::Apply { .. } | BatchNormPart::Dx { .. } => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Graph, GraphError> {
        let graph = self.graph;
        let mut outputs = Vec::new();
        for (name, v) in &graph.outputs {
            outputs.push((
                name.clone(),
                if self.is_shared(*v) { self.total(*v)? } else { self.rewrite.get(*v) },
            ));
        }
        // Residuals are staged by this pass; `finish` knows the old graph's writes.
        let staged = std::mem::take(&mut self.rewrite.new.writes);
        let mut new = self.rewrite.finish();
        new.outputs = outputs;
        new.writes.extend(staged);
        Ok(new)
    }
}

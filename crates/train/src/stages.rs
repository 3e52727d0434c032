//! From a graph to its plan, through every pass.

use halfstep_graph::engine::Target;
use halfstep_graph::precision::{Policy, PrecisionPlan, assign};
use halfstep_graph::{
    BudgetError, ByteSize, Graph, GraphError, Op, Phase, Plan, Recomputation, Slot, SlotId, SlotKind,
    ValueId, When, fuse, plan, recompute,
};

use crate::step::ACCUMULATE;

/// Every form of a program from model to memory plan, for reading.
#[derive(Clone, Debug)]
pub struct Stages {
    /// As built: forward, backward and update.
    pub graph: Graph,
    /// With storage types and casts, and activations computed again where a budget asks for it.
    pub assigned: Graph,
    /// The same as a table with reasons.
    pub precision: PrecisionPlan,
    /// What is computed twice to fit a memory budget, where something is.
    pub recomputation: Option<Recomputation>,
    /// With biases in the products they follow.
    pub fused: Graph,
    /// In groups that run as one step, and with a place for every value.
    pub plan: Plan,
}

/// Runs every pass over `graph`.
pub fn stages(graph: Graph, policy: &Policy, target: &dyn Target) -> Stages {
    let (assigned, precision) = assigned(&graph, policy);
    planned(graph, assigned, precision, None, target)
}

/// Runs every pass over `graph`, with activations computed again where its plan would exceed the
/// budget.
///
/// # Errors
/// The budget cannot be met.
pub fn stages_within(
    graph: Graph,
    policy: &Policy,
    target: &dyn Target,
    budget: Option<ByteSize>,
) -> Result<Stages, BudgetError> {
    let (assigned, precision) = assigned(&graph, policy);
    let recomputed = budget.map(|budget| recompute(&assigned, target, budget.0)).transpose()?.flatten();
    let (assigned, recomputation) = match recomputed {
        Some((again, recomputation)) => (again, Some(recomputation)),
        None => (assigned, None),
    };
    Ok(planned(graph, assigned, precision, recomputation, target))
}

/// The slot of a scale, behind this, names the output that holds it as the step found it.
pub(crate) const FOUND: &str = "found.";

/// `graph` with storage types and casts, and a table of them.
///
/// A step changes the scales of codes whether or not it commits, and who repeats one that did not
/// needs them as it found them: those are outputs, which last until the next run.
pub(crate) fn assigned(graph: &Graph, policy: &Policy) -> (Graph, PrecisionPlan) {
    let (mut graph, precision) = assign(graph, policy);
    let is_scale = |s: &Slot| s.kind == SlotKind::Scale && s.ty.shape.is_empty();
    let scales = (0..graph.slots.len() as u32).map(SlotId).filter(|&s| is_scale(graph.slot(s)));
    for slot in scales.collect::<Vec<_>>() {
        let found = graph.in_phase(Phase::Update, |g| found(g, slot));
        let name = format!("{FOUND}{}", graph.slot(slot).name);
        graph.add_output(&name, found.expect("a scale and what is kept of it are one number each"));
    }
    (graph, precision)
}

/// A scale as the step found it: of a batch in parts, as the first part did.
fn found(g: &mut Graph, slot: SlotId) -> Result<ValueId, GraphError> {
    let scale = g.read(slot);
    let first = g.nodes.iter().find(|n| n.op == Op::Input { name: "first".into() }).map(|n| n.outputs[0]);
    let Some(first) = first else { return Ok(scale) };
    let Slot { name, ty, kind, init } = g.slot(slot).clone();
    let kept = g.add_slot(&format!("{ACCUMULATE}{name}"), ty, kind, init)?;
    let before = g.read(kept);
    let found = g.select(first, scale, before)?;
    g.write(kept, found, When::Always);
    Ok(found)
}

fn planned(
    graph: Graph,
    assigned: Graph,
    precision: PrecisionPlan,
    recomputation: Option<Recomputation>,
    target: &dyn Target,
) -> Stages {
    let fused = fuse(&assigned);
    let plan = plan(fused.clone(), target);
    Stages { graph, assigned, precision, recomputation, fused, plan }
}

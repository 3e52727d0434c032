//! A compiled program: one prepared step per group of nodes, run in order over the planned memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use halfstep_graph::communicator::{Communicator, Payload};
use halfstep_graph::engine::{
    EngineError, HostSlice, HostTensor, Program, State, bind_slots, output_id, scalar_output,
};
use halfstep_graph::{Footprint, Graph, InputChecks, Op, OutputId, Place, Plan, ValueId, When};

use crate::lower::{Lowering, Step, lower};
use crate::machine::{Machine, Run, Transit};
use crate::memory::{Frame, Span, Where};
use crate::region::{ALIGNMENT, Region};
use crate::rows::Base;
use crate::state::{CpuMemory, download, upload};

struct Input {
    name: String,
    span: Span,
}

/// A program of the CPU engine.
pub(crate) struct CpuProgram {
    machine: Arc<Machine>,
    ranks: Option<Arc<Communicator>>,
    transit: Transit,
    graph: Graph,
    checks: InputChecks,
    spans: Vec<Span>,
    inputs: Vec<Input>,
    steps: Vec<Step>,
    /// Staged values that are not yet where they belong: from, to, when.
    writes: Vec<(Span, Span, When)>,
    /// Results that callers read, which outlive the run: from, to, by position in the graph's
    /// outputs.
    outputs: Vec<(Span, Span)>,
    output_region: Region,
    constants: Region,
    arena_bytes: usize,
    /// Time of each step since it is measured; else empty.
    times: Vec<Duration>,
}

impl CpuProgram {
    pub(crate) fn new(
        machine: Arc<Machine>,
        ranks: Option<Arc<Communicator>>,
        checks: InputChecks,
        plan: &Plan,
        state: &State,
    ) -> Result<CpuProgram, EngineError> {
        let graph = plan.graph.clone();
        let memory = state.memory::<CpuMemory>().ok_or_else(foreign)?;
        let slots: Vec<Span> = bind_slots(&graph, state)?.into_iter().map(|i| memory.spans[i]).collect();

        let mut constant_bytes = 0;
        let mut spans = Vec::with_capacity(graph.values.len());
        for (value, place) in graph.values.iter().zip(&plan.places) {
            let (count, dtype) = (value.ty.shape.count(), value.ty.dtype);
            spans.push(match *place {
                Place::Arena(offset) => Span { place: Where::Arena, offset, count, dtype },
                // A reshape of a slot has the slot's bytes.
                Place::Slot(slot) => Span { count, dtype, ..slots[slot.0 as usize] },
                Place::Constant => {
                    let offset = constant_bytes;
                    constant_bytes = (offset + value.ty.bytes()).next_multiple_of(ALIGNMENT);
                    Span { place: Where::Constants, offset, count, dtype }
                }
                Place::Inside | Place::Transit => Span { place: Where::Arena, offset: 0, count: 0, dtype },
            });
        }
        let mut constants = Region::new(constant_bytes)?;
        for (i, place) in plan.places.iter().enumerate() {
            if *place == Place::Constant
                && let Some(x) = graph.constant(ValueId(i as u32))
            {
                let fill = vec![x as f32; spans[i].count];
                upload(constants.view_mut(spans[i]), HostSlice::F32(&fill));
            }
        }

        let mut inputs = Vec::new();
        for node in &graph.nodes {
            if let Op::Input { name } = &node.op {
                inputs.push(Input { name: name.clone(), span: spans[node.outputs[0].0 as usize] });
            }
        }
        let mut steps = Vec::new();
        for group in &plan.groups.steps {
            let root = group.root(&graph);
            let node = graph.node(root);
            let lowering = Lowering { graph: &graph, group, node, spans: &spans, machine: &machine };
            steps.push(lower(&lowering, plan.workspaces[root.0 as usize])?);
        }
        let mut writes = Vec::new();
        for write in &graph.writes {
            let (from, to) = (spans[write.value.0 as usize], slots[write.slot.0 as usize]);
            if from == to {
                continue;
            }
            if from.place == Where::Slots || from.dtype != to.dtype {
                return Err(EngineError::Unsupported(format!(
                    "slot `{}` is written with the value of another slot or type",
                    graph.slot(write.slot).name
                )));
            }
            writes.push((from, to, write.when));
        }
        let mut outputs = Vec::new();
        let mut output_bytes = 0;
        for (_, value) in &graph.outputs {
            let from = spans[value.0 as usize];
            let to = Span { place: Where::Outputs, offset: output_bytes, ..from };
            output_bytes = (output_bytes + to.bytes()).next_multiple_of(ALIGNMENT);
            outputs.push((from, to));
        }
        Ok(CpuProgram {
            machine,
            ranks,
            transit: Transit::new(),
            graph,
            checks,
            spans,
            inputs,
            steps,
            writes,
            outputs,
            output_region: Region::new(output_bytes)?,
            constants,
            arena_bytes: plan.arena_bytes,
            times: Vec::new(),
        })
    }
}

fn foreign() -> EngineError {
    EngineError::ForeignState("CPU".into())
}

impl Program for CpuProgram {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        self.checks.check(inputs)?;
        let memory = state.memory_mut::<CpuMemory>().ok_or_else(foreign)?;
        memory.reserve(self.arena_bytes)?;
        for input in &self.inputs {
            if let Some((_, data)) = inputs.iter().find(|(name, _)| *name == input.name) {
                upload(memory.arena.view_mut(input.span), *data);
            }
        }
        let mut frame = Frame {
            arena: &mut memory.arena,
            slots: &mut memory.region,
            constants: &mut self.constants,
            outputs: &mut self.output_region,
        };
        let mut scratch = self.machine.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (ranks, transit) = (self.ranks.as_deref(), &mut self.transit);
        let mut run = Run { machine: &self.machine, scratch: &mut scratch, ranks, transit };
        for (i, step) in self.steps.iter().enumerate() {
            let begin = (!self.times.is_empty()).then(Instant::now);
            step(&mut frame, &mut run)?;
            if let Some(begin) = begin {
                self.times[i] += begin.elapsed();
            }
        }
        for &(from, to) in &self.outputs {
            let ([from], [to]) = frame.borrow([from], [to]);
            to.copy_from(from);
        }
        let commit = match self.graph.commit {
            Some(value) => frame.scalar(self.spans[value.0 as usize]) != 0.0,
            None => true,
        };
        for &(from, to, when) in &self.writes {
            if commit || when == When::Always {
                let ([from], [to]) = frame.borrow([from], [to]);
                to.copy_from(from);
            }
        }
        Ok(())
    }

    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        let output = output_id(&self.graph, output)?;
        Ok(download(self.output_region.view(self.outputs[output.0 as usize].1)))
    }

    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        for (&output, into) in outputs.iter().zip(into) {
            scalar_output(&self.graph, output)?;
            let at = self.outputs[output.0 as usize].1;
            self.output_region.view(at).src().load::<Base>(0, std::slice::from_mut(into));
        }
        Ok(())
    }

    fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    fn measure(&mut self) {
        self.times = vec![Duration::ZERO; self.steps.len()];
    }

    fn times(&self) -> &[Duration] {
        &self.times
    }

    fn footprint(&self, state: &State) -> Result<Footprint, EngineError> {
        let memory = state.memory::<CpuMemory>().ok_or_else(foreign)?;
        let scratch = self.machine.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let transit = self.transit.values().filter_map(|sum| sum.memory.as_ref()).map(Payload::bytes);
        Ok(Footprint {
            state: memory.region.bytes(),
            arena: memory.arena.bytes(),
            constants: self.constants.bytes(),
            outputs: self.output_region.bytes(),
            staging: 0,
            scratch: scratch.bytes() + transit.sum::<usize>(),
        })
    }
}

//! A compiled program: its commands, recorded for a device over memory that stays where it is.

use std::sync::Arc;
use std::time::Duration;

use halfstep_graph::engine::{
    EngineError, HostSlice, HostTensor, Program, State, bind_slots, output_id, scalar_output,
};
use halfstep_graph::{Footprint, Graph, InputChecks, Node, Op, OutputId, Place, Plan, ValueId, When};

use crate::command::{Bases, Commands, Input, Region};
use crate::device::{Buffer, Device, Facts, Recording};
use crate::lower::{Lowering, Output, copy_out, kept_bytes, lower};
use crate::staging::staging;
use crate::state::GpuMemory;
use crate::stored::{ALIGNMENT, Stored, decode, decode_number, encode, is_encoded};

/// Tensors have fewer elements than this: kernels count them with 32 bits.
const MOST_ELEMENTS: usize = 1 << 31;

/// A program of the GPU engine.
pub(crate) struct GpuProgram {
    device: Arc<dyn Device>,
    graph: Graph,
    checks: InputChecks,
    commands: Commands,
    /// By position in the graph's outputs, in [`Region::Outputs`].
    outputs: Vec<Stored>,
    /// By position in the commands' inputs.
    inputs: Vec<Stored>,
    constants: Buffer,
    output_buffer: Buffer,
    staging_buffer: Buffer,
    arena_bytes: usize,
    recording: Box<dyn Recording>,
    /// Where the regions were when it was recorded, and the generation of the arena.
    recorded: (Bases, u64),
    /// Time of each step since it is measured; else empty.
    times: Vec<Duration>,
}

impl GpuProgram {
    pub fn new(
        device: Arc<dyn Device>,
        checks: InputChecks,
        plan: &Plan,
        state: &State,
    ) -> Result<GpuProgram, EngineError> {
        let graph = plan.graph.clone();
        let memory = state.memory::<GpuMemory>().ok_or_else(foreign)?;
        let slots: Vec<Stored> = bind_slots(&graph, state)?.into_iter().map(|i| memory.slots[i]).collect();
        let Lowered { commands, values, constant_bytes, outputs, output_bytes, staging_bytes } =
            lowered(device.facts(), plan, &slots)?;
        let constants = device.alloc(constant_bytes)?;
        device.clear(&constants)?;
        fill_constants(&*device, plan, &values, &constants)?;
        let output_buffer = device.alloc(output_bytes)?;
        let staging_buffer = device.alloc(staging_bytes)?;
        let (arena, generation) = memory.reserve(plan.arena_bytes)?;
        let bases = Bases {
            arena,
            slots: memory.buffer.address(),
            constants: constants.address(),
            outputs: output_buffer.address(),
            staging: staging_buffer.address(),
        };
        let recording = device.record(&commands, &bases)?;
        let input = |node: &halfstep_graph::Node| values[node.outputs[0].0 as usize];
        let inputs = graph.nodes.iter().filter(|n| matches!(n.op, Op::Input { .. })).map(input).collect();
        Ok(GpuProgram {
            device,
            graph,
            checks,
            commands,
            outputs,
            inputs,
            constants,
            output_buffer,
            staging_buffer,
            arena_bytes: plan.arena_bytes,
            recording,
            recorded: (bases, generation),
            times: Vec::new(),
        })
    }

    /// Records again where the arena or the state is another than before.
    fn record_again(&mut self, memory: &GpuMemory) -> Result<(), EngineError> {
        let (arena, generation) = memory.reserve(self.arena_bytes)?;
        let bases = Bases { arena, slots: memory.buffer.address(), ..self.recorded.0 };
        if self.recorded != (bases, generation) {
            self.recording = self.device.record(&self.commands, &bases)?;
            self.recorded = (bases, generation);
        }
        Ok(())
    }

    fn stage_ahead(&mut self, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        for (i, (name, value)) in self.graph.inputs().enumerate() {
            if let Some((_, data)) = inputs.iter().find(|(given, _)| *given == name) {
                EngineError::check(name, &self.graph.value(value).ty, *data)?;
                let dtype = self.inputs[i].dtype;
                self.recording.stage(i, &mut |bytes| encode(dtype, *data, bytes))?;
            }
        }
        self.recording.copy_ahead()
    }

    fn launch_measured(&mut self) -> Result<(), EngineError> {
        if let Some(times) = self.recording.launch_measured()? {
            for (command, time) in self.commands.list.iter().zip(times) {
                if let Some(step) = command.step {
                    self.times[step] += time;
                }
            }
        }
        Ok(())
    }
}

fn foreign() -> EngineError {
    EngineError::ForeignState("GPU".into())
}

/// Where every value lies, and how many bytes constants take.
///
/// # Errors
/// A tensor of too many elements; sums over ranks.
fn places(plan: &Plan, slots: &[Stored]) -> Result<(Vec<Stored>, usize), EngineError> {
    let mut constant_bytes = 0;
    let mut values = Vec::with_capacity(plan.places.len());
    for (value, place) in plan.graph.values.iter().zip(&plan.places) {
        let (count, dtype) = (value.ty.shape.count(), value.ty.dtype);
        if count >= MOST_ELEMENTS {
            let at = &plan.graph.node(value.node).name;
            return Err(EngineError::Unsupported(format!(
                "`{at}` has {count} elements; on a GPU a tensor has fewer than {MOST_ELEMENTS}: \
                 a smaller batch has fewer"
            )));
        }
        values.push(match *place {
            Place::Arena(offset) => Stored::new(Region::Arena, offset, count, dtype),
            // A reshape of a slot has the slot's bytes.
            Place::Slot(slot) => Stored::new(Region::Slots, slots[slot.0 as usize].span.offset, count, dtype),
            Place::Constant => {
                let stored = Stored::new(Region::Constants, constant_bytes, count, dtype);
                constant_bytes = (constant_bytes + stored.span.bytes).next_multiple_of(ALIGNMENT);
                stored
            }
            Place::Inside | Place::Transit => Stored::new(Region::Arena, 0, 0, dtype),
        });
    }
    Ok((values, constant_bytes))
}

/// Where what each node keeps from run to run begins behind so many bytes of constants, and where
/// it ends.
fn kept(plan: &Plan, facts: &Facts, mut end: usize) -> (Vec<usize>, usize) {
    let place = |node: &Node| {
        let begin = end;
        end += kept_bytes(&plan.graph, node, facts).next_multiple_of(ALIGNMENT);
        begin
    };
    let kept = plan.graph.nodes.iter().map(place).collect();
    (kept, end)
}

fn fill_constants(
    device: &dyn Device,
    plan: &Plan,
    values: &[Stored],
    buffer: &Buffer,
) -> Result<(), EngineError> {
    for (i, place) in plan.places.iter().enumerate() {
        if *place == Place::Constant
            && let Some(x) = plan.graph.constant(ValueId(i as u32))
        {
            let Stored { span, count, dtype } = values[i];
            let mut bytes = vec![0; span.bytes];
            encode(dtype, HostSlice::F32(&vec![x as f32; count]), &mut bytes);
            device.write(buffer.address() + span.offset as u64, &bytes)?;
        }
    }
    Ok(())
}

/// A plan as commands.
pub(crate) struct Lowered {
    pub commands: Commands,
    /// Where every value lies.
    values: Vec<Stored>,
    constant_bytes: usize,
    /// Where the outputs are kept, by position in the graph's.
    outputs: Vec<Stored>,
    output_bytes: usize,
    staging_bytes: usize,
}

/// The commands of a plan over slots that lie there.
///
/// # Errors
/// A tensor of too many elements; something that no kernel does.
pub(crate) fn lowered(facts: &Facts, plan: &Plan, slots: &[Stored]) -> Result<Lowered, EngineError> {
    let graph = &plan.graph;
    let (values, constant_bytes) = places(plan, slots)?;
    let (kept, constant_bytes) = kept(plan, facts, constant_bytes);
    let of = |value: ValueId| values[value.0 as usize];
    let mut output = Output::default();
    for (step, group) in plan.groups.steps.iter().enumerate() {
        let root = group.root(graph);
        let (node, workspace) = (graph.node(root), plan.workspaces[root.0 as usize]);
        let kept = kept[root.0 as usize];
        let (values, output) = (&values, &mut output);
        lower(&mut Lowering { graph, group, node, values, workspace, kept, step, facts, output })?;
    }
    let (mut outputs, mut output_bytes) = (Vec::new(), 0);
    for (name, value) in &graph.outputs {
        let from = of(*value);
        let to = Stored::new(Region::Outputs, output_bytes, from.count, from.dtype);
        output_bytes = (output_bytes + to.span.bytes).next_multiple_of(ALIGNMENT);
        copy_out(&mut output, from, to, None, name);
        outputs.push(to);
    }
    for write in &graph.writes {
        let (from, to, name) = (of(write.value), slots[write.slot.0 as usize], &graph.slot(write.slot).name);
        if from.span == to.span && from.dtype == to.dtype {
            continue;
        }
        if from.span.region == Region::Slots || from.dtype != to.dtype {
            return Err(EngineError::Unsupported(format!(
                "slot `{name}` is written with the value of another slot or type"
            )));
        }
        let commit = graph.commit.filter(|_| write.when == When::Committed).map(of);
        copy_out(&mut output, from, to, commit, name);
    }
    let (ahead, staging_bytes) = staging(graph);
    let input =
        |((name, v), ahead): ((&str, ValueId), _)| Input { name: name.to_string(), to: of(v).span, ahead };
    let inputs = graph.inputs().zip(ahead).map(input).collect();
    let list = output.commands;
    let spans = outputs.iter().map(|output| output.span).collect();
    let commands = Commands { modules: output.modules.finish(), inputs, list, outputs: spans };
    Ok(Lowered { commands, values, constant_bytes, outputs, output_bytes, staging_bytes })
}

impl Program for GpuProgram {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        self.checks.check(inputs)?;
        let memory = state.memory::<GpuMemory>().ok_or_else(foreign)?;
        self.record_again(memory)?;
        for (i, input) in self.commands.inputs.iter().enumerate() {
            if let Some((_, data)) = inputs.iter().find(|(name, _)| *name == input.name) {
                let dtype = self.inputs[i].dtype;
                if !self.recording.is_staged(i, &mut |bytes| is_encoded(dtype, *data, bytes))? {
                    self.recording.stage(i, &mut |bytes| encode(dtype, *data, bytes))?;
                }
            }
        }
        if self.times.is_empty() { self.recording.launch() } else { self.launch_measured() }
    }

    fn prefetch(&mut self, inputs: &[(&str, HostSlice<'_>)]) {
        // What fails here the run does again, and says what is wrong.
        let _ = self.stage_ahead(inputs);
    }

    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        let at = output_id(&self.graph, output)?.0 as usize;
        let mut bytes = vec![0; self.outputs[at].span.bytes];
        self.recording.output(at, &mut bytes)?;
        Ok(decode(self.outputs[at].dtype, &bytes))
    }

    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        for (&output, into) in outputs.iter().zip(into) {
            scalar_output(&self.graph, output)?;
            let Stored { span, dtype, .. } = self.outputs[output.0 as usize];
            let mut bytes = [0; 4];
            self.recording.output(output.0 as usize, &mut bytes[..span.bytes])?;
            *into = decode_number(dtype, bytes);
        }
        Ok(())
    }

    fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    fn measure(&mut self) {
        let steps = self.commands.list.iter().filter_map(|command| command.step).max();
        self.times = vec![Duration::ZERO; steps.map_or(0, |last| last + 1)];
    }

    fn times(&self) -> &[Duration] {
        &self.times
    }

    fn footprint(&self, state: &State) -> Result<Footprint, EngineError> {
        let memory = state.memory::<GpuMemory>().ok_or_else(foreign)?;
        Ok(Footprint {
            state: memory.buffer.bytes(),
            arena: memory.arena_bytes(),
            constants: self.constants.bytes(),
            outputs: self.output_buffer.bytes(),
            staging: self.staging_buffer.bytes(),
            scratch: 0,
        })
    }
}

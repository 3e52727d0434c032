//! What an engine promises: to compile a plan and to run the program over state it owns.
//!
//! State is opaque: callers see slots by name and copy values in and out. Nothing here assumes that
//! an engine's memory can be addressed by the host.

use std::any::Any;
use std::time::Duration;

use crate::communicator::{Communicator, CommunicatorError};
use crate::dtype::ValueType;
use crate::engine_info::{Device, EngineIdentity, FreeMemory, PolicyDescription};
use crate::footprint::Footprint;
use crate::graph::{Graph, OutputId, Slot, ValueId};
use crate::plan::Plan;
use crate::precision::Policy;
pub use crate::target::Target;

/// Borrowed host values. Floating-point values cross the border as f32, whatever they are stored
/// in.
#[derive(Clone, Copy, Debug)]
pub enum HostSlice<'a> {
    /// Numbers.
    F32(&'a [f32]),
    /// Indices, labels, keys and codes of tables.
    I32(&'a [i32]),
}

impl HostSlice<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            HostSlice::F32(x) => x.len(),
            HostSlice::I32(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fits(&self, ty: &ValueType) -> bool {
        self.len() == ty.shape.count() && matches!(self, HostSlice::F32(_)) == ty.dtype.is_float()
    }
}

/// Host values copied out of an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum HostTensor {
    /// Numbers.
    F32(Vec<f32>),
    /// Indices.
    I32(Vec<i32>),
}

impl HostTensor {
    /// The numbers; empty for an integer tensor.
    pub fn f32(&self) -> &[f32] {
        match self {
            HostTensor::F32(x) => x,
            HostTensor::I32(_) => &[],
        }
    }

    /// The integers; empty for a tensor of numbers.
    pub fn i32(&self) -> &[i32] {
        match self {
            HostTensor::I32(x) => x,
            HostTensor::F32(_) => &[],
        }
    }

    /// The same values, borrowed.
    pub fn as_slice(&self) -> HostSlice<'_> {
        match self {
            HostTensor::F32(x) => HostSlice::F32(x),
            HostTensor::I32(x) => HostSlice::I32(x),
        }
    }
}

/// Why an engine could not do what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// A value of the wrong size or type was given.
    #[error("`{name}` takes {expected}; {found} values were given")]
    Size {
        /// Input or slot.
        name: String,
        /// Its type.
        expected: ValueType,
        /// Number of elements given.
        found: usize,
    },
    /// A name that is not an input, output or slot of this program.
    #[error("there is no {what} `{name}`; there are: {known}")]
    Unknown {
        /// "input", "output" or "slot".
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// State of another engine.
    #[error("this state belongs to another engine, not to `{0}`: copy its values to a state of this engine")]
    ForeignState(String),
    /// An index or label in the inputs is out of range.
    #[error("`{at}`: index {index} is out of range; there are {count} rows")]
    Index {
        /// The node that uses it.
        at: String,
        /// The index found.
        index: i64,
        /// How many there are.
        count: usize,
    },
    /// Memory could not be allocated.
    #[error("{bytes} bytes of memory could not be allocated: a smaller batch or model needs less")]
    Memory {
        /// How many were asked for.
        bytes: usize,
    },
    /// A device has less memory than is asked for.
    #[error(
        "{bytes} bytes could not be taken of the memory of `{device}`, {free} of which are free{}: a \
         smaller batch or model needs less",
        of_program(holds)
    )]
    DeviceMemory {
        /// Which one, as in reports.
        device: String,
        /// How many were asked for.
        bytes: usize,
        /// How many there are.
        free: usize,
        /// All that the program holds there that is compiled, if one is.
        holds: Option<Footprint>,
    },
    /// The device or its driver failed.
    #[error("`{device}` failed: {what}; what it held may be lost: resume from the last checkpoint")]
    Device {
        /// Which one, as in reports.
        device: String,
        /// What was being done, and what the driver said.
        what: String,
    },
    /// A sum over ranks failed.
    #[error(transparent)]
    Communicator(#[from] CommunicatorError),
    /// The engine cannot do something the plan asks for.
    #[error("{0}")]
    Unsupported(String),
}

fn of_program(holds: &Option<Footprint>) -> String {
    holds.map_or_else(String::new, |held| {
        format!(
            "; this program holds {} there: {} of state, {} of a step's values, {} of constants, outputs and inputs",
            held.total(),
            held.state,
            held.arena,
            held.constants + held.outputs + held.staging
        )
    })
}

impl EngineError {
    /// An [`EngineError::Unknown`] listing what is known.
    pub fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> EngineError {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        EngineError::Unknown { what, name: name.to_string(), known }
    }

    /// An error unless `data` fits `ty`.
    ///
    /// # Errors
    /// [`EngineError::Size`] if type or number of elements differ.
    pub fn check(name: &str, ty: &ValueType, data: HostSlice<'_>) -> Result<(), EngineError> {
        if data.fits(ty) {
            return Ok(());
        }
        Err(EngineError::Size { name: name.to_string(), expected: ty.clone(), found: data.len() })
    }
}

/// Makes programs and state for one kind of hardware.
pub trait Engine: Send + Sync {
    /// Name for reports, such as `cpu avx2, 2 threads`.
    fn name(&self) -> String;
    /// What decides its results.
    fn identity(&self) -> EngineIdentity;
    /// What it computes on.
    fn device(&self) -> Device;
    /// Memory that it may still take there; none where that is not known.
    fn free_memory(&self) -> Option<FreeMemory> {
        None
    }
    /// How it computes the contractions of a policy.
    fn describe(&self, policy: &Policy) -> PolicyDescription;
    /// What planning needs to know.
    fn target(&self) -> &dyn Target;
    /// The ranks that its programs sum over, where there are several.
    fn communicator(&self) -> Option<&Communicator> {
        None
    }
    /// Memory for these slots, all zero.
    ///
    /// # Errors
    /// Not enough memory.
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError>;
    /// A program for `plan` over the slots of `state`, found by name.
    ///
    /// # Errors
    /// A slot of the plan is absent from the state or has another type; not enough memory.
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError>;
}

/// A compiled program.
pub trait Program: Send {
    /// Runs once: reads slots and inputs, computes, writes slots.
    ///
    /// # Errors
    /// A missing input, one of the wrong size, an index out of range. State is then unchanged.
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError>;
    /// A hint, given while a run may still be under way: these are inputs of the next run, some or
    /// all. An engine with memory of its own can copy them there meanwhile; others do nothing.
    ///
    /// The next run is given all its inputs as ever and computes with those, whatever was announced
    /// here. What cannot be copied ahead is copied by the run, which also reports what is wrong
    /// with it.
    fn prefetch(&mut self, _inputs: &[(&str, HostSlice<'_>)]) {}
    /// An output of the last run.
    ///
    /// # Errors
    /// No output of that name.
    fn read(&self, output: &str) -> Result<HostTensor, EngineError>;
    /// Outputs of the last run that are one number each, in this order and as f32, without
    /// allocating. Both slices have the same length. Waits for the run to end, where it is still
    /// under way.
    ///
    /// # Errors
    /// An id that is not of this program's graph; an output of another type; the device failed.
    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError>;
    /// Bytes of the scratch region this program uses.
    fn arena_bytes(&self) -> usize;
    /// Bytes held at present for this program over this state: after a run of only this program on
    /// its engine, what [`Plan::footprint`] foretold.
    ///
    /// # Errors
    /// State of another engine.
    fn footprint(&self, state: &State) -> Result<Footprint, EngineError>;
    /// From now on, measures each of the plan's groups in each run. Engines that cannot do nothing.
    fn measure(&mut self) {}
    /// Time spent since [`Program::measure`] in each group, in the plan's order; empty if it was
    /// not measured.
    fn times(&self) -> &[Duration] {
        &[]
    }
}

/// The memory behind a [`State`], wherever it lives.
pub trait Memory: Any + Send {
    /// Copies host values in; the length was checked.
    ///
    /// # Errors
    /// The device failed.
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError>;
    /// Copies values out.
    ///
    /// # Errors
    /// The device failed.
    fn download(&self, slot: usize) -> Result<HostTensor, EngineError>;
    /// For the engine that made it.
    fn as_any(&self) -> &dyn Any;
    /// For the engine that made it.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Named slots in an engine's memory.
pub struct State {
    slots: Vec<Slot>,
    memory: Box<dyn Memory>,
}

impl State {
    /// State over memory an engine made for these slots.
    pub fn new(slots: &[Slot], memory: Box<dyn Memory>) -> State {
        State { slots: slots.to_vec(), memory }
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Position of a slot.
    ///
    /// # Errors
    /// No slot of that name.
    pub fn position(&self, name: &str) -> Result<usize, EngineError> {
        let known = || EngineError::unknown("slot", name, self.slots.iter().map(|s| s.name.as_str()));
        self.slots.iter().position(|s| s.name == name).ok_or_else(known)
    }

    /// Copies values into a slot, rounding to its storage type.
    ///
    /// # Errors
    /// No such slot; a wrong number of elements; the device failed.
    pub fn upload(&mut self, name: &str, data: HostSlice<'_>) -> Result<(), EngineError> {
        let slot = self.position(name)?;
        EngineError::check(name, &self.slots[slot].ty, data)?;
        self.memory.upload(slot, data)
    }

    /// Copies a slot's values out.
    ///
    /// # Errors
    /// No such slot; the device failed.
    pub fn download(&self, name: &str) -> Result<HostTensor, EngineError> {
        self.memory.download(self.position(name)?)
    }

    /// The engine's own memory, if it is of type `M`.
    pub fn memory<M: Memory>(&self) -> Option<&M> {
        self.memory.as_any().downcast_ref()
    }

    /// The engine's own memory, if it is of type `M`.
    pub fn memory_mut<M: Memory>(&mut self) -> Option<&mut M> {
        self.memory.as_any_mut().downcast_mut()
    }
}

/// For each slot of `graph`, its position in `state`.
///
/// # Errors
/// A slot that is absent or of another type.
pub fn bind_slots(graph: &Graph, state: &State) -> Result<Vec<usize>, EngineError> {
    let bind = |slot: &Slot| {
        let at = state.position(&slot.name)?;
        let found = &state.slots()[at].ty;
        if found != &slot.ty {
            return Err(EngineError::Unsupported(format!(
                "slot `{}` is {found} in the state and {} in the program",
                slot.name, slot.ty
            )));
        }
        Ok(at)
    };
    graph.slots.iter().map(bind).collect()
}

/// The output of this name.
///
/// # Errors
/// No output of that name.
pub fn output_id(graph: &Graph, name: &str) -> Result<OutputId, EngineError> {
    let names = || graph.outputs.iter().map(|(name, _)| name.as_str());
    let at = names().position(|n| n == name);
    at.map(|at| OutputId(at as u32)).ok_or_else(|| EngineError::unknown("output", name, names()))
}

/// The value behind a scalar output.
///
/// # Errors
/// An id that is not of this graph; an output that is not one number.
pub fn scalar_output(graph: &Graph, output: OutputId) -> Result<ValueId, EngineError> {
    let names = || graph.outputs.iter().map(|(name, _)| name.as_str());
    let at = output.0 as usize;
    let unknown = || EngineError::unknown("output", &format!("number {at}"), names());
    let (name, value) = graph.outputs.get(at).ok_or_else(unknown)?;
    let ty = &graph.value(*value).ty;
    if !ty.dtype.is_float() || ty.shape.count() != 1 {
        return Err(EngineError::Size { name: name.clone(), expected: ty.clone(), found: 1 });
    }
    Ok(*value)
}

//! What a device is asked to do, as plain data: which kernels it launches in which order, with
//! which arguments, and what each reads and writes.
//!
//! A command names memory by region and offset, so that it means the same wherever the regions lie.
//! What it declares decides what may run beside it, and the simulated device lets a launch access
//! nothing else.

use std::fmt;

use crate::module::Module;

/// Outputs of at most so many bytes are copied to the host as a part of each run: loss and norm are
/// read after every step.
pub(crate) const SMALL_OUTPUT: usize = 256;

/// A piece of memory that belongs to a program or to the state it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Values of a step, which share it over time. All programs over one state use the same.
    Arena,
    /// The slots of the state.
    Slots,
    /// Constants of the program, and what kernels keep from run to run: zeros at first.
    Constants,
    /// Copies of the outputs, which outlive a run.
    Outputs,
    /// Large inputs of the next run, on their way.
    Staging,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Region::Arena => "arena",
            Region::Slots => "slots",
            Region::Constants => "constants",
            Region::Outputs => "outputs",
            Region::Staging => "staging",
        })
    }
}

/// Some bytes of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which region.
    pub region: Region,
    /// The first byte.
    pub offset: usize,
    /// How many there are.
    pub bytes: usize,
}

impl Span {
    /// Whether both have a byte in common.
    pub fn overlaps(&self, other: &Span) -> bool {
        self.region == other.region
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

/// Such as `arena 256..512`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{}", self.region, self.offset, self.offset + self.bytes)
    }
}

/// Where the regions begin in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// Of [`Region::Arena`].
    pub arena: u64,
    /// Of [`Region::Slots`].
    pub slots: u64,
    /// Of [`Region::Constants`].
    pub constants: u64,
    /// Of [`Region::Outputs`].
    pub outputs: u64,
    /// Of [`Region::Staging`].
    pub staging: u64,
}

impl Bases {
    /// The device's address of the first byte of a span.
    pub fn address(&self, span: &Span) -> u64 {
        let base = match span.region {
            Region::Arena => self.arena,
            Region::Slots => self.slots,
            Region::Constants => self.constants,
            Region::Outputs => self.outputs,
            Region::Staging => self.staging,
        };
        base + span.offset as u64
    }
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A pointer to the first byte of a span.
    Pointer(Span),
    /// A pointer to nothing, for an operand that is absent.
    Null,
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `unsigned long long`.
    U64(u64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
    /// So many bytes, all zero: room that a table does not use.
    Zeros(usize),
    /// A struct of these, one after another, each aligned to its own size.
    Struct(Vec<Argument>),
}

impl Argument {
    /// Bytes to a multiple of which its place is rounded up.
    pub fn alignment(&self) -> usize {
        match self {
            Argument::Pointer(_) | Argument::Null | Argument::U64(_) | Argument::F64(_) => 8,
            Argument::I32(_) | Argument::U32(_) | Argument::F32(_) => 4,
            Argument::Zeros(_) => 1,
            Argument::Struct(members) => members.iter().map(Argument::alignment).max().unwrap_or(1),
        }
    }

    /// Appends it as the kernel finds it, behind as much padding as its alignment asks for.
    pub fn encode(&self, bases: &Bases, into: &mut Vec<u8>) {
        let align = |into: &mut Vec<u8>| into.resize(into.len().next_multiple_of(self.alignment()), 0);
        align(into);
        match self {
            Argument::Pointer(span) => into.extend(bases.address(span).to_le_bytes()),
            Argument::Null => into.extend(0u64.to_le_bytes()),
            Argument::I32(x) => into.extend(x.to_le_bytes()),
            Argument::U32(x) => into.extend(x.to_le_bytes()),
            Argument::U64(x) => into.extend(x.to_le_bytes()),
            Argument::F32(x) => into.extend(x.to_le_bytes()),
            Argument::F64(x) => into.extend(x.to_le_bytes()),
            Argument::Zeros(bytes) => into.resize(into.len() + bytes, 0),
            Argument::Struct(members) => {
                members.iter().for_each(|member| member.encode(bases, into));
                align(into);
            }
        }
    }
}

/// A kernel: an entry of one of the modules of [`Commands`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Position in [`Commands::modules`].
    pub module: usize,
    /// The name of the function.
    pub entry: String,
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which kernel.
    pub kernel: Kernel,
    /// Number of blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, along x alone.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// The parameters, in order.
    pub arguments: Vec<Argument>,
    /// What it may read.
    pub reads: Vec<Span>,
    /// What it may write; what it also reads is among both.
    pub writes: Vec<Span>,
}

/// One thing for a device to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Runs a kernel.
    Launch(Launch),
    /// Copies bytes; both spans have the same number.
    Copy {
        /// Where they are.
        from: Span,
        /// Where they go.
        to: Span,
    },
}

impl Action {
    /// What it reads.
    pub fn reads(&self) -> &[Span] {
        match self {
            Action::Launch(launch) => &launch.reads,
            Action::Copy { from, .. } => std::slice::from_ref(from),
        }
    }

    /// What it writes.
    pub fn writes(&self) -> &[Span] {
        match self {
            Action::Launch(launch) => &launch.writes,
            Action::Copy { to, .. } => std::slice::from_ref(to),
        }
    }

    /// Whether the result depends on which of both comes first.
    pub fn conflicts(&self, other: &Action) -> bool {
        let meet = |a: &[Span], b: &[Span]| a.iter().any(|x| b.iter().any(|y| x.overlaps(y)));
        meet(self.writes(), other.writes())
            || meet(self.writes(), other.reads())
            || meet(self.reads(), other.writes())
    }
}

/// An action and what it is a part of.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// What is done.
    pub action: Action,
    /// The name of the node that it stands for, for reports and errors.
    pub at: String,
    /// The step of the plan that it belongs to; none for what follows the last one.
    pub step: Option<usize>,
}

/// A value that is copied from the host before the first command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The caller's name for it.
    pub name: String,
    /// Where it goes.
    pub to: Span,
    /// Where it is copied to before the run, while another may be under way, from where the run
    /// copies it: by turns, for the run before may still read the other. None where the run copies
    /// it from the host.
    pub ahead: Option<[Span; 2]>,
}

/// All that one run of a program does on its device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commands {
    /// Sources of the kernels.
    pub modules: Vec<Module>,
    /// What is copied in first.
    pub inputs: Vec<Input>,
    /// What is done then. The result is that of one after another; two that do not conflict may run
    /// at the same time.
    pub list: Vec<Command>,
    /// Results that the host reads, all in [`Region::Outputs`].
    pub outputs: Vec<Span>,
}

impl Commands {
    /// For each command the earlier ones that it has to wait for, by position: those that it
    /// conflicts with, without those that another of them waits for already.
    pub fn dependencies(&self) -> Vec<Vec<usize>> {
        let mut all: Vec<Vec<usize>> = Vec::with_capacity(self.list.len());
        for (i, command) in self.list.iter().enumerate() {
            let mut direct: Vec<usize> = Vec::new();
            // Whether an earlier command has ended once those that were found so far have.
            let mut ended = vec![false; i];
            for j in (0..i).rev() {
                if !ended[j] && command.action.conflicts(&self.list[j].action) {
                    direct.push(j);
                    ended[j] = true;
                }
                if ended[j] {
                    all[j].iter().for_each(|&before| ended[before] = true);
                }
            }
            direct.reverse();
            all.push(direct);
        }
        all
    }

    /// What each input, command and small output waits for, by position among all of them in this
    /// order: those before it that share memory with it, one of which writes it.
    pub fn edges(&self) -> Vec<Vec<usize>> {
        // The host's side of a copy shares memory with nothing.
        let host = Span { region: Region::Outputs, offset: 0, bytes: 0 };
        let copy = |from: Span, to: Span| Command {
            action: Action::Copy { from, to },
            at: String::new(),
            step: None,
        };
        let inputs = self.inputs.iter().map(|input| copy(host, input.to));
        let small = self.outputs.iter().filter(|span| span.bytes <= SMALL_OUTPUT);
        let outputs = small.map(|span| copy(*span, host));
        let list = inputs.chain(self.list.iter().cloned()).chain(outputs).collect();
        Commands { list, ..Commands::default() }.dependencies()
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Argument, Bases, Command, Commands, Region, Span};

    fn span(offset: usize, bytes: usize) -> Span {
        Span { region: Region::Arena, offset, bytes }
    }

    #[test]
    fn arguments_are_laid_out_as_c_structs_are() {
        let bases = Bases { arena: 0x1000, slots: 0, constants: 0, outputs: 0, staging: 0 };
        let inner = Argument::Struct(vec![Argument::Pointer(span(16, 4)), Argument::I32(-2)]);
        let argument = Argument::Struct(vec![Argument::U32(7), inner, Argument::F32(1.0)]);
        let mut bytes = Vec::new();
        argument.encode(&bases, &mut bytes);
        let words: Vec<u32> =
            bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(words, [7, 0, 0x1010, 0, u32::MAX - 1, 0, 0x3f80_0000, 0]);
    }

    #[test]
    fn a_command_waits_for_those_alone_whose_memory_it_shares() {
        let copy = |from, to| Command {
            action: Action::Copy { from: span(from, 8), to: span(to, 8) },
            at: String::new(),
            step: None,
        };
        // The third reads what the first has made, the fourth writes over what the second reads,
        // the fifth needs both results, and so nobody before them.
        let list = vec![copy(0, 100), copy(8, 200), copy(100, 300), copy(40, 8), copy(306, 4)];
        let found = Commands { list, ..Commands::default() }.dependencies();
        assert_eq!(found, [vec![], vec![], vec![0], vec![1], vec![2, 3]]);
    }
}

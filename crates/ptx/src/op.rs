//! Typed instructions: what the decoder makes and execution runs.

use crate::arith::{Comparison, Convert, Shape};
use crate::fault::Space;
use crate::machine::{Kind, R32, R64, RP};
use crate::memory::Strength;
use crate::resolve::{Address, Frame};
use crate::tensor::TensorOp;

/// A register of either file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Narrow(R32),
    Wide(R64),
}

/// Registers of pure arithmetic: the result, and up to four operands; what a shape does not use is
/// 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pure {
    pub f: Shape,
    pub to: u16,
    pub from: [u16; 4],
}

/// Logic on predicates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// `setp`: a comparison, joined with a predicate where `join` says how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetPredicate {
    pub test: Comparison,
    /// Registers of the file that the comparison reads.
    pub operands: [u16; 2],
    pub join: Option<(Logic, RP, bool)>,
    pub to: RP,
    /// Gets the negated comparison, joined likewise.
    pub other: Option<RP>,
}

/// A load or store of one element or a vector.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// The space, or none for a generic address.
    pub space: Option<Space>,
    /// Bytes of an element.
    pub bytes: u8,
    /// Loads fill the bits above the element with its sign, up to these many bytes.
    pub extend: Option<u8>,
    pub values: Box<[Value]>,
    pub address: Address,
    /// `.volatile`, `.relaxed` and stronger ones are atomic.
    pub strength: Strength,
    /// `.acquire` of loads, `.release` of stores.
    pub ordering: bool,
}

/// What an atomic operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AtomicKind {
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Add,
    Inc,
    Dec,
    Min,
    Max,
}

/// `atom` and `red`.
#[derive(Clone, Debug)]
pub(crate) struct Atomic {
    pub space: Option<Space>,
    pub kind: AtomicKind,
    pub ty: crate::types::Type,
    /// Where the values before go.
    pub to: Option<Box<[Value]>>,
    pub address: Address,
    pub from: Box<[Value]>,
    /// The new value of `cas`.
    pub swap: Option<Value>,
    /// `.release` or `.acq_rel`; `.acquire` or `.acq_rel`.
    pub release: bool,
    pub acquire: bool,
    pub strength: Strength,
}

/// Which lane a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `shfl.sync`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shuffle {
    pub mode: ShuffleMode,
    pub to: R32,
    pub valid: Option<RP>,
    pub from: R32,
    pub lane: R32,
    pub clamp: R32,
    pub members: R32,
}

/// What a vote tells its members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
}

/// What `redux.sync` computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduction {
    Add,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    And,
    Or,
    Xor,
}

/// What a barrier of the block does besides waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BarrierMode {
    Sync,
    /// Goes on at once; others wait for it.
    Arrive,
    /// Counts the threads whose predicate holds, or joins it.
    Count(R32),
    Join(Logic, RP),
}

/// `bar` and `barrier`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    pub mode: BarrierMode,
    /// None for that of the cluster, which has one block.
    pub number: Option<R32>,
    /// Threads that take part; none for all of the block.
    pub threads: Option<R32>,
    /// Whether the warp has to be together.
    pub aligned: bool,
    /// The predicate of a reduction.
    pub predicate: Option<(RP, bool)>,
}

/// `cp.async`.
#[derive(Clone, Debug)]
pub(crate) struct AsyncCopy {
    pub to: Address,
    pub from: Address,
    pub bytes: u8,
    /// Bytes that are read; zeros follow.
    pub source: Option<R32>,
    /// Nothing is read where it holds.
    pub ignore: Option<(RP, bool)>,
}

/// An instruction's work.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Pure(Pure),
    Move32(R32, R32),
    Move64(R64, R64),
    MovePredicate(RP, RP),
    Compare(SetPredicate),
    Select32 {
        to: R32,
        yes: R32,
        no: R32,
        by: RP,
    },
    Select64 {
        to: R64,
        yes: R64,
        no: R64,
        by: RP,
    },
    Logic {
        logic: Logic,
        to: RP,
        a: RP,
        b: RP,
    },
    Not {
        to: RP,
        a: RP,
    },
    Convert {
        by: Convert,
        to: Value,
        a: Value,
        b: Value,
    },
    /// Parts of a register, lowest first, of so many bits each.
    Split {
        from: Value,
        to: Box<[Value]>,
        bits: u8,
    },
    Join {
        to: Value,
        from: Box<[Value]>,
        bits: u8,
    },
    /// Sum, difference or product sum with carry in and out.
    Carry(CarrySum),
    /// Whether an address lies in a space.
    InSpace {
        to: RP,
        address: R64,
        space: Space,
    },
    Load(Transfer),
    Store(Transfer),
    Atomic(Box<Atomic>),
    AsyncCopy(Box<AsyncCopy>),
    CommitGroup,
    WaitGroup(u32),
    Branch(u32),
    /// `brx.idx`: the targets are `Program::tables[table]`.
    BranchTable {
        index: R32,
        table: u32,
    },
    Exit,
    Trap,
    Barrier(Barrier),
    WarpBarrier(R32),
    /// A fence for the block, or for the device.
    Fence {
        device: bool,
    },
    Shuffle(Shuffle),
    Vote {
        mode: VoteMode,
        to: RP,
        by: (RP, bool),
        members: R32,
    },
    Ballot {
        to: R32,
        by: (RP, bool),
        members: R32,
    },
    /// Lanes that have the same value; with `all`, only if every member has.
    Match {
        to: R32,
        valid: Option<RP>,
        value: Value,
        members: R32,
        all: bool,
    },
    Reduce {
        by: Reduction,
        to: R32,
        from: R32,
        members: R32,
    },
    ActiveMask(R32),
    /// One lane of the members is elected, the lowest.
    Elect {
        to: R32,
        elected: RP,
        members: R32,
    },
    Tensor(Box<TensorOp>),
    Nothing,
}

/// `add.cc`, `addc`, `sub.cc`, `subc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CarrySum {
    pub to: Value,
    pub a: Value,
    pub b: Value,
    pub subtract: bool,
    /// Takes the carry or borrow in, and gives it out.
    pub takes: bool,
    pub gives: bool,
}

/// An instruction.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub op: Op,
    pub kind: Kind,
    /// The predicate under which it runs, and whether that is negated.
    pub guard: Option<(RP, bool)>,
}

/// A kernel that can run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub name: String,
    pub code: Vec<Instruction>,
    /// Text and line of each instruction.
    pub sources: Vec<(String, u32)>,
    pub tables: Vec<Box<[u32]>>,
    pub frame: Frame,
    /// Offsets and sizes of the parameters.
    pub parameters: Vec<(u32, u32)>,
    pub parameter_bytes: u32,
    /// Shared memory of variables; what a launch adds begins behind it.
    pub shared_bytes: u32,
    pub local_bytes: u32,
    /// Smallest access to shared and to global memory, in bytes.
    pub granules: [usize; 2],
    /// Threads of a block by `.reqntid`, or the most of them by `.maxntid`.
    pub required_threads: Option<[u32; 3]>,
    pub most_threads: Option<u32>,
}

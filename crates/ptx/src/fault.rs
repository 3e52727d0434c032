//! What the simulated GPU reports.

use std::fmt;

/// Why a module could not be loaded, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LoadError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: LoadProblem,
}

/// What is wrong with a module's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadProblem {
    /// The text is no PTX.
    #[error("expected {expected}, found `{found}`")]
    Syntax {
        /// What PTX has in this place.
        expected: String,
        /// The token that stands there.
        found: String,
    },
    /// An opcode, or one of its modifiers, that is not simulated.
    #[error("the instruction `{opcode}` is not simulated{because}")]
    UnknownOpcode {
        /// The opcode with all its modifiers.
        opcode: String,
        /// A reason that begins with `: `, or nothing.
        because: String,
    },
    /// A name that no declaration in scope has.
    #[error("`{name}` is not declared here")]
    Undeclared {
        /// The name as it is written.
        name: String,
    },
    /// An operand that does not fit the instruction.
    #[error("operand `{operand}` of `{opcode}`: {expected}")]
    Operand {
        /// The operand as it is written.
        operand: String,
        /// The opcode with all its modifiers.
        opcode: String,
        /// What the instruction takes there.
        expected: String,
    },
    /// A declaration that is not simulated.
    #[error("this declaration is not simulated: {what}")]
    Declaration {
        /// What is declared.
        what: String,
    },
    /// A limit of the simulation.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The largest number of it.
        limit: usize,
    },
}

/// A state space of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory of the device: what was allocated, and `.global` variables.
    Global,
    /// Memory of a block.
    Shared,
    /// Memory of a thread.
    Local,
    /// `.const` variables.
    Const,
    /// Arguments of the launch.
    Param,
    /// An address that lies in no space.
    None,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global memory",
            Space::Shared => "shared memory",
            Space::Local => "local memory",
            Space::Const => "constant memory",
            Space::Param => "the arguments",
            Space::None => "no state space",
        })
    }
}

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic operation, which does both.
    Atomic,
    /// A copy that arrives later than the instruction that asked for it.
    Copy,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Atomic => "atomic operation",
            Access::Copy => "asynchronous copy",
        })
    }
}

/// Where a kernel was: the instruction, and the thread that executed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the kernel.
    pub kernel: String,
    /// The instruction as the PTX text has it.
    pub instruction: String,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// `%ctaid` of the block.
    pub block: [u32; 3],
    /// `%tid` of the thread; of the first one where a whole warp is at fault.
    pub thread: [u32; 3],
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(
            f,
            "kernel `{}`, line {}, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}), `{}`",
            self.kernel, self.line, self.instruction
        )
    }
}

/// A fault of a kernel: what no run on a GPU may do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct Fault {
    /// Where it happened.
    pub place: Place,
    /// What happened.
    pub cause: Cause,
}

/// What a kernel did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// An access outside of what the launch declared, of a variable, or of a block's memory.
    #[error("{access} of {bytes} bytes at {address:#x} in {space}: {why}")]
    OutOfBounds {
        /// The state space.
        space: Space,
        /// How it was touched.
        access: Access,
        /// The address: an offset in shared memory, else generic.
        address: u64,
        /// Size of the access.
        bytes: u32,
        /// What there is instead.
        why: &'static str,
    },
    /// An address that is no multiple of what the access needs.
    #[error("{access} of {bytes} bytes at {address:#x} in {space}, which is no multiple of {align}")]
    Misaligned {
        /// The state space.
        space: Space,
        /// How it was touched.
        access: Access,
        /// The address.
        address: u64,
        /// Size of the access.
        bytes: u32,
        /// What the address has to be a multiple of.
        align: u32,
    },
    /// Bytes are read that nothing was written to.
    #[error("read of {bytes} bytes at {address:#x} in {space}, of which some were never written")]
    NeverWritten {
        /// The state space.
        space: Space,
        /// The address of the access.
        address: u64,
        /// Size of the access.
        bytes: u32,
    },
    /// A register is read that nothing was written to.
    #[error("register `{register}` is read and was never written")]
    RegisterNeverWritten {
        /// Its name.
        register: String,
    },
    /// A register is read that a `wgmma` product writes which was not waited for.
    #[error("register `{register}` is read, and the wgmma product that writes it was not waited for")]
    RegisterInFlight {
        /// Its name.
        register: String,
    },
    /// Two accesses to the same bytes, at least one a write, in no order.
    #[error("{access} of {bytes} bytes at {address:#x} in {space} is in no order with {other}")]
    Race {
        /// The state space.
        space: Space,
        /// How it was touched here.
        access: Access,
        /// The address.
        address: u64,
        /// Size of the access.
        bytes: u32,
        /// The earlier access: what it was, and by which thread or block.
        other: String,
    },
    /// A barrier that some threads of the warp do not reach with the others.
    #[error("a barrier in divergent code: lanes {active:#010x} of {live:#010x} are here")]
    DivergentBarrier {
        /// Lanes at the barrier.
        active: u32,
        /// Lanes that have not ended.
        live: u32,
    },
    /// A barrier that is used with two different numbers of threads.
    #[error("barrier {barrier}: {why}")]
    BarrierMisuse {
        /// Its number.
        barrier: u32,
        /// What is wrong.
        why: String,
    },
    /// An instruction of several lanes that some of them do not execute.
    #[error("lanes {absent:#010x} take part by the mask {mask:#010x} and are not here")]
    AbsentLanes {
        /// Lanes that the instruction names, or needs.
        mask: u32,
        /// Those of them that do not execute it.
        absent: u32,
    },
    /// Every warp of the block waits, and nothing is on its way.
    #[error("deadlock: {waiting}")]
    Deadlock {
        /// What each warp waits for.
        waiting: String,
    },
    /// A launch executed more instructions than its limit.
    #[error("more than {limit} warp instructions: the kernel does not end, or the limit is too low")]
    StepLimit {
        /// The limit.
        limit: u64,
    },
    /// `trap` was executed.
    #[error("the kernel executed `trap`")]
    Trap,
    /// An instruction outside of what PTX defines.
    #[error("{what}")]
    Undefined {
        /// What is undefined about it.
        what: String,
    },
    /// Misuse of an mbarrier or of a copy that reports to one.
    #[error("mbarrier at {address:#x} in shared memory: {why}")]
    Mbarrier {
        /// Offset in shared memory.
        address: u64,
        /// What is wrong.
        why: String,
    },
}

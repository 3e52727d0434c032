//! How an instruction ends.

use crate::fault::Cause;

/// One of the three register files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum File {
    Bits32,
    Bits64,
    Predicate,
}

/// How execution goes on behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// With the next instruction.
    Next,
    /// With the next instruction, after other warps have run: something was waited for in vain.
    Yield,
    /// With the same instruction, after other warps have run.
    Again,
}

/// Why an instruction could not be executed, before its place is added.
#[derive(Debug)]
pub(crate) enum Trap {
    /// A fault, in a lane or in the whole warp.
    Fault { lane: Option<usize>, cause: Cause },
    /// A register was read that was not written in some lanes.
    Register { file: File, number: u16, lane: usize },
}

impl Trap {
    /// A fault of one lane.
    #[cold]
    pub fn lane(lane: usize, cause: Cause) -> Box<Trap> {
        Box::new(Trap::Fault { lane: Some(lane), cause })
    }

    /// A fault of the whole warp.
    #[cold]
    pub fn warp(cause: Cause) -> Box<Trap> {
        Box::new(Trap::Fault { lane: None, cause })
    }

    /// A read of a register that was not written in the lanes `missing`.
    #[cold]
    pub fn register(file: File, number: u16, missing: u32) -> Box<Trap> {
        Box::new(Trap::Register { file, number, lane: missing.trailing_zeros() as usize })
    }
}

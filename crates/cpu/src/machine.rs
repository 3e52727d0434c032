//! What programs and their steps run on.

use std::sync::Mutex;

use crate::gemm::Scratch;
use crate::isa::Isa;
use crate::pool::Pool;

/// What programs run on; shared by all programs of an engine.
pub(crate) struct Machine {
    pub isa: Isa,
    pub pool: Pool,
    /// Packing buffers of the matrix products; locked while a program runs.
    pub scratch: Mutex<Scratch>,
}

/// What a step runs on.
pub(crate) struct Run<'a> {
    pub machine: &'a Machine,
    pub scratch: &'a mut Scratch,
}

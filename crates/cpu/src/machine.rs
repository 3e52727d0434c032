//! What programs and their steps run on.

use std::collections::HashMap;
use std::sync::Mutex;

use halfstep_graph::ValueId;
use halfstep_graph::communicator::{Answer, Communicator, CommunicatorError, Payload};

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
    /// The ranks that the program sums over.
    pub ranks: Option<&'a Communicator>,
    pub transit: &'a mut Transit,
}

/// The program's sums over ranks, by the value that is under way.
pub(crate) type Transit = HashMap<ValueId, Sum>;

/// A sum over ranks: memory for what travels, and the sum while it does.
#[derive(Default)]
pub(crate) struct Sum {
    pub memory: Option<Payload>,
    pub under_way: Option<Answer<Result<Payload, CommunicatorError>>>,
}

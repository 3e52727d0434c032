//! A program that continues another kernel's result: applied to each part of it while that is in
//! cache, so that the result itself need not reach memory.

use super::run::{Chunk, Parts};
use super::{MAX_INPUTS, MAX_OUTPUTS, TileProgram};
use crate::gemm::BlockEpilogue;
use crate::isa::Isa;
use crate::rows::key::Key;
use crate::rows::storage::{Dst, Src};
use crate::rows::{RowError, SharedDst, dispatch};

/// Elements of a block of rows that a kernel collects for a chain: half of a first-level cache.
pub(crate) const BLOCK: usize = 4096;

/// A program bound to its operands and results, all but one operand, the kernel's own result.
pub(crate) struct Chain<'a> {
    isa: Isa,
    program: &'a TileProgram,
    own: usize,
    len: usize,
    inputs: [Src<'a>; MAX_INPUTS],
    outputs: [Option<SharedDst<'a>>; MAX_OUTPUTS],
    key: Key,
}

impl std::fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("program", &self.program).field("len", &self.len).finish()
    }
}

impl<'a> Chain<'a> {
    /// The program `program` over `len` elements, whose operand `own` is an f32 operand of the same
    /// shape that [`Chain::apply`] will give. What `inputs` says in that place is not looked at,
    /// nor are outputs that the program does not have.
    ///
    /// # Errors
    /// If an operand or result has another length or storage than the program says, or a dropout
    /// has no key.
    pub(crate) fn new(
        isa: Isa,
        program: &'a TileProgram,
        own: usize,
        len: usize,
        inputs: &[Src<'a>],
        outputs: [Dst<'a>; MAX_OUTPUTS],
        key: Option<Key>,
    ) -> Result<Chain<'a>, RowError> {
        program.check(len, inputs, &outputs[..program.outputs.len()], Some(own), key)?;
        let mut chain = Chain {
            isa,
            program,
            own,
            len,
            inputs: [Src::F32(&[]); MAX_INPUTS],
            outputs: [None; MAX_OUTPUTS],
            key: key.unwrap_or_default(),
        };
        chain.inputs[..inputs.len()].copy_from_slice(inputs);
        for (to, dst) in chain.outputs.iter_mut().zip(outputs).take(program.outputs.len()) {
            *to = Some(SharedDst::new(dst));
        }
        Ok(chain)
    }
}

impl BlockEpilogue for Chain<'_> {
    fn len(&self) -> usize {
        self.len
    }

    /// `results` are the kernel's, one run after another.
    unsafe fn apply(&self, results: &[f32], rows: usize, width: usize, at: &dyn Fn(usize) -> usize) {
        let mut inputs = self.inputs;
        inputs[self.own] = Src::F32(results);
        let chunk = Chunk {
            program: self.program,
            parts: Parts { rows, width, at },
            own: Some(self.own),
            inputs: &inputs,
            outputs: &self.outputs,
            key: self.key,
        };
        dispatch(self.isa, chunk);
    }
}

//! State in a device's memory: the slots, and the arena that the programs over them share.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use halfstep_graph::engine::{EngineError, HostSlice, HostTensor, Memory};

use crate::device::{Buffer, Device};
use crate::stored::{Stored, decode, encode};

/// The arena: none before a program asks for one.
#[derive(Default)]
pub(crate) struct Arena {
    buffer: Option<Buffer>,
    /// How often it was taken anew: what was recorded over an earlier one does not hold.
    generation: u64,
}

/// All slots in one buffer, and the arena.
pub(crate) struct GpuMemory {
    pub device: Arc<dyn Device>,
    /// In [`Region::Slots`](crate::command::Region::Slots).
    pub slots: Vec<Stored>,
    pub buffer: Buffer,
    pub arena: Mutex<Arena>,
}

impl GpuMemory {
    /// Makes the arena at least this large: its address, and its generation. Its contents have no
    /// meaning between runs.
    ///
    /// # Errors
    /// Not enough memory; there is none then until the next call.
    pub fn reserve(&self, bytes: usize) -> Result<(u64, u64), EngineError> {
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        let large_enough = arena.buffer.as_ref().filter(|buffer| buffer.bytes() >= bytes);
        if let Some(buffer) = large_enough {
            return Ok((buffer.address(), arena.generation));
        }
        // The old one goes first, so that both never exist together.
        arena.buffer = None;
        arena.generation += 1;
        let buffer = arena.buffer.insert(self.device.alloc(bytes)?);
        Ok((buffer.address(), arena.generation))
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        let arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.buffer.as_ref().map_or(0, Buffer::bytes)
    }

    fn address(&self, slot: usize) -> u64 {
        self.buffer.address() + self.slots[slot].span.offset as u64
    }
}

impl Memory for GpuMemory {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError> {
        let Stored { span, dtype, .. } = self.slots[slot];
        let mut bytes = vec![0; span.bytes];
        encode(dtype, data, &mut bytes);
        self.device.write(self.address(slot), &bytes)
    }

    fn download(&self, slot: usize) -> Result<HostTensor, EngineError> {
        let Stored { span, dtype, .. } = self.slots[slot];
        let mut bytes = vec![0; span.bytes];
        self.device.read(self.address(slot), &mut bytes)?;
        Ok(decode(dtype, &bytes))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

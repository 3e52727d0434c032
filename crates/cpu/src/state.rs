//! State in the processor's memory: the slots, and the scratch region that the programs over them
//! share.

use std::any::Any;

use halfstep_graph::engine::{EngineError, HostSlice, HostTensor, Memory};

use crate::memory::{Span, View, ViewMut};
use crate::region::Region;
use crate::rows::Base;

/// All slots in one region, and the scratch region that the programs over them share.
pub(crate) struct CpuMemory {
    pub spans: Vec<Span>,
    pub region: Region,
    pub arena: Region,
}

impl CpuMemory {
    /// Makes the scratch region at least this large. Its contents have no meaning between runs.
    ///
    /// # Errors
    /// Not enough memory; there is none then until the next call.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), EngineError> {
        if self.arena.bytes() < bytes {
            // The old region goes first, so that both never exist together.
            self.arena = Region::new(0)?;
            self.arena = Region::new(bytes)?;
        }
        Ok(())
    }
}

impl Memory for CpuMemory {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError> {
        upload(self.region.view_mut(self.spans[slot]), data);
        Ok(())
    }
    fn download(&self, slot: usize) -> Result<HostTensor, EngineError> {
        Ok(download(self.region.view(self.spans[slot])))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Copies host values in, rounding to the storage type. Lengths and kinds were checked by the
/// caller.
pub(crate) fn upload(to: ViewMut<'_>, from: HostSlice<'_>) {
    match (to, from) {
        (ViewMut::Float(mut to), HostSlice::F32(from)) => to.store::<Base>(0, from),
        (ViewMut::I32(to), HostSlice::I32(from)) => to.copy_from_slice(from),
        (ViewMut::U8(to), HostSlice::I32(from)) => {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = x as u8);
        }
        (ViewMut::I32(_) | ViewMut::U8(_), HostSlice::F32(_)) | (_, HostSlice::I32(_)) => {
            unreachable!("the kind was checked against the value's type")
        }
    }
}

/// Copies values out.
pub(crate) fn download(from: View<'_>) -> HostTensor {
    match from {
        View::Float(from) => {
            let mut x = vec![0.0; from.len()];
            from.load::<Base>(0, &mut x);
            HostTensor::F32(x)
        }
        View::I32(x) => HostTensor::I32(x.to_vec()),
        View::U8(x) => HostTensor::I32(x.iter().map(|&c| c.into()).collect()),
    }
}

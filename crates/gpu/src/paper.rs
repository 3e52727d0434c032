//! A device that is only described: programs are planned for it, and none runs.

use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;

use crate::command::{Bases, Commands};
use crate::device::{Buffer, Device, Facts, Recording};

/// A GPU that is not in use, or that is not there.
pub(crate) struct Paper(pub Facts);

impl Paper {
    fn refused<T>(&self) -> Result<T, EngineError> {
        Err(EngineError::Unsupported(format!(
            "{} is planned for, and nothing runs on it",
            self.0.architecture
        )))
    }
}

impl Device for Paper {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn compiler(&self) -> String {
        "none".into()
    }

    fn free_memory(&self) -> Option<FreeMemory> {
        None
    }

    fn alloc(&self, _: usize) -> Result<Buffer, EngineError> {
        self.refused()
    }

    fn clear(&self, _: &Buffer) -> Result<(), EngineError> {
        self.refused()
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), EngineError> {
        self.refused()
    }

    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), EngineError> {
        self.refused()
    }

    fn record(&self, _: &Commands, _: &Bases) -> Result<Box<dyn Recording>, EngineError> {
        self.refused()
    }
}

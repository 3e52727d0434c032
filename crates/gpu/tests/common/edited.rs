//! A device between an engine and another device.

use std::sync::Arc;

use halfstep_gpu::command::{Bases, Commands};
use halfstep_gpu::device::{Buffer, Device, Facts, Recording};
use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;

/// A device that lets a test see and change the commands that are recorded for another one.
pub struct Edited<D> {
    device: Arc<D>,
    edit: Box<dyn Fn(&mut Commands) + Send + Sync>,
}

impl<D> Edited<D> {
    pub fn new(device: &Arc<D>, edit: impl Fn(&mut Commands) + Send + Sync + 'static) -> Arc<Edited<D>> {
        Arc::new(Edited { device: device.clone(), edit: Box::new(edit) })
    }
}

impl<D: Device> Device for Edited<D> {
    fn facts(&self) -> &Facts {
        self.device.facts()
    }
    fn compiler(&self) -> String {
        self.device.compiler()
    }
    fn free_memory(&self) -> Option<FreeMemory> {
        self.device.free_memory()
    }
    fn alloc(&self, bytes: usize) -> Result<Buffer, EngineError> {
        self.device.alloc(bytes)
    }
    fn clear(&self, buffer: &Buffer) -> Result<(), EngineError> {
        self.device.clear(buffer)
    }
    fn write(&self, to: u64, from: &[u8]) -> Result<(), EngineError> {
        self.device.write(to, from)
    }
    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), EngineError> {
        self.device.read(from, to)
    }
    fn record(&self, commands: &Commands, bases: &Bases) -> Result<Box<dyn Recording>, EngineError> {
        let mut commands = commands.clone();
        (self.edit)(&mut commands);
        self.device.record(&commands, bases)
    }
}

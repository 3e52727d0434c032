//! How many commands a training step is, counted on a device that runs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use halfstep_gpu::command::{Action, Bases, Commands};
use halfstep_gpu::device::{Buffer, Device, Facts, Recording};
use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::FreeMemory;
use halfstep_graph::precision::Policy;
use halfstep_nn::{GptSpec, InputSpec, ModelSpec, Resnet18Spec};
use halfstep_train::session::{Session, SessionSpec};

/// Keeps what it is asked to record.
struct Paper {
    facts: Facts,
    /// The next address.
    end: Mutex<u64>,
    recorded: Mutex<Option<Commands>>,
}

impl Device for Paper {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn compiler(&self) -> String {
        "none".into()
    }
    fn free_memory(&self) -> Option<FreeMemory> {
        None
    }
    fn alloc(&self, bytes: usize) -> Result<Buffer, EngineError> {
        let mut end = self.end.lock().unwrap();
        let address = *end;
        *end += (bytes as u64 + 1).next_multiple_of(256);
        Ok(Buffer::new(address, bytes, Box::new(())))
    }
    fn clear(&self, _: &Buffer) -> Result<(), EngineError> {
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<(), EngineError> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), EngineError> {
        Ok(())
    }
    fn record(&self, commands: &Commands, _: &Bases) -> Result<Box<dyn Recording>, EngineError> {
        *self.recorded.lock().unwrap() = Some(commands.clone());
        Ok(Box::new(Nothing))
    }
}

struct Nothing;

impl Recording for Nothing {
    fn stage(&mut self, _: usize, _: &mut dyn FnMut(&mut [u8])) -> Result<(), EngineError> {
        Ok(())
    }
    fn is_staged(&self, _: usize, _: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool, EngineError> {
        Ok(false)
    }

    fn copy_ahead(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn launch(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn wait(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn output(&self, _: usize, _: &mut [u8]) -> Result<(), EngineError> {
        Ok(())
    }
    fn launch_measured(&mut self) -> Result<Option<Vec<Duration>>, EngineError> {
        Ok(None)
    }
}

/// The commands of a bf16 training step.
fn commands(spec: ModelSpec, input: InputSpec, classes: usize, batch: usize) -> Commands {
    let architecture = Architecture::of_device(9, 0);
    let facts = Facts {
        name: "paper".into(),
        architecture,
        multiprocessors: 132,
        shared_bytes: 227 << 10,
        memory_bytes: 80 << 30,
    };
    let device = Arc::new(Paper { facts, end: Mutex::new(256), recorded: Mutex::new(None) });
    let engine = GpuEngine::new(device.clone());
    let (model, policy) = (spec.build(&input, classes).unwrap(), Policy::named("bf16").unwrap());
    let spec = SessionSpec { clip: Some(1.0), ..SessionSpec::new(&policy, batch, 1) };
    drop(Session::new(&engine, &*model, &input, &policy, &spec).unwrap());
    device.recorded.lock().unwrap().take().unwrap()
}

fn by_kernel(commands: &Commands) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for command in &commands.list {
        let name = match &command.action {
            Action::Launch(launch) if launch.kernel.entry.starts_with("chain_") => "chain".to_string(),
            Action::Launch(launch) => launch.kernel.entry.clone(),
            Action::Copy { .. } => "copy".to_string(),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_step_is_few_commands() {
    let gpt = GptSpec { width: 384, layers: 6, heads: 6, ..GptSpec::default() };
    let input = InputSpec::Tokens { length: 256, vocab: 256 };
    let gpt = commands(ModelSpec::Gpt(gpt), input, 256, 8);
    let input = InputSpec::Image { height: 32, width: 32, channels: 3 };
    let resnet = commands(ModelSpec::Resnet18(Resnet18Spec { width: 64 }), input, 10, 64);
    for (name, commands, most) in [("gpt 6×384", gpt, 178), ("resnet18", resnet, 160)] {
        let counts = by_kernel(&commands);
        assert!(commands.list.len() <= most, "{name}: {} {counts:?}", commands.list.len());
    }
}

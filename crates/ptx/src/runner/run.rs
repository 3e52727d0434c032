//! Runs a launch under all schedules that were asked for.

use std::collections::BTreeMap;

use halfstep_ptx::{
    Argument as Passed, Arrival, Launch, LaunchError, Module, Options, Region, Simulator, Summation,
    TensorMap,
};

use super::launch_file::{Argument, Buffer, LaunchFile, Map, Permission, Value, axes};
use super::report::{Outcome, Report, Schedule};
use super::{Delivery, RunArguments, RunnerError, Sums, data};

/// The bytes of buffers by name.
type Buffers = BTreeMap<String, Vec<u8>>;

/// Runs the launch under every schedule; writes buffers of the first one without fault. With the
/// report comes whether they could be written.
///
/// # Errors
///
/// What cannot be run: a file, the PTX, a launch that does not fit the kernel.
pub(super) fn run(arguments: &RunArguments) -> Result<(Report, Result<(), RunnerError>), RunnerError> {
    let path = &arguments.kernel;
    let text = std::fs::read_to_string(path).map_err(|error| RunnerError::file(path, error))?;
    let module = Module::load(&text).map_err(|error| RunnerError::file(path, error))?;
    let file = LaunchFile::read(&arguments.launch)?;
    let kernel = kernel(&module, &file)?;
    check_targets(&file)?;
    let mut report = Report::new(path.display().to_string(), kernel.clone());
    let mut results: Option<Buffers> = None;
    for schedule in schedules(arguments) {
        let device = Device::new(&file, schedule, arguments)?;
        let (outcome, buffers) = device.launch(&module, &file, &kernel)?;
        let differs = match (&results, &buffers) {
            (Some(first), Some(buffers)) => first
                .iter()
                .filter(|(name, bytes)| buffers[*name] != **bytes)
                .map(|(name, _)| name.clone())
                .collect(),
            _ => Vec::new(),
        };
        report.add(schedule, outcome, differs);
        results = results.or(buffers);
    }
    let found = results.unwrap_or_default();
    let written = file.buffers.iter().try_for_each(|(name, buffer)| match (&buffer.to, found.get(name)) {
        (Some(path), Some(bytes)) => data::write(path, buffer.element, bytes),
        _ => Ok(()),
    });
    Ok((report, written))
}

/// Each buffer that goes to a file can be written by the kernel, and has a file of its own.
fn check_targets(file: &LaunchFile) -> Result<(), RunnerError> {
    let mut targets = BTreeMap::new();
    for (name, buffer) in &file.buffers {
        let Some(path) = &buffer.to else { continue };
        if buffer.access == Permission::Read {
            let text = format!("buffer `{name}` has `to`, and nothing writes it: its `access` is \"read\"");
            return Err(RunnerError::Launch(text));
        }
        if let Some(other) = targets.insert(path, name) {
            let text = format!("buffers `{other}` and `{name}` both go to {}", path.display());
            return Err(RunnerError::Launch(text));
        }
    }
    Ok(())
}

fn kernel(module: &Module, file: &LaunchFile) -> Result<String, RunnerError> {
    let names: Vec<&str> = module.kernels().collect();
    match (&file.kernel, names.as_slice()) {
        (_, []) => {
            Err(RunnerError::Launch("the module has no kernel, which begins with `.entry`".to_string()))
        }
        (Some(name), names) if names.contains(&name.as_str()) => Ok(name.clone()),
        (Some(name), names) => {
            let has = names.join("`, `");
            Err(RunnerError::Launch(format!("the module has no kernel `{name}`; it has `{has}`")))
        }
        (None, [name]) => Ok((*name).to_string()),
        (None, _) => Err(RunnerError::Launch(format!(
            "the module has the kernels {}; `kernel` of the launch says which",
            names.join(", ")
        ))),
    }
}

fn schedules(arguments: &RunArguments) -> impl Iterator<Item = Schedule> {
    let arrivals: &[Arrival] = match arguments.delivery {
        Delivery::Early => &[Arrival::Early],
        Delivery::Late => &[Arrival::Late],
        Delivery::Both => &[Arrival::Late, Arrival::Early],
    };
    (0..arguments.seeds).flat_map(|seed| arrivals.iter().map(move |&arrival| Schedule { seed, arrival }))
}

/// A device with the buffers of a launch.
struct Device {
    simulator: Simulator,
    regions: BTreeMap<String, Region>,
}

impl Device {
    fn new(file: &LaunchFile, schedule: Schedule, run: &RunArguments) -> Result<Device, RunnerError> {
        let summation = match run.summation {
            Sums::Exact => Summation::Exact,
            Sums::Truncated => Summation::Truncated,
        };
        let Schedule { seed, arrival } = schedule;
        let options =
            Options { seed: Some(seed), arrival, summation, limit: run.limit, ..Options::default() };
        let mut simulator = Simulator::new(options);
        let mut regions = BTreeMap::new();
        for (name, buffer) in &file.buffers {
            let (contents, bytes) = data::contents(name, buffer)?;
            let region = match contents {
                Some(contents) => simulator.allocate_from(&contents),
                None => simulator.allocate(bytes),
            };
            let region = region.map_err(|error| RunnerError::Launch(format!("buffer `{name}`: {error}")))?;
            regions.insert(name.clone(), region);
        }
        Ok(Device { simulator, regions })
    }

    /// Launches the kernel; without a fault, the bytes of what it may write are returned too.
    fn launch(
        mut self,
        module: &Module,
        file: &LaunchFile,
        kernel: &str,
    ) -> Result<(Outcome, Option<Buffers>), RunnerError> {
        let launch = self.arguments(file, kernel)?;
        let counts = match self.simulator.launch(module, &launch) {
            Ok(counts) => counts,
            Err(LaunchError::Fault(fault)) => return Ok((Outcome::Fault(fault), None)),
            Err(other) => return Err(RunnerError::Launch(other.to_string())),
        };
        let written = |buffer: &Buffer| buffer.access != Permission::Read;
        let mut buffers = BTreeMap::new();
        for (name, _) in file.buffers.iter().filter(|(_, buffer)| written(buffer)) {
            let bytes = self.simulator.bytes(self.regions[name]);
            buffers.insert(name.clone(), bytes.map_err(|error| RunnerError::Launch(error.to_string()))?);
        }
        Ok((Outcome::Clean(counts), Some(buffers)))
    }

    fn arguments(&self, file: &LaunchFile, kernel: &str) -> Result<Launch, RunnerError> {
        let mut launch = Launch::new(kernel, axes("grid", &file.grid)?, axes("block", &file.block)?);
        launch = launch.shared(file.shared);
        for argument in &file.arguments {
            launch = launch.argument(match argument {
                Argument::Buffer(name) => Passed::U64(self.region(name)?.address),
                Argument::Value(Value::S32(value)) => Passed::I32(*value),
                Argument::Value(Value::U32(value)) => Passed::U32(*value),
                Argument::Value(Value::S64(value)) => Passed::I64(*value),
                Argument::Value(Value::U64(value)) => Passed::U64(*value),
                Argument::Value(Value::F32(value)) => Passed::F32(*value),
                Argument::Value(Value::F64(value)) => Passed::F64(*value),
                Argument::Value(Value::Map(map)) => self.map(map, file)?,
            });
        }
        for (name, buffer) in &file.buffers {
            let region = self.region(name)?;
            if buffer.access != Permission::Write {
                launch = launch.reads(region);
            }
            if buffer.access != Permission::Read {
                launch = launch.writes(region);
            }
        }
        Ok(launch)
    }

    fn region(&self, name: &str) -> Result<Region, RunnerError> {
        let missing = || RunnerError::Launch(format!("there is no buffer `{name}` under [buffers]"));
        self.regions.get(name).copied().ok_or_else(missing)
    }

    fn map(&self, map: &Map, file: &LaunchFile) -> Result<Passed, RunnerError> {
        let region = self.region(&map.buffer)?;
        let encoded = TensorMap {
            address: region.address,
            element_bytes: file.buffers[&map.buffer].element.bytes(),
            sizes: map.sizes.clone(),
            strides: map.strides.clone(),
            tile: map.tile.clone(),
            swizzle: map.swizzle()?,
        };
        let wrong = |error| RunnerError::Launch(format!("a map of `{}`: {error}", map.buffer));
        let encoded = encoded.encode().map_err(wrong)?;
        Ok(Passed::Bytes(encoded.to_vec()))
    }
}

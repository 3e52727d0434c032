//! Launches that can be repeated, each on a device of its own.

use std::path::Path;

use halfstep_ptx::{
    Argument, Arrival, Fault, LaunchError, Module, Options, Region, Simulator, Summation, Swizzle, TensorMap,
};

/// A tensor map of the buffer that argument number `buffer` is.
#[derive(Clone, Debug)]
pub struct Map {
    pub buffer: usize,
    pub element_bytes: usize,
    pub sizes: Vec<u64>,
    pub strides: Vec<u64>,
    pub tile: Vec<u32>,
    pub swizzle: Swizzle,
}

/// An argument. Buffers are passed by address and allocated anew for each run.
#[derive(Clone, Debug)]
pub enum Arg {
    /// Read only.
    In(Vec<u8>),
    /// So many bytes that are written only.
    Out(usize),
    /// So many bytes that are written, and read then.
    Scratch(usize),
    InOut(Vec<u8>),
    /// Read only, through a tensor map that is passed by value.
    Mapped(Map, Vec<u8>),
    S32(i32),
    F32(f32),
}

/// How a launch is run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub seed: Option<u64>,
    pub late: bool,
    pub summation: Summation,
}

/// Ascending order and two drawn ones, with copies early and late.
pub fn schedules() -> Vec<Schedule> {
    let seeds = [None, Some(1), Some(2)];
    let schedule = |(seed, late)| Schedule { seed, late, summation: Summation::Exact };
    seeds.into_iter().flat_map(|seed| [(seed, false), (seed, true)]).map(schedule).collect()
}

/// A launch of a kernel of `tests/kernels`.
#[derive(Clone, Debug)]
pub struct Launch {
    file: String,
    entry: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: Vec<Arg>,
}

impl Launch {
    pub fn new(file: &str, entry: &'static str, grid: [u32; 3], threads: u32) -> Launch {
        Launch { file: file.to_string(), entry, grid, threads, shared: 0, args: Vec::new() }
    }

    /// Appends arguments.
    pub fn with<const N: usize>(mut self, args: [Arg; N]) -> Launch {
        self.args.extend(args);
        self
    }

    /// Adds dynamic shared memory.
    pub fn dynamic(mut self, bytes: u32) -> Launch {
        self.shared = bytes;
        self
    }

    /// The name of the PTX file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The PTX text.
    pub fn text(&self) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
        std::fs::read_to_string(folder.join(format!("{}.ptx", self.file))).unwrap()
    }

    /// The kernel's name.
    pub fn entry(&self) -> &str {
        self.entry
    }

    /// Runs the launch; the bytes of all buffers afterwards, with nothing for other arguments.
    pub fn run(&self, schedule: Schedule) -> Result<Vec<Vec<u8>>, Fault> {
        let arrival = if schedule.late { Arrival::Late } else { Arrival::Early };
        let Schedule { seed, summation, .. } = schedule;
        let options = Options { arrival, seed, summation, limit: 1 << 24, ..Options::default() };
        self.run_module(&Module::load(&self.text()).unwrap(), options).map(|(buffers, _)| buffers)
    }

    /// Runs the launch with another module; the buffers, and how many instructions it took.
    pub fn run_module(&self, module: &Module, options: Options) -> Result<(Vec<Vec<u8>>, u64), Fault> {
        let mut device = Simulator::new(options);
        let regions: Vec<Option<Region>> = self.args.iter().map(|arg| allocate(&mut device, arg)).collect();
        let mut launch = halfstep_ptx::Launch::new(self.entry, self.grid, [self.threads, 1, 1]);
        launch = launch.shared(self.shared);
        for (arg, region) in self.args.iter().zip(&regions) {
            launch = match (arg, *region) {
                (Arg::In(_), Some(region)) => launch.input(region),
                (Arg::Out(_), Some(region)) => launch.output(region),
                (Arg::InOut(_) | Arg::Scratch(_), Some(region)) => launch.input(region).writes(region),
                (Arg::Mapped(map, _), Some(region)) => {
                    let address = regions[map.buffer].unwrap().address;
                    launch.argument(Argument::Bytes(encoded(map, address))).reads(region)
                }
                (Arg::S32(value), _) => launch.argument(Argument::I32(*value)),
                (Arg::F32(value), _) => launch.argument(Argument::F32(*value)),
                (_, None) => unreachable!(),
            };
        }
        let counts = match device.launch(module, &launch) {
            Ok(counts) => counts,
            Err(LaunchError::Fault(fault)) => return Err(*fault),
            Err(other) => panic!("{}: {other}", self.file),
        };
        let bytes =
            |region: Option<Region>| region.map_or(Vec::new(), |region| device.bytes(region).unwrap());
        Ok((regions.into_iter().map(bytes).collect(), counts.instructions()))
    }
}

fn allocate(device: &mut Simulator, arg: &Arg) -> Option<Region> {
    match arg {
        Arg::In(bytes) | Arg::InOut(bytes) | Arg::Mapped(_, bytes) => {
            Some(device.allocate_from(bytes).unwrap())
        }
        Arg::Out(bytes) | Arg::Scratch(bytes) => Some(device.allocate(*bytes).unwrap()),
        Arg::S32(_) | Arg::F32(_) => None,
    }
}

fn encoded(map: &Map, address: u64) -> Vec<u8> {
    let Map { element_bytes, sizes, strides, tile, swizzle, .. } = map.clone();
    TensorMap { address, element_bytes, sizes, strides, tile, swizzle }.encode().unwrap().to_vec()
}

/// Runs a launch under every schedule: no fault, and the same bits. Returns the buffers.
#[track_caller]
pub fn every_schedule(launch: &Launch, summation: Summation) -> Vec<Vec<u8>> {
    let mut first: Option<Vec<Vec<u8>>> = None;
    for schedule in schedules() {
        let schedule = Schedule { summation, ..schedule };
        let buffers = launch.run(schedule).unwrap_or_else(|fault| panic!("{schedule:?}: {fault}"));
        match &first {
            None => first = Some(buffers),
            Some(first) => assert!(*first == buffers, "{}: other bits under {schedule:?}", launch.file),
        }
    }
    first.unwrap()
}

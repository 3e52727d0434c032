//! Runs a launch: its blocks one after another, the warps of a block in turns.

mod atomic;
mod barrier;
mod block;
mod coalesce;
mod copy;
mod lanes;
mod memory;
mod pure;
mod random;
mod step;
mod warp;

use std::collections::BTreeMap;

use block::{Turns, run_block};
use random::Random;
use warp::Budget;

use crate::fault::Fault;
use crate::machine::{Block, Copies, Counts, Products, Proxy, Registers, Settings, Shared, Warp, Watch};
use crate::memory::{Bytes, Clocks, LaunchMemory};
use crate::op::{Op, Program};
use crate::resolve::Special;

/// Instructions of a turn where turns are not drawn.
const LONG: u32 = 1 << 14;
/// Most instructions of a turn where they are.
const SHORT: u32 = 48;

/// A launch, checked.
pub(crate) struct Grid<'a> {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    /// Shared memory that the launch adds to that of the variables.
    pub dynamic_shared: u32,
    pub arguments: &'a [u8],
    pub constants: &'a [u8],
    pub settings: Settings,
    /// Draws the order of blocks and turns; in ascending order without.
    pub seed: Option<u64>,
    /// Most warp instructions.
    pub limit: u64,
    /// The blocks that run, where not all do.
    pub only: Option<&'a [u32]>,
}

/// Runs a launch.
///
/// # Errors
///
/// The first fault.
pub(crate) fn run(
    program: &Program,
    grid: &Grid,
    memory: &mut LaunchMemory,
    watch: Option<&mut dyn Watch>,
) -> Result<Counts, Box<Fault>> {
    let threads = grid.threads.iter().product::<u32>() as usize;
    let warp_count = threads.div_ceil(32);
    let mut warps: Vec<Warp> = (0..warp_count).map(|id| new_warp(program, id)).collect();
    let shared = (program.shared_bytes + grid.dynamic_shared) as usize;
    let granule = grid.settings.races.then_some(program.granules[0]);
    let mut shared = Shared::new(shared, granule);
    if program
        .code
        .iter()
        .any(|instruction| matches!(&instruction.op, Op::Tensor(operation) if operation.through_proxy()))
    {
        shared.proxy = Some(Proxy::new(shared.bytes.data.len()));
    }
    let mut block = Block {
        index: [0; 3],
        number: 0,
        threads: grid.threads,
        settings: grid.settings,
        memory,
        shared,
        clocks: Clocks::new(warp_count),
        barriers: Default::default(),
        sync: Default::default(),
        copies: vec![Copies::default(); warp_count],
        bulk: Default::default(),
        products: vec![Products::default(); warp_count],
        agreed: vec![Vec::new(); warp_count.div_ceil(4)],
        mbarriers: BTreeMap::new(),
        arguments: grid.arguments,
        constants: grid.constants,
        counts: Counts::default(),
        watch: match watch {
            Some(watch) => Some(watch),
            None => None,
        },
        progress: 0,
    };
    let mut random = Random::new(grid.seed.unwrap_or(0));
    let turns = match grid.seed {
        Some(_) => Turns { slice: SHORT, shuffled: true },
        None => Turns { slice: LONG, shuffled: false },
    };
    let blocks = grid.blocks.iter().product();
    let order: Box<dyn Iterator<Item = u32>> = match grid.seed {
        Some(_) => Box::new(random.order(blocks)),
        None => Box::new(0..blocks),
    };
    let mut budget = Budget { left: grid.limit, limit: grid.limit };
    let order = order.filter(|number| grid.only.is_none_or(|only| only.contains(number)));
    for number in order {
        begin(&mut block, number, grid);
        for warp in &mut warps {
            reset(program, grid, &block, warp, threads);
        }
        if let Some(watch) = &mut block.watch {
            watch.block(warp_count);
        }
        run_block(program, &mut warps, &mut block, turns, &mut random, &mut budget)?;
    }
    Ok(block.counts)
}

/// A warp that was not started.
fn new_warp(program: &Program, id: usize) -> Warp {
    let [bits32, bits64, predicates] = program.frame.sizes;
    Warp {
        id,
        registers: Registers::new(bits32, bits64, predicates),
        pc: [0; 32],
        live: 0,
        at_barrier: Default::default(),
        at_warp_barrier: 0,
        warp_barrier: [0; 32],
        yielded: 0,
        waits_at: None,
        local: Bytes::new(32 * program.local_bytes as usize),
        carry: 0,
    }
}

/// The state of a block at its start.
fn begin(block: &mut Block, number: u32, grid: &Grid) {
    let [x, y, _] = grid.blocks;
    block.number = number;
    block.index = [number % x, number / x % y, number / x / y];
    block.shared.reset();
    block.clocks.reset();
    block.barriers = Default::default();
    block.sync = Default::default();
    block.copies.fill(Copies::default());
    block.bulk = Default::default();
    block.products.fill(Products::default());
    block.agreed.iter_mut().for_each(Vec::clear);
    block.mbarriers.clear();
}

/// A warp at the start of a block.
fn reset(program: &Program, grid: &Grid, block: &Block, warp: &mut Warp, threads: usize) {
    let frame = &program.frame;
    warp.registers.reset();
    for (register, value) in &frame.constants32 {
        warp.registers.set32(*register, u32::MAX, &[*value; 32]);
    }
    for (register, value) in &frame.constants64 {
        warp.registers.set64(*register, u32::MAX, &[*value; 32]);
    }
    for (register, value) in &frame.constant_predicates {
        warp.registers.set_predicate(*register, u32::MAX, if *value { u32::MAX } else { 0 });
    }
    for (register, special) in &frame.specials {
        let values =
            std::array::from_fn(|lane| value(*special, program, grid, block.index, (warp.id, lane), threads));
        warp.registers.set32(*register, u32::MAX, &values);
    }
    warp.pc = [0; 32];
    warp.live = match threads - 32 * warp.id {
        32.. => u32::MAX,
        lanes => (1 << lanes) - 1,
    };
    warp.at_barrier = Default::default();
    warp.at_warp_barrier = 0;
    warp.yielded = 0;
    warp.waits_at = None;
    warp.carry = 0;
    warp.local.reset();
}

/// The value of a special register in a lane.
fn value(
    special: Special,
    program: &Program,
    grid: &Grid,
    index: [u32; 3],
    (warp, lane): (usize, usize),
    threads: usize,
) -> u32 {
    let linear = (32 * warp + lane) as u32;
    let [x, y, _] = grid.threads;
    let tid = [linear % x, linear / x % y, linear / x / y];
    let own = 1u32 << lane;
    match special {
        Special::Tid(axis) => tid[axis as usize],
        Special::Ntid(axis) => grid.threads[axis as usize],
        Special::Ctaid(axis) => index[axis as usize],
        Special::Nctaid(axis) => grid.blocks[axis as usize],
        Special::LaneId => lane as u32,
        Special::WarpId => warp as u32,
        Special::Nwarpid => threads.div_ceil(32) as u32,
        Special::LanemaskEq => own,
        Special::LanemaskLe => own | (own - 1),
        Special::LanemaskLt => own - 1,
        Special::LanemaskGe => !(own - 1),
        Special::LanemaskGt => !(own | (own - 1)),
        Special::DynamicShared => grid.dynamic_shared,
        Special::TotalShared => program.shared_bytes + grid.dynamic_shared,
        Special::Zero => 0,
        Special::One => 1,
    }
}

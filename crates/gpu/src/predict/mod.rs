//! How long a step would take on a GPU that is not at hand: an estimate from counts of the
//! simulated one.
//!
//! A kernel takes the longest of
//!
//! * the bytes that come from DRAM or go there ÷ its rate, with a cache of what was used last,
//! * the sectors of 32 bytes that it asks for ÷ the rate of L2,
//! * what the blocks of the busiest multiprocessor take of its schedulers and pipes, Tensor Cores
//!   with them,
//! * the time of one block by itself, times the waves of blocks: a kernel of few blocks with long
//!   loops is bound by the latency of its instructions, not by rates,
//!
//! and at least what a command in a graph takes. Blocks run the same code, so a few of each launch
//! are executed, over zeros and numbers that are 1, and stand for all.

pub mod card;

mod cache;
mod instruction;
mod pace;

use std::collections::HashMap;

use halfstep_graph::engine::EngineError;

use crate::command::{Action, Launch};
use crate::sim::{Recorded, SimulatedDevice};
use cache::Cache;
use card::{BLOCKS, Card, REGISTERS, SYSTEM_SHARED, THREADS};
use instruction::Costs;
use pace::{BlockCycles, Pace};

/// What ptxas says of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory that the kernel declares.
    pub shared: u32,
    /// Bytes that a thread stores for want of registers.
    pub spilled: u32,
}

/// What bounds a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// DRAM.
    Dram,
    /// The L2 cache.
    L2,
    /// Schedulers and pipes of multiprocessors: the busiest of them.
    Rate(&'static str),
    /// One block after another, each by itself.
    Latency,
    /// Being a command.
    Command,
}

/// The estimate for a command.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandTime {
    /// The node that it is for.
    pub at: String,
    /// The kernel, or `copy`.
    pub kernel: String,
    /// The step of the plan.
    pub step: Option<usize>,
    /// Blocks, those that a multiprocessor holds at a time, and threads of each.
    pub blocks: u64,
    /// Blocks that a multiprocessor holds at a time.
    pub resident: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Microseconds, without those of being a command.
    pub work_us: f64,
    /// What takes longest.
    pub bound: Bound,
}

/// The estimate for a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Its commands, in order.
    pub commands: Vec<CommandTime>,
    /// The longest chain of commands of which each waits for the one before, in microseconds.
    pub critical_us: f64,
    /// All commands one after another.
    pub sum_us: f64,
}

/// Cycles of a block of each launch that was executed, and its sectors.
type Known = HashMap<String, (BlockCycles, f64)>;

/// The estimate for what was last recorded for `device`, whose inputs are taken for indices below
/// `classes`, or for numbers near 0. `resources` tells what ptxas says of a
/// kernel, by its module and name.
///
/// # Errors
/// A kernel does what it may not do on the data that it is given here.
pub fn step(
    device: &SimulatedDevice,
    card: &Card,
    classes: u32,
    resources: &dyn Fn(usize, &str) -> Resources,
) -> Result<StepTime, EngineError> {
    let recorded =
        device.recorded().ok_or_else(|| EngineError::Unsupported("nothing was compiled".into()))?;
    let list = &recorded.commands.list;
    device.fill_inputs(&recorded, classes)?;
    let mut cache = Cache::new(card.l2_bytes);
    // The step before leaves what it used last.
    list.iter().for_each(|command| {
        cache.bytes(&command.action);
    });
    let mut known = Known::new();
    let mut commands = Vec::with_capacity(list.len());
    for command in list {
        let dram_bytes = cache.bytes(&command.action);
        let dram = dram_bytes / card.dram_bytes_per_us;
        let (at, step) = (command.at.clone(), command.step);
        commands.push(match &command.action {
            Action::Copy { .. } => CommandTime {
                at,
                kernel: "copy".into(),
                step,
                blocks: 1,
                resident: 1,
                threads: 1,
                work_us: dram,
                bound: Bound::Command,
            },
            Action::Launch(launch) => {
                let resources = resources(launch.kernel.module, &launch.kernel.entry);
                let asked: usize = launch.reads.iter().map(|span| span.bytes).sum();
                let share = (dram_bytes / asked.max(1) as f64).min(1.0);
                let sampled = Sampled { launch, at: &command.at, share };
                let (cycles, sectors) = sampled.of_a_block(device, &recorded, card, &mut known)?;
                let blocks = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
                let resident = resident(launch, resources, card);
                let (many, each) = (blocks as f64, card.multiprocessors);
                let times = [
                    (Bound::Dram, dram),
                    (Bound::L2, many * sectors * 32.0 / card.l2_bytes_per_us),
                    (Bound::Rate(cycles.busiest), (many / each).ceil() * cycles.shared / card.cycles_per_us),
                    (Bound::Latency, (many / each / resident).ceil() * cycles.alone / card.cycles_per_us),
                ];
                let longest = times.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
                let (bound, work_us) = longest.unwrap_or((Bound::Command, 0.0));
                let bound = if work_us < card.least_us { Bound::Command } else { bound };
                let (kernel, resident) = (launch.kernel.entry.clone(), resident as u64);
                CommandTime { at, kernel, step, blocks, resident, threads: launch.block, work_us, bound }
            }
        });
    }
    let time = |command: &CommandTime| command.work_us.max(card.least_us);
    let mut ends: Vec<f64> = Vec::with_capacity(commands.len());
    for (command, before) in commands.iter().zip(recorded.commands.dependencies()) {
        let start = before.into_iter().map(|i| ends[i]).fold(0.0, f64::max);
        ends.push(start + time(command));
    }
    let critical_us = ends.into_iter().fold(0.0, f64::max);
    let sum_us = commands.iter().map(time).sum();
    Ok(StepTime { commands, critical_us, sum_us })
}

/// Blocks of a launch that a multiprocessor holds at a time.
fn resident(launch: &Launch, resources: Resources, card: &Card) -> f64 {
    let threads = f64::from(launch.block.next_multiple_of(32));
    // Registers are given to warps in pieces of 256.
    let registers = f64::from(resources.registers.next_multiple_of(8)) * threads;
    let shared = f64::from(resources.shared + launch.shared) + SYSTEM_SHARED;
    let most = (THREADS / threads).min(REGISTERS / registers).min(card.shared_bytes / shared);
    most.min(BLOCKS).floor().max(1.0)
}

/// A launch of which a few blocks are executed.
struct Sampled<'a> {
    launch: &'a Launch,
    at: &'a str,
    /// Of the bytes that it reads, how many come from DRAM.
    share: f64,
}

impl Sampled<'_> {
    /// Cycles and sectors of a block.
    fn of_a_block(
        &self,
        device: &SimulatedDevice,
        recorded: &Recorded,
        card: &Card,
        known: &mut Known,
    ) -> Result<(BlockCycles, f64), EngineError> {
        let launch = self.launch;
        // Launches alike are executed once: where their memory lies does not matter.
        let sizes = launch.reads.iter().chain(&launch.writes).map(|span| span.bytes).collect::<Vec<_>>();
        let share = (4.0 * self.share).round() / 4.0;
        let key = format!("{:?} {:?} {} {sizes:?} {share}", launch.kernel, launch.grid, launch.block);
        if let Some(found) = known.get(&key) {
            return Ok(*found);
        }
        let blocks = launch.grid.iter().product::<u32>();
        let mut chosen = vec![0, blocks / 3, blocks * 2 / 3, blocks - 1];
        chosen.dedup();
        let count = chosen.len() as f64;
        let module = &recorded.modules[launch.kernel.module];
        let texts = module.texts(&launch.kernel.entry).into_iter().flatten();
        let costs = Costs::of(texts, card);
        let load = card.l2_latency + share * (card.dram_latency - card.l2_latency);
        let mut pace = Pace::new(&costs, card, load);
        let counts = device.sample(recorded, launch, self.at, chosen, &mut pace)?;
        let sectors = (counts.sectors_loaded + counts.sectors_stored) as f64;
        let found = (pace.of_a_block(counts.bank_conflicts as f64, 32.0 * sectors), sectors / count);
        known.insert(key, found);
        Ok(found)
    }
}

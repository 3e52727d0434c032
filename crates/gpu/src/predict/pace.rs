//! How long a block takes by itself: its instructions, each when its operands are there.
//!
//! Between two branches or barriers a warp's instructions start in the order in which their
//! operands arrive, as the compiler arranges them; a branch or barrier comes when all before it
//! have started. So loads of one turn of a loop overlap, and those of the next one come after what
//! needs the first.

use halfstep_ptx::Watch;

use super::card::{Card, SCHEDULERS};
use super::instruction::{Cost, Costs, PIPES, Pipe, Role};

/// Turns of a loop without branches that ptxas makes one of, where the text has them one by one.
const UNROLLED: usize = 4;

#[derive(Clone, Debug, Default)]
struct Warp {
    /// Cycle from which on instructions may start.
    begin: f64,
    /// Cycles of the scheduler since then.
    issued: f64,
    /// When the last one started.
    last: f64,
    /// When each register has its value.
    ready: Vec<f64>,
    /// When the copies arrive that are in no group yet, and the groups.
    copies: f64,
    groups: Vec<f64>,
    /// Barriers that it has come to, and whether it waits at the last one.
    barriers: usize,
    waits: bool,
    /// The last branch, and how often it came again with no other in between.
    branch: usize,
    turns: usize,
}

/// Watches the blocks of a launch.
pub(super) struct Pace<'a> {
    costs: &'a Costs,
    card: &'a Card,
    load: f64,
    warps: Vec<Warp>,
    /// When the last warp came to each barrier of the block.
    arrivals: Vec<f64>,
    blocks: f64,
    /// Cycles of all blocks, one after another.
    cycles: f64,
    slots: f64,
    busy: [f64; PIPES],
}

/// Of a block, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct BlockCycles {
    /// From its start to its end, if it is alone on the multiprocessor.
    pub alone: f64,
    /// That the multiprocessor's schedulers and pipes are taken, if others fill the gaps: those of
    /// the busiest.
    pub shared: f64,
    /// Which that is.
    pub busiest: &'static str,
}

impl std::fmt::Debug for Pace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pace of {} blocks", self.blocks)
    }
}

impl<'a> Pace<'a> {
    /// Loads take `load` cycles.
    pub fn new(costs: &'a Costs, card: &'a Card, load: f64) -> Pace<'a> {
        let (warps, arrivals) = (Vec::new(), Vec::new());
        Pace { costs, card, load, warps, arrivals, blocks: 0.0, cycles: 0.0, slots: 0.0, busy: [0.0; PIPES] }
    }

    fn count(&mut self, cost: &Cost) {
        self.slots += cost.slots;
        self.busy[cost.pipe as usize] += cost.busy;
    }

    fn end_block(&mut self) {
        self.cycles += self.warps.iter().map(|warp| warp.last).fold(0.0, f64::max);
    }

    /// Cycles of a block. Accesses to shared memory took `conflicts` passes more than one, and
    /// global memory moved `bytes`, in all blocks together.
    pub fn of_a_block(mut self, conflicts: f64, bytes: f64) -> BlockCycles {
        self.end_block();
        let each = |pipe: Pipe| (pipe.name(), self.busy[pipe as usize] / SCHEDULERS);
        let memory = self.busy[Pipe::Memory as usize] + conflicts;
        let pipes = [Pipe::Single, Pipe::Integer, Pipe::Function, Pipe::Double, Pipe::Tensor].map(each);
        let others = [
            (Pipe::Memory.name(), memory),
            ("schedulers", self.slots / SCHEDULERS),
            ("loads", bytes / self.card.fill_bytes),
        ];
        let all = pipes.into_iter().chain(others);
        let (busiest, cycles) = all.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("schedulers", 0.0));
        BlockCycles { alone: self.cycles / self.blocks, shared: cycles / self.blocks, busiest }
    }
}

impl<'a> Watch for Pace<'a> {
    fn block(&mut self, warps: usize) {
        self.end_block();
        self.blocks += 1.0;
        self.arrivals.clear();
        let warp = Warp { ready: vec![0.0; self.costs.registers], ..Warp::default() };
        self.warps = vec![warp; warps];
    }

    fn instruction(&mut self, warp: usize, instruction: usize) {
        let costs: &'a Costs = self.costs;
        let cost = &costs.list[instruction];
        let warp = &mut self.warps[warp];
        if std::mem::take(&mut warp.waits) {
            let open = self.arrivals[warp.barriers - 1] + self.card.barrier_latency;
            warp.begin = warp.begin.max(open);
            (warp.issued, warp.last) = (0.0, warp.begin);
        }
        let operands = cost.reads.iter().map(|&register| warp.ready[register]);
        let start = operands.fold(warp.begin + warp.issued, f64::max);
        let latency = if cost.loads { self.load } else { cost.latency };
        warp.issued += cost.slots;
        warp.last = warp.last.max(start);
        for &register in &cost.writes {
            warp.ready[register] = start + latency;
        }
        match cost.role {
            Role::Plain => {}
            Role::Branch => {
                // A loop of one piece, which ptxas unrolls.
                warp.turns = if warp.branch == instruction { warp.turns + 1 } else { 0 };
                warp.branch = instruction;
                if !warp.turns.is_multiple_of(UNROLLED) {
                    warp.issued += 1.0;
                    return self.count(cost);
                }
                warp.begin = warp.last + cost.latency;
                (warp.issued, warp.last) = (0.0, warp.begin);
            }
            Role::Barrier => {
                warp.begin = warp.last;
                warp.barriers += 1;
                warp.waits = true;
                self.arrivals.resize(self.arrivals.len().max(warp.barriers), 0.0);
                let arrival = &mut self.arrivals[warp.barriers - 1];
                *arrival = arrival.max(warp.last);
            }
            Role::Copy => warp.copies = warp.copies.max(start + latency),
            Role::Commit => warp.groups.push(std::mem::take(&mut warp.copies)),
            Role::Wait(left) => {
                let arrived = warp.groups.len().checked_sub(left + 1).map_or(0.0, |at| warp.groups[at]);
                warp.begin = warp.last.max(arrived);
                (warp.issued, warp.last) = (0.0, warp.begin);
            }
        }
        self.count(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::super::card::H100;
    use super::super::instruction::Costs;
    use super::{Pace, UNROLLED};
    use halfstep_ptx::Watch;

    /// Cycles of a block of some warps that all execute these instructions, by position.
    fn alone(texts: &[&str], warps: usize, order: &[usize]) -> f64 {
        let costs = Costs::of(texts.iter().copied(), &H100);
        let mut pace = Pace::new(&costs, &H100, 500.0);
        pace.block(warps);
        for warp in 0..warps {
            order.iter().for_each(|&at| pace.instruction(warp, at));
        }
        pace.of_a_block(0.0, 0.0).alone
    }

    #[test]
    fn what_needs_a_load_waits_for_it_and_other_loads_do_not() {
        let texts = [
            "ld.global.f32 %f1, [%rd1];",
            "ld.global.f32 %f2, [%rd2];",
            "add.rn.f32 %f3, %f1, %f2;",
            "ld.global.f32 %f4, [%rd4];",
            "@%p1 bra $L;",
            "add.rn.f32 %f5, %f4, %f4;",
        ];
        // Both loads are on their way together; the third comes with them.
        assert_eq!(alone(&texts, 1, &[0, 1, 2, 3, 4]), 501.0 + H100.branch_latency);
        // One behind a branch that comes after the sum has started does not.
        let ended = alone(&texts, 1, &[0, 1, 2, 4, 3, 5]);
        assert_eq!(ended, 2.0 * 500.0 + 1.0 + H100.branch_latency);
    }

    #[test]
    fn a_loop_of_one_piece_has_loads_of_several_turns_on_their_way() {
        let texts = ["ld.global.f32 %f1, [%rd1];", "add.rn.f32 %f2, %f2, %f1;", "@%p1 bra $L;"];
        let turns = |n: usize| alone(&texts, 1, &[0, 1, 2].repeat(n));
        let each = (turns(1 + 8 * UNROLLED) - turns(1)) / (8 * UNROLLED) as f64;
        assert!(each < 500.0 / 2.0 && each > 500.0 / UNROLLED as f64, "{each}");
    }

    #[test]
    fn a_barrier_waits_for_the_last_warp() {
        let texts =
            ["ld.shared.f32 %f1, [%r1];", "add.rn.f32 %f2, %f1, %f1;", "bar.sync 0;", "mov.u32 %r2, 0;"];
        let costs = Costs::of(texts.iter().copied(), &H100);
        let mut pace = Pace::new(&costs, &H100, 500.0);
        pace.block(2);
        [0, 1, 2].into_iter().for_each(|at| pace.instruction(0, at));
        pace.instruction(1, 2);
        pace.instruction(1, 3);
        assert_eq!(pace.of_a_block(0.0, 0.0).alone, H100.shared_latency + H100.barrier_latency);
    }

    #[test]
    fn a_wait_is_for_copies_of_older_groups() {
        let texts = [
            "cp.async.cg.shared.global [%r1], [%rd1], 16;",
            "cp.async.commit_group;",
            "cp.async.wait_group 1;",
            "cp.async.wait_all;",
        ];
        assert_eq!(alone(&texts, 1, &[0, 1, 2]), 2.0);
        assert_eq!(alone(&texts, 1, &[0, 1, 0, 1, 2]), 500.0);
        assert_eq!(alone(&texts, 1, &[0, 1, 0, 1, 2, 3]), 502.0);
    }
}

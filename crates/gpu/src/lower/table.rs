//! Launches over tables of tensors: what is done alike with many tensors is one launch.

use super::Call;
use crate::command::{Action, Argument, Command};

/// Elements of a tensor that a block works on.
const PART: usize = 4096;

/// Blocks that a tensor takes.
pub(super) fn parts(count: usize) -> usize {
    count.div_ceil(PART)
}

pub(super) fn number(n: usize) -> Argument {
    Argument::U32(n as u32)
}

/// Tables of a kernel: how many tensors there is room for, and bytes of an entry.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub room: usize,
    pub bytes: usize,
}

impl Table {
    /// A table as kernels declare it: the number of tensors and a word, and room for entries. The
    /// last member of an entry is the number of its first block.
    pub fn of(self, word: usize, entries: Vec<Argument>) -> Argument {
        let (tensors, rest) = (entries.len(), Argument::Zeros((self.room - entries.len()) * self.bytes));
        Argument::Struct(vec![number(tensors), number(word), Argument::Struct(entries), rest])
    }

    /// Adds the one tensor of `call`, whose last argument is a table, to that of an earlier launch
    /// of the same kernel with the same other arguments, if it has to wait for nothing from there
    /// on. Says whether it did.
    pub fn join(self, commands: &mut [Command], call: &Call) -> bool {
        let action = Action::Launch(call.0.clone());
        for before in commands.iter_mut().rev() {
            if before.action.conflicts(&action) {
                return false;
            }
            if let Action::Launch(launch) = &mut before.action
                && launch.kernel == call.0.kernel
                && let Some((table, others)) = launch.arguments.split_last_mut()
                && let Some((new, new_others)) = call.0.arguments.split_last()
                && *others == *new_others
                && self.add(table, new, launch.grid[0])
            {
                launch.grid[0] += call.0.grid[0];
                launch.reads.extend(&call.0.reads);
                launch.writes.extend(&call.0.writes);
                return true;
            }
        }
        false
    }

    /// Adds the entry of one table to another, with its first block, if there is room.
    fn add(self, table: &mut Argument, new: &Argument, first: u32) -> bool {
        let (Argument::Struct(table), Argument::Struct(new)) = (table, new) else { return false };
        let (
            [Argument::U32(tensors), _, Argument::Struct(entries), Argument::Zeros(rest)],
            [_, _, Argument::Struct(new), _],
        ) = (&mut table[..], &new[..])
        else {
            return false;
        };
        let [Argument::Struct(entry)] = &new[..] else { return false };
        if *rest == 0 {
            return false;
        }
        let mut entry = entry.clone();
        if let Some(block) = entry.last_mut() {
            *block = Argument::U32(first);
        }
        *tensors += 1;
        *rest -= self.bytes;
        entries.push(Argument::Struct(entry));
        true
    }
}

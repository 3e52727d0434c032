//! Launches over tables of tensors: what is done alike with many tensors is one launch.

use super::Call;
use crate::command::{Action, Argument, Command, Launch};

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

    /// Whether there is room for one more entry in a table that was made by [`Table::of`].
    pub fn has_room(self, table: &Argument) -> bool {
        matches!(table, Argument::Struct(members) if matches!(members[..], [.., Argument::Zeros(1..)]))
    }

    /// Adds an entry to a table that has room for it.
    pub fn add(self, table: &mut Argument, entry: Argument) {
        if let Argument::Struct(members) = table
            && let [Argument::U32(tensors), _, Argument::Struct(entries), Argument::Zeros(rest)] =
                &mut members[..]
        {
            *tensors += 1;
            *rest -= self.bytes;
            entries.push(entry);
        }
    }

    /// Joins the one tensor of `call`, whose last argument is a table, with an earlier launch of
    /// the same kernel with the same other arguments, if nothing between has to be waited for.
    /// Says whether it did.
    pub fn join(self, commands: &mut Vec<Command>, call: &Call) -> bool {
        let Some((Argument::Struct(new), others)) = call.0.arguments.split_last() else { return false };
        let [_, _, Argument::Struct(entries), _] = &new[..] else { return false };
        let [Argument::Struct(entry)] = &entries[..] else { return false };
        let is_like = |launch: &Launch| {
            let (table, same) = match launch.arguments.split_last() {
                Some((table, before)) => (table, before == others),
                None => return false,
            };
            launch.kernel == call.0.kernel && same && self.has_room(table)
        };
        let Some((at, place)) = place_for(commands, call, is_like) else { return false };
        let mut command = commands.remove(at);
        if let Action::Launch(launch) = &mut command.action
            && let Some(table) = launch.arguments.last_mut()
        {
            let mut entry = entry.clone();
            if let Some(first) = entry.last_mut() {
                *first = Argument::U32(launch.grid[0]);
            }
            self.add(table, Argument::Struct(entry));
            launch.grid[0] += call.0.grid[0];
            launch.reads.extend(&call.0.reads);
            launch.writes.extend(&call.0.writes);
        }
        match place {
            At::Earlier => commands.insert(at, command),
            At::Later => commands.push(command),
        }
        true
    }
}

/// Where two launches become one: at the place of the earlier one, or of the later one.
pub(super) enum At {
    Earlier,
    Later,
}

/// The last command that is a launch like `call`, which follows all of them, and where both can run
/// as one: where none of those between conflicts with the one that moves.
pub(super) fn place_for(
    commands: &[Command],
    call: &Call,
    is_like: impl Fn(&Launch) -> bool,
) -> Option<(usize, At)> {
    let action = Action::Launch(call.0.clone());
    let like = |command: &Command| matches!(&command.action, Action::Launch(launch) if is_like(launch));
    let at = commands.iter().rposition(like)?;
    let (found, between) = (&commands[at].action, &commands[at + 1..]);
    let moves = |moving: &Action| between.iter().all(|other| !other.action.conflicts(moving));
    match () {
        () if found.conflicts(&action) => None,
        () if moves(&action) => Some((at, At::Earlier)),
        () if moves(found) => Some((at, At::Later)),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{At, place_for};
    use crate::command::{Action, Command, Kernel, Launch, Region, Span};
    use crate::lower::Call;

    fn launch(entry: &str, reads: usize, writes: usize) -> Launch {
        let span = |offset| vec![Span { region: Region::Arena, offset, bytes: 4 }];
        let kernel = Kernel { module: 0, entry: entry.into() };
        let (reads, writes) = (span(reads), span(writes));
        Launch { kernel, grid: [1; 3], block: 32, shared: 0, arguments: Vec::new(), reads, writes }
    }

    /// Where a launch of `a` joins the first of these.
    fn found(list: &[(&str, usize, usize)], (reads, writes): (usize, usize)) -> Option<(usize, bool)> {
        let command = |&(entry, reads, writes): &(&str, usize, usize)| Command {
            action: Action::Launch(launch(entry, reads, writes)),
            at: String::new(),
            step: None,
        };
        let list: Vec<Command> = list.iter().map(command).collect();
        let place = place_for(&list, &Call(launch("a", reads, writes)), |other| other.kernel.entry == "a");
        place.map(|(at, place)| (at, matches!(place, At::Earlier)))
    }

    #[test]
    fn launches_become_one_where_no_other_has_to_come_between() {
        assert_eq!(found(&[("a", 0, 4), ("b", 8, 12)], (16, 20)), Some((0, true)));
        // It reads what the one between makes, so that the earlier one comes later.
        assert_eq!(found(&[("a", 0, 4), ("b", 8, 12)], (12, 20)), Some((0, false)));
        // The one between reads what the earlier one makes, or writes over what that reads.
        assert_eq!(found(&[("a", 0, 4), ("b", 4, 12)], (12, 20)), None);
        assert_eq!(found(&[("a", 0, 4), ("b", 8, 0), ("c", 0, 24)], (24, 20)), None);
        // It reads what the earlier one makes, or writes over it.
        assert_eq!(found(&[("a", 0, 4)], (4, 20)), None);
        assert_eq!(found(&[("a", 0, 4)], (16, 4)), None);
        assert_eq!(found(&[("b", 0, 4)], (16, 20)), None);
    }
}

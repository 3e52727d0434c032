//! Changes to a kernel that a run has to notice: each barrier, wait, fence and guard is taken out
//! of its PTX, one at a time. A guard is what the PTX ISA calls a guard predicate: the `@p` in
//! front of any instruction. Of a branch it is taken out in two ways, so that all take it and that
//! none does.
//!
//! What goes unnoticed is either not needed, or is needed for what the runs do not show: other
//! sizes, other inputs, or a fault that is not looked for.

use std::collections::HashMap;

use crate::module::Module;
use crate::simulator::Options;

/// Opcodes that order what threads do.
const ORDERS: &[&str] = &[
    "bar.",
    "barrier.",
    "membar",
    "fence.",
    "cp.async.wait",
    "cp.async.commit",
    "cp.async.bulk.wait",
    "cp.async.bulk.commit",
    "wgmma.fence",
    "wgmma.wait",
    "wgmma.commit",
];

/// A line of PTX, and what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The line, from 1.
    pub line: usize,
    /// What it was.
    pub was: String,
    /// What is done with it, the line, and what made its guard, without numbers of registers and
    /// labels: the same for the same code in other places of other versions of a kernel.
    pub kind: String,
    instead: String,
    /// Traps where the change makes a difference; none where it always may.
    trap: Option<String>,
}

impl Change {
    /// The text with the change.
    pub fn apply(&self, text: &str) -> String {
        self.with(text, &self.instead)
    }

    /// The text that traps where the change would make a difference.
    fn probe(&self, text: &str) -> Option<String> {
        self.trap.as_ref().map(|trap| self.with(text, &format!("{trap} {}", self.was)))
    }

    fn with(&self, text: &str, instead: &str) -> String {
        let line = |(at, line)| if at + 1 == self.line { instead } else { line };
        text.lines().enumerate().flat_map(|numbered| [line(numbered), "\n"]).collect()
    }
}

/// The changes to one kernel of a module.
pub fn changes(text: &str, kernel: &str) -> Vec<Change> {
    let head = format!(".entry {kernel}(");
    let begins = |line: &str| line.contains(".entry ") || line.contains(".func ");
    let (mut inside, mut numbers) = (false, HashMap::<&str, usize>::new());
    let (mut all, mut made) = (Vec::new(), HashMap::new());
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if begins(line) {
            inside = line.contains(&head);
        } else if inside {
            let (guard, rest) = guard_of(line);
            for Replacement { done, instead, trap } in replacements(line) {
                let number = ORDERS.iter().find(|order| rest.starts_with(**order)).map(|order| {
                    let number = numbers.entry(order).or_insert(0);
                    *number += 1;
                    format!(" number {number}")
                });
                let number = number.unwrap_or_default();
                let origins = guard.map_or(String::new(), |guard| origins(&made, guard, 3));
                let kind = format!("{done}: {}{number}{origins}", without_numbers(line));
                all.push(Change { line: at + 1, was: line.to_string(), kind, instead, trap });
            }
            made.extend(registers(rest).next().map(|register| (register, rest)));
        }
    }
    all
}

/// The guard of an instruction, and what follows it.
fn guard_of(line: &str) -> (Option<&str>, &str) {
    let guarded = line.strip_prefix('@').and_then(|line| line.split_once(char::is_whitespace));
    guarded.map_or((None, line), |(guard, rest)| (Some(guard), rest.trim()))
}

/// The registers in a text, in order.
fn registers(text: &str) -> impl Iterator<Item = &str> {
    let of = |part: &str| part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
    text.match_indices('%').map(move |(at, _)| &text[at..at + 1 + of(&text[at + 1..])])
}

/// What made a register, what made the operands of that, and so on, `depth` deep.
fn origins(made: &HashMap<&str, &str>, of: &str, depth: usize) -> String {
    let Some(line) = made.get(of.trim_start_matches('!')) else { return String::new() };
    let operands = registers(line).skip(1).filter(|_| depth > 1);
    let further: String = operands.map(|register| origins(made, register, depth - 1)).collect();
    format!(" < {}{further}", without_numbers(line))
}

/// A line without the numbers of its registers and labels.
fn without_numbers(line: &str) -> String {
    let word = |word: &str| match word.find(['%', '$']) {
        Some(at) => {
            let name = &word[at + 1..];
            let end = name.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(name.len());
            format!("{}{}", &word[..at + 1], &name[..end])
        }
        None => word.trim_end_matches([',', ';']).to_string(),
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// What may stand in place of a line.
struct Replacement {
    /// What is done with the line.
    done: &'static str,
    instead: String,
    /// Traps where that makes a difference.
    trap: Option<String>,
}

fn replacements(line: &str) -> Vec<Replacement> {
    let (guard, rest) = guard_of(line);
    if let Some(rest) = rest.strip_prefix("mbarrier.try_wait") {
        // The wait is over at once.
        let predicate = rest.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(',');
        let instead = format!("setp.eq.u32 {predicate}, 0, 0;");
        return vec![Replacement { done: "removed", instead, trap: None }];
    }
    if ORDERS.iter().any(|order| rest.starts_with(order)) {
        return vec![Replacement { done: "removed", instead: String::new(), trap: None }];
    }
    let Some(guard) = guard else { return Vec::new() };
    let negated = guard.strip_prefix('!').map_or(format!("!{guard}"), str::to_string);
    // Executed by all, where some are not to; a branch also by none, where some are to.
    let trap = Some(format!("@{negated} trap;"));
    let mut all = vec![Replacement { done: "always", instead: rest.to_string(), trap }];
    if rest.starts_with("bra") {
        let trap = Some(format!("@{guard} trap;"));
        all.push(Replacement { done: "never", instead: String::new(), trap });
    }
    all
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It ended, with this result, after at most so many instructions of one launch.
    Ended(T, u64),
    /// The kernel executed `trap`.
    Trapped,
    /// Another fault was found.
    Failed,
}

/// What became of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many were tried: those that make a difference.
    pub tried: usize,
    /// Those that led to no fault, and to the results of the kernel as it is.
    pub unnoticed: Vec<Change>,
}

/// Tries changes of the module that has this text: each is run as each of `schedules` says, until
/// something is noticed. `None` if the kernel itself does not run to its end.
pub fn survey<T: PartialEq>(
    text: &str,
    changes: &[Change],
    schedules: &[Options],
    mut run: impl FnMut(&Module, Options) -> Outcome<T>,
) -> Option<Survey> {
    let mut outcome = |text: &str, options| Module::load(text).map(|module| run(&module, options));
    let first = *schedules.first()?;
    let Ok(Outcome::Ended(expected, steps)) = outcome(text, first) else { return None };
    let mut survey = Survey::default();
    for change in changes {
        // What the change would change may not happen in these runs.
        let probe = change.probe(text);
        if probe.is_some_and(|text| !matches!(outcome(&text, first), Ok(Outcome::Trapped))) {
            continue;
        }
        survey.tried += 1;
        let text = change.apply(text);
        let same = |options: &Options| {
            let options = Options { limit: options.limit.min(2 * steps), ..*options };
            matches!(outcome(&text, options), Ok(Outcome::Ended(result, _)) if result == expected)
        };
        if schedules.iter().all(same) {
            survey.unnoticed.push(change.clone());
        }
    }
    Some(survey)
}

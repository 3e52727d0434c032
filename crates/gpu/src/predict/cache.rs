//! What of the bytes that commands read and write has to come from DRAM: a cache of the least
//! recently used pages.

use std::collections::{BTreeMap, HashMap};

use crate::command::{Action, Region, Span};

/// Bytes of a page: coarse enough to be quick, fine enough for the tensors that matter.
const PAGE: usize = 16 << 10;

type Page = (Region, usize);

/// The pages that L2 holds.
pub(super) struct Cache {
    room: usize,
    clock: u64,
    /// When each page was used last, and whether it was written since it came.
    used: HashMap<Page, (u64, bool)>,
    by_time: BTreeMap<u64, Page>,
}

impl Cache {
    pub fn new(bytes: usize) -> Cache {
        Cache { room: bytes / PAGE, clock: 0, used: HashMap::new(), by_time: BTreeMap::new() }
    }

    /// Bytes that DRAM moves for a command.
    pub fn bytes(&mut self, action: &Action) -> f64 {
        let read: usize = action.reads().iter().map(|span| self.touch(span, false)).sum();
        let written: usize = action.writes().iter().map(|span| self.touch(span, true)).sum();
        (read + written) as f64
    }

    fn touch(&mut self, span: &Span, write: bool) -> usize {
        let end = (span.offset + span.bytes).div_ceil(PAGE);
        (span.offset / PAGE..end).map(|page| self.page((span.region, page), write)).sum()
    }

    fn page(&mut self, page: Page, write: bool) -> usize {
        self.clock += 1;
        self.by_time.insert(self.clock, page);
        let mut moved = 0;
        match self.used.insert(page, (self.clock, write)) {
            Some((before, dirty)) => {
                self.by_time.remove(&before);
                self.used.insert(page, (self.clock, write || dirty));
            }
            // What is written whole is not read before.
            None if !write => moved += PAGE,
            None => {}
        }
        if self.used.len() > self.room
            && let Some((_, oldest)) = self.by_time.pop_first()
            && let Some((_, true)) = self.used.remove(&oldest)
        {
            moved += PAGE;
        }
        moved
    }
}

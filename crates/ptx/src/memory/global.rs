//! Global memory: allocations, and what of them one launch may touch.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::bits::Bytes;
use super::clock::Vector;
use super::shadow::{Conflict, Order, Shadow, Strength, Thread};
use super::window::GLOBAL_WINDOW;
use crate::fault::{Access, Cause, Space};

/// Largest size of an allocation: the windows of two are this far apart.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;

/// The allocations of a device. The first window belongs to the variables of a module.
#[derive(Debug)]
pub(crate) struct Global {
    allocations: Vec<Option<Bytes>>,
}

impl Global {
    /// No allocation, and no variables.
    pub fn new() -> Global {
        Global { allocations: vec![None] }
    }

    /// Allocates, and returns the address. Its window is never used again.
    pub fn allocate(&mut self, bytes: Bytes) -> u64 {
        self.allocations.push(Some(bytes));
        GLOBAL_WINDOW + (self.allocations.len() as u64 - 1) * WINDOW_BYTES
    }

    /// The variables of the module that runs next.
    pub fn variables(&mut self) -> &mut Option<Bytes> {
        &mut self.allocations[0]
    }

    /// Frees the allocation at an address, if there is one.
    pub fn free(&mut self, address: u64) -> bool {
        slot_of(address).and_then(|slot| self.allocations.get_mut(slot)?.take()).is_some()
    }

    /// The allocation that an address lies in, and the offset there.
    pub fn find(&mut self, address: u64) -> Option<(&mut Bytes, usize)> {
        let bytes = self.allocations.get_mut(slot_of(address)?)?.as_mut()?;
        let offset = (address % WINDOW_BYTES) as usize;
        (offset <= bytes.data.len()).then_some((bytes, offset))
    }
}

fn slot_of(address: u64) -> Option<usize> {
    Some((address.checked_sub(GLOBAL_WINDOW)? / WINDOW_BYTES) as usize)
}

/// How a launch touches a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    pub read: bool,
    pub write: bool,
}

/// A range of global memory that a launch declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub address: u64,
    pub bytes: u64,
    pub touch: Touch,
}

/// A piece of an allocation that is touched in one way.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    end: u64,
    touch: Touch,
    slot: usize,
}

/// Global memory as one launch sees it.
#[derive(Debug)]
pub(crate) struct LaunchMemory<'a> {
    global: &'a mut Global,
    pieces: Vec<Piece>,
    /// The piece that was touched last.
    last: usize,
    /// Shadows of what the launch writes, by slot, with the offset that they begin at.
    shadows: HashMap<usize, (usize, Shadow)>,
    /// What blocks let others know through an address: each by its number.
    pub published: HashMap<u64, BTreeMap<u32, Vector>>,
}

impl<'a> LaunchMemory<'a> {
    /// Memory of a launch that declares `spans`, each inside an allocation. With a `granule`, the
    /// bytes of an access at least, races are looked for.
    pub fn new(global: &'a mut Global, spans: &[Span], granule: Option<usize>) -> LaunchMemory<'a> {
        let mut pieces = pieces(spans);
        if let Some(bytes) = &global.allocations[0] {
            let touch = Touch { read: true, write: true };
            let end = GLOBAL_WINDOW + bytes.data.len() as u64;
            pieces.insert(0, Piece { start: GLOBAL_WINDOW, end, touch, slot: 0 });
        }
        let mut shadows = HashMap::new();
        if let Some(granule) = granule {
            let mut written: BTreeMap<usize, Range<usize>> = BTreeMap::new();
            for piece in pieces.iter().filter(|piece| piece.touch.write) {
                let base = GLOBAL_WINDOW + piece.slot as u64 * WINDOW_BYTES;
                let [start, end] = [piece.start, piece.end].map(|at| (at - base) as usize);
                let range = written.entry(piece.slot).or_insert(start..end);
                *range = range.start.min(start)..range.end.max(end);
            }
            for (slot, Range { start, end }) in written {
                let start = start / granule * granule;
                shadows.insert(slot, (start, Shadow::new(end - start, granule)));
            }
        }
        LaunchMemory { global, pieces, last: 0, shadows, published: HashMap::new() }
    }

    /// Checks an access, and returns where it lies: slot and offset.
    #[inline]
    pub fn locate(&mut self, address: u64, bytes: u32, access: Access) -> Result<(usize, usize), Cause> {
        let end = address.wrapping_add(u64::from(bytes));
        let fits = |piece: &Piece| {
            address >= piece.start
                && end <= piece.end
                && end >= address
                && match access {
                    Access::Read => piece.touch.read,
                    Access::Write | Access::Copy => piece.touch.write,
                    Access::Atomic => piece.touch.read && piece.touch.write,
                }
        };
        let piece = match self.pieces.get(self.last) {
            Some(piece) if fits(piece) => *piece,
            _ => match self.pieces.iter().position(fits) {
                Some(at) => {
                    self.last = at;
                    self.pieces[at]
                }
                None => return Err(self.outside(address, bytes, access)),
            },
        };
        Ok((piece.slot, (address % WINDOW_BYTES) as usize))
    }

    /// Why an access is outside of what the launch declared.
    #[cold]
    fn outside(&self, address: u64, bytes: u32, access: Access) -> Cause {
        let end = address.saturating_add(u64::from(bytes));
        let touched = |piece: &&Piece| address >= piece.start && end <= piece.end;
        let why = match slot_of(address).and_then(|slot| self.global.allocations.get(slot)) {
            None => "no address that was ever allocated",
            Some(None) => "that memory was freed",
            Some(Some(_)) if self.pieces.iter().find(touched).is_some() => {
                "the launch declares it for the other direction only"
            }
            Some(Some(held)) if address % WINDOW_BYTES + u64::from(bytes) > held.data.len() as u64 => {
                "it runs over the end of the allocation"
            }
            Some(Some(_)) => "the launch does not declare it",
        };
        Cause::OutOfBounds { space: Space::Global, access, address, bytes, why }
    }

    /// The bytes of a slot that `locate` returned.
    #[inline]
    pub fn bytes(&mut self, slot: usize) -> &mut Bytes {
        self.global.allocations[slot].as_mut().expect("located")
    }

    /// Whether races are looked for where an access was located last: what nobody may write has
    /// none.
    #[inline]
    pub fn watched(&self) -> bool {
        self.pieces[self.last].touch.write && !self.shadows.is_empty()
    }

    /// Notes an access for the search for races.
    #[inline]
    pub fn touch(
        &mut self,
        (slot, at): (usize, usize),
        bytes: usize,
        access: Access,
        strength: Strength,
        who: Thread,
        order: &Order,
    ) -> Result<(), Conflict> {
        if !self.watched() {
            return Ok(());
        }
        match self.shadows.get_mut(&slot) {
            Some((start, shadow)) => {
                shadow.touch(at - *start..at + bytes - *start, access, strength, who, order)
            }
            None => Ok(()),
        }
    }
}

/// The spans as pieces that do not overlap, each with all that is declared for it; neighbours that
/// are touched alike are one piece.
fn pieces(spans: &[Span]) -> Vec<Piece> {
    let mut borders: Vec<u64> = spans.iter().flat_map(|s| [s.address, s.address + s.bytes]).collect();
    borders.sort_unstable();
    borders.dedup();
    let mut pieces: Vec<Piece> = Vec::new();
    for border in borders.windows(2) {
        let (start, end) = (border[0], border[1]);
        let covers = |s: &&Span| s.address <= start && end <= s.address + s.bytes;
        let mut here = spans.iter().filter(covers).map(|s| s.touch).peekable();
        if here.peek().is_none() {
            continue;
        }
        let touch = here.fold(Touch { read: false, write: false }, |a, b| Touch {
            read: a.read || b.read,
            write: a.write || b.write,
        });
        let slot = slot_of(start).expect("spans lie in global memory");
        match pieces.last_mut() {
            Some(last) if last.end == start && last.touch == touch && last.slot == slot => {
                last.end = end;
            }
            _ => pieces.push(Piece { start, end, touch, slot }),
        }
    }
    pieces
}

//! The memory a program works in: spans of regions, borrowed for a step.
//!
//! The only place where the plan's offsets become slices. [`Frame::borrow`] checks that what is
//! written overlaps nothing else that is borrowed, so a wrong plan is a panic and never a data
//! race.

use halfstep_graph::DType;

use crate::elements::{Dst, Elements, Src};
use crate::region::Region;

/// The elements of `$count` in the type of `$dtype` from `$at` on, as slices that `$slice` makes.
macro_rules! slices {
    ($view:ident, $slice:path, $dtype:expr, $at:expr, $count:expr) => {
        match $dtype {
            DType::F32 => $view::Float(Elements::F32($slice($at.cast(), $count))),
            DType::Bf16 => $view::Float(Elements::Bf16($slice($at.cast(), $count))),
            DType::F16 => $view::Float(Elements::F16($slice($at.cast(), $count))),
            DType::E4m3 => $view::Float(Elements::E4m3($slice($at, $count))),
            DType::E5m2 => $view::Float(Elements::E5m2($slice($at, $count))),
            DType::I32 => $view::I32($slice($at.cast(), $count)),
            DType::U8 => $view::U8($slice($at, $count)),
        }
    };
}

/// Calls `$body` with the elements of both views, which have the same type: bits are moved, not
/// read.
macro_rules! same_type {
    ($x:expr, $y:expr, |$a:ident, $b:ident| $body:expr) => {
        match ($x, $y) {
            (View::Float(x), ViewMut::Float(y)) => match (x, y) {
                (Elements::F32($a), Elements::F32($b)) => $body,
                (Elements::Bf16($a), Elements::Bf16($b)) | (Elements::F16($a), Elements::F16($b)) => $body,
                (Elements::E4m3($a), Elements::E4m3($b)) | (Elements::E5m2($a), Elements::E5m2($b)) => $body,
                _ => unreachable!("types were compared when the program was compiled"),
            },
            (View::I32($a), ViewMut::I32($b)) => $body,
            (View::U8($a), ViewMut::U8($b)) => $body,
            _ => unreachable!("types were compared when the program was compiled"),
        }
    };
}
pub(crate) use same_type;

/// Spans as slices. Here and in [`Frame::borrow`] the plan's offsets become addresses.
impl Region {
    /// Where a span begins.
    ///
    /// # Panics
    /// If it does not lie inside.
    fn at(&self, span: Span) -> *mut u8 {
        assert!(span.offset.is_multiple_of(span.dtype.bytes()), "{span:?} is not aligned");
        self.place(span.offset, span.bytes())
    }

    /// The elements of a span.
    pub fn view(&self, span: Span) -> View<'_> {
        let at = self.at(span);
        // SAFETY: inside the region and aligned; every bit pattern is a value of these types.
        unsafe { slices!(View, std::slice::from_raw_parts, span.dtype, at, span.count) }
    }

    /// The elements of a span, to write.
    pub fn view_mut(&mut self, span: Span) -> ViewMut<'_> {
        // SAFETY: `self` is borrowed mutably as long as the result.
        unsafe { self.slice_mut(span) }
    }

    /// # Safety
    /// While the result is in use, nobody else reads or writes the span.
    unsafe fn slice_mut<'a>(&self, span: Span) -> ViewMut<'a> {
        let at = self.at(span);
        // SAFETY: as for `view`; the caller vouches for exclusive access.
        unsafe { slices!(ViewMut, std::slice::from_raw_parts_mut, span.dtype, at, span.count) }
    }
}

/// Which region a span lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Arena,
    Slots,
    Constants,
    Outputs,
}

/// Some elements of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub place: Where,
    /// In bytes, aligned to the element.
    pub offset: usize,
    /// Number of elements.
    pub count: usize,
    pub dtype: DType,
}

impl Span {
    pub fn bytes(&self) -> usize {
        self.count * self.dtype.bytes()
    }

    fn overlaps(&self, other: &Span) -> bool {
        self.place == other.place
            && self.offset < other.offset + other.bytes()
            && other.offset < self.offset + self.bytes()
    }
}

/// The regions while a program runs.
pub(crate) struct Frame<'a> {
    pub arena: &'a mut Region,
    pub slots: &'a mut Region,
    pub constants: &'a mut Region,
    pub outputs: &'a mut Region,
}

/// Elements to read.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Float(Src<'a>),
    I32(&'a [i32]),
    U8(&'a [u8]),
}

/// Elements to write.
pub(crate) enum ViewMut<'a> {
    Float(Dst<'a>),
    I32(&'a mut [i32]),
    U8(&'a mut [u8]),
}

impl Frame<'_> {
    /// Slices for these spans.
    ///
    /// # Panics
    /// If a span lies outside its region, or one that is written overlaps another: the plan is
    /// wrong then.
    pub fn borrow<const R: usize, const W: usize>(
        &mut self,
        reads: [Span; R],
        writes: [Span; W],
    ) -> ([View<'_>; R], [ViewMut<'_>; W]) {
        for (i, w) in writes.iter().enumerate() {
            let clash = reads.iter().chain(&writes[..i]).find(|other| w.overlaps(other));
            assert!(clash.is_none(), "{w:?} is written while {clash:?} is in use");
        }
        let region = |span: &Span| -> &Region {
            match span.place {
                Where::Arena => self.arena,
                Where::Slots => self.slots,
                Where::Constants => self.constants,
                Where::Outputs => self.outputs,
            }
        };
        // SAFETY: what is written overlaps nothing else; the result borrows `self` mutably.
        let write = |span: Span| unsafe { region(&span).slice_mut(span) };
        (reads.map(|span| region(&span).view(span)), writes.map(write))
    }

    /// Slices of one span.
    pub fn read(&mut self, span: Span) -> View<'_> {
        let ([view], []) = self.borrow([span], []);
        view
    }

    /// The number in a span of one.
    pub fn scalar(&mut self, span: Span) -> f32 {
        match self.read(span) {
            View::Float(Src::F32([x])) => *x,
            _ => unreachable!("{span:?} is not a scalar: the graph's shape rules say it is"),
        }
    }
}

impl<'a> View<'a> {
    pub fn src(self) -> Src<'a> {
        match self {
            View::Float(x) => x,
            View::I32(_) | View::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn f32(self) -> &'a [f32] {
        match self {
            View::Float(Src::F32(x)) => x,
            _ => unreachable!("the precision plan keeps statistics and state in f32"),
        }
    }

    pub fn i32(self) -> &'a [i32] {
        match self {
            View::I32(x) => x,
            _ => unreachable!("shape rules want an integer here"),
        }
    }
}

impl<'a> ViewMut<'a> {
    pub fn dst(self) -> Dst<'a> {
        match self {
            ViewMut::Float(x) => x,
            ViewMut::I32(_) | ViewMut::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn f32(self) -> &'a mut [f32] {
        match self {
            ViewMut::Float(Dst::F32(x)) => x,
            _ => unreachable!("the precision plan keeps statistics and state in f32"),
        }
    }

    /// Copies elements of the same type; both have the same number.
    pub fn copy_from(self, from: View<'_>) {
        same_type!(from, self, |from, to| to.copy_from_slice(from));
    }

    /// Codes of a table.
    pub fn codes(self) -> &'a mut [u8] {
        match self {
            ViewMut::U8(x) => x,
            _ => unreachable!("shape rules want codes here"),
        }
    }

    /// bf16 codes.
    pub fn bf16(self) -> &'a mut [u16] {
        match self {
            ViewMut::Float(Dst::Bf16(x)) => x,
            _ => unreachable!("shape rules want bf16 here"),
        }
    }

    /// Integers as unsigned words.
    pub fn words(self) -> &'a mut [u32] {
        let x = self.i32();
        // SAFETY: i32 and u32 have the same size, alignment and valid bit patterns.
        unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
    }

    pub fn i32(self) -> &'a mut [i32] {
        match self {
            ViewMut::I32(x) => x,
            _ => unreachable!("shape rules want an integer here"),
        }
    }
}

//! The memory a program works in: spans of regions, borrowed for a step.
//!
//! The only place where the plan's offsets become slices. [`Frame::borrow`] checks that what is
//! written overlaps nothing else that is borrowed, so a wrong plan is a panic and never a data
//! race.

use halfstep_graph::DType;

use crate::gemm::{Data, DataMut};
use crate::region::Region;
use crate::rows::storage::{Dst, Src};

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
        let (at, n) = (self.at(span), span.count);
        // SAFETY: inside the region and aligned; every bit pattern is a value of these types.
        unsafe {
            match span.dtype {
                DType::F32 => View::F32(std::slice::from_raw_parts(at.cast(), n)),
                DType::Bf16 => View::Bf16(std::slice::from_raw_parts(at.cast(), n)),
                DType::F16 => View::F16(std::slice::from_raw_parts(at.cast(), n)),
                DType::E4m3 => View::E4m3(std::slice::from_raw_parts(at, n)),
                DType::E5m2 => View::E5m2(std::slice::from_raw_parts(at, n)),
                DType::I32 => View::I32(std::slice::from_raw_parts(at.cast(), n)),
                DType::U8 => View::U8(std::slice::from_raw_parts(at, n)),
            }
        }
    }

    /// The elements of a span, to write.
    pub fn view_mut(&mut self, span: Span) -> ViewMut<'_> {
        // SAFETY: `self` is borrowed mutably as long as the result.
        unsafe { self.slice_mut(span) }
    }

    /// # Safety
    /// While the result is in use, nobody else reads or writes the span.
    unsafe fn slice_mut<'a>(&self, span: Span) -> ViewMut<'a> {
        let (at, n) = (self.at(span), span.count);
        // SAFETY: as for `view`; the caller vouches for exclusive access.
        unsafe {
            match span.dtype {
                DType::F32 => ViewMut::F32(std::slice::from_raw_parts_mut(at.cast(), n)),
                DType::Bf16 => ViewMut::Bf16(std::slice::from_raw_parts_mut(at.cast(), n)),
                DType::F16 => ViewMut::F16(std::slice::from_raw_parts_mut(at.cast(), n)),
                DType::E4m3 => ViewMut::E4m3(std::slice::from_raw_parts_mut(at, n)),
                DType::E5m2 => ViewMut::E5m2(std::slice::from_raw_parts_mut(at, n)),
                DType::I32 => ViewMut::I32(std::slice::from_raw_parts_mut(at.cast(), n)),
                DType::U8 => ViewMut::U8(std::slice::from_raw_parts_mut(at, n)),
            }
        }
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
    F32(&'a [f32]),
    Bf16(&'a [u16]),
    F16(&'a [u16]),
    E4m3(&'a [u8]),
    E5m2(&'a [u8]),
    I32(&'a [i32]),
    U8(&'a [u8]),
}

/// Elements to write.
pub(crate) enum ViewMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
    F16(&'a mut [u16]),
    E4m3(&'a mut [u8]),
    E5m2(&'a mut [u8]),
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
            View::F32([x]) => *x,
            _ => unreachable!("{span:?} is not a scalar: the graph's shape rules say it is"),
        }
    }
}

impl<'a> View<'a> {
    pub fn src(self) -> Src<'a> {
        match self {
            View::F32(x) => Src::F32(x),
            View::Bf16(x) => Src::Bf16(x),
            View::F16(x) => Src::F16(x),
            View::E4m3(x) => Src::E4m3(x),
            View::E5m2(x) => Src::E5m2(x),
            View::I32(_) | View::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn data(self) -> Data<'a> {
        match self {
            View::F32(x) => Data::F32(x),
            View::Bf16(x) => Data::Bf16(x),
            View::F16(x) => Data::F16(x),
            View::E4m3(x) => Data::E4m3(x),
            View::E5m2(x) => Data::E5m2(x),
            View::I32(_) | View::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn f32(self) -> &'a [f32] {
        match self {
            View::F32(x) => x,
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
            ViewMut::F32(x) => Dst::F32(x),
            ViewMut::Bf16(x) => Dst::Bf16(x),
            ViewMut::F16(x) => Dst::F16(x),
            ViewMut::E4m3(x) => Dst::E4m3(x),
            ViewMut::E5m2(x) => Dst::E5m2(x),
            ViewMut::I32(_) | ViewMut::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn data(self) -> DataMut<'a> {
        match self {
            ViewMut::F32(x) => DataMut::F32(x),
            ViewMut::Bf16(x) => DataMut::Bf16(x),
            ViewMut::F16(x) => DataMut::F16(x),
            ViewMut::E4m3(_) | ViewMut::E5m2(_) => {
                unreachable!("the precision plan stores products in 16 or 32 bits")
            }
            ViewMut::I32(_) | ViewMut::U8(_) => unreachable!("shape rules keep integers out of arithmetic"),
        }
    }

    pub fn f32(self) -> &'a mut [f32] {
        match self {
            ViewMut::F32(x) => x,
            _ => unreachable!("the precision plan keeps statistics and state in f32"),
        }
    }

    /// Copies elements of the same type; both have the same number.
    pub fn copy_from(self, from: View<'_>) {
        match (self, from) {
            (ViewMut::F32(to), View::F32(from)) => to.copy_from_slice(from),
            (ViewMut::Bf16(to), View::Bf16(from)) | (ViewMut::F16(to), View::F16(from)) => {
                to.copy_from_slice(from)
            }
            (ViewMut::E4m3(to), View::E4m3(from)) | (ViewMut::E5m2(to), View::E5m2(from)) => {
                to.copy_from_slice(from)
            }
            (ViewMut::I32(to), View::I32(from)) => to.copy_from_slice(from),
            (ViewMut::U8(to), View::U8(from)) => to.copy_from_slice(from),
            _ => unreachable!("types were compared when the program was compiled"),
        }
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
            ViewMut::Bf16(x) => x,
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

//! Mutable memory that several threads write at the same time, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

use crate::elements::{Dst, Elements, map_elements, with_elements};

/// A mutable slice from which several threads take disjoint parts.
///
/// The borrow of the whole slice lives as long as this value, so nobody else sees the memory. What
/// is left to the caller is that parts in use at the same time do not overlap; that is why taking
/// one is unsafe.
#[derive(Clone, Copy)]
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose parts are handed out; a part may go to another thread if T may.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above: through a shared reference one can only take parts, which the caller keeps
// disjoint.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> SharedSlice<'a, T> {
        SharedSlice { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other part in use at the same time overlaps `range`.
    ///
    /// # Panics
    /// If `range` is not inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part outside of its slice");
        // SAFETY: the range lies inside a slice borrowed mutably for 'a, and the caller keeps parts
        // disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// No part in use at the same time holds it.
    ///
    /// # Panics
    /// If `index` is not inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, index: usize, value: T)
    where
        T: Copy,
    {
        assert!(index < self.len, "element outside of its slice");
        // SAFETY: the element lies inside a slice borrowed mutably for 'a, and the caller keeps
        // others away from it.
        unsafe { *self.start.add(index) = value };
    }

    /// The elements of `range`, to read.
    ///
    /// # Safety
    /// No mutable part in use at the same time overlaps `range`.
    ///
    /// # Panics
    /// If `range` is not inside the slice.
    #[inline(always)]
    pub(crate) unsafe fn part_ref(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part outside of its slice");
        // SAFETY: the range lies inside a slice borrowed for 'a, and the caller keeps mutable parts
        // away from it.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }
}

/// A [`Dst`] from which several threads take disjoint parts.
pub(crate) type SharedDst<'a> = Elements<SharedSlice<'a, f32>, SharedSlice<'a, u16>, SharedSlice<'a, u8>>;

impl<'a> SharedDst<'a> {
    pub(crate) fn new(dst: Dst<'a>) -> SharedDst<'a> {
        map_elements!(dst, s => SharedSlice::new(s))
    }

    pub(crate) fn len(&self) -> usize {
        with_elements!(self, s => s.len)
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other part in use at the same time overlaps `range`.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> Dst<'a> {
        // SAFETY: the caller's promise, passed on.
        unsafe { map_elements!(self, s => s.part(range)) }
    }
}

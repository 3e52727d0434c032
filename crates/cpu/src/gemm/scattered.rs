//! Packing of windows into images of few channels: many runs of a few elements each. Their
//! positions are decoded once for all lines, and each element is put where it belongs by itself.

use std::ops::Range;

use super::element::Element;
use super::source::{Line, Position, Source};

/// The most positions that are packed so.
const POSITIONS: usize = 32;

/// All positions of a block, and how far the elements are from a line's start.
pub(super) struct Scattered<'a> {
    source: &'a Source<'a>,
    first: Position,
    ends: [Position; 2],
    offsets: [isize; POSITIONS],
    len: usize,
}

impl<'a> Scattered<'a> {
    /// Columns `k` of an operand, if they are few and lie so.
    #[inline(always)]
    pub(super) fn of(source: &'a Source<'a>, k: &Range<usize>) -> Option<Scattered<'a>> {
        if !source.is_scattered() || k.is_empty() || k.len() > POSITIONS {
            return None;
        }
        let mut positions = [Position::default(); POSITIONS];
        source.positions(k.start, 1, &mut positions[..k.len()]);
        let offsets = positions.map(|position| source.offset(position));
        let ends = [positions[0], positions[k.len() - 1]];
        Some(Scattered { source, first: positions[0], ends, offsets, len: k.len() })
    }

    /// Calls `put(column, element)` for each column of a line.
    #[inline(always)]
    fn each<T: Copy + Default>(&self, data: &[T], line: Line, mut put: impl FnMut(usize, T)) {
        if self.source.has_all(line, self.ends) {
            let start = self.source.start(line);
            for (i, offset) in self.offsets[..self.len].iter().enumerate() {
                put(i, data[(start + offset) as usize]);
            }
            return;
        }
        let mut fetched = [T::default(); POSITIONS];
        let fetched = &mut fetched[..self.len];
        self.source.fetch(data, line, self.first, fetched);
        for (i, &element) in fetched.iter().enumerate() {
            put(i, element);
        }
    }

    /// Packs rows `outer` as [`super::pack::panels_f32`] does.
    #[inline(always)]
    pub(super) fn panels<E: Element, const W: usize>(
        &self,
        data: &[E::Stored],
        outer: Range<usize>,
        to: &mut [f32],
    ) {
        let mut lines = [Line::default(); W];
        for (first, to) in outer.clone().step_by(W).zip(to.chunks_exact_mut(W * self.len)) {
            let lines = &mut lines[..W.min(outer.end - first)];
            self.source.lines(first, lines);
            if lines.len() < W {
                to.fill(0.0);
            }
            for (row, &line) in lines.iter().enumerate() {
                self.each(data, line, |k, element| to[k * W + row] = E::value(element));
            }
        }
    }

    /// Packs rows `outer` as [`super::pack::tiles_a`] does: there is one step.
    #[inline(always)]
    pub(super) fn tile_rows<E: Element, const PLANES: usize>(
        &self,
        data: &[E::Stored],
        outer: Range<usize>,
        to: &mut [u16],
    ) {
        let mut lines = [Line::default(); 32];
        for (first, to) in outer.clone().step_by(32).zip(to.chunks_exact_mut(PLANES * 1024)) {
            let lines = &mut lines[..32.min(outer.end - first)];
            self.source.lines(first, lines);
            to.fill(0);
            for (row, &line) in lines.iter().enumerate() {
                self.each(data, line, |k, element| {
                    for (plane, code) in E::terms(element)[..PLANES].iter().enumerate() {
                        to[plane * 1024 + row * 32 + k] = *code;
                    }
                });
            }
        }
    }
}

//! Where an operand's elements lie: strided matrices and the implicit matrices of a convolution
//! behind one type.
//!
//! An operand is seen as *outer* × K, where outer is M for A and N for B. One of the two dimensions
//! is walked along memory (a *position*), the other jumps (a *line*). Packing asks for runs of
//! positions on a line.

use std::ops::Range;

use halfstep_float::{Format, codes8_to_bf16};

use crate::elements::Src;

/// Which dimension the positions of a line run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Along {
    /// Lines are rows (columns of B); positions run along K.
    K,
    /// Lines are values of k; positions run along the outer dimension.
    Outer,
}

/// How lines and positions map to elements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gather {
    /// Element = line · `line` + position · `position`.
    Strided { line: usize, position: usize },
    /// A line index is a number of three digits with extents (any, `extents[0]`, `extents[1]`),
    /// each digit with a stride; positions are adjacent.
    Digits { extents: [usize; 2], strides: [usize; 3] },
    /// Windows into an image.
    Window(Window),
}

/// Windows into a batch of images [N, H, W, C]. A line is a pixel (n, y, x) of a grid, a position
/// is a tap and a channel (ty, tx, c); the element is that of image row
/// `y·line_step + offset + ty·tap_step` and so for columns, or zero outside the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// H and W of the image.
    pub image: [usize; 2],
    /// C.
    pub channels: usize,
    /// Height and width of the grid of lines.
    pub grid: [usize; 2],
    /// Taps per row of taps.
    pub taps_x: usize,
    pub line_step: isize,
    pub tap_step: isize,
    /// Vertical and horizontal offset.
    pub offset: [isize; 2],
}

/// A decoded line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    base: usize,
    y: isize,
    x: isize,
}

/// A decoded position.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    index: usize,
    tap_y: isize,
    tap_x: usize,
}

/// An operand as packing sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub data: Src<'a>,
    /// First element.
    pub base: usize,
    pub gather: Gather,
    pub along: Along,
}

/// Some rows and columns of an operand.
pub(crate) struct Piece<'a> {
    pub source: &'a Source<'a>,
    pub outer: Range<usize>,
    pub k: Range<usize>,
}

impl Source<'_> {
    #[inline(always)]
    pub(crate) fn line(&self, index: usize) -> Line {
        match self.gather {
            Gather::Strided { line, .. } => Line { base: self.base + index * line, y: 0, x: 0 },
            Gather::Digits { extents, strides } => {
                let (rest, low) = (index / extents[1], index % extents[1]);
                let (high, middle) = (rest / extents[0], rest % extents[0]);
                let base = self.base + high * strides[0] + middle * strides[1] + low * strides[2];
                Line { base, y: 0, x: 0 }
            }
            Gather::Window(w) => {
                let (rest, x) = (index as u32 / w.grid[1] as u32, index as u32 % w.grid[1] as u32);
                let (n, y) = (rest / w.grid[0] as u32, rest % w.grid[0] as u32);
                Line {
                    base: self.base + n as usize * (w.image[0] * w.image[1] * w.channels),
                    y: y as isize * w.line_step + w.offset[0],
                    x: x as isize * w.line_step + w.offset[1],
                }
            }
        }
    }

    /// Decodes the lines from `first` on, as many as `to` has.
    #[inline(always)]
    pub(crate) fn lines(&self, first: usize, to: &mut [Line]) {
        let Gather::Window(w) = self.gather else {
            for (i, line) in to.iter_mut().enumerate() {
                *line = self.line(first + i);
            }
            return;
        };
        // Counts on where decoding each would divide.
        let Some((start, rest)) = to.split_first_mut() else { return };
        *start = self.line(first);
        let image = w.image[0] * w.image[1] * w.channels;
        let ends = [0, 1].map(|d| w.grid[d] as isize * w.line_step + w.offset[d]);
        let mut next = *start;
        for line in rest {
            next.x += w.line_step;
            if next.x == ends[1] {
                (next.x, next.y) = (w.offset[1], next.y + w.line_step);
            }
            if next.y == ends[0] {
                (next.y, next.base) = (w.offset[0], next.base + image);
            }
            *line = next;
        }
    }

    /// Decodes the positions from `first` on, every `step`-th, as many as `to` has.
    #[inline(always)]
    pub(crate) fn positions(&self, first: usize, step: usize, to: &mut [Position]) {
        let Some((start, rest)) = to.split_first_mut() else { return };
        *start = self.position(first);
        let mut next = *start;
        for position in rest {
            next.index += step;
            if let Gather::Window(w) = self.gather {
                while next.index >= w.channels {
                    (next.index, next.tap_x) = (next.index - w.channels, next.tap_x + 1);
                    if next.tap_x == w.taps_x {
                        (next.tap_x, next.tap_y) = (0, next.tap_y + 1);
                    }
                }
            }
            *position = next;
        }
    }

    /// The index of the element of a line and a position that are inside is that of the line's
    /// start and the position's offset, added. (The start itself, which is the first tap's, may
    /// lie outside.)
    #[inline(always)]
    pub(crate) fn start(&self, line: Line) -> isize {
        match self.gather {
            Gather::Strided { .. } | Gather::Digits { .. } => line.base as isize,
            Gather::Window(w) => {
                line.base as isize + (line.y * w.image[1] as isize + line.x) * w.channels as isize
            }
        }
    }

    /// See [`Source::start`].
    #[inline(always)]
    pub(crate) fn offset(&self, position: Position) -> isize {
        match self.gather {
            Gather::Strided { position: stride, .. } => (position.index * stride) as isize,
            Gather::Digits { .. } => position.index as isize,
            Gather::Window(w) => {
                let tap = position.tap_y * w.image[1] as isize + position.tap_x as isize;
                tap * w.tap_step * w.channels as isize + position.index as isize
            }
        }
    }

    /// Whether an element lies inside the image.
    #[inline(always)]
    pub(crate) fn has(&self, line: Line, position: Position) -> bool {
        match self.gather {
            Gather::Strided { .. } | Gather::Digits { .. } => true,
            Gather::Window(w) => w.pixel(line, position.tap_y, position.tap_x).is_some(),
        }
    }

    /// Whether all elements of a line lie inside the image whose positions are between two, of
    /// which the first is not in a later row of taps.
    #[inline(always)]
    pub(crate) fn has_all(&self, line: Line, [first, last]: [Position; 2]) -> bool {
        match self.gather {
            Gather::Strided { .. } | Gather::Digits { .. } => true,
            Gather::Window(w) => {
                w.pixel(line, first.tap_y, 0).is_some() && w.pixel(line, last.tap_y, w.taps_x - 1).is_some()
            }
        }
    }

    /// Whether positions run in one piece over a few elements only, as those of windows into images
    /// of few channels do.
    pub(crate) fn is_scattered(&self) -> bool {
        matches!(self.gather, Gather::Window(w) if w.taps_x * w.channels < 16)
    }

    #[inline(always)]
    pub(crate) fn position(&self, index: usize) -> Position {
        match self.gather {
            Gather::Strided { .. } | Gather::Digits { .. } => Position { index, tap_y: 0, tap_x: 0 },
            Gather::Window(w) => {
                let (tap, channel) = (index / w.channels, index % w.channels);
                Position { index: channel, tap_y: (tap / w.taps_x) as isize, tap_x: tap % w.taps_x }
            }
        }
    }

    /// About how far in memory the line is that comes `lines` later, in elements: good enough to
    /// fetch it ahead of its use.
    #[inline(always)]
    pub(crate) fn distance(&self, lines: usize) -> usize {
        match self.gather {
            Gather::Strided { line, .. } => lines * line,
            Gather::Digits { strides, .. } => lines * strides[2],
            Gather::Window(w) => lines * w.channels * w.line_step.unsigned_abs(),
        }
    }

    /// Where the run of `len` elements from `position` starts if they are adjacent in memory.
    #[inline(always)]
    pub(crate) fn adjacent(&self, line: Line, position: Position, len: usize) -> Option<usize> {
        match self.gather {
            Gather::Strided { position: 1, .. } | Gather::Digits { .. } => Some(line.base + position.index),
            Gather::Strided { .. } => None,
            Gather::Window(w) => w.adjacent(line, position, len),
        }
    }

    /// Whether each run of `len` positions that begins at a multiple of it lies in one piece or
    /// wholly outside the image, for `positions` in all.
    pub(crate) fn has_runs(&self, len: usize, positions: usize) -> bool {
        positions.is_multiple_of(len)
            && match self.gather {
                Gather::Strided { position, .. } => position == 1,
                Gather::Digits { .. } => true,
                Gather::Window(w) => w.channels.is_multiple_of(len),
            }
    }

    /// Copies `to.len()` elements from `position` on, zero where the window leaves the image.
    // Copies need no target features, and this is called from many places: one body keeps the build
    // short.
    #[inline(never)]
    pub(crate) fn fetch<T: Copy + Default>(&self, data: &[T], line: Line, position: Position, to: &mut [T]) {
        match self.gather {
            Gather::Strided { position: stride, .. } => {
                let start = line.base + position.index * stride;
                for (i, to) in to.iter_mut().enumerate() {
                    *to = data[start + i * stride];
                }
            }
            Gather::Digits { .. } => {
                let start = line.base + position.index;
                to.copy_from_slice(&data[start..start + to.len()]);
            }
            Gather::Window(w) => w.fetch(data, line, position, to),
        }
    }
}

impl Source<'_> {
    /// The bf16 codes of `to.len()` 8-bit elements from `position` on, at most 128.
    #[inline(always)]
    pub(crate) fn fetch_as_bf16(&self, line: Line, position: Position, to: &mut [u16]) {
        let (Src::E4m3(data) | Src::E5m2(data)) = self.data else {
            unreachable!("only 8-bit elements are fetched so")
        };
        let e4m3 = matches!(self.data, Src::E4m3(_));
        let decode = |from: &[u8], to: &mut [u16]| match e4m3 {
            true => codes8_to_bf16(Format::E4m3, from, to),
            false => codes8_to_bf16(Format::E5m2, from, to),
        };
        match (self.adjacent(line, position, to.len()), to.as_chunks_mut::<32>()) {
            // The usual length, known to the compiler.
            (Some(start), ([to], [])) => decode(&data[start..start + 32], to),
            (Some(start), _) => decode(&data[start..start + to.len()], to),
            (None, _) => {
                let mut fetched = [0; 128];
                let fetched = &mut fetched[..to.len()];
                self.fetch(data, line, position, fetched);
                decode(fetched, to);
            }
        }
    }
}

impl Window {
    /// The first channel of the pixel under a tap; `None` outside the image.
    #[inline(always)]
    fn pixel(&self, line: Line, tap_y: isize, tap_x: usize) -> Option<usize> {
        let y = line.y + tap_y * self.tap_step;
        let x = line.x + tap_x as isize * self.tap_step;
        // A negative number is huge as usize, so one comparison checks both ends.
        let inside = (y as usize) < self.image[0] && (x as usize) < self.image[1];
        inside.then(|| line.base + (y as usize * self.image[1] + x as usize) * self.channels)
    }

    /// Where a run of `len` elements starts if it lies in one row of the image, all inside.
    #[inline(always)]
    fn adjacent(&self, line: Line, position: Position, len: usize) -> Option<usize> {
        if self.tap_step != 1 {
            let inside = position.index + len <= self.channels;
            return inside
                .then(|| self.pixel(line, position.tap_y, position.tap_x))?
                .map(|p| p + position.index);
        }
        // Taps of one row touch adjacent pixels.
        let y = line.y + position.tap_y;
        let start = (line.x + position.tap_x as isize) * self.channels as isize + position.index as isize;
        let taps_left = (self.taps_x - position.tap_x) * self.channels - position.index;
        let row = self.image[1] * self.channels;
        let inside =
            (y as usize) < self.image[0] && start >= 0 && start as usize + len <= row && len <= taps_left;
        inside.then(|| line.base + y as usize * row + start as usize)
    }

    fn fetch<T: Copy + Default>(&self, data: &[T], line: Line, position: Position, to: &mut [T]) {
        match self.tap_step {
            1 => self.fetch_rows(data, line, position, to),
            _ => self.fetch_taps(data, line, position, to),
        }
    }

    /// Row of taps by row of taps: each is one run of the image row, with zeros where it reaches
    /// over the edges.
    fn fetch_rows<T: Copy + Default>(&self, data: &[T], line: Line, position: Position, to: &mut [T]) {
        let row = (self.image[1] * self.channels) as isize;
        let mut start = (line.x + position.tap_x as isize) * self.channels as isize + position.index as isize;
        let mut run = (self.taps_x - position.tap_x) * self.channels - position.index;
        let mut y = line.y + position.tap_y;
        let mut rest = to;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(run.min(rest.len()));
            let len = part.len() as isize;
            let inside = (y as usize) < self.image[0];
            let (from, until) =
                if inside { ((-start).clamp(0, len), (row - start).clamp(0, len)) } else { (0, 0) };
            let until = until.max(from);
            part[..from as usize].fill(T::default());
            part[until as usize..].fill(T::default());
            if until > from {
                let at = line.base + (y * row + start + from) as usize;
                part[from as usize..until as usize].copy_from_slice(&data[at..at + (until - from) as usize]);
            }
            rest = after;
            y += 1;
            start = line.x * self.channels as isize;
            run = self.taps_x * self.channels;
        }
    }

    /// Tap by tap.
    fn fetch_taps<T: Copy + Default>(&self, data: &[T], line: Line, position: Position, to: &mut [T]) {
        let Position { index: mut channel, mut tap_y, mut tap_x } = position;
        let mut done = 0;
        while done < to.len() {
            let run = (self.channels - channel).min(to.len() - done);
            let part = &mut to[done..done + run];
            match self.pixel(line, tap_y, tap_x) {
                Some(start) => part.copy_from_slice(&data[start + channel..start + channel + run]),
                None => part.fill(T::default()),
            }
            done += run;
            channel = 0;
            tap_x += 1;
            if tap_x == self.taps_x {
                tap_x = 0;
                tap_y += 1;
            }
        }
    }
}

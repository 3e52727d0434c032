//! Packing: a block of an operand rearranged into the order in which a micro-kernel reads it,
//! converted on the way.
//!
//! Rows beyond the operand and k beyond the block become zeros, so that micro-kernels know no
//! edges. The choice of element type is made per run of elements, not per function, which keeps the
//! code small.

use std::ops::Range;

use halfstep_float::f32_from_bf16;
use halfstep_graph::Split;

use super::ProductFormat;
use super::element::{Bf16, Element, F16, F16Code, F32, F32ToBf16, F32ToF16, F32ToF16Code, F32ToTf32};
use super::scattered::Scattered;
use super::scheme::{Scheme, TileFormat};
use super::source::{Along, Line, Piece, Position, Source};
use super::transpose::{STAGE, columns_to_rows};
use crate::elements::Src;

/// Lines decoded at a time.
const LINES: usize = 32;

/// Elements loaded at a time where panels are filled across lines: about two cache lines of 16-bit
/// codes.
const RUN: usize = 128;

/// Lines that are fetched ahead of their use.
const AHEAD: usize = 6;

/// Steps of k whose pairs are staged in one go: runs of a cache line or two.
const PAIR_STEPS: usize = 2;

/// k per tile instruction.
pub(crate) const TILE_STEP: usize = 32;

/// Packs outer × k as f32 panels of `W` outer indices: `to[panel][k][r]`, each panel `W · k.len()`
/// long.
///
/// `to` has one panel for every `W` outer indices begun.
#[inline(always)]
pub(crate) fn panels_f32<const W: usize>(piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
    match piece.source.along {
        Along::Outer => panels_from_k_lines::<W>(piece, compute, to),
        Along::K => panels_from_outer_lines::<W>(piece, compute, to),
    }
}

/// Runs `$body` with `$element` naming how the elements of `$data` become f32 values of the compute
/// format; `$other` for 8-bit codes.
macro_rules! with_value {
    ($data:expr, $compute:expr, $d:ident, $element:ident => $body:expr, else $other:expr) => {
        with_value!(@ $data, $compute, $d, $element, $body, $other;
            F32, ProductFormat::Split(Split::Tf32) => F32ToTf32;
            // Without tiles a product of bf16 terms is an f32 product, which is more accurate and
            // takes a third or a sixth of the work.
            F32, ProductFormat::F32 | ProductFormat::Split(_) => F32;
            F32, ProductFormat::Bf16 => F32ToBf16;
            F32, ProductFormat::F16 => F32ToF16;
            Bf16, _ => Bf16;
            F16, _ => F16)
    };
    (@ $data:expr, $compute:expr, $d:ident, $element:ident, $body:expr, $other:expr;
        $($stored:ident, $format:pat => $name:ident);+) => {
        match ($data, $compute) {
            $((Src::$stored($d), $format) => {
                type $element = $name;
                $body
            })+
            (Src::E4m3(_) | Src::E5m2(_), _) => $other,
        }
    };
}

/// Loads `to.len()` elements of a line from `position` on as f32 values of the compute format.
#[inline(always)]
fn load(source: &Source<'_>, compute: ProductFormat, line: Line, position: Position, to: &mut [f32]) {
    with_value!(source.data, compute, d, E => load_as::<E>(source, d, line, position, to), else {
        let mut codes = [0; RUN];
        let codes = &mut codes[..to.len()];
        source.fetch_as_bf16(line, position, codes);
        to.iter_mut().zip(codes).for_each(|(to, &mut code)| *to = f32_from_bf16(code));
    })
}

#[inline(always)]
fn load_as<E: Element>(
    source: &Source<'_>,
    data: &[E::Stored],
    line: Line,
    position: Position,
    to: &mut [f32],
) {
    let mut fetched = [E::Stored::default(); RUN];
    let from = match source.adjacent(line, position, to.len()) {
        Some(start) => &data[start..start + to.len()],
        None => {
            let run = &mut fetched[..to.len()];
            source.fetch(data, line, position, run);
            run
        }
    };
    for (to, &from) in to.iter_mut().zip(from) {
        *to = E::value(from);
    }
}

#[inline(always)]
fn panels_from_k_lines<const W: usize>(piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
    let Piece { source, outer, k } = piece;
    // Several panels are filled from one run of a line.
    let together = RUN / W;
    let mut lines = [Line::default(); LINES];
    let mut values = [0.0; RUN];
    for k0 in k.clone().step_by(LINES) {
        let count = LINES.min(k.end - k0);
        for (i, line) in lines[..count].iter_mut().enumerate() {
            *line = source.line(k0 + i);
        }
        for (run, first) in outer.clone().step_by(W * together).enumerate() {
            let position = source.position(first);
            let len = (W * together).min(outer.end - first);
            let panels = len.div_ceil(W);
            let base = (run * together * k.len() + k0 - k.start) * W;
            values[len..panels * W].fill(0.0);
            for (i, &line) in lines[..count].iter().enumerate() {
                // Lines often lie pages apart, where the processor does not foresee the next.
                if let Some(&ahead) = lines[..count].get(i + AHEAD) {
                    prefetch(source, ahead, position, len);
                }
                load(source, compute, line, position, &mut values[..len]);
                // Arrays, whose length the compiler knows: a copy is then a few moves, not a call.
                for (panel, values) in values[..panels * W].as_chunks::<W>().0.iter().enumerate() {
                    let at = base + (panel * k.len() + i) * W;
                    *to[at..].first_chunk_mut().expect("room for whole panels") = *values;
                }
            }
        }
    }
}

#[inline(always)]
fn panels_from_outer_lines<const W: usize>(piece: Piece<'_>, compute: ProductFormat, to: &mut [f32]) {
    let Piece { source, outer, k } = piece;
    if let Some(scattered) = Scattered::of(source, &k) {
        with_value!(source.data, compute, d, E => {
            return scattered.panels::<E, W>(d, outer, to);
        }, else {});
    }
    let mut stage = [[0.0; STAGE]; 32];
    let mut lines = [Line::default(); 32];
    for (panel, first) in outer.clone().step_by(W).enumerate() {
        let width = W.min(outer.end - first);
        source.lines(first, &mut lines[..width]);
        stage[width..].fill([0.0; STAGE]);
        for k0 in k.clone().step_by(STAGE) {
            let len = STAGE.min(k.end - k0);
            let position = source.position(k0);
            for (row, &line) in stage.iter_mut().zip(&lines[..width]) {
                load(source, compute, line, position, &mut row[..len]);
            }
            let to = &mut to[(panel * k.len() + k0 - k.start) * W..][..len * W];
            columns_to_rows(&stage, len, W, to);
        }
    }
}

/// Asks for a cache line.
#[inline(always)]
fn prefetch_line<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for `len` elements of a line to be brought into the cache.
#[inline(always)]
fn prefetch(source: &Source<'_>, line: Line, position: Position, len: usize) {
    if let Some(start) = source.adjacent(line, position, len) {
        let (data, size) = match source.data {
            Src::F32(d) => (d.as_ptr().cast::<i8>(), 4),
            Src::Bf16(d) | Src::F16(d) => (d.as_ptr().cast::<i8>(), 2),
            Src::E4m3(d) | Src::E5m2(d) => (d.as_ptr().cast::<i8>(), 1),
        };
        for at in (start * size..(start + len) * size).step_by(64) {
            prefetch_line(data.wrapping_add(at));
        }
    }
}

/// Pairs of 16-bit codes, in place.
#[inline(always)]
fn as_pairs(codes: &mut [u16; 1024]) -> &mut [u32; 512] {
    assert!(codes.as_ptr().cast::<u32>().is_aligned());
    // SAFETY: the same 2048 bytes, aligned for u32 as just checked, and any bits are valid in
    // either.
    unsafe { &mut *codes.as_mut_ptr().cast() }
}

/// Runs `$body` with `$element` naming how the elements of `$data` become the planes of `$scheme`.
macro_rules! with_element {
    ($data:expr, $scheme:ident, $d:ident, $element:ident => $body:expr) => {
        with_element!(@ $data, $scheme, $d, $element, $body;
            Bf16, ProductFormat::Bf16, _ => Bf16;
            F32, ProductFormat::Bf16, _ => F32ToBf16;
            F16, ProductFormat::F16, TileFormat::F16 => F16Code;
            F32, ProductFormat::F16, TileFormat::F16 => F32ToF16Code;
            F16, ProductFormat::F16, TileFormat::Bf16 => F16;
            F32, ProductFormat::F16, TileFormat::Bf16 => F32ToF16;
            F32, ProductFormat::Split(_), _ => F32)
    };
    (@ $data:expr, $scheme:ident, $d:ident, $element:ident, $body:expr;
        $($stored:ident, $compute:pat, $format:pat => $name:ident);+) => {
        match ($data, $scheme::COMPUTE, $scheme::FORMAT) {
            $((Src::$stored($d), $compute, $format) => {
                type $element = $name;
                $body
            })+
            (_, compute, _) => unreachable!("storage was checked to go with {compute:?}"),
        }
    };
}

/// The panel of 32 outer indices at one step of 32 k in one plane: two tiles of 1 KiB.
#[inline(always)]
fn tile_pair<const PLANES: usize>(
    to: &mut [u16],
    panel: usize,
    steps: usize,
    step: usize,
    plane: usize,
) -> &mut [u16; 1024] {
    let at = ((panel * steps + step) * PLANES + plane) * 1024;
    (&mut to[at..at + 1024]).try_into().expect("a range of 1024 has 1024 elements")
}

/// Calls a function with a scheme and its number of planes, which sizes of arrays need as a number.
macro_rules! with_planes {
    ($scheme:ident, $function:ident($($argument:expr),+)) => {
        match $scheme::PLANES {
            1 => $function::<$scheme, 1>($($argument),+),
            2 => $function::<$scheme, 2>($($argument),+),
            3 => $function::<$scheme, 3>($($argument),+),
            more => unreachable!("{more} planes"),
        }
    };
}

/// Packs A for the tiles of a scheme: `to[panel][step][plane][tile][row][k]` with 2 tiles of 16
/// rows and 32 k.
///
/// `to` is aligned to a cache line, and has room for the panels begun and for whole steps.
#[inline(always)]
pub(crate) fn tiles_a<S: Scheme>(piece: Piece<'_>, to: &mut [u16]) {
    match piece.source.along {
        Along::K => with_planes!(S, tile_rows(piece, to)),
        Along::Outer => with_planes!(S, tile_rows_from_k_lines(piece, to)),
    }
}

/// Packs B likewise: `to[panel][step][plane][tile][k / 2][column][k % 2]` with 2 tiles of 16
/// columns and 32 k.
#[inline(always)]
pub(crate) fn tiles_b<S: Scheme>(piece: Piece<'_>, to: &mut [u16]) {
    match piece.source.along {
        Along::Outer => with_planes!(S, tile_pairs(piece, to)),
        Along::K => with_planes!(S, tile_pairs_from_outer_lines(piece, to)),
    }
}

/// Walks `len` elements of a line in runs of 32, which begin at `positions`, calling
/// `emit(run, plane, bf16 codes)`; zeros after `len` and where there is no line.
#[inline(always)]
fn thirty_twos<S: Scheme, const PLANES: usize>(
    source: &Source<'_>,
    line: Option<Line>,
    positions: &[Position],
    len: usize,
    mut emit: impl FnMut(usize, usize, &[u16; 32]),
) {
    let Some(line) = line else {
        for run in 0..positions.len() {
            for plane in 0..PLANES {
                emit(run, plane, &[0; 32]);
            }
        }
        return;
    };
    if matches!(source.data, Src::E4m3(_) | Src::E5m2(_)) {
        let mut codes = [0; 32];
        for (run, &position) in positions.iter().enumerate() {
            let (there, beyond) = codes.split_at_mut(32.min(len - run * 32));
            source.fetch_as_bf16(line, position, there);
            beyond.fill(0);
            emit(run, 0, &codes);
        }
        return;
    }
    with_element!(source.data, S, d, E => halves::<E, PLANES>(source, d, line, positions, len, emit))
}

#[inline(always)]
fn halves<E: Element, const PLANES: usize>(
    source: &Source<'_>,
    data: &[E::Stored],
    line: Line,
    positions: &[Position],
    len: usize,
    mut emit: impl FnMut(usize, usize, &[u16; 32]),
) {
    let mut convert = |run: usize, from: &[E::Stored; 32]| {
        for plane in 0..PLANES {
            let mut to = [0; 32];
            for (to, &from) in to.iter_mut().zip(from) {
                *to = E::terms(from)[plane];
            }
            emit(run, plane, &to);
        }
    };
    // All runs in one piece, as in a stored matrix, or each by itself, as in windows.
    let whole = source.adjacent(line, positions[0], len).map_or(&[][..], |start| &data[start..start + len]);
    let whole = whole.as_chunks::<32>().0;
    for (run, from) in whole.iter().enumerate() {
        convert(run, from);
    }
    let mut fetched = [E::Stored::default(); 32];
    for (run, &position) in positions.iter().enumerate().skip(whole.len()) {
        let len = 32.min(len - run * 32);
        convert(run, run_of_32(source, data, Some(line), position, len, &mut fetched));
    }
}

/// Decodes up to 32 lines from `first` on; none from `end` on.
#[inline(always)]
fn some_lines(source: &Source<'_>, first: usize, end: usize) -> [Option<Line>; 32] {
    let mut lines = [Line::default(); 32];
    let count = 32.min(end - first);
    source.lines(first, &mut lines[..count]);
    std::array::from_fn(|i| (i < count).then_some(lines[i]))
}

/// A whose rows run along memory: a copy, row by row.
#[inline(always)]
fn tile_rows<S: Scheme, const PLANES: usize>(piece: Piece<'_>, to: &mut [u16]) {
    let Piece { source, outer, k } = piece;
    let steps = k.len().div_ceil(TILE_STEP);
    let scattered = Scattered::of(source, &k);
    if let Some(scattered) = scattered.filter(|_| !matches!(source.data, Src::E4m3(_) | Src::E5m2(_))) {
        with_element!(source.data, S, d, E => scattered.tile_rows::<E, PLANES>(d, outer, to));
        return;
    }
    let mut positions = [Position::default(); LINES];
    for first_step in (0..steps).step_by(LINES) {
        let count = LINES.min(steps - first_step);
        let done = first_step * TILE_STEP;
        for (i, position) in positions[..count].iter_mut().enumerate() {
            *position = source.position(k.start + done + i * TILE_STEP);
        }
        for (panel, first) in outer.clone().step_by(32).enumerate() {
            for (row, &line) in some_lines(source, first, outer.end).iter().enumerate() {
                let to = &mut to[(panel * steps + first_step) * PLANES * 1024 + row * 32..];
                thirty_twos::<S, PLANES>(
                    source,
                    line,
                    &positions[..count],
                    k.len() - done,
                    |step, plane, run| {
                        to[(step * PLANES + plane) * 1024..][..32].copy_from_slice(run);
                    },
                );
            }
        }
    }
}

/// One block of 32 k by 32 outer indices as pairs of k: calls `emit(plane, pair, 32 pairs)`.
#[inline(always)]
fn pair_block<S: Scheme, const PLANES: usize>(
    source: &Source<'_>,
    lines: &[Option<Line>; 32],
    outer: Range<usize>,
    mut emit: impl FnMut(usize, usize, &[u32; 32]),
) {
    if matches!(source.data, Src::E4m3(_) | Src::E5m2(_)) {
        let position = source.position(outer.start);
        let mut codes = [[0; 32]; 2];
        for (pair, lines) in lines.as_chunks::<2>().0.iter().enumerate() {
            for (codes, line) in codes.iter_mut().zip(lines) {
                codes.fill(0);
                if let Some(line) = *line {
                    source.fetch_as_bf16(line, position, &mut codes[..outer.len()]);
                }
            }
            let [even, odd] = &codes;
            let pairs = std::array::from_fn(|i| u32::from(even[i]) | u32::from(odd[i]) << 16);
            emit(0, pair, &pairs);
        }
        return;
    }
    with_element!(source.data, S, d, E => pair_block_as::<E, PLANES>(source, d, lines, outer, emit))
}

#[inline(always)]
fn pair_block_as<E: Element, const PLANES: usize>(
    source: &Source<'_>,
    data: &[E::Stored],
    lines: &[Option<Line>; 32],
    outer: Range<usize>,
    mut emit: impl FnMut(usize, usize, &[u32; 32]),
) {
    let position = source.position(outer.start);
    // The processor does not foresee lines that lie apart.
    let ahead = source.distance(TILE_STEP);
    let mut fetched = [[E::Stored::default(); 32]; 2];
    for (pair, lines) in lines.as_chunks::<2>().0.iter().enumerate() {
        let [even, odd] = &mut fetched;
        let even = run_of_32(source, data, lines[0], position, outer.len(), even);
        let odd = run_of_32(source, data, lines[1], position, outer.len(), odd);
        prefetch_line(even.as_ptr().wrapping_add(ahead));
        prefetch_line(odd.as_ptr().wrapping_add(ahead));
        for plane in 0..PLANES {
            let mut row = [0; 32];
            for (to, (&even, &odd)) in row.iter_mut().zip(even.iter().zip(odd)) {
                *to = u32::from(E::terms(even)[plane]) | u32::from(E::terms(odd)[plane]) << 16;
            }
            emit(plane, pair, &row);
        }
    }
}

/// 32 elements of a line, in place where they can be; zeros after `len` and where there is no line.
#[inline(always)]
fn run_of_32<'a, T: Copy + Default>(
    source: &Source<'_>,
    data: &'a [T],
    line: Option<Line>,
    position: Position,
    len: usize,
    fetched: &'a mut [T; 32],
) -> &'a [T; 32] {
    match line.map(|line| (line, source.adjacent(line, position, len))) {
        Some((_, Some(start))) if len == 32 => {
            return data[start..start + 32].try_into().expect("a range of 32");
        }
        Some((line, _)) => {
            source.fetch(data, line, position, &mut fetched[..len]);
            fetched[len..].fill(T::default());
        }
        None => *fetched = [T::default(); 32],
    }
    fetched
}

/// B whose columns lie side by side in memory: rows k and k + 1 interleaved.
#[inline(always)]
fn tile_pairs<S: Scheme, const PLANES: usize>(piece: Piece<'_>, to: &mut [u16]) {
    let Piece { source, outer, k } = piece;
    let steps = k.len().div_ceil(TILE_STEP);
    for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
        let lines = some_lines(source, k0, k.end);
        for (panel, first) in outer.clone().step_by(32).enumerate() {
            let columns = first..(first + 32).min(outer.end);
            pair_block::<S, PLANES>(source, &lines, columns, |plane, pair, row| {
                let tiles = as_pairs(tile_pair::<PLANES>(to, panel, steps, step, plane));
                tiles[pair * 16..][..16].copy_from_slice(&row[..16]);
                tiles[256 + pair * 16..][..16].copy_from_slice(&row[16..]);
            });
        }
    }
}

/// A whose columns run along memory: pairs of k, then a transposition of pairs.
#[inline(always)]
fn tile_rows_from_k_lines<S: Scheme, const PLANES: usize>(piece: Piece<'_>, to: &mut [u16]) {
    let Piece { source, outer, k } = piece;
    let steps = k.len().div_ceil(TILE_STEP);
    // [plane][k / 2][outer]
    let mut stage = [[[0u32; STAGE]; 16]; PLANES];
    for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
        let lines = some_lines(source, k0, k.end);
        for (panel, first) in outer.clone().step_by(32).enumerate() {
            let rows = first..(first + 32).min(outer.end);
            pair_block::<S, PLANES>(source, &lines, rows, |plane, pair, row| {
                stage[plane][pair][..32].copy_from_slice(row);
            });
            for (plane, stage) in stage.iter().enumerate() {
                // [pair][row] becomes [row][pair]; the second tile follows the first.
                columns_to_rows(stage, 32, 16, as_pairs(tile_pair::<PLANES>(to, panel, steps, step, plane)));
            }
        }
    }
}

/// B whose rows run along memory: adjacent k are pairs already, then a transposition of pairs.
#[inline(always)]
fn tile_pairs_from_outer_lines<S: Scheme, const PLANES: usize>(piece: Piece<'_>, to: &mut [u16]) {
    let Piece { source, outer, k } = piece;
    let steps = k.len().div_ceil(TILE_STEP);
    // [step][plane][outer][k / 2]
    let mut stage = [[[[0u32; STAGE]; 32]; PLANES]; PAIR_STEPS];
    for (panel, first) in outer.clone().step_by(32).enumerate() {
        let lines = some_lines(source, first, outer.end);
        for (group, k0) in k.clone().step_by(TILE_STEP * PAIR_STEPS).enumerate() {
            let len = (TILE_STEP * PAIR_STEPS).min(k.end - k0);
            let positions = [source.position(k0), source.position(k0 + TILE_STEP)];
            let positions = &positions[..len.div_ceil(TILE_STEP)];
            for (column, &line) in lines.iter().enumerate() {
                thirty_twos::<S, PLANES>(source, line, positions, len, |step, plane, run| {
                    let to = &mut stage[step][plane][column][..16];
                    for (to, pair) in to.iter_mut().zip(run.as_chunks::<2>().0) {
                        *to = u32::from(pair[0]) | u32::from(pair[1]) << 16;
                    }
                });
            }
            for (step, stage) in stage[..len.div_ceil(TILE_STEP)].iter().enumerate() {
                for (plane, stage) in stage.iter().enumerate() {
                    let to = tile_pair::<PLANES>(to, panel, steps, group * PAIR_STEPS + step, plane);
                    let (left, right) = as_pairs(to).split_at_mut(256);
                    columns_to_rows(&stage[..16], 16, 16, left);
                    columns_to_rows(&stage[16..], 16, 16, right);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

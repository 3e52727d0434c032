//! Packing: a block of an operand rearranged into the order in which a micro-kernel reads it, converted on the way.
//!
//! Rows beyond the operand and k beyond the block become zeros, so that micro-kernels know no edges.

use std::ops::Range;

use super::Compute;
use super::element::{Bf16, Element, F16, F32, F32ToBf16, F32ToF16};
use super::source::{Along, Data, Line, Source};
use super::transpose::{STAGE, columns_to_rows};

/// Lines decoded at a time.
const LINES: usize = 32;

/// Elements converted at a time where panels are filled across lines; a multiple of neither width, which is fine.
const RUN: usize = 112;

/// Lines that are fetched ahead of their use.
const AHEAD: usize = 6;

/// k per tile instruction.
pub(crate) const TILE_STEP: usize = 32;

/// Calls a generic packing function for the element type that storage and compute format make.
macro_rules! by_element {
    ($source:expr, $compute:expr, $function:ident ::<_ $(, $generic:ident)*> ($($arg:expr),*)) => {
        match ($source.data, $compute) {
            (Data::F32(d), Compute::F32) => $function::<F32 $(, $generic)*>(d, $($arg),*),
            (Data::F32(d), Compute::Bf16) => $function::<F32ToBf16 $(, $generic)*>(d, $($arg),*),
            (Data::F32(d), Compute::F16) => $function::<F32ToF16 $(, $generic)*>(d, $($arg),*),
            (Data::Bf16(d), _) => $function::<Bf16 $(, $generic)*>(d, $($arg),*),
            (Data::F16(d), _) => $function::<F16 $(, $generic)*>(d, $($arg),*),
        }
    };
}

/// Packs outer × k as f32 panels of `W` outer indices: `to[panel][k][r]`, each panel `W · k.len()` long.
///
/// `to` has one panel for every `W` outer indices begun.
#[inline(always)]
pub(crate) fn panels_f32<const W: usize>(
    source: &Source<'_>,
    compute: Compute,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [f32],
) {
    match source.along {
        Along::Outer => by_element!(source, compute, panels_from_k_lines::<_, W>(source, outer, k, to)),
        Along::K => by_element!(source, compute, panels_from_outer_lines::<_, W>(source, outer, k, to)),
    }
}

#[inline(always)]
fn panels_from_k_lines<E: Element, const W: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [f32],
) {
    // Panels that are no multiple of a vector are filled from a run of several, converted in one go.
    let together = if W.is_multiple_of(8) { 1 } else { RUN / W };
    let mut lines = [Line::default(); LINES];
    let mut fetched = [E::Stored::default(); RUN];
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
            for (i, &line) in lines[..count].iter().enumerate() {
                // Lines often lie pages apart, where the processor does not foresee the next.
                if let Some(start) =
                    lines[..count].get(i + AHEAD).and_then(|&l| source.adjacent(l, position, len))
                {
                    prefetch(data, start, len);
                }
                let from: &[E::Stored] = match source.adjacent(line, position, len) {
                    Some(start) => &data[start..start + len],
                    None => {
                        source.fetch(data, line, position, &mut fetched[..len]);
                        &fetched[..len]
                    }
                };
                if together == 1 && len == W {
                    for (to, &from) in to[base + i * W..][..W].iter_mut().zip(from) {
                        *to = E::value(from);
                    }
                    continue;
                }
                for (to, &from) in values.iter_mut().zip(from) {
                    *to = E::value(from);
                }
                values[len..panels * W].fill(0.0);
                for panel in 0..panels {
                    let to = &mut to[base + (panel * k.len() + i) * W..][..W];
                    to.copy_from_slice(&values[panel * W..][..W]);
                }
            }
        }
    }
}

#[inline(always)]
fn panels_from_outer_lines<E: Element, const W: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [f32],
) {
    let mut stage = [[0u32; STAGE]; 32];
    let mut fetched = [E::Stored::default(); STAGE];
    let mut lines = [Line::default(); 32];
    for (panel, first) in outer.clone().step_by(W).enumerate() {
        let width = W.min(outer.end - first);
        for (i, line) in lines[..width].iter_mut().enumerate() {
            *line = source.line(first + i);
        }
        stage[width..].fill([0; STAGE]);
        for k0 in k.clone().step_by(STAGE) {
            let len = STAGE.min(k.end - k0);
            let position = source.position(k0);
            for (row, &line) in stage.iter_mut().zip(&lines[..width]) {
                let from: &[E::Stored] = match source.adjacent(line, position, len) {
                    Some(start) => &data[start..start + len],
                    None => {
                        source.fetch(data, line, position, &mut fetched[..len]);
                        &fetched[..len]
                    }
                };
                for (to, &from) in row.iter_mut().zip(from) {
                    *to = E::value(from).to_bits();
                }
            }
            let to = &mut to[(panel * k.len() + k0 - k.start) * W..][..len * W];
            columns_to_rows(&stage, len, W, as_words(to));
        }
    }
}

/// Asks for `len` elements to be brought into the cache.
#[inline(always)]
fn prefetch<T>(data: &[T], start: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (start..start + len).step_by(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, start, len);
}

/// The bits of f32 values, in place.
#[inline(always)]
fn as_words(values: &mut [f32]) -> &mut [u32] {
    // SAFETY: f32 and u32 have the same size and alignment, and any bits are valid in either.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Pairs of 16-bit codes, in place.
#[inline(always)]
fn as_pairs(codes: &mut [u16; 1024]) -> &mut [u32; 512] {
    assert!(codes.as_ptr().cast::<u32>().is_aligned());
    // SAFETY: the same 2048 bytes, aligned for u32 as just checked, and any bits are valid in either.
    unsafe { &mut *codes.as_mut_ptr().cast() }
}

/// The panel of 32 outer indices at one step of 32 k in one part: two tiles of 1 KiB.
#[inline(always)]
fn tile_pair<const PARTS: usize>(
    to: &mut [u16],
    panel: usize,
    steps: usize,
    step: usize,
    part: usize,
) -> &mut [u16; 1024] {
    let at = ((panel * steps + step) * PARTS + part) * 1024;
    to[at..at + 1024].as_mut().try_into().expect("a range of 1024 has 1024 elements")
}

/// Packs A for tiles: `to[panel][step][part][tile][row][k]` with 2 tiles of 16 rows and 32 k.
///
/// `to` is aligned to a cache line, and has room for the panels begun and for whole steps.
#[inline(always)]
pub(crate) fn tiles_a<const PARTS: usize>(
    source: &Source<'_>,
    compute: Compute,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    match source.along {
        Along::K => by_element!(source, compute, tile_rows::<_, PARTS>(source, outer, k, to)),
        Along::Outer => {
            by_element!(source, compute, tile_rows_from_k_lines::<_, PARTS>(source, outer, k, to))
        }
    }
}

/// Packs B for tiles: `to[panel][step][part][tile][k / 2][column][k % 2]` with 2 tiles of 16 columns and 32 k.
#[inline(always)]
pub(crate) fn tiles_b<const PARTS: usize>(
    source: &Source<'_>,
    compute: Compute,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    match source.along {
        Along::Outer => by_element!(source, compute, tile_pairs::<_, PARTS>(source, outer, k, to)),
        Along::K => {
            by_element!(source, compute, tile_pairs_from_outer_lines::<_, PARTS>(source, outer, k, to))
        }
    }
}

/// A whose rows run along memory: a copy.
#[inline(always)]
fn tile_rows<E: Element, const PARTS: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    let steps = k.len().div_ceil(TILE_STEP);
    for (panel, first) in outer.clone().step_by(32).enumerate() {
        let mut lines = [None; 32];
        for (i, line) in lines[..32.min(outer.end - first)].iter_mut().enumerate() {
            *line = Some(source.line(first + i));
        }
        for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
            let position = source.position(k0);
            let len = TILE_STEP.min(k.end - k0);
            for (row, &line) in lines.iter().enumerate() {
                let from = thirty_two::<E>(data, source, line, position, len);
                for part in 0..PARTS {
                    let pair = tile_pair::<PARTS>(to, panel, steps, step, part);
                    for (to, &from) in pair[row * 32..][..32].iter_mut().zip(&from) {
                        *to = E::halves(from)[part];
                    }
                }
            }
        }
    }
}

/// 32 elements of a line from `position` on, zeros after `len` and where there is no line.
#[inline(always)]
fn thirty_two<E: Element>(
    data: &[E::Stored],
    source: &Source<'_>,
    line: Option<Line>,
    position: super::source::Position,
    len: usize,
) -> [E::Stored; 32] {
    let mut run = [E::Stored::default(); 32];
    if let Some(line) = line {
        match source.adjacent(line, position, len) {
            Some(start) if len == 32 => run.copy_from_slice(&data[start..start + 32]),
            _ => source.fetch(data, line, position, &mut run[..len]),
        }
    }
    run
}

/// Decodes the lines of the 32 k of a step; none after the end.
#[inline(always)]
fn step_lines(source: &Source<'_>, k0: usize, end: usize) -> [Option<Line>; 32] {
    let mut lines = [None; 32];
    for (i, line) in lines[..32.min(end - k0)].iter_mut().enumerate() {
        *line = Some(source.line(k0 + i));
    }
    lines
}

/// `stage[part][k / 2][outer]`: pairs of adjacent k.
type PairStage<const PARTS: usize> = [[[u32; STAGE]; 16]; PARTS];

/// Pairs up the lines of a step for 32 outer indices.
#[inline(always)]
fn pair_lines<E: Element, const PARTS: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    lines: &[Option<Line>; 32],
    outer: usize,
    width: usize,
    mut emit: impl FnMut(usize, usize, &[u32; 32]),
) {
    let position = source.position(outer);
    for pair in 0..16 {
        let even = thirty_two::<E>(data, source, lines[2 * pair], position, width);
        let odd = thirty_two::<E>(data, source, lines[2 * pair + 1], position, width);
        for part in 0..PARTS {
            let mut row = [0; 32];
            for (to, (&even, &odd)) in row.iter_mut().zip(even.iter().zip(&odd)) {
                *to = u32::from(E::halves(even)[part]) | u32::from(E::halves(odd)[part]) << 16;
            }
            emit(part, pair, &row);
        }
    }
}

/// B whose columns lie side by side in memory: rows k and k + 1 interleaved.
#[inline(always)]
fn tile_pairs<E: Element, const PARTS: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    let steps = k.len().div_ceil(TILE_STEP);
    for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
        let lines = step_lines(source, k0, k.end);
        for (panel, first) in outer.clone().step_by(32).enumerate() {
            let width = 32.min(outer.end - first);
            pair_lines::<E, PARTS>(data, source, &lines, first, width, |part, pair, row| {
                let tiles = as_pairs(tile_pair::<PARTS>(to, panel, steps, step, part));
                tiles[pair * 16..][..16].copy_from_slice(&row[..16]);
                tiles[256 + pair * 16..][..16].copy_from_slice(&row[16..]);
            });
        }
    }
}

/// A whose columns run along memory: pairs of k, then a transposition of pairs.
#[inline(always)]
fn tile_rows_from_k_lines<E: Element, const PARTS: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    let steps = k.len().div_ceil(TILE_STEP);
    let mut stage: PairStage<PARTS> = [[[0; STAGE]; 16]; PARTS];
    for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
        let lines = step_lines(source, k0, k.end);
        for (panel, first) in outer.clone().step_by(32).enumerate() {
            let width = 32.min(outer.end - first);
            pair_lines::<E, PARTS>(data, source, &lines, first, width, |part, pair, row| {
                stage[part][pair][..32].copy_from_slice(row);
            });
            for (part, stage) in stage.iter().enumerate() {
                // [pair][row] becomes [row][pair]; the second tile follows the first.
                columns_to_rows(stage, 32, 16, as_pairs(tile_pair::<PARTS>(to, panel, steps, step, part)));
            }
        }
    }
}

/// B whose rows run along memory: adjacent k are pairs already, then a transposition of pairs.
#[inline(always)]
fn tile_pairs_from_outer_lines<E: Element, const PARTS: usize>(
    data: &[E::Stored],
    source: &Source<'_>,
    outer: Range<usize>,
    k: Range<usize>,
    to: &mut [u16],
) {
    let steps = k.len().div_ceil(TILE_STEP);
    let mut stage: [[[u32; STAGE]; 32]; PARTS] = [[[0; STAGE]; 32]; PARTS];
    for (panel, first) in outer.clone().step_by(32).enumerate() {
        let mut lines = [None; 32];
        for (i, line) in lines[..32.min(outer.end - first)].iter_mut().enumerate() {
            *line = Some(source.line(first + i));
        }
        for (step, k0) in k.clone().step_by(TILE_STEP).enumerate() {
            let position = source.position(k0);
            let len = TILE_STEP.min(k.end - k0);
            for (column, &line) in lines.iter().enumerate() {
                let run = thirty_two::<E>(data, source, line, position, len);
                for (part, stage) in stage.iter_mut().enumerate() {
                    for (pair, to) in stage[column][..16].iter_mut().enumerate() {
                        let (even, odd) =
                            (E::halves(run[2 * pair])[part], E::halves(run[2 * pair + 1])[part]);
                        *to = u32::from(even) | u32::from(odd) << 16;
                    }
                }
            }
            for (part, stage) in stage.iter().enumerate() {
                let tiles = as_pairs(tile_pair::<PARTS>(to, panel, steps, step, part));
                let (left, right) = tiles.split_at_mut(256);
                columns_to_rows(&stage[..16], 16, 16, left);
                columns_to_rows(&stage[16..], 16, 16, right);
            }
        }
    }
}

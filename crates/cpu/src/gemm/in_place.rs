//! LHS operands that a kernel reads where they lie, because it copies one element (or pair) at a
//! time to a whole vector and can take it from anywhere: instead of a packed panel it gets the
//! addresses of runs of each row. A convolution's windows need no copy of each pixel for each of
//! its taps then ("The indirect convolution algorithm", Dukhan 2019).

use super::source::{Along, Line, Piece, Position, Source};

/// Whether runs of `run` columns of an operand of `k` columns can be read in place.
pub(super) fn is_possible(source: &Source<'_>, run: usize, k: usize) -> bool {
    source.along == Along::K && source.has_runs(run, k)
}

/// The most runs of a k block.
const RUNS: usize = 32;

/// Writes the addresses of runs of `RUN` columns in panels of `ROWS` rows, `to[panel][run][row]`,
/// each panel in the room that it would take packed, whose k come in whole steps of `STEP`. Rows
/// and columns beyond the operand, and windows beyond an image, read `zeros`.
///
/// `data` is the operand's, of which [`is_possible`] is true, with every element that its source
/// names; `k` begins at a run and has whole ones; `to` has room for whole panels.
#[inline(always)]
pub(super) fn addresses<T, const ROWS: usize, const RUN: usize, const STEP: usize>(
    piece: Piece<'_>,
    data: &[T],
    zeros: &'static [T; RUN],
    to: &mut [T],
) {
    let Piece { source, outer, k } = piece;
    // Addresses are at most as long as what they stand for.
    const { assert!(size_of::<*const T>() <= RUN * size_of::<T>()) };
    let packed = k.len().next_multiple_of(STEP);
    let (there, runs) = (k.len() / RUN, packed / RUN);
    assert!(
        to.len() >= outer.len().div_ceil(ROWS) * ROWS * packed && to.as_ptr().cast::<*const T>().is_aligned()
    );
    if k.is_empty() {
        return;
    }
    let mut positions = [Position::default(); RUNS];
    source.positions(k.start, RUN, &mut positions[..there]);
    let offsets = positions.map(|position| source.offset(position));
    let (positions, offsets) = (&positions[..there], &offsets[..there]);
    let ends = [positions[0], positions[there - 1]];
    let mut lines = [Line::default(); ROWS];
    for (panel, first) in outer.clone().step_by(ROWS).enumerate() {
        let lines = &mut lines[..ROWS.min(outer.end - first)];
        source.lines(first, lines);
        let table = to[panel * ROWS * packed..].as_mut_ptr().cast::<*const T>();
        let write = |run: usize, row: usize, address: *const T| {
            debug_assert!(run < runs && row < ROWS);
            // SAFETY: a panel has room for ROWS · packed elements, so for ROWS · runs addresses,
            // and is aligned, as asserted for the first: panels are whole cache lines apart.
            unsafe { table.add(run * ROWS + row).write(address) }
        };
        let inside = |line, run: usize| {
            let at = source.start(line) + offsets[run];
            at >= 0 && at as usize + RUN <= data.len()
        };
        let has = |line, run: usize| source.has(line, positions[run]);
        debug_assert!(lines.iter().all(|&line| (0..there).all(|run| inside(line, run) || !has(line, run))));
        // Most windows lie inside, and all their runs where the offsets say.
        let mut starts = [data.as_ptr(); ROWS];
        for (start, &line) in starts.iter_mut().zip(lines.iter()) {
            *start = start.wrapping_offset(source.start(line));
        }
        for (run, &offset) in offsets.iter().enumerate() {
            for (row, start) in starts.iter().enumerate() {
                write(run, row, start.wrapping_offset(offset));
            }
        }
        for (row, &line) in lines.iter().enumerate() {
            if !source.has_all(line, ends) {
                (0..there).filter(|&run| !has(line, run)).for_each(|run| write(run, row, zeros.as_ptr()));
            }
        }
        for row in lines.len()..ROWS {
            (0..there).for_each(|run| write(run, row, zeros.as_ptr()));
        }
        for run in there..runs {
            (0..ROWS).for_each(|row| write(run, row, zeros.as_ptr()));
        }
    }
}

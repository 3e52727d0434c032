//! LHS operands that a kernel reads where they lie, because it copies one element (or pair) at a
//! time to a whole vector and can take it from anywhere: instead of a packed panel it gets the
//! addresses of runs of each row. A convolution's windows need no copy of each pixel for each of
//! its taps then ("The indirect convolution algorithm", Dukhan 2019).

use super::source::{Along, Piece, Source};

/// Whether runs of `run` columns of an operand of `k` columns can be read in place.
pub(super) fn is_possible(source: &Source<'_>, run: usize, k: usize) -> bool {
    source.along == Along::K && source.has_runs(run, k)
}

/// Writes the addresses of runs of `RUN` columns in panels of `ROWS` rows, `to[panel][run][row]`,
/// each panel in the room that it would take packed. Rows beyond the operand, and windows beyond an
/// image, read `zeros`.
///
/// `data` is the operand's, of which [`is_possible`] is true; `k` begins at a run and has whole
/// ones; `to` has room for whole panels.
#[inline(always)]
pub(super) fn addresses<T, const ROWS: usize, const RUN: usize>(
    piece: Piece<'_>,
    data: &[T],
    zeros: &'static [T; RUN],
    to: &mut [T],
) {
    let Piece { source, outer, k } = piece;
    // Addresses are at most as long as what they stand for.
    const { assert!(size_of::<*const T>() <= RUN * size_of::<T>()) };
    let runs = k.len() / RUN;
    assert!(
        to.len() >= outer.len().div_ceil(ROWS) * ROWS * k.len()
            && to.as_ptr().cast::<*const T>().is_aligned()
    );
    let mut lines = [None; ROWS];
    for (panel, first) in outer.clone().step_by(ROWS).enumerate() {
        for (row, line) in lines.iter_mut().enumerate() {
            *line = (first + row < outer.end).then(|| source.line(first + row));
        }
        let table = to[panel * ROWS * k.len()..].as_mut_ptr().cast::<*const T>();
        for run in 0..runs {
            let position = source.position(k.start + run * RUN);
            for (row, line) in lines.iter().enumerate() {
                let start = line.and_then(|line| source.adjacent(line, position, RUN));
                let elements = start.map_or(&zeros[..], |start| &data[start..start + RUN]);
                // SAFETY: a panel has room for ROWS · k elements, so for ROWS · runs addresses, and
                // is aligned, as asserted for the first: panels are whole cache lines apart.
                unsafe { table.add(run * ROWS + row).write(elements.as_ptr()) };
            }
        }
    }
}

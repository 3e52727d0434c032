//! Where large inputs of the next run are copied while one is under way.

use halfstep_graph::Graph;

use crate::command::{Region, Span};
use crate::stored::ALIGNMENT;

/// Inputs of at most so many bytes are copied as a part of each run: that takes hardly longer than
/// a copy within the device.
const SMALL: usize = 4 << 10;

/// The two places of each input in [`Region::Staging`], none of a small one, and the bytes of all.
///
/// Only programs that write state have any: of no others are inputs announced ahead.
pub(crate) fn staging(graph: &Graph) -> (Vec<Option<[Span; 2]>>, usize) {
    let mut end = 0;
    let mut place = |bytes: usize| {
        let span = Span { region: Region::Staging, offset: end, bytes };
        end = (end + bytes).next_multiple_of(ALIGNMENT);
        span
    };
    let ahead = !graph.writes.is_empty();
    let sizes = graph.inputs().map(|(_, value)| graph.value(value).ty.bytes());
    let places = sizes.map(|n| (ahead && n > SMALL).then(|| [place(n), place(n)])).collect();
    (places, end)
}

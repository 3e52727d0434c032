//! Products: of matrices, and those that convolutions are.

use halfstep_graph::DType;
use halfstep_graph::engine::EngineError;

use super::pointwise::After;
use super::scheme::{Scheme, Side, Sizes, sides};
use super::{Call, Lowering, MOST_BLOCKS, structure};
use crate::command::Argument;
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// A bias, where there is one: a row of f32, which is added to the sum before it is rounded.
fn bias_of(l: &Lowering<'_>) -> Result<Option<Stored>, EngineError> {
    let bias = (l.node.inputs.len() > 2).then(|| l.input(2));
    match bias {
        Some(bias) if bias.dtype != DType::F32 => {
            Err(l.unsupported(format!("the bias is {}, expected f32", bias.dtype)))
        }
        bias => Ok(bias),
    }
}

pub(super) fn matmul(l: &mut Lowering<'_>, ta: bool, tb: bool) -> Result<(), EngineError> {
    let turned = |turned| if turned { "true" } else { "false" };
    let macros = [("TA", turned(ta)), ("TB", turned(tb))];
    let Some(sizes) = Sizes::of(l.graph, l.node) else { return Ok(()) };
    product(l, Source::MatMul, &macros, "matmul", structure(&[sizes.m, sizes.n, sizes.k]))
}

/// The product of the first two operands, by a kernel that takes them, a bias, `shape`, the parts
/// of k and what becomes of results.
///
/// # Errors
/// It is too large for a GPU.
pub(super) fn product(
    l: &mut Lowering<'_>,
    source: Source,
    macros: &[(&str, &str)],
    entry: &str,
    shape: Argument,
) -> Result<(), EngineError> {
    let architecture = l.facts.architecture;
    let found = Sizes::of(l.graph, l.node).zip(Scheme::of(l.graph, l.node, architecture));
    let Some((sizes, scheme)) = found else { return Err(l.unsupported("no product")) };
    let wide = ("WIDE", if sizes.n.is_multiple_of(4) { "4" } else { "1" });
    let (a, b, bias, after) = (l.input(0), l.input(1), bias_of(l)?, After::wide(l, wide.1)?);
    let across = sizes.n.div_ceil(scheme.tile.columns);
    let grid = [sizes.m.div_ceil(scheme.tile.rows), across, sizes.batch * scheme.parts];
    if grid[1] > MOST_BLOCKS || grid[2] > MOST_BLOCKS {
        return Err(l.unsupported("a product of this size is too wide for a GPU"));
    }
    let types = [("TypeA", c_type(a.dtype)), ("TypeB", c_type(b.dtype))];
    let whole = whole(l, &scheme);

    let macros = [&types[..], macros, &scheme.macros(), &whole, &[wide]].concat();
    let parts = |together: Option<[Stored; 2]>| {
        let numbers = [scheme.parts, scheme.depth, scheme.group(), 0].map(|n| Argument::U32(n as u32));
        let pointers = together.map_or([Argument::Null, Argument::Null], |together| {
            together.map(|stored| Argument::Pointer(stored.span))
        });
        Argument::Struct(numbers.into_iter().chain(pointers).collect())
    };
    let launch = |l: &mut Lowering<'_>, bias: Option<Stored>, together: Option<[Stored; 2]>, after: After| {
        let kernel = after.kernel(l, source, &macros, entry);
        let call = Call::new(kernel, grid, scheme.threads()).read(a).read(b).maybe_read(bias);
        let call = call.shared(scheme.shared_bytes()).with(shape.clone()).with(parts(together));
        let changed = together.into_iter().flatten();
        let call = changed.fold(call, |call, stored| call.also_read(stored).also_write(stored));
        l.launch(after.given(call));
    };
    if scheme.parts == 1 {
        launch(l, bias, None, after);
        return Ok(());
    }
    let sums = l.work(0, scheme.parts * sizes.count(), DType::F32);
    if scheme.adds_itself() {
        let counters = l.counters(0, scheme.kept_bytes(sizes) / 4);
        launch(l, bias, Some([sums, counters]), after);
        return Ok(());
    }
    launch(l, None, None, After::stored(sums));
    // Threads that add the parts of one element: so many that none adds more than about 8.
    let ways = (scheme.parts / 8).next_power_of_two().clamp(1, 8);
    let kernel = after.kernel(l, Source::Parts, &[wide], "add_parts");
    let each = if wide.1 == "4" { 4 } else { 1 };
    let call = Call::new(kernel, [sizes.count().div_ceil(each * 256 / ways), 1, 1], 256);
    let numbers = [sizes.count(), sizes.m * sizes.n, sizes.n, scheme.parts, ways];
    let call = call.read(sums).maybe_read(bias).sizes(numbers);
    l.launch(after.given(call));
    Ok(())
}

/// Of which operands each chunk lies together and at a multiple of its size.
fn whole(l: &Lowering<'_>, scheme: &Scheme) -> Vec<(&'static str, &'static str)> {
    let whole = |Side { input, together }: Side| {
        let stored = l.input(input);
        let aligned = stored.span.offset.is_multiple_of(scheme.chunk() * stored.dtype.bytes());
        if aligned && together.is_multiple_of(scheme.chunk()) { "true" } else { "false" }
    };
    let [left, right] = sides(l.graph, l.node).map_or(["false"; 2], |sides| sides.map(whole));
    vec![("WHOLE_LEFT", left), ("WHOLE_RIGHT", right)]
}

//! Products of matrices.

use halfstep_graph::DType;
use halfstep_graph::engine::EngineError;

use super::pointwise::After;
use super::scheme::Scheme;
use super::{Call, Lowering, MOST_BLOCKS};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// A bias, where there is one: a row of f32, which is added to the sum before it is rounded.
pub(super) fn bias_of(l: &Lowering<'_>) -> Result<Option<Stored>, EngineError> {
    let bias = (l.node.inputs.len() > 2).then(|| l.input(2));
    match bias {
        Some(bias) if bias.dtype != DType::F32 => {
            Err(l.unsupported(format!("the bias is {}, expected f32", bias.dtype)))
        }
        bias => Ok(bias),
    }
}

pub(super) fn matmul(l: &mut Lowering<'_>, ta: bool, tb: bool) -> Result<(), EngineError> {
    let (a, b, bias, after) = (l.input(0), l.input(1), bias_of(l)?, After::of(l)?);
    let (left, to) = (l.shape(0), l.result_shape());
    let rank = to.len();
    let (m, n) = (to[rank - 2], to[rank - 1]);
    let k = left[if ta { rank - 2 } else { rank - 1 }];
    let batch: usize = to[..rank - 2].iter().product();
    let scheme = Scheme::of(l, batch, m, n);
    if batch > MOST_BLOCKS || n.div_ceil(scheme.tile) > MOST_BLOCKS {
        return Err(l.unsupported("a product of this size is too wide for a GPU"));
    }
    let turned = |turned| if turned { "true" } else { "false" };
    let types =
        [("TypeA", c_type(a.dtype)), ("TypeB", c_type(b.dtype)), ("TA", turned(ta)), ("TB", turned(tb))];
    let macros = [&types[..], &scheme.macros()].concat();
    let kernel = after.kernel(l, Source::MatMul, &macros, "matmul");
    let grid = [m.div_ceil(scheme.tile), n.div_ceil(scheme.tile), batch];
    let call = Call::new(kernel, grid, scheme.threads());
    let call = call.read(a).read(b).maybe_read(bias).sizes([m, n, k]);
    l.launch(after.given(call));
    Ok(())
}

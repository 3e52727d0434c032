//! Codes in blocks. Those of a whole tensor are elementwise.

use halfstep_float::Format;
use halfstep_float::blocks::ScaleRule;
use halfstep_graph::engine::EngineError;
use halfstep_graph::{Blocks, Quantise};

use super::{Call, Lowering, MOST_BLOCKS, structure};
use crate::kernels::{Source, c_type};

/// How kernels know the rules by which a block's largest magnitude becomes its scale.
const EVEN: usize = 1;
const NO_OVERFLOW: usize = 2;
const POWER_OF_TWO: usize = 3;
const NVFP4: usize = 4;

pub(super) fn in_blocks(l: &mut Lowering<'_>, q: &Quantise) -> Result<(), EngineError> {
    let (x, y, shape) = (l.input(0), l.result(0), l.shape(0));
    let (rule, axis, size) = match q.blocks {
        Blocks::Mx { axis, scale } => {
            let rule = match scale {
                ScaleRule::Floor => 0,
                ScaleRule::Even => EVEN,
                ScaleRule::NoOverflow => NO_OVERFLOW,
            };
            (rule, Some(axis), 32)
        }
        Blocks::Nvfp4 { axis } => (NVFP4, Some(axis), 16),
        Blocks::Row128 { axis } => (POWER_OF_TWO, Some(axis), 128),
        Blocks::Square128 => (POWER_OF_TWO, None, 128),
        Blocks::Tensor { .. } => unreachable!("codes of a whole tensor are elementwise"),
    };
    let format = match q.format {
        Format::E4m3 => "E4M3",
        Format::E5m2 => "E5M2",
        Format::E2m1 => "E2M1",
        other => return Err(l.unsupported(format!("codes of {other} in blocks"))),
    };
    let tensor_scale = (rule == NVFP4).then(|| l.input(1));
    if tensor_scale.is_some_and(|scale| scale.count > 1) {
        return Err(l.unsupported("blocks of NVFP4 with scales of samples"));
    }
    let key = q.draws.map(|_| l.input(1 + usize::from(tensor_scale.is_some())));
    let form = structure(&[rule, q.draws.is_some().into(), q.draws.unwrap_or(0) as usize]);
    let types = [("TypeX", c_type(x.dtype)), ("TypeY", c_type(y.dtype)), ("FORMAT", format)];
    let call = if let Some(axis) = axis {
        let (length, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let blocks = x.count / length * length.div_ceil(size);
        let kernel = l.output.modules.kernel(Source::Quantise, &types, "along_axis");
        let call = Call::each(kernel, blocks).read(x).write(y).maybe_read(tensor_scale).maybe_read(key);
        call.with(form).sizes([blocks, length, inner, size])
    } else {
        let (rows, width) = (shape[shape.len() - 2], shape.last());
        let grid = [width.div_ceil(size), rows.div_ceil(size), x.count / rows / width];
        if grid[1].max(grid[2]) > MOST_BLOCKS {
            return Err(l.unsupported("so many squares are too many for a GPU"));
        }
        let kernel = l.output.modules.kernel(Source::Quantise, &types, "squares");
        let call = Call::new(kernel, grid, 256).read(x).write(y).maybe_read(key);
        call.with(form).sizes([rows, width])
    };
    l.launch(call);
    Ok(())
}

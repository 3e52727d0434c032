//! Codes in blocks. Those of a whole tensor are elementwise: [`super::group`].

use halfstep_graph::engine::EngineError;
use halfstep_graph::{Blocks, Quantise};

use super::group::{nothing, words};
use super::{Lowering, Step};
use crate::rows::key::Key;
use crate::rows::quantise::{Form, InBlocks};

pub(super) fn in_blocks(l: &Lowering<'_>, q: &Quantise) -> Result<Step, EngineError> {
    let shape = l.shape(0);
    let along = |axis: usize| {
        let part = |range: &[usize]| range.iter().product::<usize>();
        (part(&shape[..axis]), shape[axis], part(&shape[axis + 1..]))
    };
    let (form, (outer, length, inner)) = match q.blocks {
        Blocks::Mx { axis, scale } => (Form::Mx(q.format, scale), along(axis)),
        Blocks::Nvfp4 { axis } => (Form::Nvfp4, along(axis)),
        Blocks::Row128 { axis } => (Form::Row128(q.format), along(axis)),
        Blocks::Square128 => (Form::Square128(q.format), along(shape.len() - 2)),
        Blocks::Tensor { .. } => unreachable!("codes of a whole tensor are elementwise"),
    };
    let draws = q.draws;
    let scaled = matches!(form, Form::Nvfp4);
    let scale = if scaled { l.input(1) } else { nothing() };
    let key = if draws.is_some() { l.input(1 + usize::from(scaled)) } else { nothing() };
    l.step([l.input(0), scale, key], [l.output(0)], move |isa, pool, [x, scale, key], [y]| {
        let tensor_scale = if scaled { scale.f32()[0] } else { 1.0 };
        let key = if draws.is_some() { words(key).unwrap_or_default() } else { Key::default() };
        InBlocks { form, outer, length, inner, tensor_scale, draws, key, x: x.src(), y: y.dst() }
            .run(isa, pool)
    })
}

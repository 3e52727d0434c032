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
        let tensor_scales = if scaled { scale.f32() } else { &[] };
        let key = if draws.is_some() { words(key).unwrap_or_default() } else { Key::default() };
        InBlocks { form, outer, length, inner, tensor_scales, draws, key, x: x.src(), y: y.dst() }
            .run(isa, pool)
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use halfstep_float::Format;
    use halfstep_graph::engine::{Engine, HostSlice};
    use halfstep_graph::interp::{Rounding, Tensor, evaluate};
    use halfstep_graph::{Graph, Op, Shape, ValueType, plan};

    use super::*;
    use crate::CpuEngine;
    use crate::isa::Isa;

    #[test]
    fn blocks_of_nvfp4_are_scaled_by_the_scale_of_their_place() {
        let mut g = Graph::new();
        let (shape, scale_shape) = ([6, 5, 40], [6, 1, 1]);
        let x = g.input("x", ValueType::f32(shape.into()));
        let scale = g.input("scale", ValueType::f32(scale_shape.into()));
        for axis in [1, 2] {
            let q = Quantise { format: Format::E2m1, blocks: Blocks::Nvfp4 { axis }, draws: None };
            let codes = g.push(Op::Quantise(q), &[x, scale]).unwrap()[0];
            g.add_output(&format!("along {axis}"), codes);
        }
        let along_first = Quantise { format: Format::E2m1, blocks: Blocks::Nvfp4 { axis: 0 }, draws: None };
        assert!(g.push(Op::Quantise(along_first), &[x, scale]).is_err());

        let xs: Vec<f32> = (0..1200).map(|i| ((i * 7919 % 1201) as f32 - 600.0) / 37.0).collect();
        let scales = [3e-4, 0.7, 1e-9, 0.011, 5.0, 0.002];
        let tensor = |shape: &[usize], data: &[f32]| {
            Tensor::new(Shape::new(shape), data.iter().map(|&v| v.into()).collect())
        };
        let given = [("x", tensor(&shape, &xs)), ("scale", tensor(&scale_shape, &scales))];
        let expected = evaluate(&g, &[], &given, Rounding::Stored).unwrap();
        for isa in Isa::available() {
            let engine = CpuEngine::new(isa, NonZeroUsize::new(2).unwrap());
            let mut state = engine.new_state(&g.slots).unwrap();
            let mut program = engine.compile(&plan(g.clone(), &engine), &state).unwrap();
            program
                .run(&mut state, &[("x", HostSlice::F32(&xs)), ("scale", HostSlice::F32(&scales))])
                .unwrap();
            for (name, value) in &g.outputs {
                let found: Vec<f64> = program.read(name).unwrap().f32().iter().map(|&v| v.into()).collect();
                assert_eq!(found, expected[value.0 as usize].data, "{name}, {isa:?}");
            }
        }
    }
}

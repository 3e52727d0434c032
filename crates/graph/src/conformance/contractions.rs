//! Cases of the part [`super::operations`]: contractions, and the codes of 8 and 4 bits that they
//! multiply.

use halfstep_float::Overflow;
use halfstep_float::blocks::ScaleRule;

use super::case::{Case, QUANTISE};
use crate::graph::{Graph, ValueId};
use crate::op::{AttentionSpec, Blocks, ConvGeometry, Op, Quantise};
use crate::{GraphError, Shape, ValueType};

/// Every form of codes, of sizes that are no multiples of a block, rounded both ways, and products
/// of codes of two formats.
pub(super) fn quantise_cases(cases: &mut Vec<Case>) {
    use halfstep_float::Format::{E2m1, E4m3, E5m2};
    let saturated = Blocks::Tensor { overflow: Overflow::Saturate };
    let exposed = Blocks::Tensor { overflow: Overflow::NonFinite };
    let mx = |axis, scale| Blocks::Mx { axis, scale };
    let mut forms = vec![(E4m3, saturated), (E5m2, saturated), (E4m3, exposed), (E5m2, exposed)];
    for axis in 0..3 {
        forms.extend([(E4m3, mx(axis, ScaleRule::Floor)), (E2m1, mx(axis, ScaleRule::Even))]);
        forms.extend([(E5m2, mx(axis, ScaleRule::NoOverflow)), (E2m1, Blocks::Nvfp4 { axis })]);
        forms.push((E4m3, Blocks::Row128 { axis }));
    }
    forms.push((E4m3, Blocks::Square128));
    let shape: Shape = [2, 139, 37].into();
    for (format, blocks) in forms {
        for draws in [None, Some(5)] {
            let q = Quantise { format, blocks, draws };
            let case = Case::new(&format!("{QUANTISE} {q}"), 1, std::slice::from_ref(&shape), |g, x| {
                let key = g.input("key", ValueType::i32([4].into()));
                // A few elements beyond the range, and some much smaller than their neighbours.
                let square = g.mul(x[0], x[0])?;
                let cube = g.mul(square, x[0])?;
                let scale = g.scalar(if matches!(blocks, Blocks::Nvfp4 { .. }) { 3e-4 } else { 700.0 });
                let scaled = matches!(blocks, Blocks::Tensor { .. } | Blocks::Nvfp4 { .. });
                let operands = [Some(cube), scaled.then_some(scale), draws.map(|_| key)];
                let operands: Vec<ValueId> = operands.into_iter().flatten().collect();
                g.push(Op::Quantise(q), &operands)
            });
            cases.push(case.with_indices("key", vec![17, -3, 4, 2]));
        }
    }
    let place = Quantise { format: E4m3, blocks: saturated, draws: None };
    let name = format!("{QUANTISE} {place}, by place");
    cases.push(Case::new(&name, 1, &[[5, 23, 37].into(), [5, 1, 1].into()], |g, x| {
        g.push(Op::Quantise(place), x)
    }));
    for (name, ta, tb) in [("codes", false, true), ("codes, left turned", true, false)] {
        let shapes: [Shape; 2] = [
            if ta { [70, 33].into() } else { [33, 70].into() },
            if tb { [65, 70].into() } else { [70, 65].into() },
        ];
        cases.push(Case::new(name, 70, &shapes, |g, x| {
            let one = g.scalar(1.0);
            let codes = |g: &mut Graph, x, format| {
                let q = Quantise { format, blocks: saturated, draws: None };
                Ok::<_, GraphError>(g.push(Op::Quantise(q), &[x, one])?[0])
            };
            let (a, b) = (codes(g, x[0], E4m3)?, codes(g, x[1], E5m2)?);
            Ok(vec![g.matmul(a, b, ta, tb)?])
        }));
    }
}

/// Products of matrices and images, and attention.
pub(super) fn contraction_cases(cases: &mut Vec<Case>) {
    for (m, k, n) in [(1, 1, 1), (5, 3, 7), (17, 33, 65), (64, 96, 32), (3, 130, 40)] {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a: Shape = if ta { [2, k, m].into() } else { [2, m, k].into() };
            let b: Shape = if tb { [2, n, k].into() } else { [2, k, n].into() };
            let name = format!("matmul {m}×{k}×{n} {ta} {tb}");
            cases.push(Case::new(&name, k, &[a, b], |g, x| Ok(vec![g.matmul(x[0], x[1], ta, tb)?])));
        }
    }
    cases.push(Case::new("matmul with bias", 24, &[[9, 23].into(), [41, 23].into(), [41].into()], |g, x| {
        let y = g.matmul(x[0], x[1], false, true)?;
        Ok(vec![g.add(y, x[2])?])
    }));
    for (size, window, stride, pad, c, o) in
        [(8, 3, 1, 1, 3, 5), (7, 3, 2, 1, 16, 8), (6, 1, 2, 0, 4, 33), (5, 2, 1, 0, 1, 2)]
    {
        let geometry = ConvGeometry { stride, pad };
        let out = geometry.output(size, window).expect("the window fits");
        let shapes: [Shape; 3] =
            [[2, size, size, c].into(), [o, window, window, c].into(), [2, out, out, o].into()];
        let terms = window * window * c * o.max(2 * out * out);
        cases.push(Case::new(&format!("conv2d {size} {window} {stride} {pad}"), terms, &shapes, |g, x| {
            let y = g.conv2d(x[0], x[1], geometry)?;
            let dx = g.push(Op::Conv2dGradInput { geometry, size: (size, size) }, &[x[2], x[1]])?;
            let dw = g.push(Op::Conv2dGradWeight { geometry, window: (window, window) }, &[x[0], x[2]])?;
            Ok(vec![y, dx[0], dw[0]])
        }));
    }
    for (time, causal) in [(1, true), (9, true), (70, true), (33, false)] {
        let spec = AttentionSpec { heads: 2, causal };
        let shapes: [Shape; 2] = [[2, time, 3 * 16].into(), [2, time, 16].into()];
        cases.push(Case::new(&format!("attention {time} {causal}"), time + 16, &shapes, |g, x| {
            let y = g.push(Op::Attention(spec), &[x[0]])?;
            let dx = g.push(Op::AttentionGrad(spec), &[x[0], y[0], y[1], x[1]])?;
            Ok([y, dx].concat())
        }));
        let parts: [Shape; 4] = std::array::from_fn(|_| [2, time, 16].into());
        cases.push(Case::new(&format!("attention of three {time} {causal}"), time + 16, &parts, |g, x| {
            let y = g.push(Op::Attention(spec), &x[..3])?;
            let dx = g.push(Op::AttentionGrad(spec), &[x[0], x[1], x[2], y[0], y[1], x[3]])?;
            Ok([y, dx].concat())
        }));
    }
}

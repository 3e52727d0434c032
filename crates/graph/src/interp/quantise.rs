//! Codes of 8 and 4 bits, by the reference conversion and straight from the definitions of the
//! forms.

use halfstep_float::blocks::ScaleRule;
use halfstep_float::{Draws, E8m0, Format, Overflow, Rounding, decode, encode};

use super::Tensor;
use crate::op::{Blocks, Quantise};

pub(super) fn quantise(q: &Quantise, x: &[&Tensor]) -> Tensor {
    let draws = q.draws.map(|op| {
        let key = &x[x.len() - 1].data;
        let word = |i: usize| key[i] as i64 as u32;
        let seed = u64::from(word(0)) | u64::from(word(1)) << 32;
        (Draws { seed, attempt: word(2), op }, Quantise::first_draw(word(3)))
    });
    let rounding = |i: usize| match draws {
        Some((draws, first)) => Rounding::Stochastic(draws.word(first + i as u64)),
        None => Rounding::NearestEven,
    };
    let x0 = x[0];
    // Of one scale, or of one for each place of the first axis.
    let shared = |i: usize| x[1].data[i * x[1].data.len() / x0.data.len()] as f32;
    let code = |number: usize, scaled: f32, overflow| {
        let code = encode(q.format, scaled.into(), rounding(number), overflow);
        if scaled.is_finite() { decode(q.format, code) } else { f64::NAN }
    };
    if let Blocks::Tensor { overflow } = q.blocks {
        let codes = x0.data.iter().enumerate().map(|(i, &v)| code(i, v as f32 * shared(i), overflow));
        return Tensor { shape: x0.shape.clone(), data: codes.collect() };
    }
    let place = place_of(q.blocks, &x0.shape);
    let mut amax = std::collections::HashMap::new();
    for (i, v) in x0.data.iter().enumerate() {
        let largest: &mut f64 = amax.entry(place(i).0).or_insert(0.0);
        *largest = super::pointwise::max(*largest, v.abs());
    }
    let value = |(i, &v): (usize, &f64)| {
        let (block, number) = place(i);
        let largest = amax[&block] as f32;
        if !largest.is_finite() {
            return f64::NAN;
        }
        let (scaled, scale) = match q.blocks {
            Blocks::Nvfp4 { .. } => {
                let tensor_scale = shared(i);
                // e4m3 to nearest even, of amax relative to the largest code and the tensor's
                // scale.
                let wanted = largest / 6.0 / tensor_scale;
                let code = encode(Format::E4m3, wanted.into(), Rounding::NearestEven, Overflow::Saturate);
                let scale = decode(Format::E4m3, code) as f32;
                if scale == 0.0 {
                    return 0.0;
                }
                (v as f32 / (scale * tensor_scale), scale)
            }
            _ => {
                let scale = E8m0::from_exponent(exponent(q, largest)).value();
                // No f32 scale of these blocks is subnormal.
                let scale =
                    if matches!(q.blocks, Blocks::Mx { .. }) { scale } else { scale.max(f32::MIN_POSITIVE) };
                ((v / f64::from(scale)) as f32, scale)
            }
        };
        code(number, scaled, Overflow::Saturate) * f64::from(scale)
    };
    Tensor { shape: x0.shape.clone(), data: x0.data.iter().enumerate().map(value).collect() }
}

/// The exponent of the power of two that a block with this largest magnitude is divided by.
fn exponent(q: &Quantise, amax: f32) -> i32 {
    if amax == 0.0 {
        return -127;
    }
    let amax = f64::from(amax);
    let floor = amax.log2().floor();
    // The logarithm may round across a power of two.
    let floor = (-1..=1).map(|d| floor + f64::from(d)).filter(|&e| e.exp2() <= amax).fold(f64::MIN, f64::max);
    let significand = amax / floor.exp2();
    let info = q.format.info();
    let up = match q.blocks {
        Blocks::Mx { scale: ScaleRule::Floor, .. } => false,
        // Rounded half up to the element's mantissa, it becomes 2.
        Blocks::Mx { scale: ScaleRule::Even, .. } => {
            let unit = f64::from(1u32 << info.mantissa_bits);
            (significand * unit + 0.5).floor() / unit >= 2.0
        }
        _ => significand > info.max_finite / f64::from(q.format.max_exponent()).exp2(),
    };
    floor as i32 + i32::from(up) - q.format.max_exponent()
}

/// The block that each element belongs to, and the number of its draw.
fn place_of(blocks: Blocks, shape: &[usize]) -> impl Fn(usize) -> ([usize; 3], usize) {
    let last = shape[shape.len() - 1];
    let along = |axis: usize, size: usize| (shape[axis], shape[axis + 1..].iter().product::<usize>(), size);
    let (length, inner, size) = match blocks {
        Blocks::Mx { axis, .. } => along(axis, 32),
        Blocks::Nvfp4 { axis } => along(axis, 16),
        Blocks::Row128 { axis } => along(axis, 128),
        Blocks::Square128 | Blocks::Tensor { .. } => (0, 0, 0),
    };
    let rows = if shape.len() < 2 { 1 } else { shape[shape.len() - 2] };
    move |i| match size {
        0 => {
            let (row, column) = (i / last % rows, i % last);
            let [matrix, down, across] = [i / last / rows, row / 128, column / 128];
            let number = ((matrix * rows.div_ceil(128) + down) * last.div_ceil(128) + across) << 14;
            let width = (last - across * 128).min(128);
            ([matrix, down, across], number + row % 128 * width + column % 128)
        }
        _ => {
            let (slice, at, behind) = (i / inner / length, i / inner % length, i % inner);
            ([slice, at / size, behind], (slice * inner + behind) * length + at)
        }
    }
}

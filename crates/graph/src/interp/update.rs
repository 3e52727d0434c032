//! The optimisers: state is decoded, updated in f64, and rounded as its format says.

use halfstep_float::blocks::DYNAMIC_BLOCK;
use halfstep_float::{Draws, Format, Overflow, Rounding, decode, encode, round_to};

use super::Tensor;
use crate::op::{AdamWSpec, SgdSpec};
use crate::state_formats::{Kept, MomentFormat, StateFormats, WeightFormat};

pub(super) fn adamw(spec: &AdamWSpec, x: &[&Tensor]) -> Vec<Tensor> {
    update(spec.kept, 2, x, |state, grad, scalars| {
        let [lr, scale, t] = [0, 1, 2].map(|i| scalars[i].scalar());
        let correct1 = 1.0 - spec.beta1.powf(t);
        let correct2 = 1.0 - spec.beta2.powf(t);
        for (i, g) in grad.data.iter().enumerate() {
            let g = g * scale;
            let [p, m, v] = [0, 1, 2].map(|k: usize| state[k][i]);
            let m = spec.beta1 * m + (1.0 - spec.beta1) * g;
            let v = spec.beta2 * v + (1.0 - spec.beta2) * g * g;
            let decayed = p * (1.0 - lr * spec.weight_decay);
            state[0][i] = decayed - lr * (m / correct1) / ((v / correct2).sqrt() + spec.eps);
            (state[1][i], state[2][i]) = (m, v);
        }
    })
}

pub(super) fn sgd(spec: &SgdSpec, x: &[&Tensor]) -> Vec<Tensor> {
    update(spec.kept, 1, x, |state, grad, scalars| {
        let [lr, scale] = [0, 1].map(|i| scalars[i].scalar());
        for (i, g) in grad.data.iter().enumerate() {
            let [p, buffer] = [0, 1].map(|k: usize| state[k][i]);
            let g = g * scale + spec.weight_decay * p;
            let buffer = spec.momentum * buffer + g;
            let step = if spec.nesterov { g + spec.momentum * buffer } else { buffer };
            (state[0][i], state[1][i]) = (p - lr * step, buffer);
        }
    })
}

/// State after `step`, which gets weight and moments in f64, the gradient and the scalars behind
/// it.
fn update(
    kept: Kept,
    moments: usize,
    x: &[&Tensor],
    step: impl FnOnce(&mut [Vec<f64>], &Tensor, &[&Tensor]),
) -> Vec<Tensor> {
    let shape = &x[0].shape;
    let types = kept.formats.types(shape, moments);
    let (state, rest) = x.split_at(types.len());
    let Some((commit, rest)) = rest.split_last() else { return Vec::new() };
    if commit.scalar() == 0.0 {
        return state.iter().map(|&t| t.clone()).collect();
    }
    let of_weight = kept.formats.weight_types(shape).len();
    let (weight, tensors) = state.split_at(of_weight);
    let mut numbers = vec![match weight {
        [p, rest] => p.data.iter().zip(&rest.data).map(|(p, c)| p + c).collect(),
        _ => weight[0].data.clone(),
    }];
    for (i, moment) in tensors.chunks(tensors.len() / moments).enumerate() {
        numbers.push(match moment {
            [codes, scales] => {
                let value = |(k, &code): (usize, &f64)| {
                    f64::from(StateFormats::map_of(i).value(code as u8)) * scales.data[k / DYNAMIC_BLOCK]
                };
                codes.data.iter().enumerate().map(value).collect()
            }
            _ => moment[0].data.clone(),
        });
    }
    step(&mut numbers, rest[0], &rest[1..]);
    let key = rest.last().filter(|_| kept.formats.draws());
    let word = |i: usize| key.map_or(0, |key| key.data[i] as i64 as u32);
    let stochastic = |x: &[f64], tensor: usize| {
        let seed = u64::from(word(0)) | u64::from(word(1)) << 32;
        let draws = Draws { seed, attempt: word(2), op: kept.draws_of(tensor) };
        let rounded = |(i, &x): (usize, &f64)| {
            let rounding = Rounding::Stochastic(draws.word(i as u64));
            decode(Format::Bf16, encode(Format::Bf16, x, rounding, Overflow::NonFinite))
        };
        x.iter().enumerate().map(rounded).collect::<Vec<f64>>()
    };
    let mut results = Vec::new();
    for (i, x) in numbers.iter().enumerate() {
        match (i.checked_sub(1), kept.formats) {
            (None, StateFormats { weights: WeightFormat::F32 | WeightFormat::Bf16, .. })
            | (Some(_), StateFormats { moments: MomentFormat::F32, .. }) => results.push(x.clone()),
            (None, StateFormats { weights: WeightFormat::Bf16Stochastic, .. })
            | (Some(_), StateFormats { moments: MomentFormat::Bf16, .. }) => results.push(stochastic(x, i)),
            (None, StateFormats { weights: WeightFormat::Bf16Kahan, .. }) => {
                let rounded: Vec<f64> = x.iter().map(|&x| round_to(Format::Bf16, x)).collect();
                let over = x.iter().zip(&rounded).map(|(x, p)| round_to(Format::Bf16, x - p)).collect();
                results.extend([rounded, over]);
            }
            (Some(moment), StateFormats { moments: MomentFormat::Int8, .. }) => {
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                for block in x.chunks(DYNAMIC_BLOCK) {
                    let block: Vec<f32> = block.iter().map(|&x| x as f32).collect();
                    let mut of_block = vec![0; block.len()];
                    scales.push(f64::from(StateFormats::map_of(moment).encode(&block, &mut of_block)));
                    codes.extend(of_block.into_iter().map(f64::from));
                }
                results.extend([codes, scales]);
            }
        }
    }
    let typed = |(ty, data): (crate::ValueType, Vec<f64>)| Tensor::new(ty.shape, data);
    types.into_iter().zip(results).map(typed).collect()
}

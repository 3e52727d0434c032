use proptest::prelude::*;

use super::support::*;
use crate::isa::Isa;
use crate::rows::kept::Kept;
use crate::rows::optim::*;
use crate::rows::storage::{Src, Storage};
use halfstep_float::blocks::{DYNAMIC_BLOCK, DynamicMap};
use halfstep_float::{Draws, Format, Overflow, Rounding, bf16_from_f32, decode, encode, f32_from_bf16};
use halfstep_graph::{AdamWSpec, SgdSpec};

fn adamw(len: usize, grad_storage: Storage, step: u64) {
    let spec = AdamWSpec {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        kept: halfstep_graph::Kept::default(),
    };
    let lr = 3e-3;
    let grad_scale = 0.37f32;
    let p = random(1, len, 1.0);
    let m = random(2, len, 0.1);
    let v: Vec<f32> = random(3, len, 0.1).iter().map(|x| x.abs()).collect();
    let g = random_stored(4, grad_storage, len, 2.0);
    let results = everywhere(|isa, pool| {
        let (mut p, mut m, mut v) = (p.clone(), m.clone(), v.clone());
        let (param, grad) = (Kept::F32(&mut p), g.src());
        AdamW {
            spec,
            lr,
            step,
            param,
            m: Kept::F32(&mut m),
            v: Kept::F32(&mut v),
            grad,
            grad_scale,
            apply: Apply::Yes,
        }
        .run(isa, pool)
        .unwrap();
        vec![Stored::F32(p), Stored::F32(m), Stored::F32(v)]
    });
    let t = step as i32;
    let g = g.values();
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for i in 0..len {
            let g = g[i] * f64::from(grad_scale);
            let (p, m, v) = (f64::from(p[i]), f64::from(m[i]), f64::from(v[i]));
            let (m_keep, m_new) = (spec.beta1 * m, (1.0 - spec.beta1) * g);
            let (v_keep, v_new) = (spec.beta2 * v, (1.0 - spec.beta2) * g * g);
            let (m, v) = (m_keep + m_new, v_keep + v_new);
            // Constants rounded to f32 and a few operations each.
            let m_bound = 5.0 * U * (m_keep.abs() + m_new.abs());
            let v_bound = 6.0 * U * (v_keep + v_new);
            assert_close("m", &[result[1][i]], &[m], |_| m_bound);
            assert_close("v", &[result[2][i]], &[v], |_| v_bound);
            let m_hat = m / (1.0 - spec.beta1.powi(t));
            let root = (v / (1.0 - spec.beta2.powi(t))).sqrt() + spec.eps;
            let decayed = p * (1.0 - lr * spec.weight_decay);
            let expected = decayed - lr * m_hat / root;
            let update = lr * (m_hat / root).abs();
            let update_bound = lr * m_bound / (1.0 - spec.beta1.powi(t)) / root + 12.0 * U * update;
            assert_close("p", &[result[0][i]], &[expected], |_| {
                update_bound + 4.0 * U * (decayed.abs() + update)
            });
        }
    }
}

fn sgd(len: usize, nesterov: bool, with_momentum: bool, grad_storage: Storage) {
    let spec = SgdSpec { momentum: 0.9, weight_decay: 5e-4, nesterov, kept: halfstep_graph::Kept::default() };
    let lr = 0.1;
    let p = random(1, len, 1.0);
    let buffer = random(2, len, 0.5);
    let g = random_stored(4, grad_storage, len, 2.0);
    let results = everywhere(|isa, pool| {
        let (mut p, mut m) = (p.clone(), buffer.clone());
        Sgd {
            spec,
            lr,
            param: Kept::F32(&mut p),
            momentum: with_momentum.then_some(Kept::F32(&mut m)),
            grad: g.src(),
            grad_scale: 0.5,
            apply: Apply::Yes,
        }
        .run(isa, pool)
        .unwrap();
        vec![Stored::F32(p), Stored::F32(m)]
    });
    let g = g.values();
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for i in 0..len {
            let p = f64::from(p[i]);
            let g = g[i] * 0.5 + spec.weight_decay * p;
            let sizes = g.abs() + spec.weight_decay * p.abs() + spec.momentum * f64::from(buffer[i]).abs();
            let direction = if with_momentum {
                let m = spec.momentum * f64::from(buffer[i]) + g;
                assert_close("momentum", &[result[1][i]], &[m], |_| 6.0 * U * sizes);
                if nesterov { g + spec.momentum * m } else { m }
            } else {
                g
            };
            let expected = p - lr * direction;
            assert_close("p", &[result[0][i]], &[expected], |_| lr * 16.0 * U * sizes + 2.0 * U * p.abs());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn adamw_is_torch_s(len in 1usize..3000, grad in 0usize..3, step in 1u64..1000) {
        adamw(len, STORAGES[grad], step);
    }

    #[test]
    fn sgd_is_torch_s(len in 1usize..3000, grad in 0usize..3, nesterov in any::<bool>(), momentum in any::<bool>()) {
        sgd(len, nesterov, momentum, STORAGES[grad]);
    }
}

#[test]
fn first_sgd_step_from_a_zero_buffer_puts_the_gradient_in_it() {
    for isa in isas() {
        let (mut p, mut m) = ([1.0], [0.0]);
        let spec = SgdSpec {
            momentum: 0.9,
            weight_decay: 0.0,
            nesterov: false,
            kept: halfstep_graph::Kept::default(),
        };
        let lr = 0.5;
        let (param, momentum) = (Kept::F32(&mut p), Some(Kept::F32(&mut m)));
        Sgd { spec, lr, param, momentum, grad: Src::F32(&[0.25]), grad_scale: 1.0, apply: Apply::Yes }
            .run(isa, &pool(1))
            .unwrap();
        assert_eq!((p, m), ([0.875], [0.25]));
    }
}

/// A tensor of state with memory of its own.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Stochastic(Vec<u16>, Draws),
    Compensated(Vec<u16>, Vec<u16>),
    Blocks(DynamicMap, Vec<u8>, Vec<f32>),
}

impl Owned {
    fn kept(&mut self) -> Kept<'_> {
        match self {
            Owned::F32(x) => Kept::F32(x),
            Owned::Bf16(x) => Kept::Bf16(x),
            Owned::Stochastic(x, draws) => Kept::Stochastic(x, *draws),
            Owned::Compensated(x, over) => Kept::Compensated(x, over),
            Owned::Blocks(map, codes, scales) => Kept::Blocks(*map, codes, scales),
        }
    }

    /// What it stands for, element by element.
    fn numbers(&self) -> Vec<f32> {
        let wide = |x: &[u16]| -> Vec<f32> { x.iter().map(|&c| f32_from_bf16(c)).collect() };
        match self {
            Owned::F32(x) => x.clone(),
            Owned::Bf16(x) | Owned::Stochastic(x, _) => wide(x),
            Owned::Compensated(x, over) => wide(x).iter().zip(wide(over)).map(|(x, over)| x + over).collect(),
            Owned::Blocks(map, codes, scales) => {
                let value = |(i, &code): (usize, &u8)| map.value(code) * scales[i / DYNAMIC_BLOCK];
                codes.iter().enumerate().map(value).collect()
            }
        }
    }

    /// These numbers kept in the same way, by the reference conversion.
    fn keeping(&self, x: &[f32]) -> Owned {
        let reference =
            |x: f32, rounding| encode(Format::Bf16, x.into(), rounding, Overflow::NonFinite) as u16;
        match self {
            Owned::F32(_) => Owned::F32(x.to_vec()),
            Owned::Bf16(_) => Owned::Bf16(x.iter().map(|&x| reference(x, Rounding::NearestEven)).collect()),
            Owned::Stochastic(_, draws) => {
                let code = |(i, &x): (usize, &f32)| reference(x, Rounding::Stochastic(draws.word(i as u64)));
                Owned::Stochastic(x.iter().enumerate().map(code).collect(), *draws)
            }
            Owned::Compensated(..) => {
                let codes: Vec<u16> = x.iter().map(|&x| reference(x, Rounding::NearestEven)).collect();
                let over = |(&x, &c): (&f32, &u16)| {
                    reference(x - decode(Format::Bf16, c.into()) as f32, Rounding::NearestEven)
                };
                let over = x.iter().zip(&codes).map(over).collect();
                Owned::Compensated(codes, over)
            }
            Owned::Blocks(map, ..) => {
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                for block in x.chunks(DYNAMIC_BLOCK) {
                    let mut of_block = vec![0; block.len()];
                    scales.push(map.encode(block, &mut of_block));
                    codes.extend(of_block);
                }
                Owned::Blocks(*map, codes, scales)
            }
        }
    }
}

const DRAWS: Draws = Draws { seed: 77, attempt: 5, op: 12 };

/// Every way to keep a tensor, of no elements.
fn ways(map: DynamicMap) -> [Owned; 5] {
    [
        Owned::F32(vec![]),
        Owned::Bf16(vec![]),
        Owned::Stochastic(vec![], DRAWS),
        Owned::Compensated(vec![], vec![]),
        Owned::Blocks(map, vec![], vec![]),
    ]
}

/// A step on so many threads.
type Step<'a> = dyn Fn(Isa, usize, &mut [Owned; 3]) + 'a;

/// However state is kept, a step has the bits of: widen it, take the step in f32, round it.
#[test]
fn kept_state_is_widened_updated_and_rounded() {
    // Several chunks, the last with a part of a block.
    for len in [1, 255, 20_001] {
        let g = random(4, len, 2.0);
        let adamw = |isa: Isa, threads: usize, state: &mut [Owned; 3]| {
            let spec = AdamWSpec {
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                kept: halfstep_graph::Kept::default(),
            };
            let (lr, step) = (3e-3, 3);
            let [param, m, v] = state.each_mut().map(Owned::kept);
            AdamW { spec, lr, step, param, m, v, grad: Src::F32(&g), grad_scale: 0.37, apply: Apply::Yes }
                .run(isa, &pool(threads))
                .unwrap();
        };
        let sgd = |isa: Isa, threads: usize, state: &mut [Owned; 3]| {
            let spec = SgdSpec {
                momentum: 0.9,
                weight_decay: 5e-4,
                nesterov: true,
                kept: halfstep_graph::Kept::default(),
            };
            let lr = 0.1;
            let [param, m, _] = state.each_mut().map(Owned::kept);
            Sgd {
                spec,
                lr,
                param,
                momentum: Some(m),
                grad: Src::F32(&g),
                grad_scale: 0.37,
                apply: Apply::Yes,
            }
            .run(isa, &pool(threads))
            .unwrap();
        };
        let steps: [(&Step<'_>, usize); 2] = [(&adamw, 3), (&sgd, 2)];
        for (i, way) in ways(DynamicMap::Signed).iter().enumerate() {
            let squares: Vec<f32> = random(3, len, 0.1).iter().map(|x| x.abs()).collect();
            let start = [
                way.keeping(&random(1, len, 1.0)),
                ways(DynamicMap::Signed)[(i + 1) % 5].keeping(&random(2, len, 0.1)),
                ways(DynamicMap::Unsigned)[(i + 2) % 5].keeping(&squares),
            ];
            for isa in isas() {
                for (step, tensors) in steps {
                    let mut wide = start.each_ref().map(|t| Owned::F32(t.numbers()));
                    step(isa, 1, &mut wide);
                    let mut expected = start.clone();
                    for (kept, wide) in expected.iter_mut().zip(&wide).take(tensors) {
                        *kept = kept.keeping(&wide.numbers());
                    }
                    for threads in [1, 3] {
                        let mut found = start.clone();
                        step(isa, threads, &mut found);
                        assert_eq!(found, expected, "{len} elements, way {i}, {isa}, {threads} threads");
                    }
                }
            }
        }
    }
}

/// Rounded stochastically, many small steps add up to their sum, within five standard deviations;
/// to nearest, to nothing; and with a compensation to the sum itself but for its own rounding.
#[test]
fn updates_below_half_an_ulp_are_lost_only_to_nearest() {
    let (len, steps, update) = (4096, 256, 1.0 / 1024.0);
    let spec =
        SgdSpec { momentum: 0.0, weight_decay: 0.0, nesterov: false, kept: halfstep_graph::Kept::default() };
    let lr = 1.0;
    let isa = isas()[0];
    let end = |mut p: Owned| {
        for attempt in 0..steps {
            if let Owned::Stochastic(_, draws) = &mut p {
                draws.attempt = attempt;
            }
            let grad = vec![-update; len];
            Sgd {
                spec,
                lr,
                param: p.kept(),
                momentum: None,
                grad: Src::F32(&grad),
                grad_scale: 1.0,
                apply: Apply::Yes,
            }
            .run(isa, &pool(2))
            .unwrap();
        }
        p.numbers()
    };
    let one = bf16_from_f32(1.0);
    // Half an ulp of bf16 at 1 is 2^-8, four updates.
    assert_eq!(end(Owned::Bf16(vec![one; len])), vec![1.0; len]);
    let sum = 1.0 + steps as f32 * update;
    assert_eq!(end(Owned::Compensated(vec![one; len], vec![0; len])), vec![sum; len]);
    let walked = end(Owned::Stochastic(vec![one; len], DRAWS));
    let mean = walked.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
    // A step is one ulp = 2^-7 with probability 1/8, else 0: a variance of 2^-14 · 7/64 each.
    let deviation = (f64::from(steps) * f64::powi(2.0, -14) * 7.0 / 64.0 / len as f64).sqrt();
    assert!((mean - f64::from(sum)).abs() < 5.0 * deviation, "{mean} against {sum} ± {deviation}");
}

#[test]
fn a_step_that_is_not_applied_changes_nothing() {
    let bad = vec![f32::NAN; 5000];
    for isa in isas() {
        for (i, way) in ways(DynamicMap::Signed).iter().enumerate() {
            let start: [Owned; 3] = std::array::from_fn(|k| way.keeping(&random(1 + k as u64, 5000, 1.0)));
            let mut state = start.clone();
            let spec = AdamWSpec {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.1,
                kept: halfstep_graph::Kept::default(),
            };
            let (lr, step) = (0.1, 1);
            let (grad, grad_scale, apply) = (Src::F32(&bad), f32::INFINITY, Apply::No);
            let [param, m, v] = state.each_mut().map(Owned::kept);
            AdamW { spec, lr, step, param, m, v, grad, grad_scale, apply }.run(isa, &pool(2)).unwrap();
            let spec = SgdSpec {
                momentum: 0.9,
                weight_decay: 0.1,
                nesterov: true,
                kept: halfstep_graph::Kept::default(),
            };
            let lr = 0.1;
            let [param, momentum, _] = state.each_mut().map(Owned::kept);
            Sgd { spec, lr, param, momentum: Some(momentum), grad, grad_scale, apply }
                .run(isa, &pool(2))
                .unwrap();
            assert_eq!(state, start, "way {i}");
        }
    }
}

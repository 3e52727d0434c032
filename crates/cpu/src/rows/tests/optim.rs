use proptest::prelude::*;

use super::support::*;
use crate::rows::optim::*;
use crate::rows::storage::{Src, Storage};

fn adamw(len: usize, grad_storage: Storage, low: Option<Storage>, step: u64) {
    let rule = AdamWRule { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step };
    let grad_scale = 0.37f32;
    let p = random(1, len, 1.0);
    let m = random(2, len, 0.1);
    let v: Vec<f32> = random(3, len, 0.1).iter().map(|x| x.abs()).collect();
    let g = random_stored(4, grad_storage, len, 2.0);
    let results = everywhere(|isa, pool| {
        let (mut p, mut m, mut v) = (p.clone(), m.clone(), v.clone());
        let mut copy = Stored::empty(low.unwrap_or(Storage::F32), len);
        AdamW {
            rule,
            param: &mut p,
            m: &mut m,
            v: &mut v,
            grad: g.src(),
            grad_scale,
            apply: Apply::Yes,
            low: low.map(|_| copy.dst()),
        }
        .run(isa, pool)
        .unwrap();
        if let Some(low) = low {
            assert_eq!(copy.bits(), Stored::new(low, &p).bits(), "the copy is the rounded parameter");
        }
        vec![Stored::F32(p), Stored::F32(m), Stored::F32(v)]
    });
    let t = step as i32;
    let g = g.values();
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for i in 0..len {
            let g = g[i] * f64::from(grad_scale);
            let (p, m, v) = (f64::from(p[i]), f64::from(m[i]), f64::from(v[i]));
            let (m_keep, m_new) = (rule.beta1 * m, (1.0 - rule.beta1) * g);
            let (v_keep, v_new) = (rule.beta2 * v, (1.0 - rule.beta2) * g * g);
            let (m, v) = (m_keep + m_new, v_keep + v_new);
            // Constants rounded to f32 and a few operations each.
            let m_bound = 5.0 * U * (m_keep.abs() + m_new.abs());
            let v_bound = 6.0 * U * (v_keep + v_new);
            assert_close("m", &[result[1][i]], &[m], |_| m_bound);
            assert_close("v", &[result[2][i]], &[v], |_| v_bound);
            let m_hat = m / (1.0 - rule.beta1.powi(t));
            let root = (v / (1.0 - rule.beta2.powi(t))).sqrt() + rule.eps;
            let decayed = p * (1.0 - rule.lr * rule.weight_decay);
            let expected = decayed - rule.lr * m_hat / root;
            let update = rule.lr * (m_hat / root).abs();
            let update_bound = rule.lr * m_bound / (1.0 - rule.beta1.powi(t)) / root + 12.0 * U * update;
            assert_close("p", &[result[0][i]], &[expected], |_| {
                update_bound + 4.0 * U * (decayed.abs() + update)
            });
        }
    }
}

fn sgd(len: usize, nesterov: Nesterov, with_momentum: bool, low: Storage) {
    let rule = SgdRule { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov };
    let p = random(1, len, 1.0);
    let buffer = random(2, len, 0.5);
    let g = random_stored(4, low, len, 2.0);
    let results = everywhere(|isa, pool| {
        let (mut p, mut m) = (p.clone(), buffer.clone());
        let mut copy = Stored::empty(low, len);
        Sgd {
            rule,
            param: &mut p,
            momentum: with_momentum.then_some(&mut m[..]),
            grad: g.src(),
            grad_scale: 0.5,
            apply: Apply::Yes,
            low: Some(copy.dst()),
        }
        .run(isa, pool)
        .unwrap();
        assert_eq!(copy.bits(), Stored::new(low, &p).bits());
        vec![Stored::F32(p), Stored::F32(m)]
    });
    let g = g.values();
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for i in 0..len {
            let p = f64::from(p[i]);
            let g = g[i] * 0.5 + rule.weight_decay * p;
            let sizes = g.abs() + rule.weight_decay * p.abs() + rule.momentum * f64::from(buffer[i]).abs();
            let direction = if with_momentum {
                let m = rule.momentum * f64::from(buffer[i]) + g;
                assert_close("momentum", &[result[1][i]], &[m], |_| 6.0 * U * sizes);
                if nesterov == Nesterov::Yes { g + rule.momentum * m } else { m }
            } else {
                g
            };
            let expected = p - rule.lr * direction;
            assert_close("p", &[result[0][i]], &[expected], |_| {
                rule.lr * 16.0 * U * sizes + 2.0 * U * p.abs()
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn adamw_is_torch_s(len in 1usize..3000, grad in 0usize..3, low in 0usize..4, step in 1u64..1000) {
        adamw(len, STORAGES[grad], STORAGES.get(low).copied(), step);
    }

    #[test]
    fn sgd_is_torch_s(len in 1usize..3000, low in 0usize..3, nesterov in any::<bool>(), momentum in any::<bool>()) {
        let nesterov = if nesterov { Nesterov::Yes } else { Nesterov::No };
        sgd(len, nesterov, momentum, STORAGES[low]);
    }
}

#[test]
fn first_sgd_step_from_a_zero_buffer_puts_the_gradient_in_it() {
    for isa in isas() {
        let (mut p, mut m) = ([1.0], [0.0]);
        let rule = SgdRule { lr: 0.5, momentum: 0.9, weight_decay: 0.0, nesterov: Nesterov::No };
        let (param, momentum, grad) = (&mut p[..], Some(&mut m[..]), Src::F32(&[0.25]));
        Sgd { rule, param, momentum, grad, grad_scale: 1.0, apply: true.into(), low: None }
            .run(isa, &pool(1))
            .unwrap();
        assert_eq!((p, m), ([0.875], [0.25]));
    }
}

#[test]
fn a_step_that_is_not_applied_changes_nothing() {
    for isa in isas() {
        let (p0, m0, v0) = (random(1, 5000, 1.0), random(2, 5000, 1.0), random(3, 5000, 1.0));
        let (mut p, mut m, mut v) = (p0.clone(), m0.clone(), v0.clone());
        let mut low = Stored::empty(Storage::Bf16, 5000);
        let untouched = low.bits();
        let bad = vec![f32::NAN; 5000];
        let rule = AdamWRule { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1 };
        let (grad, grad_scale, apply) = (Src::F32(&bad), f32::INFINITY, Apply::No);
        AdamW { rule, param: &mut p, m: &mut m, v: &mut v, grad, grad_scale, apply, low: Some(low.dst()) }
            .run(isa, &pool(2))
            .unwrap();
        let rule = SgdRule { lr: 0.1, momentum: 0.9, weight_decay: 0.1, nesterov: Nesterov::Yes };
        let (param, momentum, low_dst) = (&mut p[..], Some(&mut m[..]), Some(low.dst()));
        Sgd { rule, param, momentum, grad, grad_scale, apply, low: low_dst }.run(isa, &pool(2)).unwrap();
        assert_eq!((p, m, v), (p0, m0, v0));
        assert_eq!(low.bits(), untouched);
    }
}

//! Softmax and cross-entropy.

use proptest::prelude::*;

use super::support::*;
use crate::rows::loss::*;
use crate::rows::softmax::*;
use crate::rows::storage::{Src, Storage};

/// exp(x) is flushed to zero below −87, where it is less than this.
const FLUSHED: f64 = 1.7e-38;

/// Relative error of exp(x − c): the rounding of the difference, and 2 ulp (4 u at worst).
fn exp_error(difference: f64) -> f64 {
    (difference.abs() + 4.0) * U
}

fn softmax(rows: usize, cols: usize, from: Storage, to: Storage) {
    let x = random_stored(1, from, rows * cols, 6.0);
    let results = everywhere(|isa, pool| {
        let mut y = Stored::empty(to, rows * cols);
        Softmax { rows, cols, x: x.src(), y: y.dst() }.run(isa, pool).unwrap();
        vec![y]
    });
    for result in results {
        let ys = result[0].values();
        for (row, x) in x.values().chunks(cols).enumerate() {
            let at = row * cols..(row + 1) * cols;
            let largest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let range = x.iter().fold(0.0, |a: f64, &b| a.max(largest - b));
            let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
            let y: Vec<f64> = x.iter().map(|x| (x - largest).exp() / sum).collect();
            // Numerator, denominator (every term within exp_error(range)), two roundings.
            let relative = 2.0 * exp_error(range) + sum_error() + 2.0 * U;
            assert_close("softmax", &ys[at], &y, |i| {
                let error = relative * y[i] + FLUSHED;
                error + rounding(to, y[i] + error)
            });
        }
    }
}

fn cross_entropy(rows: usize, cols: usize, from: Storage, to: Storage, one_dloss: bool) {
    let logits = random_stored(1, from, rows * cols, 6.0);
    let targets: Vec<i32> = random(2, rows, 1.0).iter().map(|x| (x.abs() * cols as f32) as i32).collect();
    let dloss = random(3, if one_dloss { 1 } else { rows }, 1.0);
    let results = everywhere(|isa, pool| {
        let (mut loss, mut lse) = (vec![0.0; rows], vec![0.0; rows]);
        let (targets, loss_dst, lse_dst) = (&targets[..], &mut loss, &mut lse);
        CrossEntropy { rows, cols, logits: logits.src(), targets, loss: loss_dst, lse: lse_dst }
            .run(isa, pool)
            .unwrap();
        let mut dlogits = Stored::empty(to, rows * cols);
        let (logits_src, dloss) = (logits.src(), Src::F32(&dloss));
        CrossEntropyBackward {
            rows,
            cols,
            logits: Some(logits_src),
            targets,
            lse: &lse,
            dloss,
            dlogits: dlogits.dst(),
        }
        .run(isa, pool)
        .unwrap();
        let mut in_place = logits.clone();
        CrossEntropyBackward { rows, cols, logits: None, targets, lse: &lse, dloss, dlogits: in_place.dst() }
            .run(isa, pool)
            .unwrap();
        if from == to {
            assert_eq!(in_place.bits(), dlogits.bits());
        }
        vec![Stored::F32(loss), Stored::F32(lse), dlogits]
    });
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for (row, x) in logits.values().chunks(cols).enumerate() {
            let target = targets[row] as usize;
            let largest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let range = x.iter().fold(0.0, |a: f64, &b| a.max(largest - b));
            let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
            let lse = largest + sum.ln();
            let relative = exp_error(range) + sum_error();
            assert_close("lse", &[result[1][row]], &[lse], |_| relative + U * lse.abs());
            let loss = lse - x[target];
            assert_close("loss", &[result[0][row]], &[loss], |_| relative + U * loss.abs());
            // The backward pass is given the rounded lse.
            let lse = result[1][row];
            let scale = f64::from(dloss[if one_dloss { 0 } else { row }]);
            let actual = &result[2][row * cols..(row + 1) * cols];
            let hot = |i: usize| f64::from(u8::from(i == target));
            let expected: Vec<f64> =
                x.iter().enumerate().map(|(i, x)| ((x - lse).exp() - hot(i)) * scale).collect();
            assert_close("dlogits", actual, &expected, |i| {
                let p = (x[i] - lse).exp();
                let error = scale.abs() * (p * exp_error(x[i] - lse) + 3.0 * U * (p + hot(i)) + FLUSHED)
                    + 2f64.powi(-149);
                error + rounding(to, expected[i].abs() + error)
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape(rows in 1usize..40, cols in 1usize..300, from in 0usize..3, to in 0usize..3, one in any::<bool>()) {
        softmax(rows, cols, STORAGES[from], STORAGES[to]);
        cross_entropy(rows, cols, STORAGES[from], STORAGES[to], one);
    }
}

#[test]
fn shapes_at_the_edges() {
    for (rows, cols) in [(1, 1), (2, 1025), (3, 50_257)] {
        softmax(rows, cols, Storage::F32, Storage::F32);
        cross_entropy(rows, cols, Storage::F32, Storage::F32, true);
        cross_entropy(rows, cols, Storage::Bf16, Storage::Bf16, false);
    }
}

#[test]
fn huge_logits_do_not_overflow_and_certain_rows_keep_their_small_loss() {
    let logits = [1e30, 0.0, -1e30, 20.0, 0.0, 0.0];
    for isa in isas() {
        let (mut loss, mut lse) = ([0.0; 2], [0.0; 2]);
        let (logits, targets) = (Src::F32(&logits), &[0, 0][..]);
        CrossEntropy { rows: 2, cols: 3, logits, targets, loss: &mut loss, lse: &mut lse }
            .run(isa, &pool(1))
            .unwrap();
        assert_eq!(loss[0], 0.0);
        let exact = (2.0 * (-20f64).exp()).ln_1p();
        // exp(−20) is far below the ulp of the row's sum, which is 1 + 2 exp(−20) in f32 lanes.
        assert!((f64::from(loss[1]) - exact).abs() < sum_error(), "{}", loss[1]);
    }
}

#[test]
fn infinite_and_nan_logits_show_in_the_loss() {
    for bad in [f32::NAN, f32::INFINITY] {
        for isa in isas() {
            let (mut loss, mut lse) = ([0.0], [0.0]);
            let x = [0.0, bad, 1.0];
            let (logits, targets) = (Src::F32(&x), &[0][..]);
            CrossEntropy { rows: 1, cols: 3, logits, targets, loss: &mut loss, lse: &mut lse }
                .run(isa, &pool(1))
                .unwrap();
            assert!(!loss[0].is_finite());
        }
    }
}

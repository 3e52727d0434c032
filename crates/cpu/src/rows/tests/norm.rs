use proptest::prelude::*;

use super::support::*;
use crate::rows::norm::*;
use crate::rows::reduce::column_scratch_len;
use crate::rows::storage::{Dst, Src, Storage};

const EPS: f64 = 1e-5;

/// Mean and biased variance of values.
fn moments(x: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = x.clone().count() as f64;
    let mean = x.clone().sum::<f64>() / n;
    (mean, x.map(|x| (x - mean).powi(2)).sum::<f64>() / n)
}

/// Relative error of rstd: half of the variance's (squares and sum, and the mean's own error, which
/// enters squared), and a rounding.
fn rstd_error(mean_error: f64, rstd: f64) -> f64 {
    0.5 * (sum_error() + 3.0 * U) + (mean_error * rstd).powi(2) + 2.0 * U
}

fn layer_norm(rows: usize, cols: usize, from: Storage, to: Storage) {
    let x = random_stored(1, from, rows * cols, 2.0);
    let gamma = random_stored(2, Storage::F32, cols, 1.5);
    let beta = random_stored(3, from, cols, 1.0);
    let (xs, gs, bs) = (x.values(), gamma.values(), beta.values());
    let results = everywhere(|isa, pool| {
        let mut y = Stored::empty(to, rows * cols);
        let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
        LayerNorm {
            rows,
            cols,
            eps: EPS as f32,
            x: x.src(),
            gamma: Some(gamma.src()),
            beta: Some(beta.src()),
            y: y.dst(),
            mean: &mut mean,
            rstd: &mut rstd,
        }
        .run(isa, pool)
        .unwrap();
        vec![y, Stored::F32(mean), Stored::F32(rstd)]
    });
    let eps = f64::from(EPS as f32);
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for (row, x) in xs.chunks(cols).enumerate() {
            let (mean, var) = moments(x.iter().copied());
            let rstd = 1.0 / (var + eps).sqrt();
            let mean_error = (sum_error() + U) * x.iter().map(|x| x.abs()).sum::<f64>() / cols as f64;
            let relative = rstd_error(mean_error, rstd);
            assert_close("mean", &result[1][row..=row], &[mean], |_| mean_error);
            assert_close("rstd", &result[2][row..=row], &[rstd], |_| relative * rstd);
            let expected: Vec<f64> =
                x.iter().zip(&gs).zip(&bs).map(|((x, g), b)| (x - mean) * rstd * g + b).collect();
            let y = &result[0][row * cols..(row + 1) * cols];
            assert_close("y", y, &expected, |i| {
                let distance = (x[i] - mean).abs();
                let error = gs[i].abs() * rstd * (mean_error + distance * (relative + 3.0 * U))
                    + 2.0 * U * (expected[i].abs() + bs[i].abs());
                error + rounding(to, expected[i].abs() + error)
            });
        }
    }
}

fn layer_norm_backward(rows: usize, cols: usize, from: Storage, to: Storage) {
    let x = random_stored(1, from, rows * cols, 2.0);
    let dy = random_stored(4, from, rows * cols, 1.0);
    let gamma = random_stored(2, Storage::F32, cols, 1.5);
    let (xs, dys, gs) = (x.values(), dy.values(), gamma.values());
    let stats: Vec<(f32, f32)> = xs
        .chunks(cols)
        .map(|x| moments(x.iter().copied()))
        .map(|(m, v)| (m as f32, (1.0 / (v + EPS).sqrt()) as f32))
        .collect();
    let (mean, rstd): (Vec<f32>, Vec<f32>) = stats.into_iter().unzip();
    let results = everywhere(|isa, pool| {
        let mut dx = Stored::empty(to, rows * cols);
        let (mut dgamma, mut dbeta) = (Stored::empty(Storage::F32, cols), Stored::empty(to, cols));
        let mut scratch = vec![f32::NAN; layer_norm_backward_scratch_len(rows, cols)];
        LayerNormBackward {
            rows,
            cols,
            x: x.src(),
            gamma: Some(gamma.src()),
            mean: &mean,
            rstd: &rstd,
            dy: dy.src(),
            dx: dx.dst(),
            dgamma: Some(dgamma.dst()),
            dbeta: Some(dbeta.dst()),
            scratch: &mut scratch,
        }
        .run(isa, pool, None)
        .unwrap();
        vec![dx, dgamma, dbeta]
    });
    let normal = |i: usize| (xs[i] - f64::from(mean[i / cols])) * f64::from(rstd[i / cols]);
    // mean and rstd are given, so x̂ has two roundings; every term has a few more.
    let terms = sum_error() + 8.0 * U;
    let (mut dx, mut dx_bound) = (vec![], vec![]);
    for (row, &r) in rstd.iter().enumerate() {
        let r = f64::from(r);
        let at = row * cols..(row + 1) * cols;
        let g: Vec<f64> = at.clone().map(|i| dys[i] * gs[i % cols]).collect();
        let average = |f: &dyn Fn(usize) -> f64| (0..cols).map(f).sum::<f64>() / cols as f64;
        let (c1, a1) = (average(&|j| g[j]), average(&|j| g[j].abs()));
        let (c2, a2) = (
            average(&|j| g[j] * normal(row * cols + j)),
            average(&|j| (g[j] * normal(row * cols + j)).abs()),
        );
        for (j, i) in at.enumerate() {
            let n = normal(i);
            dx.push(r * (g[j] - c1 - n * c2));
            dx_bound.push(r * terms * (g[j].abs() + a1 + n.abs() * a2));
        }
    }
    let column = |f: &dyn Fn(usize) -> f64| -> (Vec<f64>, Vec<f64>) {
        (0..cols)
            .map(|c| {
                let terms = (0..rows).map(|r| f(r * cols + c));
                (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>())
            })
            .unzip()
    };
    let (dgamma, dgamma_abs) = column(&|i| dys[i] * normal(i));
    let (dbeta, dbeta_abs) = column(&|i| dys[i]);
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        assert_close("dx", &result[0], &dx, |i| dx_bound[i] + rounding(to, dx[i].abs() + dx_bound[i]));
        assert_close("dgamma", &result[1], &dgamma, |i| terms * dgamma_abs[i] + U * dgamma[i].abs());
        assert_close("dbeta", &result[2], &dbeta, |i| {
            terms * dbeta_abs[i] + rounding(to, dbeta[i].abs() + dbeta_abs[i] * terms)
        });
    }
}

fn batch_norm(rows: usize, cols: usize, from: Storage, to: Storage) {
    let x = random_stored(1, from, rows * cols, 2.0);
    let gamma = random_stored(2, Storage::F32, cols, 1.5);
    let beta = random_stored(3, Storage::F32, cols, 1.0);
    let (xs, gs, bs) = (x.values(), gamma.values(), beta.values());
    let eps = f64::from(EPS as f32);
    let results = everywhere(|isa, pool| {
        let mut y = Stored::empty(to, rows * cols);
        let (mut mean, mut var, mut rstd) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
        let mut scratch = vec![f32::NAN; column_scratch_len(rows, cols, 1)];
        let mut moment = |about: Option<&[f32]>, to: &mut [f32]| {
            let scratch = &mut scratch[..];
            BatchNormMoment { rows, cols, x: x.src(), about, to, scratch }.run(isa, pool).unwrap();
        };
        moment(None, &mut mean);
        moment(Some(&mean), &mut var);
        BatchNormApply {
            rows,
            cols,
            eps: EPS as f32,
            x: x.src(),
            gamma: Some(gamma.src()),
            beta: Some(beta.src()),
            mean: &mean,
            var: &var,
            y: y.dst(),
            rstd: &mut rstd,
        }
        .run(isa, pool, None)
        .unwrap();
        vec![y, Stored::F32(mean), Stored::F32(var), Stored::F32(rstd)]
    });
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for c in 0..cols {
            let column = xs.iter().skip(c).step_by(cols).copied();
            let (mean, var) = moments(column.clone());
            let rstd = 1.0 / (var + eps).sqrt();
            let mean_error = (sum_error() + U) * column.map(f64::abs).sum::<f64>() / rows as f64;
            let relative = rstd_error(mean_error, rstd);
            assert_close("mean", &[result[1][c]], &[mean], |_| mean_error);
            assert_close("var", &[result[2][c]], &[var], |_| {
                (sum_error() + 4.0 * U) * var + mean_error.powi(2) + 4.0 * U * mean_error * var.sqrt()
            });
            assert_close("rstd", &[result[3][c]], &[rstd], |_| relative * rstd);
            for r in 0..rows {
                let i = r * cols + c;
                let expected = (xs[i] - mean) * rstd * gs[c] + bs[c];
                let distance = (xs[i] - mean).abs();
                let error = gs[c].abs() * rstd * (mean_error + distance * (relative + 4.0 * U))
                    + 2.0 * U * (expected.abs() + bs[c].abs());
                let bound = error + rounding(to, expected.abs() + error);
                assert_close("y", &[result[0][i]], &[expected], |_| bound);
            }
        }
    }
}

fn batch_norm_backward(rows: usize, cols: usize, from: Storage, to: Storage) {
    let x = random_stored(1, from, rows * cols, 2.0);
    let dy = random_stored(4, from, rows * cols, 1.0);
    let gamma = random_stored(2, Storage::F32, cols, 1.5);
    let mean = random(5, cols, 0.1);
    let rstd: Vec<f32> = random(6, cols, 0.5).iter().map(|x| x + 1.0).collect();
    let (xs, dys, gs) = (x.values(), dy.values(), gamma.values());
    let results = everywhere(|isa, pool| {
        let mut dx = Stored::empty(to, rows * cols);
        let (mut dgamma, mut dbeta) = (vec![0.0; cols], vec![0.0; cols]);
        let mut scratch = vec![f32::NAN; column_scratch_len(rows, cols, 2)];
        BatchNormSums {
            rows,
            cols,
            x: x.src(),
            mean: &mean,
            rstd: &rstd,
            dy: dy.src(),
            dgamma: &mut dgamma,
            dbeta: &mut dbeta,
            scratch: &mut scratch,
        }
        .run(isa, pool)
        .unwrap();
        BatchNormDx {
            rows,
            cols,
            x: x.src(),
            gamma: Some(gamma.src()),
            mean: &mean,
            rstd: &rstd,
            dy: dy.src(),
            dgamma: &dgamma,
            dbeta: &dbeta,
            dx: dx.dst(),
        }
        .run(isa, pool)
        .unwrap();
        vec![dx, Stored::F32(dgamma), Stored::F32(dbeta)]
    });
    let normal = |i: usize| (xs[i] - f64::from(mean[i % cols])) * f64::from(rstd[i % cols]);
    let terms = sum_error() + 8.0 * U;
    for result in results {
        let result: Vec<Vec<f64>> = result.iter().map(Stored::values).collect();
        for c in 0..cols {
            let places = || (0..rows).map(|r| r * cols + c);
            let dbeta: f64 = places().map(|i| dys[i]).sum();
            let dbeta_abs: f64 = places().map(|i| dys[i].abs()).sum();
            let dgamma: f64 = places().map(|i| dys[i] * normal(i)).sum();
            let dgamma_abs: f64 = places().map(|i| (dys[i] * normal(i)).abs()).sum();
            let bound = terms * dgamma_abs;
            assert_close("dgamma", &[result[1][c]], &[dgamma], |_| {
                bound + rounding(Storage::F32, dgamma.abs() + bound)
            });
            assert_close("dbeta", &[result[2][c]], &[dbeta], |_| terms * dbeta_abs);
            let factor = gs[c] * f64::from(rstd[c]);
            let n = rows as f64;
            for i in places() {
                let dx = factor * (dys[i] - dbeta / n - normal(i) * dgamma / n);
                let sizes = dys[i].abs() + dbeta_abs / n + normal(i).abs() * dgamma_abs / n;
                let bound = factor.abs() * sizes * (terms + 4.0 * U);
                assert_close("dx", &[result[0][i]], &[dx], |_| bound + rounding(to, dx.abs() + bound));
            }
        }
    }
}

#[test]
fn shapes_at_the_edges() {
    for (rows, cols) in [(1, 1), (3, 1), (1, 7), (33, 31), (65, 384), (2, 1025), (40, 2100)] {
        layer_norm(rows, cols, Storage::F32, Storage::F32);
        layer_norm_backward(rows, cols, Storage::F32, Storage::F32);
        batch_norm(rows, cols, Storage::F32, Storage::F32);
        batch_norm_backward(rows, cols, Storage::F32, Storage::F32);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_shape_and_storage(rows in 1usize..100, cols in 1usize..200, from in 0usize..3, to in 0usize..3) {
        layer_norm(rows, cols, STORAGES[from], STORAGES[to]);
        layer_norm_backward(rows, cols, STORAGES[from], STORAGES[to]);
        batch_norm(rows, cols, STORAGES[from], STORAGES[to]);
        batch_norm_backward(rows, cols, STORAGES[from], STORAGES[to]);
    }
}

#[test]
fn gamma_and_beta_may_be_absent() {
    let x = random(1, 60, 1.0);
    for isa in isas() {
        let run = |gamma: Option<&[f32]>, beta: Option<&[f32]>| {
            let (mut y, mut mean, mut rstd) = (vec![0.0; 60], [0.0; 5], [0.0; 5]);
            LayerNorm {
                rows: 5,
                cols: 12,
                eps: 0.0,
                x: Src::F32(&x),
                gamma: gamma.map(Src::F32),
                beta: beta.map(Src::F32),
                y: Dst::F32(&mut y),
                mean: &mut mean,
                rstd: &mut rstd,
            }
            .run(isa, &pool(1))
            .unwrap();
            y
        };
        let plain = run(Some(&[1.0; 12]), Some(&[0.0; 12]));
        assert_eq!(run(None, None), plain);
        assert_eq!(run(Some(&[1.0; 12]), None), plain);
        // (x − m)·r + 0 in one rounding rather than two.
        let fused = run(None, Some(&[0.0; 12]));
        assert!(fused.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 2f32.powi(-23) * b.abs()));
    }
}

#[test]
fn a_row_with_a_large_mean_keeps_its_variance() {
    // Two passes: the one-pass formula E[x²] − E[x]² would lose everything here.
    let x: Vec<f32> = (0..64).map(|i| 4096.0 + (i % 2) as f32 / 8.0).collect();
    for isa in isas() {
        let (mut y, mut mean, mut rstd) = (vec![0.0; 64], [0.0], [0.0]);
        let (mean, rstd) = (&mut mean, &mut rstd);
        let (x, y) = (Src::F32(&x), Dst::F32(&mut y));
        LayerNorm { rows: 1, cols: 64, eps: 0.0, x, gamma: None, beta: None, y, mean, rstd }
            .run(isa, &pool(1))
            .unwrap();
        assert_eq!(rstd[0], 16.0);
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let (mut y, mut mean, mut rstd) = ([0.0; 6], [0.0; 2], [0.0; 2]);
    let short = [1.0; 2];
    let result = LayerNorm {
        rows: 2,
        cols: 3,
        eps: 0.0,
        x: Src::F32(&[0.0; 6]),
        gamma: Some(Src::F32(&short)),
        beta: None,
        y: Dst::F32(&mut y),
        mean: &mut mean,
        rstd: &mut rstd,
    }
    .run(isas()[0], &pool(1));
    assert!(result.unwrap_err().to_string().contains("gamma"));
}

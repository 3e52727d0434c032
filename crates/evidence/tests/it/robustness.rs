//! The measures of `halfstep stress` against their references: `scripts/golden_robustness.py` says
//! which and how.

use halfstep_evidence::measures::attack::{cross_entropy_gradient, dlr, square_share};
use halfstep_evidence::measures::corruption::{
    Corruption, ImageSize, SEVERITIES, mean_corruption_error, relative_mean_corruption_error,
};
use halfstep_evidence::measures::features::{Mahalanobis, spectral_signatures};
use halfstep_evidence::measures::layers::LayerSums;
use halfstep_float::round_to_integers;
use serde_json::Value;

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1 << 24) as f64;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/robustness.json")).unwrap()
}

fn f64s(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn f32s(v: &Value) -> Vec<f32> {
    f64s(v).into_iter().map(|x| x as f32).collect()
}

fn u32s(v: &Value) -> Vec<u32> {
    f64s(v).into_iter().map(|x| x as u32).collect()
}

fn near(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what} {i}: {a}, reference {b}");
    }
}

#[test]
fn distances_and_signatures() {
    let g = &golden()["features"];
    let (own, labels) = (f32s(&g["own"]), u32s(&g["labels"]));
    let fitted = Mahalanobis::fit(&own, 5, &labels).unwrap();
    let scores: Vec<f64> = f32s(&g["foreign"]).chunks(5).map(|x| fitted.score(x)).collect();
    // In f64 by a factor and by an inverse: the condition number, below 1e4 by the ridge, times
    // n·2^-53.
    near("distance", &scores, &f64s(&g["distance"]), 1e4 * 60.0 * 1.2e-16);
    // The direction is right to the root of what the power method leaves, 1e-14; squares of
    // components of order ten.
    near("signature", &spectral_signatures(&own, 5, &labels), &f64s(&g["spectral"]), 1e-6);
    assert!(Mahalanobis::fit(&[0.0; 10], 5, &[0, 1]).is_none(), "nothing varies");
    assert_eq!(spectral_signatures(&[1.0; 10], 5, &[0, 0]), [0.0; 2]);
}

#[test]
fn spoilt_images() {
    let g = &golden()["image"];
    let size = ImageSize { height: 9, width: 7, channels: 2 };
    let pixels = f32s(&g["pixels"]);
    for kind in [Corruption::Blur, Corruption::Contrast, Corruption::Shift] {
        for severity in 1..=SEVERITIES {
            let mut image = pixels.clone();
            kind.apply(severity, size, 0, &mut image);
            let ours: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
            // Computed in f64; a blur is rounded to f32 twice, between its directions and at the
            // end.
            near(kind.kind().name, &ours, &f64s(&g["corrupted"][kind.kind().name][severity - 1]), 3.0 * U);
        }
    }
    let m = &golden()["mce"];
    let table = |v: &Value| -> Vec<[f64; 5]> {
        v.as_array().unwrap().iter().map(|row| f64s(row).try_into().unwrap()).collect()
    };
    let (errors, baseline, clean) = (table(&m["errors"]), table(&m["baseline"]), f64s(&m["clean"]));
    let mce = mean_corruption_error(&errors, &baseline).unwrap();
    let relative = relative_mean_corruption_error((&errors, clean[0]), (&baseline, clean[1])).unwrap();
    near("mCE", &[mce, relative], &[m["mce"].as_f64().unwrap(), m["relative"].as_f64().unwrap()], 1e-13);
    assert_eq!(mean_corruption_error(&baseline, &[[0.0; 5]; 4]), None);
}

#[test]
fn noise_is_normal_and_the_same_for_every_model() {
    // An image in the middle of its range: at severity 1 six standard deviations fit.
    let size = ImageSize { height: 100, width: 100, channels: 1 };
    let noisy = |sample| {
        let mut image = vec![0.5; size.count()];
        Corruption::Noise.apply(1, size, sample, &mut image);
        image
    };
    let image = noisy(3);
    assert_eq!(image, noisy(3));
    assert_ne!(image, noisy(4));
    let n = image.len() as f64;
    let mean = image.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let sd = (image.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
    // Five standard errors: σ/√n of the mean, σ/√(2n) of the deviation. The seed is fixed.
    assert!((mean - 0.5).abs() < 5.0 * 0.08 / n.sqrt(), "{mean}");
    assert!((sd - 0.08).abs() < 5.0 * 0.08 / (2.0 * n).sqrt(), "{sd}");
    let mut white = vec![1.0; size.count()];
    Corruption::Noise.apply(5, size, 0, &mut white);
    assert!(white.iter().all(|x| (0.0..=1.0).contains(x)));
}

#[test]
fn gradients_of_losses() {
    let g = &golden()["logits"];
    let (logits, labels) = (f32s(&g["logits"]), u32s(&g["labels"]));
    let (mut ce, mut ratio, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let mut out = [0.0; 5];
    for (row, &label) in logits.chunks(5).zip(&labels) {
        cross_entropy_gradient(row, label, &mut out);
        ce.extend(out.map(f64::from));
        losses.push(dlr(row, label, &mut out));
        ratio.extend(out.map(f64::from));
    }
    // Computed in f64, rounded to f32 once.
    near("cross-entropy", &ce, &f64s(&g["cross_entropy"]["gradient"]), U);
    near("DLR", &ratio, &f64s(&g["dlr"]["gradient"]), U);
    near("DLR loss", &losses, &f64s(&g["dlr"]["loss"]), 1e-14);
    // Where f32's softmax is exactly one-hot there is still a gradient.
    cross_entropy_gradient(&[60.0, 0.0], 0, &mut out[..2]);
    assert!(out[0] < 0.0 && out[1] > 0.0 && out[0] == -out[1], "{out:?}");
}

#[test]
fn squares_shrink_as_their_authors_have_it() {
    for case in golden()["square"].as_array().unwrap() {
        let ours = square_share(0.3, case[0].as_u64().unwrap() as usize, 100);
        near("share", &[ours], &[case[1].as_f64().unwrap()], 1e-15);
    }
}

#[test]
fn integers_by_channel() {
    let g = &golden()["integers"];
    for bits in [4, 8] {
        let mut ours = f32s(&g["weights"]);
        round_to_integers(bits, 12, &mut ours);
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        // The reference multiplies by the scale's reciprocal: another rounding of the quotient,
        // none of the result.
        near("integers", &ours, &f64s(&g[bits.to_string()]), U);
    }
}

#[test]
fn layers_side_by_side() {
    let g = &golden()["layer"];
    let mut sums = LayerSums::default();
    f32s(&g["reference"]).chunks(10).zip(f32s(&g["other"]).chunks(10)).for_each(|(a, b)| sums.push(a, b));
    let v = sums.values().unwrap();
    let theirs = ["relative_l2", "mean_relative_l2", "cosine"].map(|k| g[k].as_f64().unwrap());
    near("layer", &[v.relative_l2, v.mean_relative_l2, v.cosine], &theirs, 1e-14);
    let mut zeros = LayerSums::default();
    zeros.push(&[0.0], &[0.0]);
    assert_eq!(zeros.values().unwrap().cosine, 1.0);
    assert_eq!(LayerSums::default().values(), None);
}

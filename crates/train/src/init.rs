//! First values of slots, drawn from Philox by (seed, slot name, element): adding or renaming one
//! slot changes no other.

use halfstep_float::{Philox, bf16_from_f32, f32_from_bf16, unit_f64};
use halfstep_graph::engine::HostTensor;
use halfstep_graph::precision::COMPENSATION;
use halfstep_graph::{Init, Slot};

use crate::step::AVERAGE;

/// What bf16 has no room for in each of these numbers.
pub fn left_over(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| x - f32_from_bf16(bf16_from_f32(x))).collect()
}

/// The first values of a slot of any kind, as an engine takes them: codes of a table as whole
/// numbers. An average begins at its weight, and a compensation with what bf16 has no room for in
/// it.
pub fn initial_tensor(slot: &Slot, seed: u64) -> HostTensor {
    let compensated = slot.name.strip_prefix(COMPENSATION);
    let name = compensated.or_else(|| slot.name.strip_prefix(AVERAGE)).unwrap_or(&slot.name).to_string();
    let values = initial_values(&Slot { name, ..slot.clone() }, seed);
    if compensated.is_some() {
        return HostTensor::F32(left_over(&values));
    }
    if slot.ty.dtype.is_float() {
        return HostTensor::F32(values);
    }
    HostTensor::I32(values.into_iter().map(|v| v as i32).collect())
}

/// The first values of `slot` in a run with this seed, in row-major order.
pub fn initial_values(slot: &Slot, seed: u64) -> Vec<f32> {
    let count = slot.ty.shape.count();
    match slot.init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform { bound } => {
            pairs(seed, &slot.name, count, |u, v| [bound * (2.0 * u - 1.0), bound * (2.0 * v - 1.0)])
        }
        Init::Normal { std } => pairs(seed, &slot.name, count, |u, v| {
            // Box and Muller 1958; 1 − u is in (0, 1], so the logarithm is finite.
            let radius = std * (-2.0 * (1.0 - u).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
            [radius * cos, radius * sin]
        }),
    }
}

/// `count` numbers, two from each pair of uniform numbers in [0, 1).
fn pairs(seed: u64, name: &str, count: usize, make: impl Fn(f64, f64) -> [f64; 2]) -> Vec<f32> {
    let generator = Philox::new(seed);
    let stream = fnv1a(name);
    let mut values = Vec::with_capacity(count + 1);
    for i in 0..count.div_ceil(2) as u64 {
        let counter = [i as u32, (i >> 32) as u32, stream as u32, (stream >> 32) as u32];
        let [a, b, c, d] = generator.block(counter);
        values.extend(make(unit_f64(a, b), unit_f64(c, d)).map(|x| x as f32));
    }
    values.truncate(count);
    values
}

/// The FNV-1a hash of 64 bits (Fowler, Noll and Vo).
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_graph::{Shape, SlotKind, ValueType};

    fn slot(name: &str, shape: &[usize], init: Init) -> Slot {
        let ty = ValueType::f32(Shape::new(shape));
        Slot { name: name.into(), ty, kind: SlotKind::Weight { decay: true }, init }
    }

    /// Known answers from the authors' test vectors.
    #[test]
    fn hash_matches_its_definition() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn draws_depend_on_seed_and_name_only() {
        let draw =
            |seed, name: &str, n| initial_values(&slot(name, &[n], Init::Uniform { bound: 1.0 }), seed);
        assert_eq!(draw(1, "a", 8), draw(1, "a", 8));
        assert_ne!(draw(1, "a", 8), draw(2, "a", 8));
        assert_ne!(draw(1, "a", 8), draw(1, "b", 8));
        assert_eq!(draw(1, "a", 8)[..5], draw(1, "a", 5));
    }

    #[test]
    fn draws_have_the_distribution_asked_for() {
        // Bounds of five standard errors: the mean's is σ/√n; the variance's is σ²√((κ − 1)/n) with
        // kurtosis κ of 3 for the normal and 9/5 for the uniform distribution. The seed is fixed.
        let n = 100_000;
        for (init, variance, kurtosis) in
            [(Init::Normal { std: 0.02 }, 0.0004, 3.0), (Init::Uniform { bound: 0.5 }, 0.25 / 3.0, 1.8)]
        {
            let x: Vec<f64> = initial_values(&slot("w", &[n], init), 3).into_iter().map(f64::from).collect();
            let mean = x.iter().sum::<f64>() / n as f64;
            let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            let n = n as f64;
            assert!(mean.abs() < 5.0 * (variance / n).sqrt(), "{init:?}: mean {mean}");
            assert!((var / variance - 1.0).abs() < 5.0 * ((kurtosis - 1.0) / n).sqrt(), "{init:?}: {var}");
        }
    }

    #[test]
    fn uniform_stays_within_its_bound_and_constants_are_constant() {
        let x = initial_values(&slot("w", &[10_001], Init::Uniform { bound: 0.25 }), 9);
        assert_eq!(x.len(), 10_001);
        assert!(x.iter().all(|v| v.abs() <= 0.25));
        assert_eq!(initial_values(&slot("b", &[3], Init::Constant(1.0)), 9), [1.0; 3]);
    }
}

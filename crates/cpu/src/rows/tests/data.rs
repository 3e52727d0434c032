//! Storage: conversion in and out, and dropout, whose mask is data of a kind.

use halfstep_float::{Philox, bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};

use super::support::*;
use crate::rows::convert::convert;
use crate::rows::elementwise::{Operand, Output, Pattern, TileOp, TileProgram, Value};
use crate::rows::key::Key;
use crate::rows::storage::{Dst, Src, Storage, round_in_place};
use crate::rows::{Body, Caps, RowError, dispatch};

/// Every f16 and bf16 code, and f32 numbers around every rounding boundary of both.
#[test]
fn conversions_are_those_of_the_reference() {
    let codes: Vec<u16> = (0..=u16::MAX).collect();
    let mut numbers: Vec<f32> = vec![];
    for &code in &codes {
        for x in [f32_from_bf16(code), f32_from_f16(code)] {
            numbers.extend(
                [-0x1001i32, -0x1000, -1, 0, 1, 0x0fff, 0x1000, 0x8000, 0x7fff]
                    .map(|d| f32::from_bits((x.to_bits() as i32).wrapping_add(d) as u32)),
            );
        }
    }
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for isa in isas() {
        let pool = pool(2);
        let mut wide = vec![0.0; codes.len()];
        convert(isa, &pool, Src::F16(&codes), Dst::F32(&mut wide)).unwrap();
        assert!(wide.iter().zip(&codes).all(|(&w, &c)| same(w, f32_from_f16(c))));
        convert(isa, &pool, Src::Bf16(&codes), Dst::F32(&mut wide)).unwrap();
        assert!(wide.iter().zip(&codes).all(|(&w, &c)| same(w, f32_from_bf16(c))));
        let mut narrow = vec![0; numbers.len()];
        convert(isa, &pool, Src::F32(&numbers), Dst::F16(&mut narrow)).unwrap();
        for (&x, &n) in numbers.iter().zip(&narrow) {
            assert!(same(f32_from_f16(n), f32_from_f16(f16_from_f32(x))), "{x:e} on {isa}");
        }
        convert(isa, &pool, Src::F32(&numbers), Dst::Bf16(&mut narrow)).unwrap();
        for (&x, &n) in numbers.iter().zip(&narrow) {
            assert!(same(f32_from_bf16(n), f32_from_bf16(bf16_from_f32(x))), "{x:e} on {isa}");
        }
        assert!(convert(isa, &pool, Src::F32(&numbers), Dst::F32(&mut wide)).is_err());
    }
}

#[test]
fn rounding_in_place_is_a_conversion_and_back() {
    struct Round<'a>(Storage, &'a mut [f32]);
    impl Body for Round<'_> {
        type Output = ();
        #[inline(always)]
        fn run<C: Caps>(self) {
            round_in_place::<C>(self.0, self.1);
        }
    }
    let x = random(1, 1003, 1e5);
    for isa in isas() {
        for storage in STORAGES {
            let mut rounded = x.clone();
            dispatch(isa, Round(storage, &mut rounded));
            let values: Vec<f64> = rounded.iter().map(|&x| x.into()).collect();
            assert_eq!(values, Stored::new(storage, &x).values());
        }
    }
}

const NUMBER: u32 = 7;

fn program(rate: f32, per_sample: usize) -> Result<TileProgram, RowError> {
    let storage = Storage::F32;
    let dropout = TileOp::Dropout { rate, op: NUMBER, per_sample, value: Value(0) };
    TileProgram::new(
        vec![Operand { storage, pattern: Pattern::Same }],
        vec![TileOp::Input(0), dropout],
        vec![Output { storage, value: Value(1) }],
    )
}

fn drop(per_sample: usize, key: Key, rate: f32, x: &[f32]) -> Vec<f32> {
    let program = program(rate, per_sample).unwrap();
    let results = everywhere(|isa, pool| {
        let mut y = Stored::empty(Storage::F32, x.len());
        program.run_keyed(isa, pool, x.len(), &[Src::F32(x)], &mut [y.dst()], Some(key)).unwrap();
        vec![y]
    });
    let bits: Vec<_> = results.iter().map(|r| r[0].bits()).collect();
    assert!(bits.iter().all(|b| *b == bits[0]), "the mask is the same on every instruction set");
    results[0][0].values().iter().map(|&x| x as f32).collect()
}

const KEY: Key = Key { seed: 0x0123_4567_89ab_cdef, attempt: 42, first_sample: 0 };

#[test]
fn the_mask_is_philox_keyed_as_documented() {
    let (samples, per_sample, rate) = (3, 2051, 0.3);
    let x = vec![1.0; samples * per_sample];
    let y = drop(per_sample, Key { first_sample: 5, ..KEY }, rate, &x);
    for (i, &y) in y.iter().enumerate() {
        let (sample, element) = (5 + i / per_sample, i % per_sample);
        let counter = [NUMBER, KEY.attempt, sample as u32, (element / 4) as u32];
        let word = Philox::new(KEY.seed).block(counter)[element % 4];
        let dropped = f64::from(word) < f64::from(rate) * 2f64.powi(32);
        let kept = (1.0 / (1.0 - f64::from(rate))) as f32;
        assert_eq!(y, if dropped { 0.0 } else { kept }, "element {i}");
    }
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let n = 1 << 16;
    let y = drop(n, KEY, 0.25, &vec![1.0; n]);
    let zeros = y.iter().filter(|&&y| y == 0.0).count() as f64;
    // Binomial: six standard deviations.
    let deviation = (n as f64 * 0.25 * 0.75).sqrt();
    assert!((zeros - n as f64 * 0.25).abs() < 6.0 * deviation, "{zeros}");
}

#[test]
fn part_of_a_batch_has_the_masks_of_the_whole() {
    let x = random(1, 4 * 100, 1.0);
    let whole = drop(100, KEY, 0.5, &x);
    assert_eq!(drop(100, Key { first_sample: 2, ..KEY }, 0.5, &x[200..]), whole[200..]);
    let other = Key { attempt: 43, ..KEY };
    assert_ne!(drop(100, other, 0.5, &x), whole);
    assert_eq!(drop(100, KEY, 0.0, &x), x);
}

#[test]
fn a_rate_of_one_is_an_error() {
    for rate in [1.0, -0.1, f32::NAN] {
        let why = "a dropout's rate must be at least 0 and below 1, and a sample not empty";
        let error = RowError::Shape { what: "tile program", why };
        assert_eq!(program(rate, 1).unwrap_err(), error, "{rate}");
    }
}

//! Bit-by-bit agreement with `ml_dtypes` and numpy: every code, every midpoint, ten million values,
//! and the block-scaled forms. `scripts/golden_formats.py` makes the file; both sides draw the same
//! values.

use halfstep_float::blocks::{BlockShape, F32Scale, Fp8Blocks, Mx, Nvfp4, ScaleRule};
use halfstep_float::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

const COUNT: u64 = 10_000_000;
const PART: u64 = 1 << 17;
const CANONICAL_NAN: u32 = 0x7fc0_0000;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/formats.json")).unwrap()
}

fn narrow() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|&f| f != Format::F32)
}

/// Bits of f32 value `i`, as `values` in the script: any bits; any exponent with few mantissa bits;
/// exponents where small formats have their values, with many ties, or one f32 step beside them.
fn value(i: u64, narrow: bool) -> u32 {
    let [w0, w1, w2, w3] = Philox::new(2026).block([i as u32, 0, 0, 0]);
    let kind = if narrow { (w1 % 4) | 2 } else { w1 % 4 };
    let field = if kind == 1 { w2 % 255 } else { 100 + w2 % 48 };
    let mantissa = w0 & 0x7f_ffff & !((1 << (w3 % 24)) - 1);
    let beside = if kind == 3 { (w3 >> 8) % 3 } else { 1 };
    if kind == 0 { w0 } else { ((w0 & 0x8000_0000) | (field << 23) | mantissa) + beside - 1 }
}

/// Little-endian bytes as they lie in numpy's arrays.
trait Bytes {
    fn add(&self, hash: &mut Sha256);
}
impl Bytes for [u8] {
    fn add(&self, hash: &mut Sha256) {
        hash.update(self);
    }
}
impl Bytes for [u16] {
    fn add(&self, hash: &mut Sha256) {
        hash.update(self.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
}
impl Bytes for [u32] {
    fn add(&self, hash: &mut Sha256) {
        hash.update(self.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn sha<T>(values: &[T]) -> String
where
    [T]: Bytes,
{
    let mut hash = Sha256::new();
    values.add(&mut hash);
    hex(hash)
}

/// Codes by the fast conversion, as bytes of the format's width are hashed.
fn add_codes(format: Format, x: &[f32], hash: &mut Sha256) -> Vec<u32> {
    let (near, free) = (SliceRounding::NearestEven, Overflow::NonFinite);
    if format.bits() == 16 {
        let mut codes = vec![0; x.len()];
        f32_to_codes16(format, near, free, x, &mut codes);
        codes.as_slice().add(hash);
        codes.into_iter().map(u32::from).collect()
    } else {
        let mut codes = vec![0; x.len()];
        f32_to_codes8(format, near, free, x, &mut codes);
        codes.as_slice().add(hash);
        codes.into_iter().map(u32::from).collect()
    }
}

#[test]
fn every_code_has_the_value_ml_dtypes_gives_it() {
    let golden = golden();
    for format in narrow() {
        let bits = |code: u32| {
            let x = decode(format, code) as f32;
            if x.is_nan() { CANONICAL_NAN } else { x.to_bits() }
        };
        let table: Vec<u32> = (0..1u32 << format.bits()).map(bits).collect();
        let expected = &golden["formats"][format.name()];
        if let Some(expected) = expected["decode"].as_str() {
            let hex: String = table.iter().map(|b| format!("{b:08x}")).collect();
            assert_eq!(hex, expected, "{format}");
        } else {
            assert_eq!(sha(&table), expected["decode_sha256"], "{format}");
        }
    }
    let table: Vec<u32> = (0..=255u8).map(|code| E8m0(code).value().to_bits()).collect();
    assert_eq!(sha(&table), golden["e8m0"]["decode_sha256"]);
}

#[test]
fn midpoints_their_neighbours_and_special_values() {
    let golden = golden();
    for format in narrow() {
        let info = format.info();
        let codes = 0..1u32 << (info.bits - 1);
        let mut v: Vec<f64> = codes.map(|c| decode(format, c)).filter(|&x| x.is_finite()).collect();
        v.push(info.max_finite + ulp(format, info.max_finite));
        let middles = v.windows(2).map(|w| (((w[0] + w[1]) / 2.0) as f32).to_bits());
        let mut bits: Vec<u32> = middles.flat_map(|b| [b - 1, b, b + 1]).collect();
        bits.extend([0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fc12345]);
        bits.extend(bits.clone().into_iter().map(|b| b | 1 << 31));
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let mut hash = Sha256::new();
        let codes = add_codes(format, &x, &mut hash);
        let expected = &golden["formats"][format.name()];
        if let Some(expected) = expected["midpoints"].as_str() {
            let got: String = codes.iter().map(|c| format!("{c:02x}")).collect();
            assert_eq!(got, expected, "{format}");
        } else {
            assert_eq!(hex(hash), expected["midpoints_sha256"], "{format}");
        }
    }
}

fn tf32(x: &[f32]) -> Vec<u32> {
    let bits = |&x: &f32| if x.is_nan() { CANONICAL_NAN } else { round_to_tf32(x).to_bits() };
    assert!(x.iter().all(|&x| x.is_nan() == round_to_tf32(x).is_nan()));
    x.iter().map(bits).collect()
}

#[test]
fn halves_round_away_from_zero_to_tf32() {
    let mantissas = [0, 1, 2, 511, 512, 1022, 1023].map(|m: u32| m << 13 | 0x1000);
    let middles = (0..255u32).flat_map(|e| mantissas.map(|m| e << 23 | m));
    let mut bits: Vec<u32> = middles.flat_map(|b| [b - 1, b, b + 1]).collect();
    bits.extend([0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fc12345]);
    bits.extend(bits.clone().into_iter().map(|b| b | 1 << 31));
    let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    assert_eq!(sha(&tf32(&x)), golden()["tf32"]["edges_sha256"]);
}

#[test]
fn ten_million_values_round_as_in_ml_dtypes() {
    let golden = golden();
    assert_eq!(golden["count"], COUNT);
    let mut of_values = Sha256::new();
    let mut of_scales = Sha256::new();
    let mut of_tf32 = Sha256::new();
    let mut of_formats: Vec<(Format, Sha256)> = narrow().map(|f| (f, Sha256::new())).collect();
    for first in (0..COUNT).step_by(PART as usize) {
        let bits: Vec<u32> = (first..COUNT.min(first + PART)).map(|i| value(i, false)).collect();
        bits.as_slice().add(&mut of_values);
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let scales: Vec<u8> = x.iter().map(|&x| E8m0::nearest(x).0).collect();
        scales.as_slice().add(&mut of_scales);
        tf32(&x).as_slice().add(&mut of_tf32);
        for (format, hash) in &mut of_formats {
            let codes = add_codes(*format, &x, hash);
            // The reference is the same, and so are the processors' kin of the 16-bit conversions
            // but for NaN payloads.
            for (&x, &code) in x.iter().zip(&codes) {
                let reference = encode(*format, x.into(), Rounding::NearestEven, Overflow::NonFinite);
                assert_eq!(code, reference, "{format} of {x:e}");
                match format {
                    Format::F16 if !x.is_nan() => assert_eq!(u32::from(f16_from_f32(x)), code),
                    Format::Bf16 if !x.is_nan() => assert_eq!(u32::from(bf16_from_f32(x)), code),
                    _ => {}
                }
            }
        }
    }
    assert_eq!(hex(of_values), golden["values_sha256"], "the values themselves");
    assert_eq!(hex(of_tf32), golden["tf32"]["values_sha256"], "tf32");
    assert_eq!(hex(of_scales), golden["e8m0"]["encode_sha256"], "e8m0");
    for (format, hash) in of_formats {
        assert_eq!(hex(hash), golden["formats"][format.name()]["encode_sha256"], "{format}");
    }
}

/// The bits of stochastic rounding for a fixed key; the script finds the neighbours by search and
/// not by shifts.
#[test]
fn stochastic_rounding_has_the_expected_bits() {
    let golden = golden();
    let x: Vec<f32> = (0..240_000).map(|i| f32::from_bits(value(i, true))).collect();
    let rounding = SliceRounding::Stochastic { draws: Draws { seed: 7, attempt: 3, op: 2 }, first: 0 };
    for format in narrow() {
        let got = if format.bits() == 16 {
            let mut codes = vec![0; x.len()];
            f32_to_codes16(format, rounding, Overflow::Saturate, &x, &mut codes);
            sha(&codes)
        } else {
            let mut codes = vec![0; x.len()];
            f32_to_codes8(format, rounding, Overflow::Saturate, &x, &mut codes);
            sha(&codes)
        };
        assert_eq!(got, golden["formats"][format.name()]["stochastic_sha256"], "{format}");
    }
}

/// The mean of n draws is x: one draw is one of two neighbours a step apart and has a standard
/// deviation of step·√(p(1 − p)), p being the share that goes up; the mean of n has 1/√n of it. 5
/// of these deviations.
#[test]
fn stochastic_rounding_has_the_right_mean() {
    const N: usize = 1 << 18;
    for (op, format) in narrow().enumerate() {
        let info = format.info();
        // Above a power of two, just below the next, and among the subnormals.
        for x in [1.0 + 0.3 * ulp(format, 1.0), 2.0 - 0.01 * ulp(format, 1.0), 1.7 * info.min_subnormal] {
            let x = -x as f32;
            let draws = Draws { seed: 1, attempt: 0, op: op as u32 };
            let rounding = SliceRounding::Stochastic { draws, first: 0 };
            let mut rounded = vec![0.0; N];
            round_f32(format, rounding, Overflow::NonFinite, &vec![x; N], &mut rounded);
            let mean = rounded.iter().map(|&r| f64::from(r)).sum::<f64>() / N as f64;
            let step = ulp(format, x.into());
            let p = (f64::from(x).abs() / step).fract();
            let deviation = step * (p * (1.0 - p) / N as f64).sqrt();
            assert!(
                (mean - f64::from(x)).abs() < 5.0 * deviation,
                "{format} {x:e}: {mean:e}, deviation {deviation:e}"
            );
        }
    }
}

const ROW: usize = 600;

/// The values of `blocks` in the script: rows of 600, one of zeros, one near the end of f32's
/// range.
fn matrix() -> Vec<f32> {
    let mut x: Vec<f32> = (0..240_000).map(|i| f32::from_bits(value(i, true))).collect();
    x[3 * ROW..4 * ROW].fill(0.0);
    for x in &mut x[5 * ROW..6 * ROW] {
        *x *= 2f32.powi(-120);
    }
    x
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn block_scaled_forms_are_their_definitions() {
    let golden = &golden()["blocks"];
    let x = matrix();
    let near = SliceRounding::NearestEven;
    let mut codes = vec![0; x.len()];
    assert_eq!(sha(&bits(&x)), golden["values_sha256"]);
    for element in [Format::E4m3, Format::E5m2, Format::E3m2, Format::E2m3, Format::E2m1] {
        let rules = [ScaleRule::Floor, ScaleRule::Even, ScaleRule::NoOverflow];
        for (rule, name) in rules.into_iter().zip(["floor", "even", "no_overflow"]) {
            let mx = Mx::new(element, rule).unwrap();
            let mut scales = vec![E8m0::ONE; mx.scales(x.len(), ROW).unwrap()];
            mx.quantise(near, &x, ROW, &mut codes, &mut scales).unwrap();
            let scales: Vec<u8> = scales.into_iter().map(|s| s.0).collect();
            let expected = &golden[format!("mx {element} {name}")];
            assert_eq!(sha(&scales), expected["scales"], "{element} {name}");
            assert_eq!(sha(&codes), expected["codes"], "{element} {name}");
        }
    }

    let tensor = Nvfp4.tensor_scale(&x);
    let mut scales = vec![0; Nvfp4.scales(x.len(), ROW).unwrap()];
    Nvfp4.quantise(near, &x, ROW, tensor, &mut codes, &mut scales).unwrap();
    let expected = &golden["nvfp4"];
    assert_eq!(format!("{:08x}", tensor.to_bits()), expected["tensor_scale"]);
    assert_eq!(sha(&scales), expected["scales"]);
    assert_eq!(sha(&codes), expected["codes"]);

    let y = [&x[..3 * ROW], &x[4 * ROW..]].concat();
    let mut codes = vec![0; y.len()];
    for element in [Format::E4m3, Format::E5m2] {
        for rows in [1, 128] {
            let fp8 = Fp8Blocks::new(element, BlockShape { rows, columns: 128 }, F32Scale::Any).unwrap();
            let mut scales = vec![0.0; fp8.scales(y.len(), ROW).unwrap()];
            fp8.quantise(near, &y, ROW, &mut codes, &mut scales).unwrap();
            let expected = &golden[format!("fp8 {element} {rows}x128")];
            assert_eq!(sha(&bits(&scales)), expected["scales"], "{element} {rows}");
            assert_eq!(sha(&codes), expected["codes"], "{element} {rows}");
        }
    }
}

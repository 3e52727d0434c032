//! Conversions against a second computation, made by `scripts/golden_ptx.py` with ml_dtypes and
//! numpy: every code, every midpoint with its neighbours, and a million f32 patterns.

use halfstep_ptx::formats::{Conversion, Format, Rounding, decode_ue8m0, encode_ue8m0, packed};
use serde_json::Value;
use sha2::{Digest, Sha256};

const FORMATS: [(&str, Format, u32, u32); 8] = [
    ("f16", Format::F16, 0x7bff, 0),
    ("bf16", Format::Bf16, 0x7f7f, 0),
    ("tf32", Format::Tf32, 0x3fbff, 13),
    ("e4m3", Format::E4m3, 0x7e, 0),
    ("e5m2", Format::E5m2, 0x7b, 0),
    ("e3m2", Format::E3m2, 0x1f, 0),
    ("e2m3", Format::E2m3, 0x1f, 0),
    ("e2m1", Format::E2m1, 0x07, 0),
];
const SPECIAL: [u32; 9] =
    [0, 1, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000, 0x7fc1_2345];

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/formats.json")).unwrap()
}

fn hex(bytes: impl Iterator<Item = u8>) -> String {
    let digest = Sha256::digest(bytes.collect::<Vec<u8>>());
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha(words: &[u32]) -> String {
    hex(words.iter().flat_map(|w| w.to_le_bytes()))
}

/// The values of the script, in its order.
fn values(format: Format, largest: u32, padding: u32) -> Vec<u32> {
    let table: Vec<f64> = (0..=largest).map(|c| f64::from(format.decode(c << padding))).collect();
    let last = table[largest as usize];
    let beyond = 2.0 * last - table[largest as usize - 1];
    let mut positive = Vec::new();
    for (i, &value) in table.iter().enumerate() {
        let next = table.get(i + 1).copied().unwrap_or(beyond);
        let middle = (((value + next) / 2.0) as f32).to_bits();
        positive.extend([middle - 1, middle, middle + 1, (value as f32).to_bits()]);
    }
    positive.extend(SPECIAL);
    let negative: Vec<u32> = positive.iter().map(|b| b | 1 << 31).collect();
    positive.extend(negative);
    positive.extend((0..1_000_000u32).map(|i| i.wrapping_mul(0x9e37_79b1)));
    positive
}

#[test]
fn every_code_and_boundary_converts_as_the_second_computation_says() {
    let golden = golden();
    let plain = Conversion::rounded;
    let conversions = [
        ("rn", plain(Rounding::NearestEven)),
        ("rna", plain(Rounding::NearestAway)),
        ("rz", plain(Rounding::Zero)),
        ("rp", plain(Rounding::Up)),
        ("rm", plain(Rounding::Down)),
        ("rn.satfinite", Conversion { satfinite: true, ..plain(Rounding::NearestEven) }),
        ("rn.relu", Conversion { relu: true, ..plain(Rounding::NearestEven) }),
        ("rz.satfinite.relu", Conversion { rounding: Rounding::Zero, satfinite: true, relu: true }),
    ];
    for (name, format, largest, padding) in FORMATS {
        let entry = &golden["formats"][name];
        let codes = 0..1u32 << (format.bits() - padding);
        let decoded: Vec<u32> = codes.map(|c| format.decode(c << padding).to_bits()).collect();
        assert_eq!(sha(&decoded), entry["decode_sha256"], "{name}: values of codes");
        let values = values(format, largest, padding);
        assert_eq!(sha(&values), entry["values_sha256"], "{name}: the inputs");
        for (mode, conversion) in conversions {
            let codes: Vec<u32> = values
                .iter()
                .map(|&b| format.encode(f64::from(f32::from_bits(b)), conversion) >> padding)
                .collect();
            assert_eq!(sha(&codes), entry[mode], "{name} {mode}");
        }
    }
}

#[test]
fn ue8m0_takes_the_power_of_two_below_or_above() {
    let golden = golden();
    for (mode, rounding) in [("rp", Rounding::Up), ("rz", Rounding::Zero)] {
        let codes =
            values(Format::Bf16, 0x7f7f, 0).into_iter().map(|b| encode_ue8m0(f32::from_bits(b), rounding));
        assert_eq!(hex(codes), golden[format!("ue8m0 {mode}")], "{mode}");
    }
    assert!((0..255).all(|c| encode_ue8m0(decode_ue8m0(c), Rounding::Zero) == c));
    assert!(decode_ue8m0(255).is_nan());
}

#[test]
fn f64_rounds_once_and_f32_is_a_target_too() {
    // Through f32 this would first become the midpoint 1 + 2^-11 and then the even 1.
    let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(Format::F16.encode(above, Conversion::rounded(Rounding::NearestEven)), 0x3c01);
    for value in [1.0 / 3.0, -2e-45, 3.5e38, 1e-39, -0.0] {
        let code = Format::F32.encode(value, Conversion::rounded(Rounding::NearestEven));
        assert_eq!(code, (value as f32).to_bits(), "{value}");
    }
    let third = Format::F32.encode(1.0 / 3.0, Conversion::rounded(Rounding::Zero));
    assert_eq!(third, (1.0f32 / 3.0).to_bits() - 1);
}

#[test]
fn packed_conversions_put_the_first_operand_on_top() {
    let how = Conversion { satfinite: true, ..Conversion::rounded(Rounding::NearestEven) };
    assert_eq!(packed(Format::Bf16, 1.0, -2.0, how), 0x3f80_c000);
    assert_eq!(packed(Format::E4m3, 1e9, f64::NAN, how), 0x7e7f);
    assert_eq!(packed(Format::E3m2, 1.0, 28.0, how), 0x0c1f);
    assert_eq!(packed(Format::E2m1, -6.0, 0.5, how), 0xf1);
}

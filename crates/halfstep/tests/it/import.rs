//! Weights of other programs that cannot be taken are refused, by name.

use crate::common::{Place, TINY};

/// A safetensors file for the tiny recipe's perceptron, in f32 or f64, whose values are `value` of
/// their place in the file.
fn weights(place: &Place, name: &str, dtype: &str, value: impl Fn(usize) -> f64) {
    let shapes: [(&str, &[usize]); 4] = [
        ("layers.0.bias", &[16]),
        ("layers.0.weight", &[16, 64]),
        ("layers.1.bias", &[10]),
        ("layers.1.weight", &[10, 16]),
    ];
    let size = if dtype == "F64" { 8 } else { 4 };
    let (mut header, mut data, mut begin, mut at) = (Vec::new(), Vec::new(), 0, 0);
    for (name, shape) in shapes {
        let end = begin + size * shape.iter().product::<usize>();
        header.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"
        ));
        while begin < end {
            match dtype {
                "F64" => data.extend(value(at).to_le_bytes()),
                _ => data.extend((value(at) as f32).to_le_bytes()),
            }
            (begin, at) = (begin + size, at + 1);
        }
    }
    let mut header = format!("{{{}}}", header.join(","));
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    place.write(name, file);
}

#[test]
fn numbers_that_are_not_finite_are_not_taken() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    weights(&place, "good.safetensors", "F64", |i| (i % 7) as f64 / 10.0);
    place.ok(&["import", "good.safetensors", "--recipe", "recipe.toml", "--out", "good"]);
    place.ok(&["eval", "good"]);
    // The third number of the first matrix, behind its bias, in row 1.
    let at = 16 + 64 + 2;
    let bad = [("F32", f64::NAN, "NaN"), ("F32", f64::INFINITY, "inf"), ("F64", 1e300, "1e300")];
    for (dtype, value, named) in bad {
        weights(&place, "bad.safetensors", dtype, |i| if i == at { value } else { 0.5 });
        for command in [
            &["import", "bad.safetensors", "--recipe", "recipe.toml", "--out", "bad"][..],
            &["train", "recipe.toml", "--from", "bad.safetensors", "--out", "bad"],
        ] {
            let stderr = place.fails(2, command);
            let flat = stderr.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
            for part in ["bad.safetensors", "layers.0.weight", "[1, 2]", named] {
                assert!(flat.contains(part), "`{part}` is not in: {flat}");
            }
            assert!(!place.path("bad").exists());
        }
    }
}

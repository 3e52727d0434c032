//! What the kernels of each instruction set make of a precision policy.

use halfstep_graph::engine_info::{Arithmetic, PolicyDescription};
use halfstep_graph::precision::Policy;
use halfstep_graph::{DType, Split};

use crate::isa::Level;

/// How contractions under `policy` are computed on this instruction set.
pub(crate) fn describe(policy: &Policy, level: Level) -> PolicyDescription {
    let (arithmetic, text) = match (policy.narrow, policy.split, policy.low) {
        (Some(_), ..) => (Arithmetic::Emulated, emulated(level).to_string()),
        (None, Some(split), _) => split_f32(split, level),
        (None, None, Some(low)) => low_products(low, level),
        (None, None, None) => (Arithmetic::Native, f32_products(level).to_string()),
    };
    PolicyDescription { arithmetic, text }
}

fn f32_products(level: Level) -> &'static str {
    match level {
        Level::Portable => "f32, portable code",
        Level::Avx2 => "f32 multiply-add, AVX2",
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx | Level::AmxFp16 => "f32 multiply-add, AVX-512",
    }
}

fn low_products(low: DType, level: Level) -> (Arithmetic, String) {
    match (low, level) {
        (DType::Bf16, Level::Avx512Bf16) => {
            (Arithmetic::Native, "AVX512-BF16: exact bf16 products added in pairs, f32 sums".into())
        }
        (DType::Bf16, Level::Amx | Level::AmxFp16) => {
            (Arithmetic::Native, "AMX tiles: exact bf16 products, f32 sums".into())
        }
        (DType::F16, Level::Amx) => (
            Arithmetic::Split,
            "AMX tiles: each f16 value as the exact sum of two bf16 values, four passes".into(),
        ),
        (DType::F16, Level::AmxFp16) => {
            (Arithmetic::Native, "AMX-FP16 tiles: exact f16 products, f32 sums".into())
        }
        (low, Level::Portable) => {
            let text = format!("f32 products of {low} values (exact), portable code: saves memory, not time");
            (Arithmetic::Widened, text)
        }
        (low, level) => {
            let set = if level == Level::Avx2 { "AVX2" } else { "AVX-512" };
            let text =
                format!("f32 multiply-add of {low} values (exact products), {set}: saves memory, not time");
            (Arithmetic::Widened, text)
        }
    }
}

fn split_f32(split: Split, level: Level) -> (Arithmetic, String) {
    let (terms, passes, error) = match split {
        Split::Tf32 => {
            let f32 = f32_products(level);
            let text = format!(
                "{f32}, of operands rounded to tf32 (exact products): not faster than fp32; attention in f32"
            );
            return (Arithmetic::Widened, text);
        }
        Split::Bf16x3 => ("two", "three", "2^-15"),
        Split::Bf16x6 => ("three", "six", "2^-23"),
    };
    let why = match level {
        Level::Amx | Level::AmxFp16 => {
            let text = format!(
                "AMX tiles: each f32 value as {terms} bf16 terms, {passes} passes; error within {error} of |A||B|"
            );
            return (Arithmetic::Split, text);
        }
        Level::Avx512Bf16 => format!("faster here than {passes} bf16 passes"),
        Level::Portable | Level::Avx2 | Level::Avx512 => "because there are no bf16 tiles".to_string(),
    };
    (Arithmetic::Widened, format!("{}, {why}: as accurate and as fast as fp32", f32_products(level)))
}

/// The values of codes are exact in bf16: formats below 16 bits are emulated on what multiplies
/// bf16.
fn emulated(level: Level) -> &'static str {
    match level {
        Level::Amx | Level::AmxFp16 => "emulated: exact codes, multiplied by AMX tiles as bf16, f32 sums",
        Level::Avx512Bf16 => "emulated: exact codes, multiplied by AVX512-BF16 as bf16, f32 sums",
        Level::Portable | Level::Avx2 | Level::Avx512 => {
            "emulated: exact codes, multiplied as f32 (exact products): shows quality, saves memory, not time"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_the_description_of_its_own_format() {
        use Arithmetic::{Emulated, Native, Split, Widened};
        let of = |name: &str, level| describe(&Policy::named(name).unwrap(), level);
        let kinds = |level| ["fp32", "bf16", "fp16", "bf16x3"].map(|name| of(name, level).arithmetic);
        for level in [Level::Portable, Level::Avx2, Level::Avx512] {
            assert_eq!(kinds(level), [Native, Widened, Widened, Widened], "{level:?}");
        }
        assert_eq!(kinds(Level::Avx512Bf16), [Native, Native, Widened, Widened]);
        assert_eq!(kinds(Level::Amx), [Native, Native, Split, Split]);
        assert_eq!(kinds(Level::AmxFp16), [Native, Native, Native, Split]);
        for level in Level::ALL {
            for name in Policy::NAMES {
                let (policy, found) = (Policy::named(name).unwrap(), of(name, level));
                assert_eq!(found.arithmetic == Emulated, policy.narrow.is_some(), "{name} on {level:?}");
                assert_eq!(found.text.starts_with("emulated"), policy.narrow.is_some(), "{name}");
            }
            assert!(!of("fp32", level).text.contains("16"));
            assert!(of("bf16", level).text.contains("bf16") && !of("bf16", level).text.contains(" f16"));
            assert!(of("fp16", level).text.contains("f16"));
        }
        assert!(of("bf16x3", Level::Amx).text.contains("2^-15"));
        for level in Level::ALL {
            let found = of("tf32", level);
            assert!(found.arithmetic == Widened && found.text.contains("rounded to tf32"), "{level:?}");
        }
        assert!(of("bf16x6", Level::Amx).text.contains("2^-23"));
    }
}

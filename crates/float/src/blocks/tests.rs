use super::*;
use crate::code::{Rounding, decode, encode};
use crate::draws::Draws;
use crate::scale::E8m0;
use proptest::prelude::*;

const NEAR: SliceRounding = SliceRounding::NearestEven;

/// One of the forms with buffers for a matrix.
#[derive(Clone, Copy, Debug)]
enum Form {
    Mx(Mx),
    Nv,
    Fp8(Fp8Blocks),
}

fn forms() -> Vec<Form> {
    let mut forms = vec![Form::Nv];
    for element in [Format::E4m3, Format::E5m2, Format::E3m2, Format::E2m3, Format::E2m1] {
        for rule in [ScaleRule::Floor, ScaleRule::Even, ScaleRule::NoOverflow] {
            forms.push(Form::Mx(Mx::new(element, rule).unwrap()));
        }
    }
    for element in [Format::E4m3, Format::E5m2, Format::E4m3fnuz, Format::E5m2fnuz] {
        for (rows, columns) in [(1, 128), (2, 5), (1000, 1000)] {
            for scale in [F32Scale::Any, F32Scale::PowerOfTwo] {
                let shape = BlockShape { rows, columns };
                forms.push(Form::Fp8(Fp8Blocks::new(element, shape, scale).unwrap()));
            }
        }
    }
    forms
}

/// Codes, scale of each element, and what they read as.
struct Stored {
    codes: Vec<u8>,
    scale_of: Vec<f32>,
    read: Vec<f32>,
}

fn store(form: Form, rounding: SliceRounding, x: &[f32], row: usize) -> Stored {
    let (mut codes, mut read) = (vec![0; x.len()], vec![0.0; x.len()]);
    let spread = |scales: Vec<f32>, rows: usize, columns: usize| {
        let per_row = row.div_ceil(columns);
        (0..x.len()).map(|i| scales[i / row / rows * per_row + i % row / columns]).collect()
    };
    let scale_of: Vec<f32> = match form {
        Form::Mx(mx) => {
            let mut scales = vec![E8m0::ONE; mx.scales(x.len(), row).unwrap()];
            mx.quantise(rounding, x, row, &mut codes, &mut scales).unwrap();
            mx.dequantise(&codes, row, &scales, &mut read).unwrap();
            spread(scales.into_iter().map(E8m0::value).collect(), 1, Mx::BLOCK)
        }
        Form::Nv => {
            let tensor = Nvfp4.tensor_scale(x);
            let mut scales = vec![0; Nvfp4.scales(x.len(), row).unwrap()];
            Nvfp4.quantise(rounding, x, row, tensor, &mut codes, &mut scales).unwrap();
            Nvfp4.dequantise(&codes, row, tensor, &scales, &mut read).unwrap();
            let value = |s: u8| decode(Format::E4m3, s.into()) as f32 * tensor;
            spread(scales.into_iter().map(value).collect(), 1, Nvfp4::BLOCK)
        }
        Form::Fp8(fp8) => {
            let mut scales = vec![0.0; fp8.scales(x.len(), row).unwrap()];
            fp8.quantise(rounding, x, row, &mut codes, &mut scales).unwrap();
            fp8.dequantise(&codes, row, &scales, &mut read).unwrap();
            spread(scales, fp8.shape().rows, fp8.shape().columns)
        }
    };
    Stored { codes, scale_of, read }
}

impl Form {
    fn element(self) -> Format {
        match self {
            Form::Mx(mx) => mx.element(),
            Form::Nv => Format::E2m1,
            Form::Fp8(fp8) => fp8.element(),
        }
    }

    /// Whether element `i` and element `j` share a scale.
    fn together(self, i: usize, j: usize, row: usize) -> bool {
        let (rows, columns) = match self {
            Form::Mx(_) => (1, Mx::BLOCK),
            Form::Nv => (1, Nvfp4::BLOCK),
            Form::Fp8(fp8) => (fp8.shape().rows, fp8.shape().columns),
        };
        let block = |i: usize| (i / row / rows, i % row / columns);
        block(i) == block(j)
    }
}

fn samples(n: usize) -> Vec<f32> {
    let draws = Draws { seed: 11, attempt: 0, op: 0 };
    let one = |i| (crate::unit_f32(draws.word(i)) - 0.5) * 2f32.powi((draws.word(i + (1 << 20)) % 12) as i32);
    (0..n as u64).map(one).collect()
}

#[test]
fn a_fault_stays_in_its_block() {
    for form in forms() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let row = 70;
            let mut x = samples(3 * row);
            let whole = store(form, NEAR, &x, row);
            // Not the largest of the tensor, whose scale would change the others.
            let at = (0..row).min_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())).unwrap() + row;
            x[at] = bad;
            let got = store(form, NEAR, &x, row);
            for i in 0..x.len() {
                if form.together(i, at, row) {
                    assert!(got.read[i].is_nan() && got.codes[i] == 0, "{form:?} {i}");
                } else if let (Form::Nv, true) =
                    (form, Nvfp4.tensor_scale(&x) == Nvfp4.tensor_scale(&samples(3 * row)))
                {
                    assert_eq!(got.read[i], whole.read[i], "{form:?} {i}");
                } else if !matches!(form, Form::Nv) {
                    assert_eq!(got.read[i], whole.read[i], "{form:?} {i}");
                }
            }
        }
    }
}

/// Zeros read as zeros, and the ends of f32's range as finite numbers: nothing divides by zero or
/// overflows.
#[test]
fn zeros_and_the_ends_of_the_range() {
    for form in forms() {
        let zeros = store(form, NEAR, &[0.0, -0.0, 0.0], 3);
        assert!(
            zeros.read.iter().all(|&x| x == 0.0) && zeros.scale_of.iter().all(|s| s.is_finite()),
            "{form:?}"
        );
        for top in [f32::MAX / 2.0, 1.0, f32::MIN_POSITIVE, f32::from_bits(5), f32::from_bits(1)] {
            for x in [[top, -top, top / 2.0, 0.0], [0.0, 0.0, 0.0, top]] {
                let s = store(form, NEAR, &x, 4);
                assert!(s.read.iter().all(|y| y.is_finite()), "{form:?} {x:?}: {:?}", s.read);
                assert!(s.read.iter().zip(&x).all(|(y, x)| y.abs() <= x.abs() * 1.25 + f32::MIN_POSITIVE));
            }
        }
    }
}

#[test]
fn scales_follow_their_rules() {
    let exponent = |element, rule, amax| i32::from(Mx::new(element, rule).unwrap().scale(amax).0) - 127;
    use Format::{E2m1, E4m3};
    use ScaleRule::{Even, Floor, NoOverflow};
    // e4m3: emax 8, largest 448 = 1.75 · 2^8. "Even" goes up from 1.9375 = 2 − 2^−4.
    for (amax, floor, even, none) in [
        (256.0, 0, 0, 0),
        (448.0, 0, 0, 0),
        (448.0f32.next_up(), 0, 0, 1),
        (496.0f32.next_down(), 0, 0, 1),
        (496.0, 0, 1, 1),
        (512.0, 1, 1, 1),
    ] {
        let got = [Floor, Even, NoOverflow].map(|rule| exponent(E4m3, rule, amax));
        assert_eq!(got, [floor, even, none], "{amax}");
    }
    // e2m1: emax 2, largest 6 = 1.5 · 2^2; "even" from 1.75.
    assert_eq!([6.0, 6.5, 7.0, 8.0].map(|a| exponent(E2m1, Even, a)), [0, 0, 1, 1]);
    assert_eq!([6.0, 6.5, 7.0, 8.0].map(|a| exponent(E2m1, NoOverflow, a)), [0, 1, 1, 1]);
    // The range of the scale ends before that of f32.
    assert_eq!([1e-38, f32::from_bits(1), 0.0].map(|a| exponent(E4m3, Floor, a)), [-127; 3]);
    assert_eq!(exponent(E4m3, Floor, f32::MAX), 119);
    assert_eq!(exponent(E4m3, Even, f32::MAX), 120, "reads as 2^128, which f32 has not");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mx = Mx::new(Format::E4m3, ScaleRule::Floor).unwrap();
    assert_eq!(mx.scales(12, 5), Err(BlockError::Rows { values: 12, row_length: 5 }));
    assert_eq!(mx.scales(12, 0), Err(BlockError::Rows { values: 12, row_length: 0 }));
    assert_eq!(mx.scales(0, 0), Ok(0));
    assert_eq!(mx.scales(99, 33), Ok(6));
    let (mut codes, mut scales) = ([0; 4], [E8m0::ONE; 1]);
    let got = mx.quantise(NEAR, &[1.0; 5], 5, &mut codes, &mut scales);
    assert_eq!(got, Err(BlockError::Buffer { what: "codes", expected: 5, got: 4 }));
    assert!(mx.quantise(NEAR, &[], 0, &mut [], &mut []).is_ok());
    assert!(Nvfp4.quantise(NEAR, &[], 0, 1.0, &mut [], &mut []).is_ok());
    assert!(Mx::new(Format::F16, ScaleRule::Floor).is_err());
    let shape = BlockShape { rows: 0, columns: 1 };
    assert!(Fp8Blocks::new(Format::E4m3, shape, F32Scale::Any).is_err());
    let shape = BlockShape { rows: usize::MAX, columns: usize::MAX };
    assert!(Fp8Blocks::new(Format::E2m1, shape, F32Scale::Any).is_err());
    let fp8 = Fp8Blocks::new(Format::E4m3, shape, F32Scale::Any).unwrap();
    let (mut codes, mut scales) = ([0; 4], [0.0; 1]);
    fp8.quantise(NEAR, &[1.0, 2.0, 3.0, 4.0], 2, &mut codes, &mut scales).unwrap();
    assert_eq!(scales[0], 4.0 / 448.0);
}

proptest! {
    /// Each element is its scaled value rounded by the reference, whatever the rows, tails and
    /// draws.
    #[test]
    fn elements_are_rounded_scaled_values(row in 1usize..300, rows in 1usize..6, first in 0u64..5, seed: u64) {
        let x = samples(row * rows);
        let draws = Draws { seed, attempt: 3, op: 1 };
        for form in forms() {
            for rounding in [NEAR, SliceRounding::Stochastic { draws, first }] {
                let s = store(form, rounding, &x, row);
                for (i, &x) in x.iter().enumerate() {
                    let of_element = match rounding {
                        SliceRounding::NearestEven => Rounding::NearestEven,
                        SliceRounding::Stochastic { .. } => Rounding::Stochastic(draws.word(first + i as u64)),
                    };
                    // Powers of two divide exactly; other scales divide in f32.
                    let scaled = if s.scale_of[i] == 0.0 { 0.0 } else { x / s.scale_of[i] };
                    let code = encode(form.element(), scaled.into(), of_element, Overflow::Saturate);
                    prop_assert_eq!(u32::from(s.codes[i]), code, "{:?} {} {:e}", form, i, x);
                    let read = decode(form.element(), code) as f32 * s.scale_of[i];
                    prop_assert_eq!(s.read[i].to_bits(), read.to_bits());
                }
            }
        }
    }
}

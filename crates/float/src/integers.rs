//! Whole numbers with a scale for each row: symmetric quantisation by output channel, as int8 and
//! int4 weights are stored.

/// Rounds every row of `row_length` values to a multiple of its own scale, in place: scale = amax /
/// (2^(bits−1) − 1) in f32, x ← scale · round(x / scale), ties to even, in the range ±(2^(bits−1)
/// − 1) (so that −2^(bits−1) is not used, as TensorRT and oneDNN have it). A row of zeros stays;
/// one that holds a NaN or an infinity becomes NaN. A last row may be shorter.
///
/// `bits` is taken between 2 and 16.
pub fn round_to_integers(bits: u32, row_length: usize, values: &mut [f32]) {
    let largest = ((1u32 << (bits.clamp(2, 16) - 1)) - 1) as f32;
    for row in values.chunks_mut(row_length.max(1)) {
        let amax = row.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        if row.iter().any(|x| !x.is_finite()) {
            row.fill(f32::NAN);
            continue;
        }
        let scale = amax / largest;
        if scale > 0.0 {
            row.iter_mut().for_each(|x| *x = (*x / scale).round_ties_even().clamp(-largest, largest) * scale);
        } else {
            row.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_scales_of_their_own() {
        // Scales 1 and 1/4 of 4-bit numbers ±7: ties go to the even neighbour.
        let mut x = [7.0, 2.5, -3.5, 0.4, 1.75, 0.1, -0.2, 0.0];
        round_to_integers(4, 4, &mut x);
        assert_eq!(x, [7.0, 2.0, -4.0, 0.0, 1.75, 0.0, -0.25, 0.0]);
        let mut zeros = [0.0, -0.0, 1e-45];
        round_to_integers(8, 3, &mut zeros);
        assert_eq!(zeros, [0.0; 3], "a scale that underflows leaves nothing");
        let mut bad = [1.0, f32::INFINITY, 2.0, 1.0];
        round_to_integers(8, 2, &mut bad);
        assert!(bad[0].is_nan() && bad[1].is_nan() && bad[2] == 2.0);
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        for bits in [4, 8] {
            let mut y = x.clone();
            round_to_integers(bits, 100, &mut y);
            for (x, y) in x.chunks(100).zip(y.chunks(100)) {
                let scale = x.iter().fold(0.0f32, |a, x| a.max(x.abs())) / ((1 << (bits - 1)) - 1) as f32;
                // Half a step, and the roundings of the quotient, the scale and the product.
                assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 0.5 * scale + 4.0 * f32::EPSILON));
            }
        }
    }
}

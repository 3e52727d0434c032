//! `halfstep bench`: speed, measured.

mod case;
pub mod gemm;
pub mod step;
pub mod suite;

/// Median and least of some times.
pub fn median_and_min(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median =
        if times.len().is_multiple_of(2) { (times[middle - 1] + times[middle]) / 2.0 } else { times[middle] };
    (median, times[0])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_of_an_even_count_is_between() {
        assert_eq!(super::median_and_min(&mut [4.0, 1.0, 3.0, 2.0]), (2.5, 1.0));
        assert_eq!(super::median_and_min(&mut [4.0, 1.0, 3.0]), (3.0, 1.0));
    }
}

//! `halfstep bench`: speed, measured.

mod case;
pub mod gemm;
pub mod step;
pub mod suite;

use std::time::{Duration, Instant};

use halfstep::evidence::units;

use super::failure::Failure;

/// Runs before the first that is measured.
const WARM_UP: usize = 3;
/// Runs that are measured at least.
const LEAST: usize = 5;

/// An error unless one can measure for so many seconds.
fn check_seconds(seconds: f64) -> Result<(), Failure> {
    if seconds >= 0.0 && seconds.is_finite() {
        return Ok(());
    }
    Err(Failure::asked(format!("--seconds {seconds} is not possible"), "give 0 or more"))
}

/// Milliseconds of each run of `once` after some to warm up, for about `seconds`.
fn times(seconds: f64, mut once: impl FnMut() -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    for _ in 0..WARM_UP {
        once()?;
    }
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(seconds.min(1e6));
    while times.len() < LEAST || Instant::now() < end {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Median and least of some times.
fn median_and_min(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median =
        if times.len().is_multiple_of(2) { (times[middle - 1] + times[middle]) / 2.0 } else { times[middle] };
    (median, times[0])
}

/// Median and least time in milliseconds, in words.
fn median_and_least(median: f64, least: f64) -> String {
    format!("{} median, {} least", units::milliseconds(median), units::milliseconds(least))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_of_an_even_count_is_between() {
        assert_eq!(super::median_and_min(&mut [4.0, 1.0, 3.0, 2.0]), (2.5, 1.0));
        assert_eq!(super::median_and_min(&mut [4.0, 1.0, 3.0]), (3.0, 1.0));
    }
}

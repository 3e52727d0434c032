//! What range the values of a tensor take, and what each format would do to them.

use crate::format::Format;

/// Counts over a tensor's f32 values. Formats are those of [`Format::ALL`], rounding is to nearest
/// even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeStats {
    /// Number of values.
    pub count: u64,
    /// Number of zeros of either sign.
    pub zeros: u64,
    /// Number of NaNs.
    pub nans: u64,
    /// Number of infinities.
    pub infs: u64,
    /// Largest finite magnitude; 0 where there is none.
    pub amax: f32,
    /// Smallest non-zero finite magnitude; +∞ where there is none.
    pub amin: f32,
    per_format: [FormatCounts; Format::ALL.len()],
}

/// What rounding to one format does to the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatCounts {
    /// Finite non-zero values that become zero.
    pub underflowed: u64,
    /// Finite non-zero values below the smallest normal number (those that become zero included).
    pub subnormal: u64,
    /// Finite values that round beyond the largest finite number.
    pub overflowed: u64,
}

impl Default for RangeStats {
    fn default() -> RangeStats {
        RangeStats {
            count: 0,
            zeros: 0,
            nans: 0,
            infs: 0,
            amax: 0.0,
            amin: f32::INFINITY,
            per_format: [FormatCounts::default(); Format::ALL.len()],
        }
    }
}

/// The ends of a format's range as bits of f32 magnitudes, which order as the magnitudes do.
#[derive(Clone, Copy)]
struct Thresholds {
    /// The largest magnitude that becomes zero.
    zero: u32,
    /// The smallest magnitude that is normal.
    normal: u32,
    /// The smallest magnitude that overflows.
    over: u32,
}

const INFINITY: u32 = 0x7f80_0000;

impl Thresholds {
    fn of(format: Format) -> Thresholds {
        if format == Format::F32 {
            return Thresholds { zero: 0, normal: f32::MIN_POSITIVE.to_bits(), over: INFINITY };
        }
        let info = format.info();
        let bits = |x: f64| (x as f32).to_bits();
        // Half a unit above the largest finite value: a tie goes up where that value's mantissa is
        // odd. For bf16 the sum still fits f32.
        let half = crate::ulp(format, info.max_finite) / 2.0;
        let tie_stays = format.max_finite_code().is_multiple_of(2);
        Thresholds {
            zero: bits(info.min_subnormal / 2.0),
            normal: bits(info.min_normal),
            over: bits(info.max_finite + half) + u32::from(tie_stays),
        }
    }
}

impl RangeStats {
    /// The statistics of `values`.
    pub fn of(values: &[f32]) -> RangeStats {
        let thresholds = Format::ALL.map(Thresholds::of);
        let mut stats = RangeStats::default();
        // Chunks keep the inner counters in 32 bits, which is what vectorises.
        for chunk in values.chunks(1 << 12) {
            stats.add_chunk(chunk, &thresholds);
        }
        stats
    }

    fn add_chunk(&mut self, chunk: &[f32], thresholds: &[Thresholds; Format::ALL.len()]) {
        let magnitudes = || chunk.iter().map(|x| x.to_bits() & 0x7fff_ffff);
        let count = |f: &dyn Fn() -> u32| u64::from(f());
        self.count += chunk.len() as u64;
        self.zeros += count(&|| magnitudes().map(|m| u32::from(m == 0)).sum());
        self.infs += count(&|| magnitudes().map(|m| u32::from(m == INFINITY)).sum());
        self.nans += count(&|| magnitudes().map(|m| u32::from(m > INFINITY)).sum());
        let largest = magnitudes().map(|m| if m < INFINITY { m } else { 0 }).max().unwrap_or(0);
        let smallest = magnitudes().map(|m| if m == 0 { INFINITY } else { m }).min().unwrap_or(INFINITY);
        self.amax = self.amax.max(f32::from_bits(largest));
        self.amin = self.amin.min(f32::from_bits(smallest.min(INFINITY)));
        for (counts, t) in self.per_format.iter_mut().zip(thresholds) {
            counts.underflowed += count(&|| magnitudes().map(|m| u32::from(m != 0 && m <= t.zero)).sum());
            counts.subnormal += count(&|| magnitudes().map(|m| u32::from(m != 0 && m < t.normal)).sum());
            counts.overflowed +=
                count(&|| magnitudes().map(|m| u32::from(m >= t.over && m < INFINITY)).sum());
        }
    }

    /// Number of NaNs and infinities.
    pub fn non_finite(&self) -> u64 {
        self.nans + self.infs
    }

    /// What rounding to `format` does.
    pub fn counts(&self, format: Format) -> FormatCounts {
        self.per_format[format as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round_to;
    use proptest::prelude::*;

    fn by_rounding(values: &[f32], format: Format) -> FormatCounts {
        let mut c = FormatCounts::default();
        for &x in values.iter().filter(|x| x.is_finite() && **x != 0.0) {
            let x = f64::from(x);
            let r = round_to(format, x);
            c.underflowed += u64::from(r == 0.0);
            c.subnormal += u64::from(x.abs() < format.info().min_normal);
            let beyond = format.info().max_finite + crate::ulp(format, format.info().max_finite) / 2.0;
            // The narrowest formats have nothing beyond the largest number, so there the rounded
            // value does not tell.
            c.overflowed += u64::from(if format.info().has_nan { !r.is_finite() } else { x.abs() >= beyond });
        }
        c
    }

    #[test]
    fn counts_at_the_edges() {
        let mut values =
            vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::from_bits(1)];
        for f in Format::ALL {
            let i = f.info();
            let over = i.max_finite + crate::ulp(f, i.max_finite) / 2.0;
            for x in [i.min_subnormal, i.min_subnormal / 2.0, i.min_normal, i.max_finite, over] {
                let x = x as f32;
                values.extend([x, -x, x.next_up(), x.next_down()]);
            }
        }
        let stats = RangeStats::of(&values);
        for f in Format::ALL {
            assert_eq!(stats.counts(f), by_rounding(&values, f), "{f}");
        }
        assert_eq!(stats.nans, 1);
        assert_eq!(stats.amax, f32::MAX);
        assert_eq!(stats.amin, f32::from_bits(1));
        let order: Vec<usize> = Format::ALL.map(|f| f as usize).into();
        assert_eq!(order, (0..Format::ALL.len()).collect::<Vec<_>>(), "the index used by `counts`");
    }

    #[test]
    fn nothing_at_all() {
        let stats = RangeStats::of(&[]);
        assert_eq!((stats.amax, stats.amin, stats.counts(Format::F16).overflowed), (0.0, f32::INFINITY, 0));
    }

    proptest! {
        #[test]
        fn counts_are_those_of_rounding(bits in proptest::collection::vec(any::<u32>(), 0..300)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let stats = RangeStats::of(&values);
            for f in Format::ALL {
                prop_assert_eq!(stats.counts(f), by_rounding(&values, f));
            }
        }
    }
}

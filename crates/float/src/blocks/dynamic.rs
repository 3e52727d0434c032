//! Eight-bit codes of block-wise optimiser state: Dettmers et al. 2022 (arXiv 2110.02861), as
//! bitsandbytes has them.
//!
//! A block of 256 numbers is divided by its largest magnitude, kept in f32, and each quotient
//! becomes the nearest of 256 values: 0, 1, and in each of the seven decades below 1 evenly spaced
//! ones, twice as many as in the decade below. So large numbers of a block have about two digits,
//! and small ones differ from zero down to a millionth. Between two values that are equally near,
//! the smaller magnitude is taken.

/// Elements that share a largest magnitude: bitsandbytes' block.
pub const DYNAMIC_BLOCK: usize = 256;

/// Which of the two codebooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynamicMap {
    /// For numbers of either sign. Of −1 there is no value: the lowest is −0.993.
    Signed,
    /// For numbers of at least 0, with twice as many values. Negative ones become 0.
    Unsigned,
}

/// Magnitudes of the signed codebook: 0, 127 and 1.
const SIGNED: usize = 129;
/// Magnitudes of the unsigned one: 0, 254 and 1.
const UNSIGNED: usize = 256;

static SIGNED_CODEBOOK: Codebook = Codebook::new(SIGNED);
static UNSIGNED_CODEBOOK: Codebook = Codebook::new(UNSIGNED);

/// The first 16 bits of an f32 of at least 2^-24: all below are nearest to 0.
const FIRST_BIN: u32 = (127 - 24) << 7;
/// Bins up to that of 1.
const BINS: usize = 24 * 128 + 1;

/// The values of a codebook, and what finds the nearest of its magnitudes, here called levels.
struct Codebook {
    values: [f32; 256],
    /// Halfway between a level and the next; infinite behind the last.
    middles: [f32; 256],
    /// For the numbers that agree in their first 16 bits, the level nearest to the smallest of
    /// them. Bins are so narrow that at most one middle lies in each.
    bins: [u8; BINS],
}

impl Codebook {
    /// In the arithmetic of `torch.linspace` and of `create_dynamic_map`, so that the values have
    /// the same bits.
    const fn new(count: usize) -> Codebook {
        const DECADES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
        let mut levels = [0.0; 256];
        let mut at = 1;
        let mut decade = 0;
        while decade < 7 {
            // Intervals of 0.1 .. 1 whose middles are the values.
            let parts = (1 << decade) * if count == SIGNED { 1 } else { 2 };
            let step = (0.9 / parts as f64) as f32;
            let mut k = 0;
            while k < parts {
                let middle = (edge(step, k, parts) + edge(step, k + 1, parts)) / 2.0;
                levels[at] = middle * DECADES[decade];
                at += 1;
                k += 1;
            }
            decade += 1;
        }
        levels[at] = 1.0;
        assert!(at + 1 == count);
        let mut middles = [f32::INFINITY; 256];
        let mut k = 0;
        while k + 1 < count {
            middles[k] = (levels[k] + levels[k + 1]) / 2.0;
            k += 1;
        }
        let mut bins = [0; BINS];
        let (mut bin, mut level) = (0, 0);
        while bin < BINS {
            let smallest = f32::from_bits((FIRST_BIN + bin as u32) << 16);
            while smallest > middles[level] {
                level += 1;
            }
            bins[bin] = level as u8;
            bin += 1;
        }
        let mut values = levels;
        if count == SIGNED {
            let mut code = 0;
            while code < 256 {
                values[code] = if code < 127 { -levels[127 - code] } else { levels[code - 127] };
                code += 1;
            }
        }
        Codebook { values, middles, bins }
    }

    /// The level nearest to `x`, which is at least 0; the last for NaN and for what is beyond 1.
    #[inline(always)]
    fn nearest(&self, x: f32) -> u8 {
        let bin = (x.to_bits() >> 16).saturating_sub(FIRST_BIN) as usize;
        let level = self.bins[if bin < BINS { bin } else { BINS - 1 }];
        level + u8::from(x > self.middles[level as usize])
    }
}

/// The `k`th of the ends of `parts` even intervals of 0.1 .. 1, as torch rounds it: from the nearer
/// end.
const fn edge(step: f32, k: usize, parts: usize) -> f32 {
    if k < parts.div_ceil(2) {
        (0.1f32 as f64 + step as f64 * k as f64) as f32
    } else {
        (1.0 - step as f64 * (parts - k) as f64) as f32
    }
}

impl DynamicMap {
    fn codebook(self) -> &'static Codebook {
        match self {
            DynamicMap::Signed => &SIGNED_CODEBOOK,
            DynamicMap::Unsigned => &UNSIGNED_CODEBOOK,
        }
    }

    /// The code of 0.
    pub fn zero(self) -> u8 {
        match self {
            DynamicMap::Signed => 127,
            DynamicMap::Unsigned => 0,
        }
    }

    /// The value of a code. Larger codes have larger values.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        self.codebook().values[usize::from(code)]
    }

    /// The code of the value nearest to `x`. Of NaN that of some value.
    #[inline(always)]
    pub fn code(self, x: f32) -> u8 {
        match self {
            DynamicMap::Signed => {
                // Without a branch: signs are as good as random.
                let negative = (x.to_bits() >> 31) as u8;
                let level = self.codebook().nearest(x.abs()).min(128 - negative);
                let sign = negative.wrapping_neg();
                127u8.wrapping_add((level ^ sign).wrapping_sub(sign))
            }
            DynamicMap::Unsigned => self.codebook().nearest(x.max(0.0)),
        }
    }

    /// The codes of a block, and its largest magnitude; NaN if a number is.
    ///
    /// # Panics
    /// If the slices differ in length.
    #[inline(always)]
    pub fn encode(self, x: &[f32], codes: &mut [u8]) -> f32 {
        assert_eq!(x.len(), codes.len(), "a code for each number");
        let larger = |most: f32, x: &f32| if most >= x.abs() { most } else { x.abs() };
        // A comparison with NaN is false: it is kept by the sum.
        let nan = x.iter().fold(0.0, |sum, x| sum + x * 0.0);
        let absmax = if nan == 0.0 { x.iter().fold(0.0, larger) } else { nan };
        // Of a block of zeros every code stands for 0.
        let divisor = if absmax == 0.0 { 1.0 } else { absmax };
        // Quotients first: they vectorise, looking up codes does not.
        let mut quotients = [0.0; DYNAMIC_BLOCK];
        for (x, codes) in x.chunks(DYNAMIC_BLOCK).zip(codes.chunks_mut(DYNAMIC_BLOCK)) {
            quotients.iter_mut().zip(x).for_each(|(q, &x)| *q = x / divisor);
            codes.iter_mut().zip(&quotients).for_each(|(code, &q)| *code = self.code(q));
        }
        absmax
    }

    /// The numbers of a block with this largest magnitude.
    ///
    /// # Panics
    /// If the slices differ in length.
    #[inline(always)]
    pub fn decode(self, codes: &[u8], absmax: f32, x: &mut [f32]) {
        assert_eq!(x.len(), codes.len(), "a code for each number");
        for (x, &code) in x.iter_mut().zip(codes) {
            *x = self.value(code) * absmax;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [DynamicMap; 2] = [DynamicMap::Signed, DynamicMap::Unsigned];

    /// `scripts/golden_dynamic_map.py` made the file with bitsandbytes.
    #[test]
    fn values_have_the_bits_of_bitsandbytes() {
        let golden = include_str!("../../tests/golden/dynamic_map.txt");
        assert_eq!(golden.lines().count(), 256);
        for (code, line) in golden.lines().enumerate() {
            for (map, bits) in BOTH.into_iter().zip(line.split(' ')) {
                let expected = u32::from_str_radix(bits, 16).unwrap();
                assert_eq!(map.value(code as u8).to_bits(), expected, "{map:?} {code}");
            }
        }
    }

    #[test]
    fn codes_are_those_of_the_nearest_value() {
        for map in BOTH {
            assert_eq!(map.value(map.zero()), 0.0);
            let mut numbers: Vec<f32> = (0..=255).map(|code| map.value(code)).collect();
            // Each value, each middle with its neighbours, the ends of bins, and some between.
            for code in 0..255u8 {
                let middle = (map.value(code) + map.value(code + 1)) / 2.0;
                numbers.extend([middle.next_down(), middle, middle.next_up()]);
            }
            for bin in 0..=(128 * 26u32) {
                let x = f32::from_bits((FIRST_BIN - 128 + bin.min(128 * 25)) << 16);
                numbers.extend([x, x.next_down(), -x, x * 1.003, -x * 1.001]);
            }
            for x in numbers.into_iter().filter(|x| x.abs() <= 1.0) {
                let x = if map == DynamicMap::Unsigned { x.max(0.0) } else { x };
                let distance = |code: u8| (f64::from(map.value(code)) - f64::from(x)).abs();
                let nearest = (0..=255).map(distance).fold(f64::INFINITY, f64::min);
                // The middle of two values is rounded to f32: half an ulp of 1 at most.
                let found = distance(map.code(x));
                assert!(found <= nearest + f64::from(f32::EPSILON), "{map:?} {x:e}: {found} > {nearest}");
            }
        }
    }

    #[test]
    fn at_most_one_middle_lies_in_a_bin() {
        for codebook in [&SIGNED_CODEBOOK, &UNSIGNED_CODEBOOK] {
            assert!(codebook.bins.windows(2).all(|pair| pair[1] - pair[0] <= 1));
            assert!(codebook.middles[0] > f32::from_bits(FIRST_BIN << 16));
        }
    }

    #[test]
    fn a_block_keeps_its_largest_number_and_a_code_stays_what_it_is() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-7).collect();
        for map in BOTH {
            let x: Vec<f32> =
                if map == DynamicMap::Unsigned { x.iter().map(|x| x.abs()).collect() } else { x.clone() };
            let (mut codes, mut again) = ([0; 256], [0; 256]);
            let mut back = [0.0; 256];
            let absmax = map.encode(&x, &mut codes);
            assert_eq!(absmax, 50.0 * 1e-7);
            map.decode(&codes, absmax, &mut back);
            for (&x, &y) in x.iter().zip(&back) {
                // The widest steps: 0.9/64 and 0.9/128 of the largest in the last decade, and what
                // is between decades.
                assert!((x - y).abs() <= absmax * 0.9 / 64.0, "{map:?} {x} {y}");
            }
            let largest = map.encode(&back, &mut again);
            if largest == absmax {
                assert_eq!(codes, again);
            }
        }
    }

    #[test]
    fn zeros_stay_and_faults_are_not_hidden() {
        for map in BOTH {
            let (mut codes, mut x) = ([9; 3], [7.0; 3]);
            let absmax = map.encode(&[0.0; 3], &mut codes);
            assert_eq!((absmax, codes), (0.0, [map.zero(); 3]));
            map.decode(&codes, absmax, &mut x);
            assert_eq!(x, [0.0; 3]);
            for bad in [f32::NAN, f32::INFINITY] {
                let absmax = map.encode(&[1.0, bad, 2.0], &mut codes);
                assert!(!absmax.is_finite());
                map.decode(&codes, absmax, &mut x);
                assert!(!x[1].is_finite());
            }
        }
    }
}

//! Numbers for the order of blocks and warps.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// The numbers below `end`, each once, in an order that depends on the seed alone.
    pub fn order(&mut self, end: u32) -> impl Iterator<Item = u32> + use<> {
        let coprime = |step: &u32| {
            let (mut a, mut b) = (*step, end);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a == 1
        };
        let step = std::iter::repeat_with(|| 1 + self.below(end)).find(coprime).expect("1 is one");
        let first = self.below(end);
        (0..end).map(move |at| {
            let number = u64::from(first) + u64::from(at) * u64::from(step);
            (number % u64::from(end)) as u32
        })
    }

    /// Puts things in an order that depends on the seed alone.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            things.swap(at, self.below(at as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn an_order_has_every_number_once() {
        for end in [1, 2, 3, 12, 30, 97, 1000] {
            let orders: Vec<Vec<u32>> = (0..20).map(|seed| Random::new(seed).order(end).collect()).collect();
            for order in &orders {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..end));
            }
            assert!(end < 12 || orders.iter().any(|order| *order != orders[0]));
        }
    }
}

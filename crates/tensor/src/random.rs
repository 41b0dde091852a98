//! Random numbers that are the same on every machine: those of a bootstrap, of sampling, of models made up for tests.

/// SplitMix64 (Steele, Lea and Flood, 2014): a 64-bit counter, mixed. Small, fast, and the same everywhere; no secret.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A stream of numbers that depends on the seed alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Mean 0, variance 1, within -6 and 6: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    /// Mean 0, variance 1, within -6 and 6: the sum of twelve uniform numbers.
    pub fn normal_f64(&mut self) -> f64 {
        (0..12).map(|_| self.uniform_f64()).sum::<f64>() - 6.0
    }

    /// Uniform in 0 .. `bound` (0 for a bound of 0), with a bias below 2^-32 for small bounds.
    pub fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next_u64()).saturating_mul(bound as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// Puts the items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for count in (2..=items.len()).rev() {
            let other = self.below(count);
            items.swap(count.saturating_sub(1), other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded numbers of the reference implementation (Vigna's splitmix64.c, seed 1234567).
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let found: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(found, published);
    }

    #[test]
    fn ranges_hold() {
        let mut random = SplitMix64::new(1);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&random.uniform()) && (0.0..1.0).contains(&random.uniform_f64()));
            assert!(random.below(7) < 7 && random.below(0) == 0);
        }
        let mut items: Vec<u32> = (0..100).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<u32>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<u32>>());
    }
}

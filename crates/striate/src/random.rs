//! Random numbers that depend on nothing but their name.
//!
//! Philox4x32-10 (Salmon et al., SC11, "Parallel Random Numbers: As Easy as 1, 2, 3") turns a key and a counter into
//! 128 random bits. A [`Random`] is a key: a seed, a [`Purpose`] and a stream number. The n-th number is a function of
//! n, so threads draw theirs in any order, and a resumed run needs no generator state.

/// What the numbers are for. Two purposes never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; the stream is the parameter's position.
    Initialise = 1,
    /// The order of the samples; the stream is the epoch.
    Shuffle = 2,
    /// Dropout masks; the stream is the training step and the layer.
    Dropout = 3,
    /// Splitting data; the stream is the class.
    Split = 4,
    /// Augmentation; the stream is the epoch and the sample.
    Augment = 5,
    /// Tests and benchmarks.
    Test = 6,
    /// Noise and starting images of explanations; the stream is the sample.
    Explain = 7,
    /// Mixing images of a batch; the stream is the epoch and the sample.
    Mix = 8,
    /// Balanced sampling; the stream is the class and how often its images were gone through.
    Balance = 9,
}

/// A source of random numbers named by seed, purpose and stream; the n-th number is a pure function of n.
///
/// ```
/// use striate::random::{Purpose, Random};
/// let random = Random::new(1, Purpose::Test, 0);
/// assert_eq!(random.uniform(7), Random::new(1, Purpose::Test, 0).uniform(7));
/// assert!((0.0..1.0).contains(&random.uniform(7)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: [u32; 2],
    purpose: u32,
    stream: u32,
}

impl Random {
    /// The generator for `purpose`, stream number `stream`, under `seed`.
    pub fn new(seed: u64, purpose: Purpose, stream: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            purpose: purpose as u32 | ((stream >> 32) as u32) << 8,
            stream: stream as u32,
        }
    }

    /// 128 random bits: block `index`.
    #[inline]
    pub fn block(&self, index: u64) -> [u32; 4] {
        philox([index as u32, (index >> 32) as u32, self.stream, self.purpose], self.key)
    }

    /// The `index`-th 32-bit number.
    #[inline]
    pub fn bits(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// The `index`-th number, uniform in [0, 1).
    #[inline]
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.bits(index))
    }

    /// The `index`-th number of a normal distribution with mean 0 and deviation 1 (Box-Muller).
    pub fn normal(&self, index: u64) -> f32 {
        let block = self.block(index / 4);
        let pair = if index % 4 < 2 { [block[0], block[1]] } else { [block[2], block[3]] };
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - f64::from(pair[0]) / 4_294_967_296.0).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(pair[1]) / 4_294_967_296.0;
        (radius * if index.is_multiple_of(2) { angle.cos() } else { angle.sin() }) as f32
    }

    /// A whole number below `limit`, the `index`-th draw (`limit` at least 1).
    pub fn below(&self, index: u64, limit: u64) -> u64 {
        let [a, b, ..] = self.block(index);
        let wide = u64::from(a) | u64::from(b) << 32;
        // The high half of a 128-bit product: bias below 2^-32 for any limit under 2^32.
        ((u128::from(wide) * u128::from(limit.max(1))) >> 64) as u64
    }

    /// A random order of `0..n` (Fisher-Yates).
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

#[inline]
fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[inline]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_authors() {
        // kat_vectors of Random123, philox4x32 with 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let digits_of_pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(digits_of_pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn moments() {
        let random = Random::new(3, Purpose::Test, 0);
        let n = 200_000;
        let (mut uniform, mut normal, mut square) = (0.0, 0.0, 0.0);
        for i in 0..n {
            uniform += f64::from(random.uniform(i));
            let z = f64::from(random.normal(i));
            normal += z;
            square += z * z;
        }
        let n = n as f64;
        assert!((uniform / n - 0.5).abs() < 0.003);
        assert!((normal / n).abs() < 0.01);
        assert!((square / n - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_permutation_holds_everyone_once_and_differs_by_stream() {
        let order = Random::new(1, Purpose::Shuffle, 0).permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_ne!(order, Random::new(1, Purpose::Shuffle, 1).permutation(1000));
        assert_ne!(order, Random::new(2, Purpose::Shuffle, 0).permutation(1000));
    }
}

//! Images mixed with others of their batch, and how much of the other each shows: mixup and CutMix.

use super::{Augment, Draws, Transform};
use crate::{
    kernels::{isa::vectorized, softmax::SecondClass},
    random::{Purpose, Random},
    shape::Shape,
};

/// The place in a batch of the image that the one at `position` is mixed with: the batch backwards. Batches are drawn at
/// random, so this is a random other one; the middle one of an odd number stays as it is.
pub fn partner(position: usize, batch: usize) -> usize {
    batch.saturating_sub(1 + position)
}

/// How an image is mixed with its partner.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mix {
    Nothing,
    /// The partner's share of every pixel.
    Blend(f32),
    /// Rows and columns that show the partner: begin and end.
    Part([(usize, usize); 2]),
}

impl Mix {
    /// The partner's share of an image of this shape.
    fn share(self, shape: Shape) -> f32 {
        match self {
            Mix::Nothing => 0.0,
            Mix::Blend(share) => share,
            Mix::Part([rows, columns]) => {
                ((rows.1 - rows.0) * (columns.1 - columns.0)) as f32 / shape.area().max(1) as f32
            }
        }
    }

    /// Mixes `partner` into `image`, both (C, H, W).
    fn apply(self, shape: Shape, image: &mut [f32], partner: &[f32]) {
        match self {
            Mix::Nothing => {}
            Mix::Blend(share) => blend(image, partner, share),
            Mix::Part([(top, bottom), (left, right)]) => {
                let width = shape.width;
                let rows = image.chunks_exact_mut(width).zip(partner.chunks_exact(width)).enumerate();
                for (_, (to, from)) in rows.filter(|(row, _)| (top..bottom).contains(&(row % shape.height))) {
                    to[left..right].copy_from_slice(&from[left..right]);
                }
            }
        }
    }
}

impl Augment {
    /// Whether images are mixed with others of their batch.
    pub fn mixes(&self) -> bool {
        self.mixers().next().is_some()
    }

    fn mixers(&self) -> impl Iterator<Item = &Transform> {
        self.transforms
            .iter()
            .filter(|transform| matches!(transform, Transform::Mixup { .. } | Transform::CutMix { .. }))
    }

    /// What happens to image `sample`, wherever it stands: of several ways to mix, each is as likely as any other.
    fn mix_of(&self, seed: u64, epoch: usize, sample: usize, shape: Shape) -> Mix {
        let random = Random::new(seed, Purpose::Mix, (epoch as u64) << 32 | (sample as u64 & 0xFFFF_FFFF));
        let mut draws = Draws::new(random, 0);
        let choice = match self.mixers().count() {
            0 => return Mix::Nothing,
            1 => 0,
            several => draws.up_to(several - 1),
        };
        match self.mixers().nth(choice) {
            Some(&Transform::Mixup { alpha, probability }) if draws.uniform() < probability => {
                Mix::Blend(beta(&mut draws, alpha))
            }
            Some(&Transform::CutMix { alpha, probability }) if draws.uniform() < probability => {
                let side = f64::from(beta(&mut draws, alpha)).sqrt();
                let mut span = |length: usize| {
                    let (side, middle) = ((side * length as f64) as usize, draws.up_to(length.saturating_sub(1)));
                    (middle.saturating_sub(side / 2), (middle + side - side / 2).min(length))
                };
                Mix::Part([span(shape.height), span(shape.width)])
            }
            _ => Mix::Nothing,
        }
    }

    /// Mixes the images of a batch (N, C, H, W), each with its [`partner`]. `samples` are their numbers in the dataset;
    /// `scratch` holds one image. How each is mixed depends on `seed`, `epoch` and its number, as with
    /// [`Augment::apply`], which comes before.
    ///
    /// # Panics
    /// `images` does not hold as many images as `samples`, or `scratch` less than one.
    pub fn mix(
        &self,
        seed: u64,
        epoch: usize,
        samples: &[usize],
        shape: Shape,
        images: &mut [f32],
        scratch: &mut [f32],
    ) {
        let image = shape.len();
        assert_eq!(images.len(), samples.len() * image, "the buffer must hold the images named");
        if !self.mixes() || images.is_empty() {
            return;
        }
        let scratch = &mut scratch[..image];
        let (front, back) = images.split_at_mut(samples.len() / 2 * image);
        let pairs = front.chunks_exact_mut(image).zip(back.chunks_exact_mut(image).rev());
        for ((front, back), (&first, &second)) in pairs.zip(samples.iter().zip(samples.iter().rev())) {
            scratch.copy_from_slice(front);
            self.mix_of(seed, epoch, first, shape).apply(shape, front, back);
            self.mix_of(seed, epoch, second, shape).apply(shape, back, scratch);
        }
    }

    /// Writes what [`Augment::mix`] adds to the targets of these images, whose classes `labels` has by their numbers; a number
    /// beyond these begins again at the first.
    ///
    /// # Panics
    /// There are no labels.
    pub fn second_classes(
        &self,
        seed: u64,
        epoch: usize,
        samples: &[usize],
        shape: Shape,
        labels: &[usize],
        out: &mut [SecondClass],
    ) {
        for (position, (&sample, out)) in samples.iter().zip(out).enumerate() {
            let other = partner(position, samples.len());
            let is_alone = other == position || !self.mixes();
            let share = if is_alone { 0.0 } else { self.mix_of(seed, epoch, sample, shape).share(shape) };
            *out = SecondClass { label: labels[samples[other] % labels.len()], share };
        }
    }
}

vectorized!(
    /// `(1 - share) image + share partner`, written to `image`.
    fn blend(image: &mut [f32], partner: &[f32], share: f32) = blend_in
);

#[inline(always)]
fn blend_in(image: &mut [f32], partner: &[f32], share: f32) {
    let rest = 1.0 - share;
    image.iter_mut().zip(partner).for_each(|(image, partner)| *image = rest * *image + share * partner);
}

/// A number of the distribution Beta(alpha, alpha): one gamma number as a share of two.
fn beta(draws: &mut Draws, alpha: f32) -> f32 {
    let [first, second] = [(); 2].map(|()| ln_gamma(draws, f64::from(alpha)));
    // Of their logarithms, as both may be too small for a number.
    (1.0 / (1.0 + (second - first).exp())) as f32
}

/// The logarithm of a number of the distribution Gamma(alpha): Marsaglia and Tsang, 2000, "A Simple Method for Generating
/// Gamma Variables", with their step from alpha + 1 down to alpha.
fn ln_gamma(draws: &mut Draws, alpha: f64) -> f64 {
    // In (0, 1], so that logarithms are finite.
    let mut ln_uniform = || (1.0 - f64::from(draws.uniform())).ln();
    let d = alpha + 2.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (radius, angle) = ((-2.0 * ln_uniform()).sqrt(), std::f64::consts::TAU * ln_uniform().exp());
        let x = radius * angle.cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && ln_uniform() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return (d * v).ln() + ln_uniform() / alpha;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape::new(2, 6, 10);

    /// Image `n` is all `n`.
    fn mixed(augment: &str, seed: u64, samples: &[usize]) -> (Vec<f32>, Vec<SecondClass>) {
        let augment: Augment = augment.parse().unwrap();
        let labels: Vec<usize> = (0..100).map(|sample| sample + 1000).collect();
        let mut images: Vec<f32> = samples.iter().flat_map(|&n| vec![n as f32; SHAPE.len()]).collect();
        let mut seconds = vec![SecondClass { label: 7, share: f32::NAN }; samples.len()];
        augment.mix(seed, 3, samples, SHAPE, &mut images, &mut vec![f32::NAN; SHAPE.len()]);
        augment.second_classes(seed, 3, samples, SHAPE, &labels, &mut seconds);
        (images, seconds)
    }

    #[test]
    fn every_image_shows_its_partner_as_much_as_its_target_says() {
        for (augment, batch) in [("mixup:alpha=1", 6), ("cutmix", 5), ("mixup,cutmix", 8), ("flip,cutmix:alpha=0.3", 1)]
        {
            for seed in 0..50 {
                let samples: Vec<usize> = (0..batch).map(|i| 3 * i + 1).collect();
                let (images, seconds) = mixed(augment, seed, &samples);
                for (at, (image, second)) in images.chunks_exact(SHAPE.len()).zip(&seconds).enumerate() {
                    let (own, other) = (samples[at] as f32, samples[batch - 1 - at] as f32);
                    assert_eq!(second.label, 1000 + other as usize);
                    assert!((0.0..=1.0).contains(&second.share));
                    if own == other {
                        assert_eq!((second.share, image), (0.0, &vec![own; SHAPE.len()][..]));
                    }
                    let mean = image.iter().sum::<f32>() / SHAPE.len() as f32;
                    let expected = own + second.share * (other - own);
                    assert!((mean - expected).abs() < 1e-4, "{augment}: {mean} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_part_is_a_rectangle_of_the_images_proportions() {
        let mut shares = Vec::new();
        for seed in 0..300 {
            let (images, seconds) = mixed("cutmix", seed, &[1, 2]);
            let plane = &images[..SHAPE.area()];
            assert_eq!(plane, &images[SHAPE.area()..SHAPE.len()], "every channel alike");
            let count = |line: &[f32]| line.iter().filter(|&&v| v == 2.0).count();
            let widths: Vec<usize> = plane.chunks_exact(SHAPE.width).map(count).filter(|&width| width > 0).collect();
            assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{plane:?}");
            assert!(images.iter().all(|&v| v == 1.0 || v == 2.0));
            shares.push(seconds[0].share);
        }
        assert!(shares.iter().any(|&share| share > 0.7) && shares.iter().any(|&share| share < 0.1));
    }

    #[test]
    fn nothing_else_matters_than_seed_epoch_and_number() {
        let (images, seconds) = mixed("mixup", 5, &[1, 2, 3, 4]);
        let (again, _) = mixed("mixup", 5, &[1, 2, 3, 4]);
        assert_eq!(images, again);
        // The same pair in another batch.
        let (pair, second) = mixed("mixup", 5, &[1, 4]);
        assert_eq!((&pair[..SHAPE.len()], second[0]), (&images[..SHAPE.len()], seconds[0]));
        assert_eq!((&pair[SHAPE.len()..], second[1]), (&images[3 * SHAPE.len()..], seconds[3]));
        assert_ne!(seconds[0].share, mixed("mixup", 6, &[1, 4]).1[0].share);
        let (images, seconds) = mixed("mixup:probability=0", 5, &[1, 4]);
        assert!(seconds.iter().all(|second| second.share == 0.0));
        assert_eq!(images[..SHAPE.len()], vec![1.0; SHAPE.len()]);
    }

    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.05f32, 0.2, 1.0, 4.0, 100.0] {
            let n = 20_000;
            let (mut sum, mut squares, mut low) = (0.0, 0.0, 0);
            for sample in 0..n {
                let share = f64::from(beta(&mut Draws::new(Random::new(2, Purpose::Test, sample), 0), alpha));
                assert!((0.0..=1.0).contains(&share));
                sum += share;
                squares += (share - 0.5).powi(2);
                low += u32::from(share < 0.1);
            }
            let variance = 1.0 / (4.0 * (2.0 * f64::from(alpha) + 1.0));
            assert!((sum / n as f64 - 0.5).abs() < 0.015, "{alpha}");
            assert!((squares / n as f64 / variance - 1.0).abs() < 0.05, "{alpha}: {}", squares / n as f64);
            // scipy.stats.beta.cdf(0.1, alpha, alpha)
            let expected = [(0.05, 0.449469), (0.2, 0.336690), (1.0, 0.1), (4.0, 0.002728), (100.0, 0.0)];
            let expected = expected.iter().find(|(a, _)| *a == alpha).map_or(f64::NAN, |(_, share)| *share);
            assert!((f64::from(low) / n as f64 - expected).abs() < 0.012, "{alpha}: {low}");
        }
    }
}

//! Which images an epoch takes, in which order, and how much each counts.

use super::{Balance, TrainOptions};
use crate::data::Dataset;
use crate::random::{Purpose, Random};

/// The orders of a run's epochs: functions of the seed, the labels and the epoch, so that any step can be resumed.
pub(super) struct Order {
    seed: u64,
    images: usize,
    /// With balanced sampling: the images of each class that has some.
    classes: Vec<Vec<usize>>,
}

impl Order {
    pub(super) fn new(options: &TrainOptions, data: &Dataset) -> Self {
        let classes = match options.balance {
            Balance::Sampling => {
                let mut classes = vec![Vec::new(); data.classes()];
                data.labels().iter().enumerate().for_each(|(image, &label)| classes[label].push(image));
                classes.retain(|class| !class.is_empty());
                classes
            }
            Balance::None | Balance::Weights => Vec::new(),
        };
        Self { seed: options.seed, images: data.len(), classes }
    }

    /// The images of an epoch (from 1): each once, or with balanced sampling of each class as many, in all as many as there
    /// are. Then an image drawn for the n-th time (from 0) is its number plus n times the number of images, which the
    /// loader changes otherwise than the first.
    ///
    /// A class is an endless row of permutations of its images, from which the epochs take one piece after the other: no
    /// image is drawn more than once more than another of its class.
    pub(super) fn epoch(&self, epoch: usize) -> Vec<usize> {
        let past = epoch as u64 - 1;
        let shuffled = Random::new(self.seed, Purpose::Shuffle, past).permutation(self.images);
        if self.classes.is_empty() {
            return shuffled;
        }
        let mut drawn = Vec::with_capacity(self.images);
        let mut times = vec![0; self.images];
        for (class, images) in self.classes.iter().enumerate() {
            let (quota, mut order) = (quota(self.images, self.classes.len(), class), Vec::new());
            let first = past * quota as u64;
            let size = images.len() as u64;
            for place in first..first + quota as u64 {
                if order.is_empty() || place.is_multiple_of(size) {
                    let stream = (class as u64) << 32 | (place / size) & 0xffff_ffff;
                    order = Random::new(self.seed, Purpose::Balance, stream).permutation(images.len());
                }
                let image = images[order[(place % size) as usize]];
                drawn.push(image + times[image] * self.images);
                times[image] += 1;
            }
        }
        shuffled.into_iter().map(|place| drawn[place]).collect()
    }
}

/// How many of `images` draws the class at this position of `classes` gets.
fn quota(images: usize, classes: usize, class: usize) -> usize {
    images / classes + usize::from(class < images % classes)
}

/// What balancing the classes of a data set comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassShare {
    /// Images of the class.
    pub images: usize,
    /// What the loss of each counts, on the mean over the images 1; 1 for all without [`Balance::Weights`].
    pub weight: f32,
    /// How many of them an epoch takes.
    pub drawn: usize,
}

/// What balancing the classes of `data` comes to, class by class.
///
/// ```
/// use striate::data::{Dataset, Pixels, one_class_names};
/// use striate::shape::Shape;
/// use striate::train::{Balance, class_shares};
/// let labels = vec![0, 0, 0, 0, 0, 0, 1, 1];
/// let data = Dataset::new("uneven", Shape::new(1, 1, 1), Pixels::U8(vec![0; 8]), labels, one_class_names(2))?;
/// let weights = class_shares(&data, Balance::Weights).map(|class| class.weight).collect::<Vec<_>>();
/// assert_eq!(weights, [4.0 / 6.0, 2.0]);
/// assert!(class_shares(&data, Balance::Sampling).all(|class| class.drawn == 4));
/// # Ok::<(), striate::data::DataError>(())
/// ```
pub fn class_shares(data: &Dataset, balance: Balance) -> impl Iterator<Item = ClassShare> {
    let counts = data.class_sizes();
    let (images, present) = (data.len(), counts.iter().filter(|&&count| count > 0).count());
    let mut position = 0;
    counts.into_iter().map(move |count| {
        let weight = images as f64 / (present.max(1) * count.max(1)) as f64;
        let drawn = if count > 0 { quota(images, present, position) } else { 0 };
        position += usize::from(count > 0);
        ClassShare {
            images: count,
            weight: if balance == Balance::Weights && count > 0 { weight as f32 } else { 1.0 },
            drawn: if balance == Balance::Sampling { drawn } else { count },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Pixels, one_class_names};
    use crate::shape::Shape;

    fn uneven() -> Dataset {
        // 30, 3, 1 and no images of four classes.
        let labels: Vec<usize> = (0..34).map(|i| if i % 10 == 5 { 1 } else { 2 * usize::from(i == 33) }).collect();
        Dataset::new("uneven", Shape::new(1, 1, 1), Pixels::U8(vec![0; 34]), labels, one_class_names(4)).unwrap()
    }

    fn order(balance: Balance, seed: u64) -> Order {
        Order::new(&TrainOptions { balance, seed, ..TrainOptions::default() }, &uneven())
    }

    #[test]
    fn every_class_is_drawn_as_often_and_every_image_of_a_class() {
        let data = uneven();
        let order = order(Balance::Sampling, 3);
        let mut times = vec![0; data.len()];
        for epoch in 1..=7 {
            let drawn = order.epoch(epoch);
            let mut numbers = drawn.clone();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), 34, "no number twice");
            let mut classes = [0; 4];
            for image in drawn {
                classes[data.labels()[image % 34]] += 1;
                times[image % 34] += 1;
            }
            assert_eq!(classes, [12, 11, 11, 0], "epoch {epoch}");
        }
        for class in 0..3 {
            let of: Vec<usize> = (0..34).filter(|&i| data.labels()[i] == class).map(|i| times[i]).collect();
            assert!(of.iter().max().unwrap() - of.iter().min().unwrap() <= 1, "class {class}: {of:?}");
        }
        assert_ne!(order.epoch(1), order.epoch(2));
        assert_ne!(order.epoch(1), self::order(Balance::Sampling, 4).epoch(1));
        assert_eq!(order.epoch(2), self::order(Balance::Sampling, 3).epoch(2));
    }

    #[test]
    fn unbalanced_epochs_take_each_image_once() {
        let mut drawn = order(Balance::Weights, 3).epoch(2);
        assert_eq!(drawn, order(Balance::None, 3).epoch(2));
        drawn.sort_unstable();
        assert!(drawn.into_iter().eq(0..34));
    }

    #[test]
    fn weights_are_one_on_the_mean_over_the_images() {
        let shares: Vec<ClassShare> = class_shares(&uneven(), Balance::Weights).collect();
        assert_eq!(shares.iter().map(|c| c.images).collect::<Vec<_>>(), [30, 3, 1, 0]);
        let sum: f64 = shares.iter().map(|c| f64::from(c.weight) * c.images as f64).sum();
        assert!((sum / 34.0 - 1.0).abs() < 1e-6, "{shares:?}");
        assert!((shares[1].weight - 10.0 * shares[0].weight).abs() < 1e-5);
        assert_eq!((shares[3].weight, shares[3].drawn, shares[0].drawn), (1.0, 0, 30));
        assert!(class_shares(&uneven(), Balance::Sampling).map(|c| c.drawn).eq([12, 11, 11, 0]));
    }
}

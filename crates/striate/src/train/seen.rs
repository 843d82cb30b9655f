//! What a run makes of its images.

use super::TrainOptions;
use super::order::Order;
use crate::data::augment::partner;
use crate::data::{Dataset, Loader, Normalization, SecondClass};
use ndarray::Array3;

/// A training image as the network sees it in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// From 1.
    pub epoch: usize,
    /// (C, H, W), before normalisation.
    pub image: Array3<f32>,
    /// What else it shows.
    pub second: SecondClass,
}

/// What a run with these options sees of some images of its training set in its first epochs: changed, and mixed with the
/// images that stand opposite in its batches. One list an image, with one entry an epoch that takes it; images that
/// `data` does not have get none.
pub fn seen(data: &Dataset, options: &TrainOptions, samples: &[usize], epochs: usize) -> Vec<Vec<Seen>> {
    let (shape, batch) = (data.shape(), options.batch.max(1));
    let mut loader = Loader::new(data, Normalization::identity(), options.augment.clone(), options.seed);
    let mut all: Vec<Vec<Seen>> = samples.iter().map(|_| Vec::new()).collect();
    let orders = Order::new(options, data);
    for epoch in 1..=epochs {
        let order = orders.epoch(epoch);
        for (sample, seen) in samples.iter().zip(&mut all) {
            // With balanced sampling, perhaps not in this epoch.
            let Some(place) = order.iter().position(|other| other == sample) else { continue };
            let others = order.chunks(batch).nth(place / batch).unwrap_or_default();
            // With its partner alone it is mixed as in the whole batch.
            let pair: Vec<usize> = match others.get(partner(place % batch, others.len())) {
                Some(other) if options.augment.mixes() && other != sample => vec![*sample, *other],
                _ => vec![*sample],
            };
            let mut images = vec![0.0; pair.len() * shape.len()];
            let mut seconds = vec![SecondClass::default(); pair.len()];
            loader.batch(epoch, &pair, &mut images);
            loader.second_classes(epoch, &pair, &mut seconds);
            images.truncate(shape.len());
            if let (Ok(image), Some(&second)) =
                (Array3::from_shape_vec(<[usize; 3]>::from(shape), images), seconds.first())
            {
                seen.push(Seen { epoch, image, second });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Pixels, one_class_names};
    use crate::shape::Shape;

    #[test]
    fn it_is_what_the_batches_hold() {
        let shape = Shape::new(1, 5, 4);
        let pixels = Pixels::U8((0..23 * shape.len()).map(|i| (i * 7 % 251) as u8).collect());
        let labels = (0..23).map(|i| i % 3).collect();
        let data = Dataset::new("stripes", shape, pixels, labels, one_class_names(3)).unwrap();
        for augment in ["flip,mixup,cutmix", "affine"] {
            let augment = augment.parse().unwrap();
            let options = TrainOptions { batch: 9, seed: 3, augment, ..TrainOptions::default() };
            let samples: Vec<usize> = (0..23).collect();
            let found = seen(&data, &options, &samples, 2);
            let mut loader = Loader::new(&data, Normalization::identity(), options.augment.clone(), 3);
            let mut checked = 0;
            for epoch in 1..=2 {
                for indices in Order::new(&options, &data).epoch(epoch).chunks(9) {
                    let mut images = vec![0.0; indices.len() * shape.len()];
                    let mut seconds = vec![SecondClass::default(); indices.len()];
                    loader.batch(epoch, indices, &mut images);
                    loader.second_classes(epoch, indices, &mut seconds);
                    for ((&index, image), second) in indices.iter().zip(images.chunks_exact(shape.len())).zip(&seconds)
                    {
                        let seen = &found[index][epoch - 1];
                        assert_eq!((seen.epoch, seen.image.as_slice().unwrap()), (epoch, image));
                        assert_eq!(seen.second.share, second.share);
                        assert!(second.share == 0.0 || seen.second.label == second.label);
                        checked += 1;
                    }
                }
            }
            assert_eq!(checked, 46);
        }
        assert!(seen(&data, &TrainOptions::default(), &[99], 2)[0].is_empty());
    }
}

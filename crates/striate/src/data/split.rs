//! Setting some samples aside, evenly over the classes.

use super::{DataError, Dataset, Pixels, Splits, memory};
use crate::random::{Purpose, Random};

/// How many images are set aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HoldOut {
    /// This share of all, above 0 and below 1.
    Share(f64),
    /// So many.
    Count(usize),
}

impl Splits {
    /// Sets some of the training images aside, to validate with: what remains to train with, and those.
    ///
    /// Each class gives in proportion to its size, and keeps at least one image. Which ones is a function of `seed`, the
    /// labels and the count; both parts keep their order.
    ///
    /// ```
    /// use striate::data::{Dataset, HoldOut, Pixels, Splits, one_class_names};
    /// use striate::shape::Shape;
    /// let labels = (0..30).map(|i| i % 3).collect();
    /// let pixels = Pixels::U8((0..30).collect());
    /// let train = Dataset::new("tiny", Shape::new(1, 1, 1), pixels, labels, one_class_names(3))?;
    /// let splits = Splits { test: train.head(3), train };
    /// let (train, validation) = splits.hold_out(HoldOut::Share(0.2), 1)?;
    /// assert_eq!((train.len(), validation.len()), (24, 6));
    /// assert_eq!(validation.labels().iter().filter(|&&label| label == 2).count(), 2);
    /// # Ok::<(), striate::data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// None or too many are asked for, or there is no memory for the copies.
    pub fn hold_out(&self, size: HoldOut, seed: u64) -> Result<(Dataset, Dataset), DataError> {
        let train = &self.train;
        let wrong =
            |field, found: String, expected| Err(DataError::Option { of: "validation split", field, found, expected });
        let count = match size {
            HoldOut::Share(share) if !(share > 0.0 && share < 1.0) => {
                return wrong("share", share.to_string(), "above 0 and below 1".into());
            }
            HoldOut::Share(share) => ((share * train.len() as f64).round() as usize).max(1),
            HoldOut::Count(count) => count,
        };
        let (kept, held) = stratified(train.labels(), train.classes(), count, seed);
        if count == 0 || held.len() < count {
            let most = stratified(train.labels(), train.classes(), train.len(), seed).1.len();
            let expected = format!("1 to {most}, as each class of {} keeps at least one image", train.name());
            return wrong("count", count.to_string(), expected);
        }
        let bytes = match &train.pixels {
            Pixels::U8(values) => values.len(),
            Pixels::F32(values) => size_of_val(&values[..]),
            Pixels::Files(_) => 0,
        };
        if !memory::is_free(bytes) {
            return Err(DataError::Memory { name: train.name().into(), bytes: bytes as u64 });
        }
        let (mut kept, mut held) = (train.subset(&kept), train.subset(&held));
        kept.name = format!("{} (without validation)", train.name());
        held.name = format!("{} (validation)", train.name());
        Ok((kept, held))
    }
}

/// Chooses `count` of the samples with these labels at random, each class in proportion to its size.
///
/// Gives the positions of those that stay and of those chosen, both ascending. At least one sample of each class stays,
/// so fewer than `count` are chosen if there are not enough others. A function of its arguments alone: what is chosen
/// from one class depends on `seed`, the class and the number of its samples.
pub(crate) fn stratified(labels: &[usize], classes: usize, count: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut members = vec![Vec::new(); classes];
    for (sample, &label) in labels.iter().enumerate() {
        if let Some(members) = members.get_mut(label) {
            members.push(sample);
        }
    }
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut chosen = vec![false; labels.len()];
    for (class, (members, quota)) in members.iter().zip(quotas(&sizes, count)).enumerate() {
        let order = Random::new(seed, Purpose::Split, class as u64).permutation(members.len());
        for &sample in order.iter().take(quota).filter_map(|&at| members.get(at)) {
            if let Some(chosen) = chosen.get_mut(sample) {
                *chosen = true;
            }
        }
    }
    (0..labels.len()).partition(|&sample| !chosen.get(sample).copied().unwrap_or(false))
}

/// How many of each class make `count` of all: rounded down, and what is left to the largest remainders.
fn quotas(sizes: &[usize], count: usize) -> Vec<usize> {
    let all = sizes.iter().sum::<usize>().max(1) as u128;
    let exact = |size: usize| size as u128 * count as u128;
    let room = |size: usize| size.saturating_sub(1);
    let mut quotas: Vec<usize> = sizes.iter().map(|&size| ((exact(size) / all) as usize).min(room(size))).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    // Stable: of equal remainders the earlier class comes first.
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(exact(sizes[class]) % all));
    let mut left = count.saturating_sub(quotas.iter().sum());
    while left > 0 {
        let before = left;
        for &class in &by_remainder {
            if left > 0 && quotas[class] < room(sizes[class]) {
                quotas[class] += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn largest_remainders() {
        assert_eq!(quotas(&[10, 10, 10], 6), [2, 2, 2]);
        // 3.5, 1.4 and 0.1 of 5: one is left for the largest remainder.
        assert_eq!(quotas(&[35, 14, 1], 5), [4, 1, 0]);
        assert_eq!(quotas(&[1, 1, 8], 5), [0, 0, 5], "a class of one keeps its one");
        assert_eq!(quotas(&[2, 2], 4), [1, 1]);
        assert_eq!(quotas(&[], 4), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition_in_proportion(
            labels in proptest::collection::vec(0usize..5, 1..300), share in 0.0f64..1.0, seed: u64,
        ) {
            let count = (share * labels.len() as f64) as usize;
            let (stay, chosen) = stratified(&labels, 5, count, seed);
            let mut all = [stay.clone(), chosen.clone()].concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..labels.len()));
            prop_assert!(stay.is_sorted() && chosen.is_sorted() && chosen.len() <= count);
            for class in 0..5 {
                let of = |part: &[usize]| part.iter().filter(|&&sample| labels[sample] == class).count();
                let size = of(&stay) + of(&chosen);
                prop_assert!(size == 0 || of(&stay) > 0);
                let exact = size as f64 * count as f64 / labels.len() as f64;
                // Classes that keep their last sample pass their share on to others.
                prop_assert!(of(&chosen) as f64 >= exact.floor().min(size as f64 - 1.0));
                if chosen.len() == count && exact + 10.0 < size as f64 {
                    prop_assert!(of(&chosen) as f64 <= exact + 10.0);
                }
            }
            prop_assert_eq!((stay, chosen), stratified(&labels, 5, count, seed));
        }
    }
}

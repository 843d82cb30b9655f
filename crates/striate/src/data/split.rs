//! Setting some samples aside, evenly over the classes.

use crate::random::{Purpose, Random};

/// Chooses `count` of the samples with these labels at random, each class in proportion to its size.
///
/// Gives the positions of those that stay and of those chosen, both ascending. At least one sample of each class stays,
/// so fewer than `count` are chosen if there are not enough others. A function of its arguments alone: what is chosen
/// from one class depends on `seed`, the class and the number of its samples.
pub(super) fn stratified(labels: &[usize], classes: usize, count: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
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

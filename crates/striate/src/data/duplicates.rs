//! Images that occur more than once, exactly or nearly: within a split they count double, across splits they make a test
//! result too good.
//!
//! *Exact* duplicates have the same pixels at the data set's size (their files may differ). They are found by SHA-256.
//!
//! *Near* duplicates look the same: other compression, a little brighter, a scaled copy. Each image is made grey and shrunk
//! to 9 x 8 pixels; one bit for each two neighbours in a row says whether it gets brighter (the "difference hash", 64 bits).
//! Two images are near if at most [`MOST_BITS`] bits differ, and their grey miniatures of 16 x 16 pixels differ by at most
//! [`MOST_DIFFERENCE`] of 255 on average. Turned, mirrored or cropped copies are not found, and of very plain or very
//! simple images (a stroke on paper) some look alike that are not copies.

use super::{
    Dataset,
    resample::{Rectangle, resample},
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bits of the hash that may differ between near duplicates.
pub const MOST_BITS: u32 = 4;
/// Mean difference of the miniatures' pixels, of 255, that near duplicates may have.
pub const MOST_DIFFERENCE: f64 = 4.0;
/// Side of the miniatures.
const SIDE: usize = 16;
/// Images that share a fifth of their hash are compared with so many that follow; only plain images are that many.
const MOST_NEIGHBOURS: usize = 256;

/// Where an image is: the number of its data set among those searched, and its position there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which data set.
    pub part: usize,
    /// Position in it.
    pub index: usize,
}

/// Two images that look the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// The earlier one.
    pub first: Place,
    /// The later one.
    pub second: Place,
    /// Mean difference of the grey miniatures, of 255.
    pub difference: f64,
}

/// What [`find`] finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplicates {
    /// Images with the very same pixels: each group in order, and the groups by their first image.
    pub exact: Vec<Vec<Place>>,
    /// Pairs that look the same, the most similar first. Of exact duplicates only the first stands for all.
    pub near: Vec<Near>,
}

/// What is kept of an image: about 300 bytes.
struct Print {
    digest: [u8; 16],
    hash: u64,
    miniature: Vec<u8>,
}

/// Looks for images that occur more than once in these data sets; `progress` hears how many images are done of how many.
///
/// Images of numbers that are no pixels ([`Pixels::F32`](super::Pixels::F32)) are passed over.
///
/// ```
/// use striate::data::{Dataset, Pixels, duplicates::{self, Place}, one_class_names};
/// use striate::shape::Shape;
/// let pixels = Pixels::U8(vec![1, 2, 3, 9, 8, 7, 1, 2, 3]);
/// let data = Dataset::new("tiny", Shape::new(1, 1, 3), pixels, vec![0; 3], one_class_names(1))?;
/// let found = duplicates::find(&[&data], |_, _| {});
/// assert_eq!(found.exact, [[Place { part: 0, index: 0 }, Place { part: 0, index: 2 }]]);
/// # Ok::<(), striate::data::DataError>(())
/// ```
pub fn find(parts: &[&Dataset], progress: impl Fn(usize, usize) + Sync) -> Duplicates {
    let places: Vec<Place> = parts
        .iter()
        .enumerate()
        .flat_map(|(part, data)| (0..data.len()).map(move |index| Place { part, index }))
        .collect();
    let done = AtomicUsize::new(0);
    let prints: Vec<Option<Print>> = places
        .par_iter()
        .map(|place| {
            let print = parts.get(place.part).and_then(|data| print(data, place.index));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, places.len());
            print
        })
        .collect();
    let mut groups: HashMap<[u8; 16], Vec<usize>> = HashMap::new();
    for (at, print) in prints.iter().enumerate() {
        if let Some(print) = print {
            groups.entry(print.digest).or_default().push(at);
        }
    }
    // One of each group, in order.
    let distinct: BTreeSet<usize> = groups.values().filter_map(|group| group.first().copied()).collect();
    let mut exact: Vec<Vec<Place>> = groups
        .into_values()
        .filter(|group| group.len() > 1)
        .map(|group| group.into_iter().filter_map(|at| places.get(at).copied()).collect())
        .collect();
    exact.sort();
    let distinct: Vec<(usize, &Print)> =
        distinct.into_iter().filter_map(|at| Some((at, prints.get(at)?.as_ref()?))).collect();
    let mut near: Vec<Near> = similar(&distinct)
        .into_iter()
        .filter_map(|((a, b), difference)| Some(Near { first: *places.get(a)?, second: *places.get(b)?, difference }))
        .collect();
    near.sort_by(|a, b| {
        a.difference.total_cmp(&b.difference).then(a.first.cmp(&b.first)).then(a.second.cmp(&b.second))
    });
    Duplicates { exact, near }
}

/// The pairs that look the same. If two hashes differ in at most 4 bits, at least one of five pieces is equal: only those
/// with an equal piece are compared.
fn similar(prints: &[(usize, &Print)]) -> BTreeMap<(usize, usize), f64> {
    const PIECES: u32 = MOST_BITS + 1;
    let found: Vec<((usize, usize), f64)> = (0..PIECES)
        .into_par_iter()
        .flat_map_iter(|piece| {
            let (from, to) = (64 * piece / PIECES, 64 * (piece + 1) / PIECES);
            let mask = (u64::MAX >> (64 - (to - from))) << from;
            let mut order: Vec<(u64, usize)> =
                prints.iter().enumerate().map(|(i, (_, print))| (print.hash & mask, i)).collect();
            order.sort_unstable();
            let mut pairs = Vec::new();
            for (place, &(key, i)) in order.iter().enumerate() {
                let behind = order.iter().skip(place + 1).take(MOST_NEIGHBOURS).take_while(|(other, _)| *other == key);
                for &(_, j) in behind {
                    let (Some((a, first)), Some((b, second))) = (prints.get(i), prints.get(j)) else { continue };
                    if (first.hash ^ second.hash).count_ones() <= MOST_BITS {
                        let difference = difference(&first.miniature, &second.miniature);
                        if difference <= MOST_DIFFERENCE {
                            pairs.push(((*a.min(b), *a.max(b)), difference));
                        }
                    }
                }
            }
            pairs
        })
        .collect();
    found.into_iter().collect()
}

fn difference(a: &[u8], b: &[u8]) -> f64 {
    let sum: u32 = a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    f64::from(sum) / a.len().max(1) as f64
}

fn print(data: &Dataset, index: usize) -> Option<Print> {
    let pixels = data.bytes(index)?;
    let shape = data.shape();
    let mut digest = [0; 16];
    digest.copy_from_slice(Sha256::digest(&pixels).get(..16)?);
    let area = shape.area();
    let grey: Vec<u8> = (0..area)
        .map(|at| {
            let sum: usize = pixels.iter().skip(at).step_by(area).map(|&v| usize::from(v)).sum();
            (sum / shape.channels.max(1)) as u8
        })
        .collect();
    let all = Rectangle { left: 0, top: 0, width: shape.width, height: shape.height };
    let miniature = resample(&grey, 1, shape.width, all, SIDE, SIDE);
    let small = resample(&grey, 1, shape.width, all, 8, 9);
    let brighter = small.chunks_exact(9).flat_map(|row| row.windows(2)).map(|pair| pair.first() < pair.last());
    let hash = brighter.enumerate().fold(0, |hash, (bit, brighter)| hash | u64::from(brighter) << bit);
    Some(Print { digest, hash, miniature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Pixels, one_class_names};
    use crate::random::{Purpose, Random};
    use crate::shape::Shape;

    /// A smooth random picture of 24 x 20 pixels in three colours.
    fn picture(number: u64) -> Vec<u8> {
        let random = Random::new(1, Purpose::Test, number);
        let waves: Vec<f32> = (0..12).map(|i| random.uniform(i)).collect();
        let wave =
            |i: usize, x: f32, y: f32| (waves[i] * 0.8 * x + waves[i + 1] * 0.8 * y + waves[i + 2] * 6.0).sin() * 30.0;
        (0..3 * 480)
            .map(|at| {
                let (y, x) = ((at % 480 / 24) as f32, (at % 24) as f32);
                (128.0 + wave(0, x, y) + wave(3, x, y) + wave(6, x, y) + at as f32 / 480.0 * 5.0) as u8
            })
            .collect()
    }

    fn data(images: &[Vec<u8>]) -> Dataset {
        let labels = vec![0; images.len()];
        Dataset::new("d", Shape::new(3, 20, 24), Pixels::U8(images.concat()), labels, one_class_names(1)).unwrap()
    }

    #[test]
    fn copies_are_found_and_others_are_not() {
        let mut train: Vec<Vec<u8>> = (0..200).map(picture).collect();
        train[150] = train[3].clone();
        // A little brighter.
        let worse = train[9].iter().map(|v| v + 2).collect();
        let mirrored: Vec<u8> = train[20].chunks(24).flat_map(|row| row.iter().rev().copied()).collect();
        let test = vec![picture(900), worse, train[3].clone(), mirrored];
        let (train, test) = (data(&train), data(&test));
        let found = find(&[&train, &test], |_, _| {});
        let place = |part, index| Place { part, index };
        assert_eq!(found.exact, [[place(0, 3), place(0, 150), place(1, 2)]]);
        let near: Vec<_> = found.near.iter().map(|near| (near.first, near.second)).collect();
        assert_eq!(near, [(place(0, 9), place(1, 1))]);
        assert!(found.near[0].difference > 0.5 && found.near[0].difference < 3.0, "{}", found.near[0].difference);
    }

    #[test]
    fn many_plain_images_end_in_time_and_one_pixel_is_enough() {
        let plain: Vec<Vec<u8>> = (0..3000usize).map(|i| vec![(i % 250) as u8; 3 * 480]).collect();
        let found = find(&[&data(&plain)], |_, _| {});
        assert_eq!(found.exact.len(), 250);
        assert!(found.near.len() >= 249);
        let tiny =
            Dataset::new("t", Shape::new(1, 1, 1), Pixels::U8(vec![5, 9]), vec![0; 2], one_class_names(1)).unwrap();
        assert_eq!(find(&[&tiny], |_, _| {}).near.len(), 1);
        let numbers =
            Dataset::new("n", Shape::new(1, 1, 1), Pixels::F32(vec![5.0; 2]), vec![0; 2], one_class_names(1)).unwrap();
        assert_eq!(find(&[&numbers], |_, _| {}), Duplicates::default());
    }

    #[test]
    fn the_same_for_any_number_of_threads() {
        let images: Vec<Vec<u8>> = (0..60).map(|i| picture(i % 40)).collect();
        let data = data(&images);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| find(&[&data], |_, _| {}))
        };
        assert_eq!(with(1).exact.len(), 20);
        assert_eq!(with(1), with(3));
    }
}

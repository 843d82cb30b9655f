//! MNIST with its pixels in another order, the same for every image: what a network without an eye for shape learns as
//! well as before, and one with convolutions does not (section 7.2.1).
//!
//! ```text
//! cargo run --release --example shuffled_pixels -- shuffled [SEED]
//! striate train --data shuffled
//! ```

use std::error::Error;
use std::path::PathBuf;
use striate::formats::write_atomically;
use striate::random::{Purpose, Random};
use striate_mnist::{COLUMNS, Mnist, ROWS};

/// IDX: the kind (unsigned bytes, so many sizes), the sizes, the bytes; all numbers with the highest byte first.
fn idx(sizes: &[usize], bytes: &[u8]) -> Vec<u8> {
    let kind = 0x800 | sizes.len() as u32;
    let sizes = sizes.iter().map(|&size| size as u32);
    std::iter::once(kind).chain(sizes).flat_map(u32::to_be_bytes).chain(bytes.iter().copied()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: shuffled_pixels OUTDIR [SEED]")?);
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    // One permutation for all images: Fisher and Yates.
    let random = Random::new(seed, Purpose::Shuffle, 0);
    let mut order: Vec<usize> = (0..ROWS * COLUMNS).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64, last as u64 + 1) as usize);
    }
    std::fs::create_dir_all(&directory)?;
    for (stem, split) in [("train", striate_mnist::train()?), ("t10k", striate_mnist::test()?)] {
        let Mnist { images, labels } = split;
        let shuffled: Vec<u8> =
            images.chunks_exact(order.len()).flat_map(|image| order.iter().map(|&from| image[from])).collect();
        let file = |what: &str| directory.join(format!("{stem}-{what}-ubyte"));
        write_atomically(file("images-idx3"), &idx(&[labels.len(), ROWS, COLUMNS], &shuffled))?;
        write_atomically(file("labels-idx1"), &idx(&[labels.len()], labels))?;
    }
    Ok(())
}

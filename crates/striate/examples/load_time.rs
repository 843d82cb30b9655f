//! How fast a folder of images is decoded and brought to one size:
//! `cargo run --release -p striate --example load_time -- DIR C,H,W [BATCH]`.
//!
//! Prints one line of JSON: images a second when all are read into memory, and when batches are decoded from their files
//! (benches/peers/loader.py runs this beside PyTorch's DataLoader).

use std::error::Error;
use std::time::Instant;
use striate::data::image_folder::{self, Options};
use striate::data::{Augment, Loader, Normalization};
use striate::shape::Shape;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, shape) = match &arguments[..] {
        [directory, shape, ..] => (directory, shape),
        _ => return Err("a directory and a shape C,H,W are needed".into()),
    };
    let sizes: Vec<usize> = shape.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let &[channels, height, width] = &sizes[..] else { return Err("the shape must be C,H,W".into()) };
    let shape = Shape::new(channels, height, width);
    let batch: usize = arguments.get(2).map_or(Ok(64), |text| text.parse())?;
    let options = |memory| Options { shape: Some(shape), memory: Some(memory), ..Options::default() };

    let begun = Instant::now();
    let held = image_folder::read(directory, &options(u64::MAX))?;
    let images = held.splits.train.len() + held.validation.map_or(0, |data| data.len()) + held.splits.test.len();
    let read = images as f64 / begun.elapsed().as_secs_f64();

    let streamed = image_folder::read(directory, &options(0))?.splits.train;
    let order: Vec<usize> = (0..streamed.len()).collect();
    let mut loader = Loader::new(&streamed, Normalization::identity(), Augment::none(), 1);
    let mut out = vec![0.0; batch * shape.len()];
    // On a thread of the pool, as in training.
    let stream = rayon::scope(|_| {
        let begun = Instant::now();
        let mut batches = order.chunks(batch).peekable();
        while let Some(indices) = batches.next() {
            loader.batch(1, indices, &mut out[..indices.len() * shape.len()]);
            if let Some(next) = batches.peek() {
                loader.prepare(1, next);
            }
        }
        streamed.len() as f64 / begun.elapsed().as_secs_f64()
    });
    println!("{{\"images\": {images}, \"read_per_second\": {read:.0}, \"stream_per_second\": {stream:.0}}}");
    Ok(())
}

//! Images that stay in their files give what images in memory give.

use image::{Rgb, RgbImage};
use std::fs;
use striate::{
    data::{
        Augment, Dataset, HoldOut, Loader, Normalization,
        image_folder::{self, ImageFolder, Options},
    },
    models::simple_convnet::SimpleConvNet,
    network::Network,
    shape::Shape,
    train::{Balance, Control, TrainOptions, Trainer},
};
use tempfile::TempDir;

const SHAPE: Shape = Shape::new(3, 12, 10);

/// Two classes of 12 pictures of many sizes, one of which is damaged.
fn folder() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (class, base) in [("cold", 20u32), ("warm", 90)] {
        let class = directory.path().join(class);
        fs::create_dir(&class).unwrap();
        for i in 0..12u32 {
            let pixel = |x, y| Rgb([(base + x * 7 + i * y) as u8, (y * 5 + i) as u8, (base + x * y) as u8]);
            RgbImage::from_fn(9 + i, 20 - i, pixel).save(class.join(format!("{i}.png"))).unwrap();
        }
        fs::write(class.join("7.png"), b"no picture").unwrap();
    }
    directory
}

fn read(directory: &TempDir, memory: u64) -> ImageFolder {
    let options = Options { shape: Some(SHAPE), memory: Some(memory), ..Options::default() };
    image_folder::read(directory.path(), &options).unwrap()
}

fn with_threads<T: Send>(threads: usize, body: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(body)
}

/// Every batch of two epochs.
fn batches(data: &Dataset, prepare: bool) -> Vec<f32> {
    let augment: Augment = "flip,crop:padding=2,erase,mixup,cutmix".parse().unwrap();
    let mut loader = Loader::new(data, data.normalization(), augment, 5);
    let order: Vec<usize> = (0..data.len()).rev().collect();
    let mut all = Vec::new();
    for epoch in 0..2 {
        for (step, indices) in order.chunks(5).enumerate() {
            let mut out = vec![f32::NAN; indices.len() * SHAPE.len()];
            loader.batch(epoch, indices, &mut out);
            all.extend(out);
            if let Some(next) = order.chunks(5).nth(step + 1).filter(|_| prepare) {
                loader.prepare(epoch, next);
            }
        }
    }
    all
}

#[test]
fn files_and_memory_give_the_same_batches_for_any_number_of_threads() {
    let directory = folder();
    let (held, streamed) = (read(&directory, u64::MAX), read(&directory, 0));
    assert!(
        !held.splits.train.is_streamed() && streamed.splits.train.is_streamed() && streamed.splits.test.is_streamed()
    );
    let skipped = |read: &ImageFolder| read.report.skipped.iter().map(|s| s.reason.to_string()).collect::<Vec<_>>();
    assert_eq!(skipped(&held).len(), 2);
    assert_eq!(skipped(&held), skipped(&streamed));
    let (held, streamed) = (held.splits, streamed.splits);
    assert_eq!(held.train.labels(), streamed.train.labels());
    assert_eq!(held.train.normalization(), streamed.train.normalization());
    for index in 0..held.test.len() {
        assert_eq!(held.test.bytes(index), streamed.test.bytes(index));
    }
    let expected = batches(&held.train, false);
    for threads in 1..4 {
        for prepare in [false, true] {
            assert_eq!(with_threads(threads, || batches(&streamed.train, prepare)), expected, "{threads} threads");
            assert_eq!(with_threads(threads, || batches(&held.train, prepare)), expected, "{threads} threads");
        }
    }
    // Parts of a data set are the same parts.
    let scale = Normalization::identity();
    let parts = |splits: &striate::data::Splits| {
        let (train, validation) = splits.hold_out(HoldOut::Share(0.3), 2).unwrap();
        (
            train.batch(0..train.len(), &scale),
            validation.batch(0..validation.len(), &scale),
            train.head(3).labels().to_vec(),
        )
    };
    assert_eq!(parts(&held), parts(&streamed));
}

#[test]
fn a_batch_does_not_depend_on_what_was_prepared() {
    let directory = folder();
    let data = read(&directory, 0).splits.train;
    let augment: Augment = "flip,affine".parse().unwrap();
    let mut loader = Loader::new(&data, Normalization::identity(), augment.clone(), 1);
    let mut expected = vec![0.0; 3 * SHAPE.len()];
    data.gather_augmented(&[4, 0, 9], &Normalization::identity(), &augment, 1, 3, &mut expected);
    for prepared in [Some((3, vec![4, 0, 9])), Some((2, vec![4, 0, 9])), Some((3, vec![4, 0])), None] {
        if let Some((epoch, indices)) = prepared {
            loader.prepare(epoch, &indices);
        }
        let mut out = vec![0.0; expected.len()];
        loader.batch(3, &[4, 0, 9], &mut out);
        assert_eq!(out, expected);
    }
}

#[test]
fn training_from_files_gives_the_weights_of_training_from_memory() {
    let directory = folder();
    // Fewer of one class than of the other.
    fs::remove_file(directory.path().join("warm/3.png")).unwrap();
    fs::remove_file(directory.path().join("warm/5.png")).unwrap();
    let train = |memory, threads, balance| {
        let data = read(&directory, memory).splits;
        let mut network =
            Network::new(SimpleConvNet { input: SHAPE, classes: 2, ..SimpleConvNet::default() }.description(), 1)
                .unwrap();
        let augment = "flip,crop:padding=2,affine,colour,erase,mixup,cutmix".parse().unwrap();
        let options = TrainOptions { epochs: 3, batch: 8, balance, augment, ..TrainOptions::default() };
        let scale = data.train.normalization();
        with_threads(threads, || {
            let trainer = Trainer::new(&mut network, &data.train, Some(&data.test), scale, options).unwrap();
            trainer.run(&mut |_| Control::Continue).unwrap();
        });
        network.parameters().as_slice().to_vec()
    };
    let mut all = Vec::new();
    for balance in [Balance::None, Balance::Weights, Balance::Sampling] {
        let expected = train(u64::MAX, 1, balance);
        for threads in 1..4 {
            assert!(train(u64::MAX, threads, balance) == expected, "{balance} in memory, {threads} threads");
            assert!(train(0, threads, balance) == expected, "{balance} from files, {threads} threads");
        }
        assert!(!all.contains(&expected), "{balance} changes something");
        all.push(expected);
    }
}

#[test]
fn a_file_that_goes_away_is_replaced_by_the_next_of_its_class_and_told() {
    let directory = folder();
    let data = read(&directory, 0).splits.train;
    let (first, second) = (0, 1);
    assert_eq!(data.labels()[first], data.labels()[second]);
    let striate::data::Pixels::Files(files) = data.pixels() else { panic!("files are expected") };
    let path = files.path(first).unwrap().to_path_buf();
    fs::remove_file(&path).unwrap();
    assert_eq!(data.bytes(first), data.bytes(second));
    let faults = data.faults();
    assert_eq!(faults.iter().map(|fault| fault.path.clone()).collect::<Vec<_>>(), [path]);
    assert!(data.faults().is_empty(), "told once");
    // With all of a class gone, training goes on with black images, and every file is told.
    fs::remove_dir_all(directory.path().join("cold")).unwrap();
    let shape = SHAPE.len();
    assert_eq!(data.bytes(first).unwrap().into_owned(), vec![0; shape]);
    assert!(data.faults().len() > 5);
}

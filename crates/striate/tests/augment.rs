//! Augmentation: text and back, the same choices every time, and pixels that stay pixels.

use proptest::prelude::*;
use striate::{
    data::{
        DataError, Dataset, HoldOut, Normalization, Pixels, Splits,
        augment::{Augment, Fill, Transform},
        one_class_names,
    },
    random::{Purpose, Random},
    shape::Shape,
};

fn augment(text: &str) -> Augment {
    text.parse().unwrap()
}

/// Random pixels.
fn noise(shape: Shape, seed: u64) -> Vec<f32> {
    let random = Random::new(seed, Purpose::Test, 0);
    (0..shape.len() as u64).map(|i| random.uniform(i)).collect()
}

fn applied(augment: &Augment, seed: u64, epoch: usize, sample: usize, shape: Shape, pixels: &[f32]) -> Vec<f32> {
    let (mut pixels, mut scratch) = (pixels.to_vec(), vec![f32::NAN; shape.len()]);
    augment.apply(seed, epoch, sample, shape, &mut pixels, &mut scratch);
    pixels
}

fn data(shape: Shape, images: usize, class_names: Vec<String>) -> Dataset {
    let pixels = noise(Shape::new(images * shape.channels, shape.height, shape.width), 9);
    let pixels = Pixels::U8(pixels.into_iter().map(|value| (value * 256.0) as u8).collect());
    let labels = (0..images).map(|i| i % class_names.len()).collect();
    Dataset::new("noise", shape, pixels, labels, class_names).unwrap()
}

#[test]
fn text_and_back() {
    for text in [
        "none",
        "flip",
        "flip,crop:padding=2;fill=reflect,erase:share=0.1",
        "flip:probability=1,resized-crop:area=0.5,colour:saturation=0,cutout:side=3",
        "affine:rotate=15;scale=0.2;shear=5;shift=0.1;fill=reflect",
        "crop,crop",
        "flip,mixup,cutmix:alpha=0.5;probability=0.25",
    ] {
        assert_eq!(augment(text).to_string(), text);
    }
    // The usual values are left out.
    assert_eq!(augment("affine:rotate=10;scale=0.1;shift=0.08,crop:fill=zero").to_string(), "affine,crop");
    let expected = vec![Transform::Flip { probability: 0.5 }, Transform::Crop { padding: 4, fill: Fill::Zero }];
    assert_eq!(augment("flip,crop").transforms(), expected);
    assert_eq!(augment("none"), Augment::none());
    assert!(Augment::none().is_none() && !augment("flip").is_none());
    let json = serde_json::to_string(&augment("flip,crop:padding=2")).unwrap();
    assert_eq!(json, r#""flip,crop:padding=2""#);
    assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), augment("flip,crop:padding=2"));
    assert!(serde_json::from_str::<Augment>(r#""flop""#).is_err());
}

#[test]
fn wrong_text_is_explained() {
    for (text, parts) in [
        ("", ["augmentation", "flip, crop"]),
        ("flop", ["flop", "flip, crop"]),
        ("flip,", ["augmentation", "flip, crop"]),
        ("crop:size=3", ["size", "padding, fill"]),
        ("crop:padding", ["padding", "option=value"]),
        ("crop:padding=-1", ["crop: padding", "-1"]),
        ("crop:padding=5000", ["crop: padding is 5000", "0 to 4096"]),
        ("crop:fill=white", ["white", "zero or reflect"]),
        ("affine:rotate=NaN", ["affine: rotate is NaN", "0 to 180"]),
        ("affine:scale=1", ["affine: scale is 1", "0.9"]),
        ("flip:probability=1.5", ["flip: probability is 1.5", "0 to 1"]),
        ("erase:share=x", ["erase: share", "x"]),
        ("mixup:alpha=0", ["mixup: alpha is 0", "0.01 to 100"]),
    ] {
        let error = text.parse::<Augment>().unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    let many = vec!["flip"; 17].join(",");
    assert!(matches!(many.parse::<Augment>().unwrap_err(), DataError::Option { .. }));
}

#[test]
fn options_that_change_nothing_leave_every_bit() {
    let nothing = augment(
        "flip:probability=0,crop:padding=0,affine:rotate=0;scale=0;shear=0;shift=0,resized-crop:area=1;ratio=1,\
         colour:brightness=0;contrast=0;saturation=0,erase:share=0,erase:probability=0,cutout:side=0",
    );
    for shape in [Shape::new(1, 28, 28), Shape::new(3, 5, 7), Shape::new(2, 1, 1)] {
        let pixels = noise(shape, 1);
        for sample in 0..10 {
            assert_eq!(applied(&nothing, 1, 0, sample, shape, &pixels), pixels);
        }
    }
}

#[test]
fn known_choices() {
    let shape = Shape::new(1, 1, 4);
    let pixels = [0.1, 0.2, 0.3, 0.4];
    assert_eq!(applied(&augment("flip:probability=1"), 1, 0, 0, shape, &pixels), [0.4, 0.3, 0.2, 0.1]);
    // Every offset of a crop occurs, about as often as any other.
    let crop = augment("crop:padding=1");
    let mut seen = [0; 3];
    for sample in 0..90_000 {
        // Rows beyond the only one are black.
        match &applied(&crop, 1, 0, sample, shape, &pixels)[..] {
            [0.0, 0.1, 0.2, 0.3] => seen[0] += 1,
            [0.1, 0.2, 0.3, 0.4] => seen[1] += 1,
            [0.2, 0.3, 0.4, 0.0] => seen[2] += 1,
            [0.0, 0.0, 0.0, 0.0] => {}
            other => panic!("{other:?} is no crop"),
        }
    }
    assert!(seen.iter().all(|&times| (9_600..10_400).contains(&times)), "{seen:?}");
    let flips = (0..1000).filter(|&i| applied(&augment("flip"), 1, 0, i, shape, &pixels)[0] == 0.4).count();
    assert!((430..570).contains(&flips), "{flips}");
    // Cutout covers up to side x side pixels, and its middle.
    let large = Shape::new(1, 20, 20);
    let black = |sample| {
        let mut pixels = vec![0.0; 400];
        pixels[0] = 1.0;
        let found = applied(&augment("cutout:side=6"), 1, 0, sample, large, &pixels);
        found.iter().filter(|&&value| value == 1.0 / 400.0).count()
    };
    let sizes: Vec<usize> = (0..200).map(black).collect();
    assert!(sizes.iter().all(|&size| (9..=36).contains(&size)), "{sizes:?}");
    assert!(sizes.contains(&36) && sizes.iter().any(|&size| size < 36));
}

#[test]
fn a_name_for_every_choice() {
    let shape = Shape::new(1, 12, 12);
    let pixels = noise(shape, 1);
    let affine = augment("affine");
    let one = applied(&affine, 1, 2, 3, shape, &pixels);
    assert_eq!(one, applied(&affine, 1, 2, 3, shape, &pixels));
    for (seed, epoch, sample) in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2), (1 << 40, 2, 3)] {
        assert_ne!(one, applied(&affine, seed, epoch, sample, shape, &pixels));
    }
    // The second of two equal transforms chooses for itself.
    let flips = augment("flip,flip");
    let same = (0..200).filter(|&i| applied(&flips, 1, 0, i, shape, &pixels) == pixels).count();
    assert!((70..130).contains(&same), "{same}");
}

#[test]
fn gathering_augments_each_image_by_its_number() {
    let shape = Shape::new(3, 6, 5);
    let data = data(shape, 20, one_class_names(2));
    let scale = Normalization { mean: vec![0.5, 0.25, 0.0], deviation: vec![0.5, 2.0, 0.3] };
    let augment = augment("flip,crop:padding=1,affine,colour,erase");
    let gather = |indices: &[usize], epoch| {
        let mut out = vec![f32::NAN; indices.len() * shape.len()];
        data.gather_augmented(indices, &scale, &augment, 7, epoch, &mut out);
        out
    };
    let both = gather(&[13, 4], 2);
    assert_eq!(both[shape.len()..], gather(&[4], 2));
    assert_ne!(both, gather(&[13, 4], 3));
    // By hand: pixels, augmentation, scaling.
    let raw = data.batch(13..14, &Normalization::identity());
    let changed = applied(&augment, 7, 2, 13, shape, raw.as_slice().unwrap());
    for (channel, (found, changed)) in both.chunks_exact(30).zip(changed.chunks_exact(30)).enumerate() {
        let expected: Vec<f32> = changed.iter().map(|v| (v - scale.mean[channel]) / scale.deviation[channel]).collect();
        assert_eq!(found, expected);
    }
    // Without augmentation, the very numbers of `gather`.
    let (mut plain, mut none) = (vec![0.0; shape.len()], vec![0.0; shape.len()]);
    data.gather(&[5], &scale, &mut plain);
    data.gather_augmented(&[5], &scale, &Augment::none(), 7, 0, &mut none);
    assert_eq!(plain, none);
    let unchanged = "flip:probability=0".parse().unwrap();
    data.gather_augmented(&[5], &scale, &unchanged, 7, 0, &mut none);
    assert_eq!(plain, none);
}

#[test]
fn what_suits_the_images() {
    let words = || ["airplane", "automobile", "bird"].map(String::from).to_vec();
    for (shape, names, expected) in [
        (Shape::new(1, 28, 28), one_class_names(10), "affine:scale=0.12;shear=10,erase:share=0.1"),
        (Shape::new(1, 28, 28), words(), "flip,crop:padding=2"),
        (
            Shape::new(1, 28, 28),
            ["One", "zero", "alpha"].map(String::from).to_vec(),
            "affine:scale=0.12;shear=10,erase:share=0.1",
        ),
        (Shape::new(3, 32, 32), one_class_names(10), "affine:scale=0.12;shear=10,erase:share=0.1"),
        (Shape::new(3, 32, 32), words(), "flip,crop:fill=reflect"),
        (Shape::new(3, 64, 64), words(), "flip,crop:padding=8;fill=reflect"),
        (Shape::new(1, 48, 48), words(), "flip,crop:padding=6;fill=reflect"),
        (Shape::new(3, 224, 224), words(), "flip,resized-crop,colour"),
        (Shape::new(1, 224, 224), words(), "flip,resized-crop"),
    ] {
        assert_eq!(Augment::default_for(&data(shape, 3, names)).to_string(), expected, "{shape}");
    }
    let numbers = Dataset::from_arrays(ndarray::Array4::zeros((1, 3, 32, 32)), vec![0], words()).unwrap();
    assert!(Augment::default_for(&numbers).is_none());
}

#[test]
fn holding_out() {
    let data = data(Shape::new(1, 2, 2), 103, one_class_names(4));
    let splits = Splits { test: data.head(4), train: data };
    let (train, validation) = splits.hold_out(HoldOut::Count(20), 1).unwrap();
    assert_eq!((train.len(), validation.len()), (83, 20));
    for class in 0..4 {
        assert_eq!(validation.labels().iter().filter(|&&label| label == class).count(), 5);
    }
    assert!(validation.name().contains("validation"));
    assert_eq!(splits.hold_out(HoldOut::Count(20), 1).unwrap().1, validation);
    assert_ne!(splits.hold_out(HoldOut::Count(20), 2).unwrap().1, validation);
    assert_eq!(splits.hold_out(HoldOut::Share(0.1), 1).unwrap().1.len(), 10);
    assert_eq!(splits.hold_out(HoldOut::Count(99), 1).unwrap().0.len(), 4, "one of each class stays");
    for size in [HoldOut::Count(0), HoldOut::Count(100), HoldOut::Count(usize::MAX)] {
        let error = splits.hold_out(size, 1).unwrap_err().to_string();
        assert!(error.contains("1 to 99"), "{error}");
    }
    for share in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(splits.hold_out(HoldOut::Share(share), 1).unwrap_err().to_string().contains("share"));
    }
}

fn transform() -> impl Strategy<Value = Transform> {
    let fill = || prop_oneof![Just(Fill::Zero), Just(Fill::Reflect)];
    let share = || 0.0f32..=1.0;
    prop_oneof![
        share().prop_map(|probability| Transform::Flip { probability }),
        (0u32..40, fill()).prop_map(|(padding, fill)| Transform::Crop { padding, fill }),
        (0.01f32..=1.0, 1.0f32..=10.0).prop_map(|(area, ratio)| Transform::ResizedCrop { area, ratio }),
        (0.0f32..=180.0, 0.0f32..=0.9, 0.0f32..=60.0, share(), fill())
            .prop_map(|(rotate, scale, shear, shift, fill)| Transform::Affine { rotate, scale, shear, shift, fill }),
        [share(), share(), share()].prop_map(|[brightness, contrast, saturation]| Transform::Colour {
            brightness,
            contrast,
            saturation
        }),
        (share(), share()).prop_map(|(probability, share)| Transform::Erase { probability, share }),
        (0u32..40).prop_map(|side| Transform::Cutout { side }),
    ]
}

proptest! {
    #[test]
    fn pixels_stay_pixels(
        transforms in proptest::collection::vec(transform(), 1..5),
        (channels, height, width) in (1usize..5, 1usize..20, 1usize..20),
        (seed, epoch, sample) in (any::<u64>(), 0usize..1000, 0usize..1_000_000),
        round in any::<bool>(),
    ) {
        let augment = Augment::new(transforms).unwrap();
        prop_assert_eq!(&augment.to_string().parse::<Augment>().unwrap(), &augment);
        let shape = Shape::new(channels, height, width);
        let mut pixels = noise(shape, seed);
        if round {
            pixels.iter_mut().for_each(|value| *value = value.round());
        }
        let changed = applied(&augment, seed, epoch, sample, shape, &pixels);
        prop_assert!(changed.iter().all(|value| (0.0..=1.0).contains(value)), "{:?}", changed);
        prop_assert_eq!(&changed, &applied(&augment, seed, epoch, sample, shape, &pixels));
    }

    #[test]
    fn geometry_moves_channels_alike(
        transform in transform(), (height, width) in (1usize..16, 1usize..16), seed: u64,
    ) {
        prop_assume!(!matches!(transform, Transform::Colour { .. }));
        let augment = Augment::new(vec![transform]).unwrap();
        let one = noise(Shape::new(1, height, width), seed);
        let found = applied(&augment, seed, 0, 0, Shape::new(3, height, width), &one.repeat(3));
        let expected = applied(&augment, seed, 0, 0, Shape::new(1, height, width), &one);
        prop_assert_eq!(found, expected.repeat(3));
    }
}

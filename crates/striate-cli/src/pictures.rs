//! Pictures of an evaluation, for the commands that measure.

use image::RgbImage;
use ndarray::Axis;
use striate::data::{Dataset, Normalization};
use striate::draw::sheet::{self, Band, Sheet, Tile};
use striate::draw::{self, ReliabilityBin};
use striate::train::{Calibration, Evaluation, Seen, TrainOptions, seen};

/// Mistakes on a sheet.
pub(crate) const SHOWN: usize = 36;
/// Images on the sheet of augmentation, and epochs that each is shown in.
const AUGMENTED: usize = 8;
const EPOCHS: usize = 7;
/// The longest side of an image in the report.
const THUMBNAIL: u32 = 160;

/// The reliability diagram, and that at the model's temperature beside it.
pub(crate) fn reliability(found: &Evaluation, title: &str) -> String {
    let bins = |calibration: &Calibration| -> Vec<ReliabilityBin> {
        let bins = calibration.bins.iter();
        bins.map(|b| ReliabilityBin { images: b.images, confidence: b.confidence, accuracy: b.accuracy }).collect()
    };
    let error = |calibration: &Calibration| format!("calibration error {:.2} %", 100.0 * calibration.expected_error);
    let plain = (format!("as trained: {}", error(&found.calibration)), bins(&found.calibration));
    let scaled = found.scaled.as_ref().map(|scaled| {
        let words = format!("temperature {:.3}: {}", scaled.temperature, error(&scaled.calibration));
        (words, bins(&scaled.calibration))
    });
    let panels: Vec<(&str, &[ReliabilityBin])> =
        std::iter::once(&plain).chain(&scaled).map(|(words, bins)| (words.as_str(), bins.as_slice())).collect();
    draw::reliability(&panels, title)
}

/// The most confident mistakes as a contact sheet.
pub(crate) fn mistakes(found: &Evaluation, data: &Dataset) -> RgbImage {
    let name = |class: usize| data.class_names().get(class).map_or("?", String::as_str);
    let percent = |probability: f32| format!("{:.1} %", 100.0 * probability);
    let shown = found.mistakes.iter().take(SHOWN);
    let tiles: Vec<Tile> = shown
        .map(|mistake| {
            let words = format!(
                "{} {} (is {} {})",
                name(mistake.predicted),
                percent(mistake.probability),
                name(mistake.label),
                percent(mistake.label_probability)
            );
            Tile::new(image(data, mistake.index), words)
        })
        .collect();
    let heading = match found.images - found.correct {
        0 => "no mistakes".into(),
        all => format!("{} of {all} mistakes, the most confident first: taken for (is labelled)", tiles.len()),
    };
    Sheet { title: data.name().into(), bands: vec![Band { heading, tiles }], ..Sheet::default() }.draw()
}

/// Some training images, and what a run with these options makes of them in its first epochs.
pub(crate) fn augmented(data: &Dataset, options: &TrainOptions) -> RgbImage {
    // As many classes as there is room for, spread over all; of few classes several images.
    let shown = data.classes().min(AUGMENTED);
    let sample = |i: usize| {
        let class = i % shown * data.classes() / shown;
        let mut of_class = data.labels().iter().enumerate().filter(|(_, label)| **label == class);
        of_class.nth(i / shown).map(|(sample, _)| sample)
    };
    let samples: Vec<usize> = (0..AUGMENTED).filter_map(sample).collect();
    let name = |class: usize| data.class_names().get(class).map_or("?", String::as_str);
    let bands = samples.iter().zip(seen(data, options, &samples, EPOCHS)).map(|(&sample, seen)| {
        let class = name(data.labels()[sample]);
        let forms = seen.into_iter().map(|Seen { image, second, .. }| {
            let share = (100.0 * second.share).round();
            let caption = match share {
                0.0 => class.into(),
                _ if second.label == data.labels()[sample] => format!("{class} (both)"),
                share => format!("{}% {class}, {share}% {}", 100.0 - share, name(second.label)),
            };
            Tile::new(sheet::picture(image.view()), caption)
        });
        let original = Tile::new(image(data, sample), format!("{class} (original)"));
        Band { heading: String::new(), tiles: std::iter::once(original).chain(forms).collect() }
    });
    Sheet {
        title: format!("What the network sees of {}: {}", data.name(), options.augment),
        bands: bands.collect(),
        notes: vec![format!(
            "From left to right: the image, and as it is in epochs 1 to {EPOCHS} of this run. Of a mixed one, the shares of \
             both classes in its target."
        )],
        ..Sheet::default()
    }
    .draw()
}

/// An image of the data, no larger than a page of many needs.
pub(crate) fn thumbnail(data: &Dataset, index: usize) -> RgbImage {
    let image = image(data, index);
    if image.width().max(image.height()) > THUMBNAIL { sheet::zoom(&image, THUMBNAIL) } else { image }
}

/// An image of the data as a picture.
pub(crate) fn image(data: &Dataset, index: usize) -> RgbImage {
    let batch = data.batch(index..index + 1, &Normalization::identity());
    sheet::picture(batch.index_axis(Axis(0), 0))
}

//! From image files to a network's input.

use image::{DynamicImage, GrayImage, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use std::{
    io::Cursor,
    time::{Duration, Instant},
};
use striate::{
    data::{DataError, Fit, Normalization, Preprocessing},
    shape::Shape,
};

fn preprocessing(shape: Shape, fit: Fit) -> Preprocessing {
    Preprocessing::new(shape, fit, Normalization::identity()).unwrap()
}

fn digits() -> Preprocessing {
    preprocessing(Shape::new(1, 28, 28), Fit::Digit)
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

/// A "7" in `ink` on `paper`, off the middle.
fn seven(width: u32, height: u32, ink: u8, paper: u8) -> GrayImage {
    let (left, top, size, pen) = (width / 8, height / 6, height / 2, height / 25 + 1);
    GrayImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (x.wrapping_sub(left), y.wrapping_sub(top));
        let bar = dy < pen && dx < size / 2;
        let stem = dy < size && (dx + dy / 4).abs_diff(size / 2) < pen;
        Luma([if bar || stem { ink } else { paper }])
    })
}

/// Bounding box (left, top, right, bottom) of what is brighter than `threshold`, and the centre of mass.
fn measure(pixels: &[u8], width: usize, threshold: u8) -> ([usize; 4], (f64, f64)) {
    let mut bounds = [usize::MAX, usize::MAX, 0, 0];
    let (mut mass, mut x_moment, mut y_moment) = (0.0, 0.0, 0.0);
    for (at, &v) in pixels.iter().enumerate() {
        let (x, y) = (at % width, at / width);
        if v > threshold {
            bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1), bounds[3].max(y + 1)];
        }
        mass += f64::from(v);
        x_moment += f64::from(v) * (x as f64 + 0.5);
        y_moment += f64::from(v) * (y as f64 + 0.5);
    }
    (bounds, (x_moment / mass, y_moment / mass))
}

#[test]
fn a_picture_of_the_right_size_is_taken_as_it_is() {
    let picture = seven(28, 28, 255, 0);
    for fit in [Fit::Digit, Fit::Stretch] {
        let decoded = preprocessing(Shape::new(1, 28, 28), fit).decode(&png(picture.clone()), "7.png").unwrap();
        assert_eq!(&decoded, picture.as_raw());
    }
    // Dark on light: inverted, nothing else.
    let decoded = digits().decode(&png(seven(28, 28, 0, 255)), "7.png").unwrap();
    assert_eq!(&decoded, picture.as_raw());
}

#[test]
fn a_drawn_digit_is_centred_white_on_black() {
    for (ink, paper) in [(0, 255), (255, 0), (60, 190), (200, 20)] {
        let decoded = digits().decode(&png(seven(400, 300, ink, paper)), "7.png").unwrap();
        let ([left, top, right, bottom], (x, y)) = measure(&decoded, 28, 0);
        assert_eq!(bottom - top, 20, "the longer side is 20");
        assert!(right - left < 20 && right - left > 6, "{left} {right}");
        // In all of MNIST, the centre of mass lies in pixel 14, counted from 0.
        assert_eq!((x.floor(), y.floor()), (14.0, 14.0), "centre of mass {x} {y}");
        assert!(decoded.iter().any(|&v| v > 200), "the ink is bright");
        assert!((0..28).all(|i| decoded[i] == 0 && decoded[27 * 28 + i] == 0), "the border is black");
    }
}

#[test]
fn contrast_and_polarity_do_not_matter() {
    let decode = |ink, paper| digits().decode(&png(seven(400, 300, ink, paper)), "7.png").unwrap();
    let plain = decode(255, 0);
    assert_eq!(plain, decode(0, 255));
    assert_eq!(plain, decode(60, 190));
}

#[test]
fn jpeg_is_nearly_the_same_as_png() {
    let picture = seven(400, 300, 0, 255);
    let from_png = digits().decode(&png(picture.clone()), "7.png").unwrap();
    let from_jpeg = digits().decode(&encode(picture, ImageFormat::Jpeg), "7.jpg").unwrap();
    let ((bounds, _), (jpeg_bounds, _)) = (measure(&from_png, 28, 64), measure(&from_jpeg, 28, 64));
    assert!(bounds.iter().zip(jpeg_bounds).all(|(a, b)| a.abs_diff(b) <= 1), "{bounds:?} {jpeg_bounds:?}");
}

#[test]
fn every_cut_of_a_file_is_an_error_that_names_it() {
    let picture = seven(60, 40, 0, 255);
    for (format, name) in [(ImageFormat::Png, "cut.png"), (ImageFormat::Jpeg, "cut.jpg")] {
        let whole = encode(picture.clone(), format);
        assert!(digits().decode(&whole, name).is_ok());
        for length in 0..whole.len() {
            let error = digits().decode(&whole[..length], name).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            if length > 10 && length + 12 < whole.len() {
                assert!(matches!(error, DataError::Truncated { .. }), "{length}: {error}");
            }
        }
    }
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"%PDF-1.7", b"hello", &[0; 100]] {
        let error = digits().decode(bytes, "note.txt").unwrap_err();
        assert!(matches!(error, DataError::UnknownFormat { .. }), "{error}");
        assert!(error.to_string().contains("note.txt"));
    }
}

#[test]
fn one_pixel_and_other_odd_sizes() {
    for (width, height) in [(1, 1), (1, 50), (50, 1), (2, 2), (3, 400), (27, 28)] {
        for (ink, paper) in [(0, 255), (255, 0), (90, 90)] {
            let mut picture = GrayImage::from_pixel(width, height, Luma([paper]));
            picture.put_pixel(width / 2, height / 2, Luma([ink]));
            for shape in [Shape::new(1, 28, 28), Shape::new(3, 1, 1), Shape::new(1, 5, 90)] {
                for fit in [Fit::Digit, Fit::Stretch] {
                    let decoded = preprocessing(shape, fit).decode(&png(picture.clone()), "odd.png").unwrap();
                    assert_eq!(decoded.len(), shape.len());
                }
            }
        }
    }
}

#[test]
fn a_blank_page_holds_no_ink() {
    for value in [0, 1, 100, 128, 254, 255] {
        let blank = GrayImage::from_pixel(100, 80, Luma([value]));
        assert_eq!(digits().decode(&png(blank), "blank.png").unwrap(), vec![0; 784]);
    }
    for value in [0, 255] {
        let blank = GrayImage::from_pixel(28, 28, Luma([value]));
        assert_eq!(digits().decode(&png(blank), "blank.png").unwrap(), vec![0; 784]);
    }
    // The grain of paper is no ink either.
    let grain = GrayImage::from_fn(100, 80, |x, y| Luma([240 + ((x * 7 + y * 13) % 11) as u8]));
    assert_eq!(digits().decode(&png(grain), "blank.png").unwrap(), vec![0; 784]);
    let clear = RgbaImage::from_pixel(100, 80, Rgba([0, 0, 0, 0]));
    assert_eq!(digits().decode(&png(clear), "clear.png").unwrap(), vec![0; 784]);
}

#[test]
fn transparency_shows_white_paper() {
    let shape = Shape::new(3, 1, 2);
    let picture = RgbaImage::from_vec(2, 1, vec![10, 20, 30, 0, 100, 0, 200, 128]).unwrap();
    let decoded = preprocessing(shape, Fit::Stretch).decode(&png(picture), "a.png").unwrap();
    // 255 (1 - 128/255) + 128/255 v: 127 + v * 0.502.
    assert_eq!(decoded, [255, 177, 255, 127, 255, 227]);
    let grey = image::ImageBuffer::<LumaA<u8>, _>::from_vec(2, 1, vec![0, 0, 0, 255]).unwrap();
    let decoded = preprocessing(Shape::new(1, 1, 2), Fit::Stretch).decode(&png(grey), "a.png").unwrap();
    assert_eq!(decoded, [255, 0]);

    // Black ink on nothing is ink on white paper, so a digit comes out white on black.
    let seven = seven(400, 300, 0, 255);
    let floating = RgbaImage::from_fn(400, 300, |x, y| Rgba([0, 0, 0, 255 - seven.get_pixel(x, y)[0]]));
    assert_eq!(digits().decode(&png(floating), "a.png").unwrap(), digits().decode(&png(seven), "b.png").unwrap());
}

#[test]
fn colour_is_kept_in_three_channels() {
    let picture = RgbImage::from_fn(64, 48, |x, _| if x < 32 { Rgb([255, 0, 10]) } else { Rgb([0, 200, 10]) });
    let decoded = preprocessing(Shape::new(3, 12, 16), Fit::Stretch).decode(&png(picture.clone()), "c.png").unwrap();
    let at = |channel: usize, x: usize| decoded[channel * 192 + 6 * 16 + x];
    assert_eq!([at(0, 2), at(1, 2), at(2, 2)], [255, 0, 10]);
    assert_eq!([at(0, 13), at(1, 13), at(2, 13)], [0, 200, 10]);
    // The right size is the same picture, channel after channel.
    let decoded = preprocessing(Shape::new(3, 48, 64), Fit::Stretch).decode(&png(picture.clone()), "c.png").unwrap();
    assert!((0..3).all(|channel| {
        picture.pixels().zip(&decoded[channel * 48 * 64..]).all(|(pixel, &value)| pixel[channel] == value)
    }));
    // BT.601 brightness in one channel; a grey picture is alike in three.
    let decoded = preprocessing(Shape::new(1, 48, 64), Fit::Stretch).decode(&png(picture), "c.png").unwrap();
    assert_eq!((decoded[0], decoded[63]), (77, 119));
    let grey = GrayImage::from_fn(5, 4, |x, y| Luma([(x * 50 + y) as u8]));
    let decoded = preprocessing(Shape::new(3, 4, 5), Fit::Stretch).decode(&png(grey.clone()), "g.png").unwrap();
    assert_eq!(decoded, grey.as_raw().repeat(3));
}

#[test]
fn a_crop_is_cut_out_of_the_middle_of_the_scaled_picture() {
    let crop = |shape, resize| preprocessing(shape, Fit::CenterCrop { resize });
    let picture =
        |width, height| RgbImage::from_fn(width, height, |x, y| Rgb([(x * 4) as u8, (y * 5) as u8, (x * y) as u8]));
    // 50 x 30 becomes 20 x 12, in colour as in grey. Where the middle falls between two pixels, the even one is the first:
    // 9 rows of 12 begin at 2, not 1.5.
    for (rows, columns, top, left) in [(10, 12, 1, 4), (12, 12, 0, 4), (11, 11, 0, 4), (9, 3, 2, 8)] {
        for channels in [1, 3] {
            let file = png(picture(50, 30));
            let whole = preprocessing(Shape::new(channels, 12, 20), Fit::Stretch).decode(&file, "whole.png").unwrap();
            let found = crop(Shape::new(channels, rows, columns), 12).decode(&file, "crop.png").unwrap();
            let expected: Vec<u8> = whole
                .chunks_exact(20)
                .enumerate()
                .filter(|(at, _)| (top..top + rows).contains(&(at % 12)))
                .flat_map(|(_, row)| row[left..left + columns].to_vec())
                .collect();
            assert_eq!(found, expected, "{channels} x {rows} x {columns}");
        }
    }
    // Upright, the rows are cut; 33 x 50 becomes 12 x 18 (18.18 without its fraction).
    let file = png(picture(33, 50));
    let whole = preprocessing(Shape::new(3, 18, 12), Fit::Stretch).decode(&file, "whole.png").unwrap();
    let found = crop(Shape::new(3, 12, 12), 12).decode(&file, "crop.png").unwrap();
    assert_eq!(found[..144], whole[3 * 12..15 * 12]);
    // The right size already; and a long thin line, whose scaled length is never made.
    let file = png(picture(14, 12));
    let found = crop(Shape::new(3, 12, 12), 12).decode(&file, "right.png").unwrap();
    let cut = png(image::imageops::crop_imm(&picture(14, 12), 1, 0, 12, 12).to_image());
    assert_eq!(found, preprocessing(Shape::new(3, 12, 12), Fit::Stretch).decode(&cut, "cut.png").unwrap());
    let line = png(RgbImage::from_pixel(60_000, 1, Rgb([1, 2, 3])));
    assert_eq!(
        crop(Shape::new(3, 2, 2), 4096).decode(&line, "line.png").unwrap(),
        [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    );
}

#[test]
fn sixteen_bits_become_eight() {
    let picture = image::ImageBuffer::<Luma<u16>, _>::from_vec(3, 1, vec![0, 0x8080, 0xFFFF]).unwrap();
    let decoded = preprocessing(Shape::new(1, 1, 3), Fit::Stretch).decode(&png(picture), "16.png").unwrap();
    assert_eq!(decoded, [0, 0x80, 0xFF]);
}

/// CRC-32 as PNG uses it.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn huge_claims_are_refused_at_once() {
    let mut png = png(GrayImage::new(4, 4));
    for (width, height) in [(60_000u32, 60_000u32), (u32::MAX >> 1, 1), (8001, 8000), (70_000, 2)] {
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&sum);
        let start = Instant::now();
        let error = digits().decode(&png, "huge.png").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(matches!(error, DataError::ImageTooLarge { .. } | DataError::Image { .. }), "{error}");
        assert!(error.to_string().starts_with("huge.png"), "{error}");
    }
    let mut jpeg = encode(GrayImage::new(16, 16), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    let start = Instant::now();
    let error = digits().decode(&jpeg, "huge.jpg").unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(matches!(error, DataError::ImageTooLarge { width: 65_535, height: 65_535, .. }), "{error}");
}

#[test]
fn impossible_preprocessing_is_refused() {
    let identity = Normalization::identity();
    for shape in [Shape::new(2, 28, 28), Shape::new(1, 0, 28), Shape::new(3, 28, 5000), Shape::flat(784)] {
        assert!(Preprocessing::new(shape, Fit::Stretch, identity.clone()).is_err(), "{shape}");
    }
    for resize in [0, 31, 4097, usize::MAX] {
        let error =
            Preprocessing::new(Shape::new(3, 32, 24), Fit::CenterCrop { resize }, identity.clone()).unwrap_err();
        assert!(error.to_string().contains("32 to 4096"), "{error}");
    }
    for (mean, deviation) in [
        (vec![0.0; 2], vec![1.0]),
        (vec![], vec![1.0]),
        (vec![f32::NAN], vec![1.0]),
        (vec![0.0], vec![0.0]),
        (vec![0.0], vec![-1.0]),
        (vec![0.0], vec![f32::INFINITY]),
        (vec![0.0], vec![1e-44]),
    ] {
        assert!(Normalization::new(mean, deviation, 3).is_err());
    }
}

#[test]
fn it_travels_as_json() {
    let original = Preprocessing::new(
        Shape::new(3, 32, 32),
        Fit::Stretch,
        Normalization::new(vec![0.4, 0.5, 0.6], vec![0.2], 3).unwrap(),
    )
    .unwrap();
    let json = serde_json::to_string(&original).unwrap();
    let expected = r#"{"shape":[3,32,32],"fit":"stretch","normalization":{"mean":[0.4,0.5,0.6],"deviation":[0.2]}}"#;
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<Preprocessing>(&json).unwrap(), original);
    let crop = json.replace("\"stretch\"", r#"{"center-crop":{"resize":36}}"#);
    let read: Preprocessing = serde_json::from_str(&crop).unwrap();
    assert_eq!(read, Preprocessing { fit: Fit::CenterCrop { resize: 36 }, ..original.clone() });
    assert_eq!(serde_json::to_string(&read).unwrap(), crop);
    for (from, to) in [("36", "31"), ("36", "-1"), ("36", "36.5"), ("resize", "side"), ("36", "36,\"side\":1")] {
        assert!(serde_json::from_str::<Preprocessing>(&crop.replace(from, to)).is_err(), "{from} -> {to}");
    }
    for (from, to) in [("[3,32", "[2,32"), ("stretch", "squeeze"), ("\"fit\"", "\"fat\":1,\"fit\""), ("[0.2]", "[0]")] {
        assert!(serde_json::from_str::<Preprocessing>(&json.replace(from, to)).is_err(), "{from} -> {to}");
    }
}

#[test]
fn apply_scales_one_image_or_many() {
    let preprocessing = Preprocessing::new(
        Shape::new(3, 1, 2),
        Fit::Stretch,
        Normalization::new(vec![0.0, 0.5, 1.0], vec![1.0, 2.0, 4.0], 3).unwrap(),
    )
    .unwrap();
    let one = preprocessing.apply(&[0, 255, 0, 255, 0, 255]);
    assert_eq!(one, [0.0, 1.0, -0.25, 0.25, -0.25, 0.0]);
    let two = preprocessing.apply(&[0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 9]);
    assert_eq!(two, one.repeat(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_never_panic(jpeg: bool, at in 0.0f64..1.0, flips in prop::collection::vec(any::<u8>(), 1..8)) {
        let format = if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png };
        let mut bytes = encode(seven(40, 30, 0, 255), format);
        let start = (at * bytes.len() as f64) as usize;
        bytes.iter_mut().skip(start).zip(flips).for_each(|(byte, flip)| *byte ^= flip);
        if let Err(error) = digits().decode(&bytes, "damaged") {
            prop_assert!(error.to_string().contains("damaged"));
        }
    }

    #[test]
    fn any_picture_gives_a_full_input(
        width in 1u32..50, height in 1u32..50, pixels in prop::collection::vec(any::<u8>(), 2500),
        target in (1usize..40, 1usize..40),
    ) {
        let picture = GrayImage::from_fn(width, height, |x, y| Luma([pixels[(y * width + x) as usize]]));
        for fit in [Fit::Digit, Fit::Stretch, Fit::CenterCrop { resize: 40 }] {
            let preprocessing = preprocessing(Shape::new(1, target.0, target.1), fit);
            let decoded = preprocessing.decode(&png(picture.clone()), "any.png").unwrap();
            prop_assert_eq!(preprocessing.apply(&decoded).len(), target.0 * target.1);
        }
    }
}

//! Reading folders and lists of images.

use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageBuffer, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, RgbImage,
    Rgba, RgbaImage,
    codecs::{gif::GifEncoder, jpeg::JpegEncoder, png::PngEncoder},
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    fs,
    io::Cursor,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use striate::{
    data::{
        DataError, Dataset, Normalization, Pixels,
        image_folder::{self, ImageFolder, Options},
    },
    shape::Shape,
};
use tempfile::TempDir;

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn grey(width: u32, height: u32, value: u8) -> Vec<u8> {
    encode(GrayImage::from_pixel(width, height, Luma([value])), ImageFormat::Png)
}

fn colour(width: u32, height: u32, value: [u8; 3]) -> Vec<u8> {
    encode(RgbImage::from_pixel(width, height, Rgb(value)), ImageFormat::Png)
}

/// Writes a file, and the folders above it.
fn put(directory: &TempDir, name: &str, bytes: &[u8]) {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn read(directory: &TempDir) -> ImageFolder {
    image_folder::read(directory.path(), &Options::default()).unwrap()
}

fn refusal(directory: &TempDir, part: &str) -> DataError {
    let start = Instant::now();
    let error = image_folder::read(directory.path(), &Options::default()).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{error} after {:?}", start.elapsed());
    assert!(error.to_string().contains(part), "{error} does not say {part}");
    error
}

fn bytes(data: &Dataset) -> &[u8] {
    match data.pixels() {
        Pixels::U8(pixels) => pixels,
        _ => panic!("bytes are expected"),
    }
}

/// A folder with a training and a test image `other.png`, and `name` as the first training image of class `a`.
fn around(name: &str, contents: &[u8]) -> TempDir {
    let directory = TempDir::new().unwrap();
    put(&directory, &format!("train/a/{name}"), contents);
    put(&directory, "train/a/other.png", &colour(2, 2, [1, 2, 3]));
    put(&directory, "test/a/other.png", &colour(2, 2, [1, 2, 3]));
    directory
}

/// The pixels of one image file, brought to `shape`.
fn decode(name: &str, contents: &[u8], shape: Shape) -> Vec<u8> {
    let options = Options { shape: Some(shape), strict: true, ..Options::default() };
    let read = image_folder::read(around(name, contents).path(), &options).unwrap();
    bytes(&read.splits.train)[..shape.len()].to_vec()
}

#[test]
fn a_split_folder_in_natural_order() {
    let directory = TempDir::new().unwrap();
    for (name, value) in [
        ("train/class10/a.png", 100),
        ("train/class2/img10.png", 10),
        ("train/class2/img9.PNG", 9),
        ("train/class2/deeper/img1.png", 11),
        ("test/class10/x.png", 200),
        ("test/class2/y.png", 201),
        ("train/.hidden/z.png", 1),
        ("train/class2/.hidden.png", 1),
    ] {
        put(&directory, name, &grey(3, 2, value));
    }
    put(&directory, "train/class2/notes.txt", b"no image");
    put(&directory, "README.md", b"no image either");
    let ImageFolder { splits, validation, report } = read(&directory);
    assert_eq!(splits.train.class_names(), ["class2", "class10"]);
    assert_eq!(splits.train.shape(), Shape::new(1, 2, 3));
    assert_eq!(splits.train.labels(), [0, 0, 0, 1]);
    assert_eq!(bytes(&splits.train).iter().step_by(6).copied().collect::<Vec<_>>(), [9, 10, 11, 100]);
    assert_eq!(splits.test.labels(), [0, 1]);
    assert_eq!(bytes(&splits.test).iter().step_by(6).copied().collect::<Vec<_>>(), [201, 200]);
    assert!(splits.train.name().ends_with(" train"));
    assert!(validation.is_none() && report.skipped.is_empty());
    let ignored: Vec<_> = report.ignored.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(ignored, ["README.md", "notes.txt"]);
}

#[test]
fn validation_beside_test_and_instead_of_it() {
    let directory = TempDir::new().unwrap();
    put(&directory, "train/a/0.png", &grey(1, 1, 0));
    put(&directory, "val/a/1.png", &grey(1, 1, 1));
    let found = read(&directory);
    assert!(found.validation.is_none());
    assert_eq!(bytes(&found.splits.test), [1]);
    put(&directory, "test/a/2.png", &grey(1, 1, 2));
    let found = read(&directory);
    assert_eq!(bytes(&found.validation.unwrap()), [1]);
    assert_eq!(bytes(&found.splits.test), [2]);
}

#[test]
fn a_folder_without_a_test_is_split_by_seed_in_proportion() {
    let directory = TempDir::new().unwrap();
    for (class, images) in [("a", 40), ("b", 10), ("c", 1)] {
        (0..images).for_each(|i| put(&directory, &format!("{class}/{i}.png"), &grey(1, 1, i)));
    }
    let count = |data: &Dataset| [0, 1, 2].map(|class| data.labels().iter().filter(|&&l| l == class).count());
    let with_seed = |seed| {
        let options = Options { seed, ..Options::default() };
        image_folder::read(directory.path(), &options).unwrap().splits
    };
    let splits = with_seed(0);
    assert_eq!((count(&splits.train), count(&splits.test)), ([32, 8, 1], [8, 2, 0]));
    let values: BTreeSet<_> = bytes(&splits.train)[..32].iter().chain(&bytes(&splits.test)[..8]).collect();
    assert_eq!(values.len(), 40, "no image is in both");
    assert_eq!(splits, with_seed(0));
    assert_ne!(splits.test, with_seed(1).test);
    // A damaged image changes nothing else.
    put(&directory, "a/7.png", b"damaged");
    let damaged = with_seed(0);
    assert_eq!(damaged.train.len() + damaged.test.len(), 50);
    let kept = |data: &Dataset| bytes(data).iter().copied().filter(|&v| v != 7).collect::<Vec<_>>();
    assert_eq!(kept(&damaged.test)[..7], kept(&splits.test)[..7]);
    for share in [0.0, 1.0, f64::NAN] {
        let options = Options { test_share: share, ..Options::default() };
        let error = image_folder::read(directory.path(), &options).unwrap_err();
        assert!(error.to_string().contains("test_share"), "{error}");
    }
}

#[test]
fn the_size_is_the_images_own_or_64() {
    let directory = TempDir::new().unwrap();
    (0..6).for_each(|i| put(&directory, &format!("train/a/{i}.png"), &grey(5, 7, i)));
    put(&directory, "test/a/0.png", &grey(5, 7, 9));
    assert_eq!(read(&directory).splits.train.shape(), Shape::new(1, 7, 5));
    // The last image of all is in colour.
    put(&directory, "test/a/1.png", &colour(5, 7, [1, 2, 3]));
    let splits = read(&directory).splits;
    assert_eq!(splits.train.shape(), Shape::new(3, 7, 5));
    assert_eq!(bytes(&splits.train)[105..210], [1; 105], "a grey picture is the same in all channels");
    assert_eq!(bytes(&splits.test)[105..], [[1; 35], [2; 35], [3; 35]].concat());
    // One has another size.
    put(&directory, "train/a/3.png", &grey(7, 5, 3));
    let splits = read(&directory).splits;
    assert_eq!((splits.train.shape(), splits.test.shape()), (Shape::new(3, 64, 64), Shape::new(3, 64, 64)));
    assert_eq!(bytes(&splits.test)[3 * 4096..], [[1; 4096], [2; 4096], [3; 4096]].concat());
    // All the same, but large.
    let directory = TempDir::new().unwrap();
    (0..2).for_each(|i| put(&directory, &format!("a/{i}.png"), &grey(300, 20, i)));
    assert_eq!(read(&directory).splits.train.shape(), Shape::new(1, 64, 64));
    let options = Options { shape: Some(Shape::new(3, 10, 150)), ..Options::default() };
    let splits = image_folder::read(directory.path(), &options).unwrap().splits;
    assert_eq!(splits.train.shape(), Shape::new(3, 10, 150));
    let options = Options { shape: Some(Shape::new(2, 10, 10)), ..Options::default() };
    assert!(image_folder::read(directory.path(), &options).is_err(), "two channels");
}

#[test]
fn all_kinds_of_files() {
    // Red, green / blue, white: 2 x 2 pixels, and grey 2 x 1.
    let rgb = RgbImage::from_raw(2, 2, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]).unwrap();
    let planes = [255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255];
    let shape = Shape::new(3, 2, 2);
    for (format, ending) in [
        (ImageFormat::Png, "png"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Bmp, "bmp"),
        // The contents count.
        (ImageFormat::Bmp, "jpg"),
    ] {
        assert_eq!(decode(&format!("0.{ending}"), &encode(rgb.clone(), format), shape), planes, "{format:?}");
    }
    // Of an animation, the first frame counts.
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for image in [rgb.clone(), RgbImage::from_pixel(2, 2, Rgb([9; 3]))] {
        let image = DynamicImage::from(image).into_rgba8();
        encoder.encode(image.as_raw(), 2, 2, ExtendedColorType::Rgba8).unwrap();
    }
    drop(encoder);
    assert_eq!(decode("0.gif", &gif, shape), planes);
    // JPEG is close.
    let flat = RgbImage::from_pixel(16, 16, Rgb([200, 100, 50]));
    let found = decode("0.jpeg", &encode(flat, ImageFormat::Jpeg), Shape::new(3, 16, 16));
    for (plane, value) in found.chunks_exact(256).zip([200u8, 100, 50]) {
        assert!(plane.iter().all(|v| v.abs_diff(value) <= 3), "{plane:?}");
    }
    // Sixteen bits; transparency on white.
    let deep: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(2, 1, vec![0x1234u16, 0xFFFF]).unwrap();
    assert_eq!(decode("0.png", &encode(deep, ImageFormat::Png), Shape::new(1, 1, 2)), [0x12, 0xFF]);
    let deep: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_raw(1, 1, vec![0xFFFFu16, 0x8080, 0]).unwrap();
    assert_eq!(decode("0.png", &encode(deep, ImageFormat::Png), Shape::new(3, 1, 1)), [0xFF, 0x80, 0]);
    let clear = RgbaImage::from_raw(2, 1, vec![255, 0, 0, 0, 0, 0, 0, 51]).unwrap();
    assert_eq!(decode("0.png", &encode(clear, ImageFormat::Png), Shape::new(3, 1, 2)), [255, 204, 255, 204, 255, 204]);
    let clear = ImageBuffer::from_raw(1, 1, vec![100u8, 128]).unwrap() as ImageBuffer<LumaA<u8>, _>;
    assert_eq!(decode("0.png", &encode(clear, ImageFormat::Png), Shape::new(1, 1, 1)), [177]);
}

#[test]
fn a_palette() {
    // A 2 x 1 bitmap of four bits a pixel whose palette is green and grey.
    let mut bmp = b"BM".to_vec();
    bmp.extend(66u32.to_le_bytes());
    bmp.extend([0; 4]);
    bmp.extend(62u32.to_le_bytes());
    bmp.extend(40u32.to_le_bytes());
    bmp.extend([2i32, 1].map(i32::to_le_bytes).concat());
    bmp.extend([1u16, 4].map(u16::to_le_bytes).concat());
    bmp.extend([0u32, 4, 0, 0, 2, 2].map(u32::to_le_bytes).concat());
    bmp.extend([0, 255, 0, 0, 70, 70, 70, 0]);
    bmp.extend([0x01, 0, 0, 0]);
    assert_eq!(decode("0.bmp", &bmp, Shape::new(3, 1, 2)), [0, 70, 255, 70, 0, 70]);
}

/// The pixels of a 2 x 1 file (black, white) whose orientation tag is `tag`.
fn oriented(tag: u8) -> Vec<u8> {
    let exif = [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[tag][..], b"\0\0\0\0\0\0"].concat();
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(&[0, 255], 2, 1, ExtendedColorType::L8).unwrap();
    png
}

#[test]
fn orientation_is_obeyed() {
    assert_eq!(decode("0.png", &oriented(1), Shape::new(1, 1, 2)), [0, 255]);
    assert_eq!(decode("0.png", &oriented(3), Shape::new(1, 1, 2)), [255, 0]);
    assert_eq!(decode("0.png", &oriented(6), Shape::new(1, 2, 1)), [0, 255]);
    assert_eq!(decode("0.png", &oriented(8), Shape::new(1, 2, 1)), [255, 0]);
    // The own size is that of the upright image.
    let directory = TempDir::new().unwrap();
    put(&directory, "train/a/0.png", &oriented(8));
    put(&directory, "test/a/0.png", &grey(1, 2, 5));
    assert_eq!(read(&directory).splits.train.shape(), Shape::new(1, 2, 1));
}

#[test]
fn images_that_cannot_be_read_are_reported() {
    let whole = colour(9, 9, [1, 2, 3]);
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).encode(&[100; 256], 16, 16, ExtendedColorType::L8).unwrap();
    let webp = encode(RgbImage::from_fn(9, 9, |x, y| Rgb([x as u8 * 20, y as u8 * 20, 7])), ImageFormat::WebP);
    let gif = encode(RgbaImage::from_fn(9, 9, |x, y| Rgba([x as u8 * 20, y as u8 * 20, 7, 255])), ImageFormat::Gif);
    let bmp = encode(RgbImage::from_pixel(9, 9, Rgb([1, 2, 3])), ImageFormat::Bmp);
    for (name, contents) in [
        ("empty.png", &b""[..]),
        ("text.jpg", b"this is no image"),
        ("cut.png", &whole[..whole.len() - 20]),
        ("cut.jpg", &jpeg[..jpeg.len() - 20]),
        ("cut.webp", &webp[..webp.len() - 20]),
        ("cut.gif", &gif[..gif.len() - 30]),
        ("cut.bmp", &bmp[..bmp.len() - 20]),
        ("head.gif", b"GIF89a"),
        ("head.bmp", b"BM"),
        ("head.webp", b"RIFF\x10\0\0\0WEBPVP8 "),
    ] {
        let directory = around(name, contents);
        let report = read(&directory).report;
        assert_eq!(report.skipped.len(), 1, "{name}");
        assert_eq!(report.skipped[0].path, directory.path().join("train/a").join(name));
        assert!(report.skipped[0].reason.to_string().contains(name), "{}", report.skipped[0].reason);
        let strict = Options { strict: true, ..Options::default() };
        let error = image_folder::read(directory.path(), &strict).unwrap_err();
        assert_eq!(error.to_string(), report.skipped[0].reason.to_string());
    }
}

#[test]
fn claims_of_great_size_are_refused_at_once() {
    let start = Instant::now();
    let mut gif = b"GIF89a\xFF\xFF\xFF\xFF\0\0\0,\0\0\0\0\xFF\xFF\xFF\xFF\0\x02".to_vec();
    gif.extend([0; 30]);
    let mut bmp = encode(RgbImage::from_pixel(1, 1, Rgb([1, 2, 3])), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[60_000u32, 60_000].map(u32::to_le_bytes).concat());
    let webp = b"RIFF\x1E\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0\xFF\xFF\0\xFF\xFF\0VP8L\0\0\0\0";
    for (name, contents) in [("0.gif", &gif[..]), ("0.bmp", &bmp), ("0.webp", webp)] {
        let report = read(&around(name, contents)).report;
        assert_eq!(report.skipped.len(), 1, "{name}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn with_errors_the_first_in_order_is_the_one() {
    let directory = TempDir::new().unwrap();
    (0..200).for_each(|i| put(&directory, &format!("train/a/{i}.png"), &grey(2, 2, 0)));
    put(&directory, "test/a/0.png", &grey(2, 2, 0));
    put(&directory, "train/a/50.png", b"");
    put(&directory, "train/a/150.png", b"");
    let strict = Options { strict: true, ..Options::default() };
    for _ in 0..20 {
        let error = image_folder::read(directory.path(), &strict).unwrap_err().to_string();
        assert!(error.contains("/50.png"), "{error}");
    }
    let skipped: Vec<_> = read(&directory).report.skipped.into_iter().map(|skipped| skipped.path).collect();
    assert_eq!(skipped, ["50.png", "150.png"].map(|name| directory.path().join("train/a").join(name)));
}

#[test]
fn layouts_that_make_no_data() {
    let directory = TempDir::new().unwrap();
    refusal(&directory, "a folder named after the class");
    put(&directory, "0.png", &grey(2, 2, 0));
    refusal(&directory, "1 images here, but no folders");
    put(&directory, "a/notes.txt", b"");
    refusal(&directory, "there are no images");
    put(&directory, "a/0.png", b"no image");
    refusal(&directory, "class \"a\" has no image");
    put(&directory, "a/0.png", &grey(2, 2, 0));
    refusal(&directory, "no image to test with");
    let directory = around("0.png", &grey(2, 2, 0));
    put(&directory, "test/zebra/0.png", &grey(2, 2, 0));
    refusal(&directory, "zebra");
    let directory = TempDir::new().unwrap();
    put(&directory, "a/1/2/3/4/5/6/7/8/9/10/11/0.png", &grey(2, 2, 0));
    refusal(&directory, "nested");
    assert!(matches!(
        image_folder::read(directory.path().join("none"), &Options::default()),
        Err(DataError::Io { .. })
    ));
}

#[test]
fn a_class_may_be_called_train() {
    let directory = TempDir::new().unwrap();
    for class in ["bus", "train"] {
        (0..5).for_each(|i| put(&directory, &format!("{class}/{i}.png"), &grey(2, 2, i)));
    }
    assert_eq!(read(&directory).splits.train.class_names(), ["bus", "train"]);
}

#[cfg(unix)]
#[test]
fn nothing_leads_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let outside = TempDir::new().unwrap();
    put(&outside, "a/secret.png", &colour(2, 2, [9; 3]));
    let directory = around("0.png", &colour(2, 2, [1; 3]));
    let class = directory.path().join("train/a");
    symlink(class.join("0.png"), class.join("1-inside.png")).unwrap();
    symlink(outside.path().join("a/secret.png"), class.join("2-outside.png")).unwrap();
    symlink(class.join("nothing"), class.join("3-nothing.png")).unwrap();
    symlink("4-loop.png", class.join("4-loop.png")).unwrap();
    symlink(directory.path(), class.join("5-up")).unwrap();
    symlink("/dev/zero", class.join("6-device.png")).unwrap();
    symlink(outside.path().join("a"), directory.path().join("train/b")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(class.join("7-fifo.png")).status().unwrap();
    assert!(status.success());
    let start = Instant::now();
    let ImageFolder { splits, report, .. } = read(&directory);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(splits.train.class_names(), ["a"]);
    assert_eq!(splits.train.len(), 3, "the two files and the link inside");
    assert!(!bytes(&splits.train).contains(&9));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| name(&skipped.path)).collect();
    assert_eq!(skipped, ["2-outside.png", "3-nothing.png", "4-loop.png", "6-device.png", "7-fifo.png"]);
    assert!(matches!(report.skipped[0].reason, DataError::OutsideLink { .. }));
    assert!(matches!(report.skipped[4].reason, DataError::NotAFile { .. }));
    let ignored: Vec<_> = report.ignored.iter().map(|path| name(path)).collect();
    assert_eq!(ignored, ["b", "5-up"]);
}

#[test]
fn progress_counts_to_the_end() {
    let directory = around("0.png", &colour(2, 2, [1; 3]));
    let (calls, last) = (AtomicUsize::new(0), Mutex::new((0, 0)));
    image_folder::read_with(directory.path(), &Options::default(), |done, all| {
        calls.fetch_add(1, Ordering::Relaxed);
        let mut last = last.lock().unwrap();
        *last = (last.0.max(done), all);
    })
    .unwrap();
    assert_eq!((calls.into_inner(), last.into_inner().unwrap()), (3, (3, 3)));
}

#[test]
fn the_same_for_any_number_of_threads() {
    let directory = TempDir::new().unwrap();
    for i in 0..60 {
        let contents = match i {
            20 => b"".to_vec(),
            40 => colour(3, 3, [i; 3]),
            50 => grey(4, 3, i),
            _ => grey(3, 3, i),
        };
        put(&directory, &format!("{}/{i}.png", i % 3), &contents);
    }
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| read(&directory).splits)
    };
    let one = with_threads(1);
    assert_eq!(one.train.shape(), Shape::new(3, 64, 64));
    assert!([2, 3, 8].into_iter().all(|threads| with_threads(threads) == one));
}

fn list(directory: &TempDir, text: &str) -> Result<ImageFolder, DataError> {
    put(directory, "list.csv", text.as_bytes());
    image_folder::read_csv(directory.path().join("list.csv"), &Options::default())
}

#[test]
fn a_list_of_images() {
    let directory = TempDir::new().unwrap();
    (0..10).for_each(|i| put(&directory, &format!("some, where/{i}.png"), &grey(2, 1, i)));
    let text = "\u{feff}path,label,split\r\n\"some, where/3.png\",class10,train\r\n\
                \"some, where/1.png\",class2,test\n\"some, where/2.png\",class2,train\n\n\
                \"some, where/4.png\",\"class2\",val\n\"some, where/missing.png\",class2,train\n";
    let ImageFolder { splits, validation, report } = list(&directory, text).unwrap();
    assert_eq!(splits.train.class_names(), ["class2", "class10"]);
    assert_eq!(splits.train.labels(), [1, 0]);
    assert_eq!(bytes(&splits.train), [3, 3, 2, 2]);
    assert_eq!(bytes(&splits.test), [1, 1]);
    assert_eq!(bytes(&validation.unwrap()), [4, 4]);
    assert!(report.skipped[0].reason.to_string().contains("missing.png"));
    assert!(splits.train.name() == "list train");
    // Without splits, some are set aside.
    let rows = (0..10).map(|i| format!("\"some, where/{i}.png\",{}\n", i % 2)).collect::<String>();
    let splits = list(&directory, &format!("path,label\n{rows}")).unwrap().splits;
    assert_eq!((splits.train.len(), splits.test.len()), (8, 2));
    assert_eq!(splits.train.class_names(), ["0", "1"]);
}

#[test]
fn faults_of_a_list() {
    let directory = TempDir::new().unwrap();
    put(&directory, "in.png", &grey(1, 1, 0));
    for (text, parts) in [
        ("", ["line 1", "header"]),
        ("in.png,a\n", ["line 1", "in.png,a"]),
        ("path,label\n", ["line 1", "empty"]),
        ("path,label\nin.png\n", ["line 2", "1 fields"]),
        ("path,label\nin.png,a,train\n", ["line 2", "3 fields"]),
        ("path,label\nin.png,\n", ["line 2", "empty"]),
        ("path,label,split\nin.png,a,train\nin.png,a,tset\n", ["line 3", "tset"]),
        ("path,label\n\"in.png,a\n", ["line 2", "quote"]),
        ("path,label\nout.png,a\n", ["list.csv", "out.png"]),
        ("path,label\n../../../../../../etc/hostname,a\n", ["list.csv", "out of the data directory"]),
    ] {
        let error = list(&directory, text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text:?}: {error}");
    }
    fs::write(directory.path().join("list.csv"), b"path,label\nin.png,\xFF\n").unwrap();
    let error = image_folder::read_csv(directory.path().join("list.csv"), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("line 2") && error.to_string().contains("UTF-8"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_written_is_read(
        shape in (1usize..6, 1usize..6), values in proptest::collection::vec((0usize..4, 0u8..255), 1..12),
    ) {
        let directory = TempDir::new().unwrap();
        for class in 0..4 {
            put(&directory, &format!("train/{class}/0.png"), &grey(shape.1 as u32, shape.0 as u32, class));
        }
        for (i, &(class, value)) in values.iter().enumerate() {
            put(&directory, &format!("test/{class}/{i}.png"), &grey(shape.1 as u32, shape.0 as u32, value));
        }
        let splits = read(&directory).splits;
        prop_assert_eq!(splits.train.shape(), Shape::new(1, shape.0, shape.1));
        let mut expected: Vec<(usize, usize, u8)> =
            values.iter().enumerate().map(|(i, &(class, value))| (class, i, value)).collect();
        expected.sort_unstable();
        prop_assert_eq!(splits.test.labels(), expected.iter().map(|e| e.0).collect::<Vec<_>>());
        let batch = splits.test.batch(0..values.len(), &Normalization::identity());
        for (image, (.., value)) in batch.outer_iter().zip(expected) {
            prop_assert!(image.iter().all(|&v| v == f32::from(value) / 255.0));
        }
    }
}

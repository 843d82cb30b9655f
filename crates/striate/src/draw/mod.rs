//! Pictures, one file each: filters as PNG, learning curves and confusion matrices as SVG.
//!
//! A picture is a function of numbers and a title, and knows nothing of networks or training.
//! Raster pictures carry their own letters ([`text`]); SVG leaves them to the viewer's fonts. Any text may come from
//! outside (class names, titles) and is escaped.

pub mod confusion;
pub mod curves;
pub mod filters;
mod svg;
pub mod text;

pub use self::confusion::confusion;
pub use self::curves::{CurvePoint, curves};
pub use self::filters::{FilterGrid, FilterPicture, before_and_after, filters};

use image::{ImageFormat, RgbImage};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Why a picture can't be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// The picture can't be turned into PNG: an empty one, for example.
    #[error("the picture of {width} x {height} pixels for {} can't be encoded as PNG: {source}", path.display())]
    Encode {
        /// Where it was to go.
        path: PathBuf,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// What the encoder says.
        source: image::ImageError,
    },
    /// The file can't be written.
    #[error("{} can't be written: {source}; check that the folder exists, may be written to and has space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Saves a picture as PNG. The file appears whole or not at all: it is written beside `path`, synced and renamed.
///
/// # Errors
/// [`DrawError::Encode`] for a picture without pixels, [`DrawError::Write`] when the file can't be written.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("filters.png");
/// let filters = ndarray::Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| (n * (y + 2 * x)) as f32);
/// let picture = striate::draw::filters(filters.view(), "Conv1 before training");
/// striate::draw::save_png(&picture.image, &path)?;
/// assert_eq!(image::open(&path)?.into_rgb8(), picture.image);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_png(image: &RgbImage, path: impl AsRef<Path>) -> Result<(), DrawError> {
    let path = path.as_ref();
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|source| DrawError::Encode {
        path: path.into(),
        width: image.width(),
        height: image.height(),
        source,
    })?;
    save(bytes.get_ref(), path)
}

/// Saves the text of an SVG picture, whole or not at all, as [`save_png`] does.
///
/// # Errors
/// [`DrawError::Write`] when the file can't be written.
pub fn save_svg(svg: &str, path: impl AsRef<Path>) -> Result<(), DrawError> {
    save(svg.as_bytes(), path.as_ref())
}

fn save(bytes: &[u8], path: &Path) -> Result<(), DrawError> {
    write_whole(bytes, path).map_err(|source| DrawError::Write { path: path.into(), source })
}

/// Write beside, fsync, rename, fsync the folder.
fn write_whole(bytes: &[u8], path: &Path) -> io::Result<()> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary = folder.join(temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The error that counts is the first one; a leftover is only untidy.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // Folders can't be opened as files everywhere (Windows); there the rename alone has to do.
    if let Ok(handle) = File::open(folder) {
        handle.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_saved_picture_reads_back_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        save_png(&RgbImage::new(1, 1), &path).unwrap();
        save_png(&image, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), image);
        save_svg("<svg/>", folder.path().join("b.svg")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing").join("a.png");
        let message = save_png(&RgbImage::new(1, 1), &missing).unwrap_err().to_string();
        assert!(message.contains("a.png can't be written"), "{message}");
        // A folder in the place of the file: nothing is left beside it.
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        fs::write(occupied.join("x"), b"x").unwrap();
        assert!(save_svg("<svg/>", &occupied).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(save_svg("<svg/>", "/").is_err());
    }

    #[test]
    fn an_empty_picture_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(save_png(&RgbImage::new(0, 0), folder.path().join("a.png")), Err(DrawError::Encode { .. })));
    }
}

//! Images that stay in their files and are decoded whenever they are asked for: data sets larger than memory.

use super::{
    DataError, Preprocessing,
    directory::{Directory, regular},
    image_folder::{MAX_FILE_BYTES, Skipped},
    preprocessing::ImageFile,
};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Whatever takes more memory than this is done one at a time, however many threads there are.
const LARGE: u64 = 16 << 20;
/// Images of the same class tried in place of one that can't be read any more.
const MOST_SUBSTITUTES: usize = 16;

/// Decodes files inside a directory, and none outside.
pub(super) struct Reader {
    pub(super) directory: Directory,
    /// Held while something large is done.
    large: Mutex<()>,
}

impl Reader {
    pub(super) fn new(directory: Directory) -> Self {
        Self { directory, large: Mutex::new(()) }
    }

    /// Decodes a file and gives it to `use_it`, with the name that errors call it.
    pub(super) fn with_image<T>(
        &self,
        path: &Path,
        use_it: impl FnOnce(image::DynamicImage, &str) -> Result<T, DataError>,
    ) -> Result<T, DataError> {
        let kind = |source| DataError::Io { path: path.into(), action: "look at this file", source };
        let kind = fs::symlink_metadata(path).map_err(kind)?.file_type();
        if !kind.is_symlink() {
            regular(path, kind)?;
        }
        let (file, length) = self.directory.open_file(path)?;
        let mut turn = None;
        let mut wait = |bytes: u64| {
            if bytes > LARGE && turn.is_none() {
                turn = Some(self.large.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        wait(length);
        let bytes = Directory::read(path, file, length, MAX_FILE_BYTES)?;
        let name = path.display().to_string();
        let image = ImageFile::open(&bytes, &name)?;
        wait(image.decode_bytes());
        use_it(image.decode()?, &name)
    }
}

/// Images in files, brought to one size whenever they are asked for; see
/// [`image_folder::Options::memory`](super::image_folder::Options::memory).
///
/// A file that can no longer be read when its turn comes is replaced by the next one of its class, which one does not
/// depend on the threads, and is told by [`Files::faults`].
#[derive(Clone)]
pub struct Files {
    shared: Arc<Shared>,
    /// The files chosen, in order.
    chosen: Arc<[u32]>,
}

struct Shared {
    reader: Arc<Reader>,
    preprocessing: Preprocessing,
    /// Each file with its class.
    files: Vec<(PathBuf, usize)>,
    faults: Mutex<BTreeMap<u32, DataError>>,
}

impl Files {
    /// `files` with their classes, read by `reader` and brought to the size of `preprocessing`; at most 2^32.
    pub(super) fn new(reader: Arc<Reader>, preprocessing: Preprocessing, files: Vec<(PathBuf, usize)>) -> Self {
        let chosen = (0..files.len()).map(|at| at as u32).collect();
        let shared = Shared { reader, preprocessing, files, faults: Mutex::default() };
        Self { shared: Arc::new(shared), chosen }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// The file of an image, if there is such an image.
    pub fn path(&self, index: usize) -> Option<&Path> {
        let &file = self.chosen.get(index)?;
        self.shared.files.get(file as usize).map(|(path, _)| path.as_path())
    }

    /// The images at `indices`, in that order.
    ///
    /// # Panics
    /// An index is not below [`Files::len`].
    pub(super) fn subset(&self, indices: impl Iterator<Item = usize>) -> Self {
        let chosen = indices.map(|index| self.chosen[index]).collect();
        Self { shared: Arc::clone(&self.shared), chosen }
    }

    /// Numbers of an image.
    pub(super) fn image_len(&self) -> usize {
        self.shared.preprocessing.shape.len()
    }

    /// Decodes an image and gives its pixels (C, H, W) to `use_it`.
    ///
    /// # Panics
    /// An index is not below [`Files::len`].
    pub(super) fn with_pixels<T>(&self, index: usize, use_it: impl FnOnce(&[u8]) -> T) -> T {
        use_it(&self.decode(self.chosen[index]))
    }

    fn decode(&self, file: u32) -> Vec<u8> {
        let Shared { reader, preprocessing, files, faults } = &*self.shared;
        let at = file as usize;
        let class = files.get(at).map(|(_, class)| *class);
        // The file itself, and those of its class behind it, round in a circle.
        let candidates = (at..files.len()).chain(0..at).filter(|&at| files.get(at).map(|(_, c)| *c) == class);
        for candidate in candidates.take(1 + MOST_SUBSTITUTES) {
            let Some((path, _)) = files.get(candidate) else { continue };
            match reader.with_image(path, |image, name| preprocessing.fit(image, name)) {
                Ok(pixels) => return pixels,
                Err(error) => {
                    faults.lock().unwrap_or_else(PoisonError::into_inner).entry(candidate as u32).or_insert(error);
                }
            }
        }
        vec![0; self.image_len()]
    }

    /// The files that could no longer be read when their turn came, with the reasons; each is told once.
    pub fn faults(&self) -> Vec<Skipped> {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let path = |file: u32| self.shared.files.get(file as usize).map(|(path, _)| path.clone()).unwrap_or_default();
        std::mem::take(&mut *faults).into_iter().map(|(file, reason)| Skipped { path: path(file), reason }).collect()
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.chosen == other.chosen
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("images", &self.len()).field("shape", &self.shared.preprocessing.shape).finish()
    }
}

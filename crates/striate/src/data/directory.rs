//! A directory that holds data, and that no link may lead out of.

use super::DataError;
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

/// The directory that holds the files, and that no link may lead out of.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Without links.
    pub(super) real: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let fault = |source| DataError::Io { path: path.into(), action: "open this directory", source };
        let real = fs::canonicalize(path).map_err(fault)?;
        if !fs::metadata(&real).map_err(fault)?.is_dir() {
            return Err(fault(ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: path.into(), real })
    }

    /// What the directory is called, or `otherwise` if it is the root of all.
    pub(super) fn name(&self, otherwise: &str) -> String {
        self.real.file_name().map_or_else(|| otherwise.into(), |name| name.to_string_lossy().into_owned())
    }

    /// Opens a regular file of the directory; gives its length too.
    pub(super) fn open_file(&self, path: &Path) -> Result<(File, u64), DataError> {
        let fault = |source| DataError::Io { path: path.into(), action: "open this file", source };
        let real = fs::canonicalize(path).map_err(fault)?;
        if !real.starts_with(&self.real) {
            return Err(DataError::OutsideLink { path: path.into(), target: real });
        }
        // Before opening: to open a FIFO would wait for its writer.
        regular(path, fs::metadata(&real).map_err(fault)?.file_type())?;
        let file = File::open(&real).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        regular(path, metadata.file_type())?;
        Ok((file, metadata.len()))
    }

    /// All bytes of an open file of `length` bytes, of which there may be at most `limit`.
    pub(super) fn read(path: &Path, file: File, length: u64, limit: u64) -> Result<Vec<u8>, DataError> {
        let large = |found| DataError::FileTooLarge { path: path.into(), found, limit };
        if length > limit {
            return Err(large(length));
        }
        let mut bytes = Vec::new();
        let memory = |_| DataError::Memory { name: path.display().to_string(), bytes: length };
        bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).map_err(memory)?;
        // A file may grow while it is read.
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| DataError::Io {
            path: path.into(),
            action: "read this file",
            source,
        })?;
        if bytes.len() as u64 > limit { Err(large(bytes.len() as u64)) } else { Ok(bytes) }
    }
}

/// Refuses everything but regular files.
pub(super) fn regular(path: &Path, kind: fs::FileType) -> Result<(), DataError> {
    if kind.is_file() {
        return Ok(());
    }
    #[cfg(unix)]
    let special = {
        use std::os::unix::fs::FileTypeExt;
        match () {
            () if kind.is_fifo() => "a FIFO",
            () if kind.is_socket() => "a socket",
            () if kind.is_char_device() || kind.is_block_device() => "a device",
            () => "no regular file",
        }
    };
    #[cfg(not(unix))]
    let special = "no regular file";
    Err(DataError::NotAFile { path: path.into(), found: if kind.is_dir() { "a directory" } else { special } })
}

//! The run directory: what a training run leaves behind.

use crate::error::CliError;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use striate::formats::write_atomically;

/// A directory of this run's own.
pub(crate) struct RunDir {
    path: PathBuf,
    metrics: File,
}

impl RunDir {
    /// `wanted`, which must be new or empty, or the next free `runs/STEM-N`.
    pub(crate) fn create(wanted: Option<&Path>, stem: &str) -> Result<Self, CliError> {
        let path = match wanted {
            Some(path) => {
                fs::create_dir_all(path).map_err(io_error(path, "create the directory"))?;
                if fs::read_dir(path).map_err(io_error(path, "read the directory"))?.next().is_some() {
                    return Err(CliError::OutNotEmpty { path: path.to_owned() });
                }
                path.to_owned()
            }
            None => Self::next_free(stem)?,
        };
        let file = path.join("metrics.jsonl");
        // `create_new`: of two runs that were given the same empty directory, the second stops here.
        let metrics = File::options().append(true).create_new(true).open(&file);
        let metrics = metrics.map_err(io_error(&file, "create the file"))?;
        Ok(Self { path, metrics })
    }

    fn next_free(stem: &str) -> Result<PathBuf, CliError> {
        let runs = Path::new("runs");
        fs::create_dir_all(runs).map_err(io_error(runs, "create the directory"))?;
        let mut n = 1u32;
        loop {
            let path = runs.join(format!("{stem}-{n}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n < u32::MAX => n += 1,
                Err(error) => return Err(io_error(&path, "create the directory")(error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file whole.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<(), CliError> {
        Ok(write_atomically(self.file(name), contents.as_ref())?)
    }

    /// Adds a line to `metrics.jsonl`, at once.
    pub(crate) fn metric(&mut self, line: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        let file = self.file("metrics.jsonl");
        self.metrics.write_all(text.as_bytes()).map_err(io_error(&file, "write to the file"))
    }
}

/// An [`io::Error`] with the path and what was tried.
pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Io { path, action, source }
}

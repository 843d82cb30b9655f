//! The run directory: what a training run leaves behind.

use crate::error::CliError;
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use striate::formats::{is_leftover, remove_leftovers, write_atomically};

/// The checkpoint's name in a run directory.
pub(crate) const CHECKPOINT: &str = "last.ckpt";
const METRICS: &str = "metrics.jsonl";
/// The directory of models along the way.
const SNAPSHOTS: &str = "snapshots";
/// Locked by the run that writes into the directory, and free as soon as its process ends, however it ends.
const LOCK: &str = ".lock";

/// A directory of this run's own.
pub(crate) struct RunDir {
    path: PathBuf,
    metrics: File,
    _lock: File,
}

impl RunDir {
    /// `wanted`, which must be new or empty, or the next free `runs/STEM-N`.
    pub(crate) fn create(wanted: Option<&Path>, stem: &str) -> Result<Self, CliError> {
        let (path, lock) = claim(wanted, stem)?;
        let file = path.join(METRICS);
        let metrics = File::options().append(true).create(true).open(&file);
        let metrics = metrics.map_err(io_error(&file, "create the file"))?;
        Ok(Self { path, metrics, _lock: lock })
    }

    /// The directory of a run to go on with: nobody else may be writing there. Lines of `metrics.jsonl` stay as they are
    /// until [`RunDir::cut_metrics`].
    pub(crate) fn resume(path: &Path) -> Result<Self, CliError> {
        if !path.is_dir() {
            return Err(CliError::Usage(format!("--resume {}: no such directory", path.display())));
        }
        if !path.join(CHECKPOINT).is_file() {
            return Err(CliError::Usage(format!(
                "--resume {}: no {CHECKPOINT} in this directory, so no step of the run was saved; start it again with --out",
                path.display()
            )));
        }
        let lock = lock(path)?;
        for directory in [path.to_owned(), path.join(SNAPSHOTS)].iter().filter(|directory| directory.is_dir()) {
            remove_leftovers(directory).map_err(io_error(directory, "remove what a killed run left"))?;
        }
        let file = path.join(METRICS);
        let metrics = File::options().read(true).append(true).create(true).open(&file);
        let metrics = metrics.map_err(io_error(&file, "open the file"))?;
        Ok(Self { path: path.to_owned(), metrics, _lock: lock })
    }

    /// Whether nothing is there but what a run leaves that was killed before its first checkpoint.
    fn is_free(path: &Path) -> Result<bool, CliError> {
        for entry in fs::read_dir(path).map_err(io_error(path, "read the directory"))? {
            let entry = entry.map_err(io_error(path, "read the directory"))?;
            let name = entry.file_name();
            let nothing = name == LOCK
                || is_leftover(&name)
                || name == METRICS && entry.metadata().is_ok_and(|found| found.is_file() && found.len() == 0);
            if !nothing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Cuts `metrics.jsonl` before the first line that the checkpoint knows nothing of: a step after its own, an epoch that
    /// it has not evaluated, or a line that was cut off.
    pub(crate) fn cut_metrics(&mut self, step: u64, epochs: usize) -> Result<(), CliError> {
        let file = self.file(METRICS);
        let mut text = Vec::new();
        self.metrics.read_to_end(&mut text).map_err(io_error(&file, "read the file"))?;
        let known = |line: &[u8]| {
            let Ok(line) = serde_json::from_slice::<Value>(line) else { return false };
            // The final evaluation is made anew.
            let within = line["type"] != "evaluation" && line["step"].as_u64().is_some_and(|at| at <= step);
            within && (line["type"] != "epoch" || line["epoch"].as_u64().is_some_and(|epoch| epoch <= epochs as u64))
        };
        let mut end = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if !(line.ends_with(b"\n") && known(line)) {
                break;
            }
            end += line.len();
        }
        if end < text.len() {
            self.metrics.set_len(end as u64).map_err(io_error(&file, "cut the file"))?;
        }
        Ok(())
    }

    /// Brings `metrics.jsonl` to the disk, so that it is never behind a checkpoint.
    pub(crate) fn flush_metrics(&self) -> Result<(), CliError> {
        self.metrics.sync_data().map_err(io_error(&self.file(METRICS), "flush the file"))
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

    /// Where the model after so many steps is to be saved.
    pub(crate) fn snapshot(&self, step: u64) -> Result<PathBuf, CliError> {
        let directory = self.path.join(SNAPSHOTS);
        fs::create_dir_all(&directory).map_err(io_error(&directory, "create the directory"))?;
        Ok(directory.join(format!("step-{step:06}.safetensors")))
    }

    /// Writes a file whole.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<(), CliError> {
        Ok(write_atomically(self.file(name), contents.as_ref())?)
    }

    /// Adds a line to `metrics.jsonl`, at once.
    pub(crate) fn metric(&mut self, line: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        let file = self.file(METRICS);
        self.metrics.write_all(text.as_bytes()).map_err(io_error(&file, "write to the file"))
    }
}

/// Takes a directory for this process alone: `wanted`, which must be new or empty, or the next free `runs/STEM-N`. It is
/// held as long as the file given back.
pub(crate) fn claim(wanted: Option<&Path>, stem: &str) -> Result<(PathBuf, File), CliError> {
    let path = match wanted {
        Some(path) => {
            fs::create_dir_all(path).map_err(io_error(path, "create the directory"))?;
            if !RunDir::is_free(path)? {
                return Err(CliError::OutNotEmpty { path: path.to_owned() });
            }
            path.to_owned()
        }
        None => RunDir::next_free(stem)?,
    };
    let lock = lock(&path)?;
    // Another run may have come and gone since the first look.
    if !RunDir::is_free(&path)? {
        return Err(CliError::OutNotEmpty { path });
    }
    remove_leftovers(&path).map_err(io_error(&path, "remove what a killed run left"))?;
    Ok((path, lock))
}

/// The models along the way that the run in `path` has saved, by step; none if it saved none.
pub(crate) fn snapshots(path: &Path) -> Result<Vec<(u64, PathBuf)>, CliError> {
    let directory = path.join(SNAPSHOTS);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(io_error(&directory, "read the directory"))? {
        let file = entry.map_err(io_error(&directory, "read the directory"))?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            found.push((step, file));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes the directory's lock, which ends with the process.
fn lock(path: &Path) -> Result<File, CliError> {
    let file = path.join(LOCK);
    let lock = File::options().write(true).create(true).truncate(false).open(&file);
    let lock = lock.map_err(io_error(&file, "create the file"))?;
    // A run that was just killed may take a moment to be gone.
    let patience = Instant::now() + Duration::from_secs(2);
    let mut taken = lock.try_lock();
    while matches!(taken, Err(TryLockError::WouldBlock)) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(50));
        taken = lock.try_lock();
    }
    match taken {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(CliError::InUse { path: path.to_owned() }),
        // Some network file systems know no locks; there a second run has to be kept away by its user.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(lock),
        Err(TryLockError::Error(error)) => Err(io_error(&file, "lock the file")(error)),
    }
}

/// An [`io::Error`] with the path and what was tried.
pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Io { path, action, source }
}

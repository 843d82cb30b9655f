//! Replacing a file in one step: whoever looks, at any time, sees the old file or the new one, never half of it.
//!
//! Write a temporary file in the same directory, flush it to the disk, rename it over the old one, flush the directory.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What was being done when writing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteAction {
    /// Looking at the path.
    Inspect,
    /// Making the temporary file beside the target.
    Create,
    /// Writing the contents.
    Write,
    /// Flushing the contents to the disk.
    Flush,
    /// Renaming the temporary file to the target's name.
    Rename,
    /// Flushing the directory to the disk. The new file is in place by then, but may not survive a power cut.
    FlushDirectory,
}

impl fmt::Display for WriteAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inspect => "looking at the path",
            Self::Create => "making a temporary file beside it",
            Self::Write => "writing its contents",
            Self::Flush => "flushing its contents to the disk",
            Self::Rename => "putting it in place",
            Self::FlushDirectory => "flushing its directory to the disk",
        })
    }
}

/// Why a file was not written. The file that was there before is untouched (save for
/// [`WriteAction::FlushDirectory`], when the new one is in place), and no temporary file is left.
#[derive(Debug, thiserror::Error)]
#[error("can't save {}: {action} failed: {source}{}", path.display(), hint(*action, source))]
pub struct WriteError {
    /// The file to be written.
    pub path: PathBuf,
    /// What was being done.
    pub action: WriteAction,
    /// What the system said.
    pub source: io::Error,
}

/// What to do about it, as the end of a sentence.
fn hint(action: WriteAction, error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull => "; the disk is full: free some space, or save elsewhere",
        ErrorKind::QuotaExceeded => "; your share of the disk is used up: free some space, or save elsewhere",
        ErrorKind::FileTooLarge => "; the file system or a limit of this process does not allow files so large",
        ErrorKind::ReadOnlyFilesystem => "; the file system is read-only: save elsewhere",
        ErrorKind::PermissionDenied => {
            "; you may not write in this directory: change its permissions, or save elsewhere"
        }
        ErrorKind::NotFound if action == WriteAction::Create => "; the directory does not exist: make it first",
        ErrorKind::NotFound if action == WriteAction::Rename => "; the directory is no longer there",
        ErrorKind::NotADirectory => "; a part of the path is a file, not a directory",
        _ => "",
    }
}

/// Replaces the file at `path` by one that holds `bytes`, or leaves everything as it was.
///
/// A symbolic link stays, and its target is replaced. The permissions of a file that is replaced are kept. Only
/// regular files are replaced: never a directory, and never `/dev/null`.
///
/// # Errors
/// [`WriteError`] with the path, what was being done and what the system said.
///
/// ```
/// use striate::formats::write_atomically;
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("notes.txt");
/// write_atomically(&path, b"first")?;
/// write_atomically(&path, b"second")?;
/// assert_eq!(std::fs::read(&path)?, b"second");
/// assert!(write_atomically(&directory.path().join("nowhere/notes.txt"), b"").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), WriteError> {
    replace(path.as_ref(), |file| file.write_all(bytes))
}

/// How the names of temporary files begin and end.
const LEFTOVER: &str = ".striate-";
const LEFTOVER_ENDING: &str = ".tmp";

/// Whether a file of this name is a temporary one of [`write_atomically`]. One that stays was left by a process that was
/// killed while it wrote.
pub fn is_leftover(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(LEFTOVER) && name.ends_with(LEFTOVER_ENDING))
}

/// Removes the temporary files that killed processes left in `directory`. Nobody may be writing there.
///
/// # Errors
/// A directory that can't be read, or a file that can't be removed.
pub fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_leftover(&entry.file_name()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
    let failed = |action: WriteAction| move |source: io::Error| WriteError { path: path.to_path_buf(), action, source };
    let (target, permissions) = inspect(path).map_err(failed(WriteAction::Inspect))?;
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A directory may be writable without being readable; then it can't be flushed.
    let directory_handle = if cfg!(unix) { File::open(directory).ok() } else { None };

    let (temporary, mut file) = Temporary::create_in(directory).map_err(failed(WriteAction::Create))?;
    write(&mut file).map_err(failed(WriteAction::Write))?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions).map_err(failed(WriteAction::Write))?;
    }
    file.sync_all().map_err(failed(WriteAction::Flush))?;
    drop(file);
    temporary.rename_to(&target).map_err(failed(WriteAction::Rename))?;

    match directory_handle.map(|handle| handle.sync_all()) {
        // Some file systems know no flushing of directories.
        Some(Err(error)) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(failed(WriteAction::FlushDirectory)(error))
        }
        _ => Ok(()),
    }
}

/// The file to replace, symbolic links followed, and the permissions it has if it exists.
fn inspect(path: &Path) -> io::Result<(PathBuf, Option<fs::Permissions>)> {
    if path.file_name().is_none() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path names no file"));
    }
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // A directory that does not exist is reported when the temporary file can't be made there.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((path.to_path_buf(), None)),
        Err(error) => return Err(error),
    };
    let (target, found) = if found.is_symlink() {
        let target = fs::canonicalize(path)?;
        let found = fs::metadata(&target)?;
        (target, found)
    } else {
        (path.to_path_buf(), found)
    };
    if found.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "a directory is in the way"));
    }
    if !found.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file and will not be replaced"));
    }
    Ok((target, Some(found.permissions())))
}

/// A file that is removed unless it was renamed.
struct Temporary {
    path: Option<PathBuf>,
}

impl Temporary {
    fn create_in(directory: &Path) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // Leftovers of a killed process with our number may be in the way of a few names.
        let mut attempts = 0;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{LEFTOVER}{}-{count}{LEFTOVER_ENDING}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self { path: Some(path) }, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempts < 1000 => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn rename_to(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing more can be done about a failure here, and the first one is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_and_replaces_leaving_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        for contents in [&b""[..], b"one", b"two, longer", b"3"] {
            write_atomically(&path, contents).unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
        assert_eq!(entries(directory.path()), ["model"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        write_atomically(&path, b"old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert_eq!(error.action, WriteAction::Write);
        let message = error.to_string();
        assert!(message.contains("the disk is full") && message.contains("model"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(directory.path()), ["model"]);
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in [".striate-123-4.tmp", ".striate-9-0.tmp", "model", ".striate", "x.tmp"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        fs::create_dir(directory.path().join(".striate-1-1.tmp")).unwrap();
        remove_leftovers(directory.path()).unwrap();
        assert_eq!(entries(directory.path()), [".striate", ".striate-1-1.tmp", "model", "x.tmp"]);
        assert!(remove_leftovers(&directory.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_panic_while_writing_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        let caught = std::panic::catch_unwind(|| replace(&path, |_| panic!("on purpose")));
        assert!(caught.is_err());
        assert!(entries(directory.path()).is_empty());
    }

    #[test]
    fn a_missing_directory_is_named_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomically(directory.path().join("no/model"), b"").unwrap_err();
        assert_eq!(error.action, WriteAction::Create);
        assert!(error.to_string().contains("the directory does not exist"), "{error}");
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        write_atomically(&file, b"x").unwrap();
        let error = write_atomically(file.join("model"), b"").unwrap_err();
        assert!(error.to_string().contains("model"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomically(directory.path(), b"").unwrap_err();
        assert!(error.to_string().contains("a directory is in the way"), "{error}");
        assert!(write_atomically("..", b"").is_err());
        assert!(write_atomically("", b"").is_err());
    }

    #[test]
    fn names_as_long_as_the_system_allows_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        write_atomically(directory.path().join("x".repeat(255)), b"long").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_permissions_stay_and_devices_stay() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        write_atomically(&real, b"old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);

        assert!(write_atomically("/dev/null", b"x").is_err());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn writers_at_the_same_time_leave_one_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        std::thread::scope(|scope| {
            for letter in b'a'..b'i' {
                let path = &path;
                scope.spawn(move || write_atomically(path, &vec![letter; 50_000]).unwrap());
            }
        });
        let contents = fs::read(&path).unwrap();
        assert_eq!(contents.len(), 50_000);
        assert!(contents.iter().all(|byte| *byte == contents[0]));
        assert_eq!(entries(directory.path()), ["model"]);
    }
}

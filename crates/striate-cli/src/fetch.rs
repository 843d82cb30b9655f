//! `striate data fetch`: data sets with a name, from their makers into the user's cache.

use crate::download::{Downloader, Published};
use crate::error::CliError;
use crate::output::{Output, bytes, complain};
use crate::run_dir::io_error;
use crate::source;
use clap::Args;
use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, stderr};
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::data::cifar;

/// Download a data set, resume a broken download, check it
#[derive(Args, Clone, Debug)]
pub(crate) struct FetchArgs {
    /// fashion-mnist, cifar10 or cifar100
    #[arg(value_parser = ["fashion-mnist", "cifar10", "cifar100"])]
    name: String,
    /// A mirror: the address of the folder that holds the makers' files [default: the makers' own]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Where to put it, new or empty [default: where --data NAME looks, in the user's cache]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// What there is to fetch.
struct Set {
    name: &'static str,
    /// Folders on the web, each with all the files.
    mirrors: &'static [&'static str],
    files: &'static [Published],
    /// Whose files are to be taken out of the archive, if it is one.
    archive: Option<cifar::Kind>,
}

/// Lengths and digests as other tools that fetch these files check them (MLDatasets.jl and red-datasets among them).
///
/// Fashion-MNIST's are verified: Debian's dataset-fashion-mnist has the same compressed streams under gzip headers without
/// name and time; with the names back and the times 2017-08-31 10:50:06 (train) and 10:50:27 (t10k) UTC, found by trying, all four
/// files have exactly these digests. CIFAR's archives were not at hand to compare.
const SETS: [Set; 3] = [
    Set {
        name: "fashion-mnist",
        mirrors: &[
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ],
        files: &[
            Published {
                name: "t10k-labels-idx1-ubyte.gz",
                bytes: 5_148,
                sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            },
            Published {
                name: "train-labels-idx1-ubyte.gz",
                bytes: 29_515,
                sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            },
            Published {
                name: "t10k-images-idx3-ubyte.gz",
                bytes: 4_422_102,
                sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            },
            Published {
                name: "train-images-idx3-ubyte.gz",
                bytes: 26_421_880,
                sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            },
        ],
        archive: None,
    },
    Set {
        name: "cifar10",
        mirrors: &["https://www.cs.toronto.edu/~kriz"],
        files: &[Published {
            name: "cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        }],
        archive: Some(cifar::Kind::Cifar10),
    },
    Set {
        name: "cifar100",
        mirrors: &["https://www.cs.toronto.edu/~kriz"],
        files: &[Published {
            name: "cifar-100-binary.tar.gz",
            bytes: 168_513_733,
            sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        }],
        archive: Some(cifar::Kind::Cifar100),
    },
];

/// The most bytes of one file in an archive; CIFAR-100's training file has 153,700,000.
const MOST_UNPACKED: u64 = 200_000_000;

/// Fetches.
pub(crate) fn run(args: &FetchArgs, output: &Output) -> Result<ExitCode, CliError> {
    let Some(set) = SETS.iter().find(|set| set.name == args.name) else {
        return Err(CliError::Usage(format!("there is no data set {:?} to fetch", args.name)));
    };
    let target = match &args.to {
        Some(path) => path.clone(),
        None => source::cache_directory().map(|cache| cache.join(set.name)).ok_or_else(|| {
            CliError::Usage("neither XDG_CACHE_HOME nor HOME is set; say with --to where to put the data".into())
        })?,
    };
    let fetched = if source::holds(set.name, &target) {
        false
    } else {
        fetch(set, args.from.as_deref(), &target, output)?;
        true
    };
    let place = target.display();
    let what = if fetched { "fetched, checked and stored in" } else { "already here, in" };
    output.line(format!("{}: {what} {place}", set.name));
    if args.to.is_none() {
        output.hint(format!("Next:\n  striate train --data {}", set.name));
    } else {
        output.hint(format!("Next:\n  striate train --data {place}"));
    }
    output.json(&serde_json::json!({ "data": set.name, "path": target, "fetched": fetched }));
    Ok(ExitCode::SUCCESS)
}

/// Brings a set into `target`, which is new or empty. Everything is got ready beside it, and appears at once.
fn fetch(set: &Set, from: Option<&str>, target: &Path, output: &Output) -> Result<(), CliError> {
    if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CliError::OutNotEmpty { path: target.into() });
    }
    let mut stage = target.as_os_str().to_owned();
    stage.push(".fetching");
    let stage = PathBuf::from(stage);
    fs::create_dir_all(&stage).map_err(io_error(&stage, "create the directory"))?;
    let lock_path = stage.join("lock");
    let lock = File::create(&lock_path).map_err(io_error(&lock_path, "create the file"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(CliError::Busy { path: stage }),
        Err(TryLockError::Error(source)) => return Err(io_error(&lock_path, "lock the file")(source)),
    }
    download(set, from, &stage, output)?;
    if let Some(kind) = set.archive {
        for archive in set.files {
            let path = stage.join(archive.name);
            unpack(&path, kind.files().collect(), &stage)?;
            fs::remove_file(&path).map_err(io_error(&path, "remove the file"))?;
        }
    }
    // An empty directory may be there; it has to go on some systems.
    let _ = fs::remove_dir(target);
    let _ = fs::remove_file(&lock_path);
    fs::rename(&stage, target).map_err(io_error(target, "put the finished data here"))
}

fn download(set: &Set, from: Option<&str>, stage: &Path, output: &Output) -> Result<(), CliError> {
    let downloader = Downloader::new();
    let total: u64 = set.files.iter().map(|file| file.bytes).sum();
    let bar = bar(set, total, output);
    let mut before = 0;
    for file in set.files {
        let target = stage.join(file.name);
        let place = |folder: &str| format!("{}/{}", folder.trim_end_matches('/'), file.name);
        let urls: Vec<String> = match from {
            Some(folder) => vec![place(folder)],
            None => set.mirrors.iter().map(|folder| place(folder)).collect(),
        };
        let mut outcome = Ok(());
        for (i, url) in urls.iter().enumerate() {
            if target.exists() {
                break;
            }
            outcome = downloader.fetch(file, url, &target, &mut |done| bar.set_position(before + done));
            if let Err(error) = &outcome
                && i + 1 < urls.len()
                && !output.is_quiet()
            {
                bar.suspend(|| complain(&format!("note: {error}; trying another mirror")));
            }
        }
        outcome?;
        before += file.bytes;
        bar.set_position(before);
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(set: &Set, total: u64, output: &Output) -> ProgressBar {
    if output.is_quiet() {
        return ProgressBar::hidden();
    }
    if !stderr().is_terminal() {
        complain(&format!("fetching {}, {}", set.name, bytes(total as usize)));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{prefix} [{bar:25}] {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(set.name);
    bar
}

/// Takes the files with these names out of an archive.
fn unpack(archive: &Path, mut missing: Vec<&'static str>, to: &Path) -> Result<(), CliError> {
    let read = |source| io_error(archive, "unpack this file")(source);
    let file = File::open(archive).map_err(read)?;
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    for entry in tar.entries().map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.path().map_err(read)?.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(at) = missing.iter().position(|wanted| Some(*wanted) == name.as_deref()) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = to.join(missing.swap_remove(at));
        let mut out = File::create(&path).map_err(io_error(&path, "create the file"))?;
        let written =
            io::copy(&mut entry.take(MOST_UNPACKED + 1), &mut out).map_err(io_error(&path, "write the file"))?;
        if written > MOST_UNPACKED {
            return Err(read(ErrorKind::FileTooLarge.into()));
        }
        out.sync_all().map_err(io_error(&path, "write the file"))?;
    }
    match missing.first() {
        Some(missing) => Err(CliError::Archive { path: archive.into(), missing }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn archive(path: &Path, entries: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(GzEncoder::new(File::create(path).unwrap(), Compression::fast()));
        for (name, contents) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *contents).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn only_the_files_wanted_come_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar.gz");
        archive(&path, &[("folder/train.bin", b"train"), ("folder/readme.html", b"no"), ("folder/test.bin", b"test")]);
        unpack(&path, vec!["train.bin", "test.bin"], directory.path()).unwrap();
        assert_eq!(fs::read(directory.path().join("train.bin")).unwrap(), b"train");
        assert_eq!(fs::read(directory.path().join("test.bin")).unwrap(), b"test");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        let error = unpack(&path, vec!["train.bin", "other.bin"], directory.path()).unwrap_err().to_string();
        assert!(error.contains("no other.bin"), "{error}");
        fs::write(&path, b"no archive").unwrap();
        assert!(unpack(&path, vec!["train.bin"], directory.path()).is_err());
    }

    #[test]
    fn what_is_there_is_not_touched_and_two_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let output = Output::silent();
        let set = &SETS[1];
        let target = directory.path().join("data");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), "").unwrap();
        // Port 9 of this machine; nobody is asked before the directory is looked at.
        let from = Some("http://127.0.0.1:9");
        assert!(matches!(fetch(set, from, &target, &output), Err(CliError::OutNotEmpty { .. })));
        let target = directory.path().join("other");
        let stage = directory.path().join("other.fetching");
        fs::create_dir(&stage).unwrap();
        let lock = File::create(stage.join("lock")).unwrap();
        lock.lock().unwrap();
        assert!(matches!(fetch(set, from, &target, &output), Err(CliError::Busy { .. })));
        assert!(!target.exists());
    }

    #[test]
    fn published_files_are_whole_records() {
        for set in &SETS {
            assert!(!set.mirrors.is_empty() && !set.files.is_empty());
            for file in set.files {
                assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", file.name);
                assert!(file.bytes > 0);
            }
        }
    }
}

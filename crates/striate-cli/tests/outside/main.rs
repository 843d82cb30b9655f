//! The command as a user runs it.

mod bars;
mod cli;
#[cfg(target_os = "linux")]
mod faults;
mod kill;
mod own_images;
mod quantize;
mod resume;
mod running;
mod train_options;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `striate` in `directory`.
pub(crate) fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_striate"));
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    command
}

/// Runs it and expects this exit status; gives stdout and stderr.
pub(crate) fn run(directory: &Path, arguments: &[&str], status: i32) -> (String, String) {
    finished(command(directory, arguments).output().unwrap(), arguments, status)
}

/// What [`run`] says of a process that has ended.
pub(crate) fn finished(output: Output, arguments: &[&str], status: i32) -> (String, String) {
    let (found, stdout, stderr) = outcome(output);
    assert_eq!(found, Some(status), "{arguments:?}\nstdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

/// Exit status, stdout and stderr, of whatever did not panic.
pub(crate) fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code(), stdout, stderr)
}

/// Runs it in a shell that has been limited by the command `limit`; gives exit status and stderr.
#[cfg(target_os = "linux")]
pub(crate) fn limited(directory: &Path, limit: &str, arguments: &str) -> (Option<i32>, String) {
    let script = format!("{limit}; exec {} {arguments}", env!("CARGO_BIN_EXE_striate"));
    let output = Command::new("bash").args(["-c", &script]).current_dir(directory).stdin(Stdio::null()).output();
    let (status, _, stderr) = outcome(output.unwrap());
    (status, stderr)
}

/// [`run`] with one line of words.
pub(crate) fn striate(directory: &Path, arguments: &str, status: i32) -> (String, String) {
    run(directory, &arguments.split_whitespace().collect::<Vec<_>>(), status)
}

/// Runs it for its result as JSON.
pub(crate) fn json(directory: &Path, arguments: &str) -> Value {
    let (stdout, _) = striate(directory, &format!("{arguments} --json -q"), 0);
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Expects a failure whose message has these parts.
pub(crate) fn refused(directory: &Path, arguments: &str, status: i32, parts: &[&str]) {
    let (_, stderr) = striate(directory, arguments, status);
    for part in parts {
        assert!(stderr.contains(part), "{arguments}: {part:?} is not in: {stderr}");
    }
}

//! A command that runs while a test looks on; it is killed where the test fails.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) struct Running(Child);

impl Running {
    /// `striate` in `directory` with these words; nobody reads its stdout.
    pub(crate) fn start(directory: &Path, arguments: &str) -> Self {
        let mut command = crate::command(directory, &arguments.split_whitespace().collect::<Vec<_>>());
        Self::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Waits until `found` gives something; the command must not end meanwhile.
    pub(crate) fn wait_for<T>(&mut self, found: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(self.runs(), "it ended");
            assert!(begun.elapsed() < Duration::from_secs(120), "it does not come");
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The next line of its stdout. What comes after it can't be read any more.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// Sends `-INT`, `-TERM` or `-KILL`, also to a process that has just ended.
    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([name, &self.0.id().to_string()]).stderr(Stdio::null()).status().unwrap();
    }

    /// Waits for its end; gives its status, and what is left to read of stdout and stderr.
    pub(crate) fn ended(mut self) -> (ExitStatus, String, String) {
        let mut rest = [String::new(), String::new()];
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_string(&mut rest[0]).unwrap();
        }
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut rest[1]).unwrap();
        }
        let [stdout, stderr] = rest;
        assert!(!stderr.contains("panicked"), "{stderr}");
        (self.0.wait().unwrap(), stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

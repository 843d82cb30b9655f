//! One file from the web: resumed where it broke off, checked, and stored whole or not at all.

use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Times in a row that nothing more arrives before a download is given up.
const MOST_FAILURES: u32 = 4;
/// Without an answer, or a byte of one, for so long, the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file as its makers published it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: &'static str,
}

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("{url}: {reason}; what has arrived is kept, and the same command goes on from there")]
    Broken { url: String, reason: String },
    #[error("{url}: the server answers {status}; give another mirror with --from URL")]
    Status { url: String, status: u16 },
    #[error(
        "{url}: this is another file than the one published: {found}, expected {expected}; nothing of it was stored; \
         give another mirror with --from URL"
    )]
    WrongFile { url: String, found: String, expected: String },
    #[error("{}: cannot {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> DownloadError {
    let path = path.to_owned();
    move |source| DownloadError::Io { path, action, source }
}

/// Downloads files, one after the other.
pub(crate) struct Downloader {
    agent: ureq::Agent,
    /// Waited before the first new attempt, and twice as long before each further one.
    pause: Duration,
}

/// How an attempt ended that did not fail for good.
enum Attempt {
    /// The server has nothing more to say.
    Ended,
    /// The connection broke, for this reason.
    Broken(String),
}

impl Downloader {
    pub(crate) fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("striate/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .new_agent();
        Self { agent, pause: Duration::from_millis(500) }
    }

    /// Downloads `file` from `url` to `target`, telling `progress` how many bytes are there.
    ///
    /// What arrives is kept beside the target with the ending `.part` until all of it is there and its SHA-256 is right;
    /// only then does the target appear.
    pub(crate) fn fetch(
        &self,
        file: &Published,
        url: &str,
        target: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        let part = with_ending(target, "part");
        let tag = with_ending(target, "etag");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut store = open.map_err(io_error(&part, "open this file"))?;
        let mut from_scratch = false;
        loop {
            self.complete(file, url, &mut store, &part, &tag, progress)?;
            let found = digest(&mut store).map_err(io_error(&part, "read this file"))?;
            if found == file.sha256 {
                break;
            }
            // Pieces of two versions, or of two mirrors, may have met: once more from the start.
            empty(&mut store, &part)?;
            let _ = fs::remove_file(&tag);
            if from_scratch {
                let _ = fs::remove_file(&part);
                let (found, expected) = (format!("its SHA-256 is {found}"), file.sha256.into());
                return Err(DownloadError::WrongFile { url: url.into(), found, expected });
            }
            from_scratch = true;
        }
        store.sync_all().map_err(io_error(&part, "write this file"))?;
        drop(store);
        fs::rename(&part, target).map_err(io_error(target, "put the finished file here"))?;
        let _ = fs::remove_file(&tag);
        Ok(())
    }

    /// Asks until all bytes are there.
    fn complete(
        &self,
        file: &Published,
        url: &str,
        store: &mut File,
        part: &Path,
        tag: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        let length = |store: &File| store.metadata().map(|m| m.len()).map_err(io_error(part, "look at this file"));
        let mut failures = 0;
        loop {
            let before = length(store)?;
            if before == file.bytes {
                return Ok(());
            }
            let attempt = self.attempt(file, url, store, part, tag, progress)?;
            let after = length(store)?;
            if after == file.bytes {
                return Ok(());
            }
            let reason = match attempt {
                Attempt::Ended => format!("the server sent {after} of {} bytes", file.bytes),
                Attempt::Broken(reason) => reason,
            };
            failures = if after > before { 1 } else { failures + 1 };
            if failures > MOST_FAILURES {
                return Err(DownloadError::Broken { url: url.into(), reason });
            }
            sleep(self.pause * 2u32.pow(failures - 1));
        }
    }

    /// Asks once for what is missing.
    fn attempt(
        &self,
        file: &Published,
        url: &str,
        store: &mut File,
        part: &Path,
        tag: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Attempt, DownloadError> {
        let write = |source| io_error(part, "write this file")(source);
        let mut have = store.metadata().map_err(write)?.len();
        if have > file.bytes {
            empty(store, part)?;
            have = 0;
        }
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
            // If the file has changed since, all of the new one comes.
            if let Ok(tag) = fs::read_to_string(tag) {
                request = request.header("If-Range", tag);
            }
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Broken(error.to_string())),
        };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let another = |found: u64| DownloadError::WrongFile {
            url: url.into(),
            found: format!("{found} bytes"),
            expected: file.bytes.to_string(),
        };
        match response.status().as_u16() {
            200 => {
                if let Some(found) = header("content-length").and_then(|text| text.parse().ok())
                    && found != file.bytes
                {
                    return Err(another(found));
                }
                empty(store, part)?;
                have = 0;
            }
            206 => {
                let range = header("content-range").and_then(content_range);
                match range {
                    Some((start, all)) if start == have => {
                        if let Some(all) = all.filter(|&all| all != file.bytes) {
                            return Err(another(all));
                        }
                    }
                    _ => {
                        empty(store, part)?;
                        return Ok(Attempt::Broken("the server sent another part than the one asked for".into()));
                    }
                }
            }
            416 => {
                empty(store, part)?;
                return Ok(Attempt::Broken("the server has no such part of the file".into()));
            }
            status @ (408 | 425 | 429 | 500..) => {
                return Ok(Attempt::Broken(format!("the server answers {status}")));
            }
            status => return Err(DownloadError::Status { url: url.into(), status }),
        }
        // A weak tag does not promise the same bytes.
        match header("etag").filter(|tag| !tag.starts_with("W/")) {
            Some(value) => fs::write(tag, value).map_err(io_error(tag, "write this file"))?,
            None => drop(fs::remove_file(tag)),
        }
        store.seek(SeekFrom::Start(have)).map_err(write)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(Attempt::Ended),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Broken(error.to_string())),
            };
            have += count as u64;
            if have > file.bytes {
                empty(store, part)?;
                return Err(another(have));
            }
            store.write_all(buffer.get(..count).unwrap_or_default()).map_err(write)?;
            progress(have);
        }
    }
}

/// Where a part begins and how long the whole is, if that is told: `bytes 100-199/1000`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, all) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, all.trim().parse().ok()))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn empty(store: &mut File, part: &Path) -> Result<(), DownloadError> {
    store.set_len(0).and_then(|()| store.rewind()).map_err(io_error(part, "empty this file"))
}

fn digest(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => sha256.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;

    const FILE: Published = Published {
        name: "file",
        bytes: 20_000,
        // Of 20,000 bytes i % 251 (Python: hashlib.sha256(bytes(i % 251 for i in range(20000))).hexdigest()).
        sha256: "93a6015a3874a774dd59fdd5db19414b301525381eb5ddcc265cdcc68bb9d350",
    };

    fn contents() -> Vec<u8> {
        (0..20_000u32).map(|i| (i % 251) as u8).collect()
    }

    /// A request's range, if it asks for one, and the tag it insists on.
    #[derive(Clone, Debug, PartialEq)]
    struct Asked {
        path: String,
        start: Option<usize>,
        if_range: Option<String>,
    }

    type Log = Arc<Mutex<Vec<Asked>>>;

    /// A server on this machine that gives every connection to `answer`, with the number of the request.
    fn server(answer: impl Fn(usize, &Asked, &mut TcpStream) + Send + 'static) -> (String, Log) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let log = Log::default();
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { continue };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { continue };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut asked = Asked { path, start: None, if_range: None };
                for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    let (name, value) = line.split_once(": ").unwrap();
                    match name.to_ascii_lowercase().as_str() {
                        "range" => {
                            asked.start = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok();
                        }
                        "if-range" => asked.if_range = Some(value.into()),
                        _ => {}
                    }
                }
                written.lock().unwrap().push(asked.clone());
                answer(number, &asked, &mut stream);
            }
        });
        (url, log)
    }

    fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
        let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    }

    /// What a good server sends, cut off after `most` bytes of the body.
    fn send_part(asked: &Asked, most: usize, stream: &mut TcpStream) {
        let all = contents();
        let start = asked.start.unwrap_or(0);
        let head = match asked.start {
            Some(start) => format!("206 Partial Content\r\nContent-Range: bytes {start}-19999/20000\r\nETag: \"a\""),
            None => "200 OK\r\nETag: \"a\"".into(),
        };
        let body = &all[start..];
        send(stream, &format!("{head}\r\nContent-Length: {}", body.len()), &body[..most.min(body.len())]);
    }

    fn fetch(url: &str, directory: &Path) -> Result<(), DownloadError> {
        let downloader = Downloader { pause: Duration::from_millis(1), ..Downloader::new() };
        downloader.fetch(&FILE, url, &directory.join("file"), &mut |_| {})
    }

    /// The download succeeds and leaves the file alone in its directory.
    fn arrives(url: &str, directory: &Path) {
        fetch(url, directory).unwrap();
        assert_eq!(fs::read(directory.join("file")).unwrap(), contents());
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
    }

    /// The download fails with this in its message and leaves no file.
    fn fails(url: &str, directory: &Path, message: &str) {
        let error = fetch(url, directory).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!directory.join("file").exists());
    }

    #[test]
    fn a_server_that_breaks_off_is_asked_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let (url, log) = server(|_, asked, stream| send_part(asked, 7_000, stream));
        arrives(&url, directory.path());
        let log = log.lock().unwrap();
        let starts: Vec<_> = log.iter().map(|asked| asked.start).collect();
        assert_eq!(starts, [None, Some(7_000), Some(14_000)]);
        assert_eq!(log[1].if_range.as_deref(), Some("\"a\""));
    }

    #[test]
    fn a_later_command_goes_on_where_the_first_gave_up() {
        let directory = tempfile::tempdir().unwrap();
        let (broken, _) = server(|number, asked, stream| {
            if number == 0 {
                send_part(asked, 9_000, stream)
            }
        });
        fails(&broken, directory.path(), "what has arrived is kept");
        let (url, log) = server(|_, asked, stream| send_part(asked, usize::MAX, stream));
        arrives(&url, directory.path());
        assert_eq!(log.lock().unwrap().iter().map(|asked| asked.start).collect::<Vec<_>>(), [Some(9_000)]);
    }

    #[test]
    fn a_server_without_ranges_starts_again() {
        let directory = tempfile::tempdir().unwrap();
        let (url, _) = server(|number, _, stream| {
            let most = if number == 0 { 5_000 } else { usize::MAX };
            send_part(&Asked { path: String::new(), start: None, if_range: None }, most, stream);
        });
        arrives(&url, directory.path());
        // And one that sends another part than asked for.
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file.part"), &contents()[..100]).unwrap();
        let (url, _) = server(|_, asked, stream| {
            let start = asked.start.map(|_| 50);
            send_part(&Asked { path: String::new(), start, if_range: None }, usize::MAX, stream);
        });
        arrives(&url, directory.path());
    }

    #[test]
    fn lies_about_the_length() {
        let directory = tempfile::tempdir().unwrap();
        // A head that says another length.
        for length in [19_999usize, 20_001, usize::MAX] {
            let (url, _) = server(move |_, _, stream| {
                send(stream, &format!("200 OK\r\nContent-Length: {length}"), &contents());
            });
            fails(&url, directory.path(), "another file");
        }
        // A body without an end.
        let (url, _) = server(|_, _, stream| {
            send(stream, "200 OK", &contents());
            while stream.write_all(&[7; 4096]).is_ok() {}
        });
        fails(&url, directory.path(), "another file");
        assert!(fs::metadata(directory.path().join("file.part")).unwrap().len() <= FILE.bytes);
        // A body that ends too soon, in silence.
        let (url, _) = server(|_, _, stream| send(stream, "200 OK", &contents()[..100]));
        fails(&url, directory.path(), "100 of 20000 bytes");
        // A range of a longer file.
        let (url, _) = server(|_, asked, stream| {
            let start = asked.start.unwrap_or(0);
            send(stream, &format!("206 Partial Content\r\nContent-Range: bytes {start}-/30000"), &[0; 10]);
        });
        fails(&url, directory.path(), "another file");
    }

    #[test]
    fn a_wrong_file_is_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let (url, log) = server(|_, _, stream| send(stream, "200 OK\r\nContent-Length: 20000", &[1; 20_000]));
        fails(&url, directory.path(), "SHA-256");
        assert_eq!(log.lock().unwrap().len(), 2);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // A part of another file, from before, does not stand in the way of the right one.
        fs::write(directory.path().join("file.part"), [9; 300]).unwrap();
        let (url, _) = server(|_, asked, stream| send_part(asked, usize::MAX, stream));
        arrives(&url, directory.path());
        for left in [20_000, 30_000] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("file.part"), vec![9; left]).unwrap();
            arrives(&url, directory.path());
        }
    }

    #[test]
    fn redirections_are_followed_and_loops_are_left() {
        let directory = tempfile::tempdir().unwrap();
        let (url, _) = server(|_, asked, stream| match asked.path.as_str() {
            "/file" => send(stream, "302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0", &[]),
            _ => send_part(asked, usize::MAX, stream),
        });
        arrives(&url, directory.path());
        let directory = tempfile::tempdir().unwrap();
        let (url, _) = server(|_, _, stream| send(stream, "302 Found\r\nLocation: /file\r\nContent-Length: 0", &[]));
        fails(&url, directory.path(), "redirect");
    }

    #[test]
    fn refusals_are_told_and_troubles_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let (url, log) = server(|_, _, stream| send(stream, "404 Not Found\r\nContent-Length: 0", &[]));
        fails(&url, directory.path(), "the server answers 404");
        assert_eq!(log.lock().unwrap().len(), 1);
        let (url, _) = server(|number, asked, stream| match number {
            0 => send(stream, "503 Service Unavailable\r\nContent-Length: 0", &[]),
            1 => drop(stream.write_all(b"no HTTP at all\r\n\r\n")),
            _ => send_part(asked, usize::MAX, stream),
        });
        arrives(&url, directory.path());
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fails(&format!("http://{nobody}/file"), tempfile::tempdir().unwrap().path(), "what has arrived is kept");
    }
}

//! What the machine and the user can do to a run: signals, a directory that goes, memory that ends, a process that is killed
//! in the middle of its work. Whatever was saved before stays whole, and the message says what to do.

use crate::bars::place;
use crate::running::Running;
use crate::{json, limited, refused, striate};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const TRAIN: &str = "train --data bars --batch 20 --recipe book --seed 4";

#[test]
fn a_second_signal_ends_a_run_at_once_and_loses_nothing() {
    for name in ["-INT", "-TERM"] {
        let place = place();
        let here = place.path();
        let out = here.join("run");
        let mut child = Running::start(here, &format!("{TRAIN} --epochs 1000000 --checkpoint-every 5 --out run"));
        child.wait_for(|| fs::metadata(out.join("metrics.jsonl")).ok().filter(|file| file.len() > 1000));
        child.signal(name);
        // Two at once can arrive as one.
        thread::sleep(Duration::from_millis(2));
        child.signal(name);
        // Where the first had already brought it to its end, that is as good.
        let (status, _, stderr) = child.ended();
        assert!(matches!(status.code(), Some(0 | 130)), "{status}: {stderr}");
        // It goes on as if nothing had been.
        let done = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let epochs = done.lines().filter(|line| line.contains("\"type\":\"epoch\"")).count() + 2;
        let resumed = json(here, &format!("train --resume run --epochs {epochs}"));
        let whole = json(here, &format!("{TRAIN} --epochs {epochs} --out whole"));
        assert_eq!(resumed["weights_sha256"], whole["weights_sha256"]);
    }
}

#[test]
fn a_directory_deleted_under_a_run_is_named() {
    let place = place();
    let here = place.path();
    let out = here.join("run");
    let mut child = Running::start(here, &format!("{TRAIN} --epochs 1000000 --checkpoint-every 5 --out run"));
    child.wait_for(|| out.join("model.safetensors").exists().then_some(()));
    // The run may write between the removal of its files and of their directory.
    while out.exists() {
        let _ = fs::remove_dir_all(&out);
    }
    let (status, _, stderr) = child.ended();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("run/") && stderr.contains("No such file or directory"), "{stderr}");
    // What does not exist any more is not said to be there.
    assert!(!stderr.contains("checkpoint is whole") && !stderr.contains("The last weights are in"), "{stderr}");
}

/// Runs it with so much address space; gives exit status and stderr.
fn cramped(here: &Path, mib: u32, arguments: &str) -> (Option<i32>, String) {
    limited(here, &format!("ulimit -v {}", mib << 10), &format!("{arguments} --threads 2"))
}

#[test]
fn without_memory_the_message_says_how_much_and_what_to_lower() {
    let place = place();
    let here = place.path();
    // 9.7 million parameters: 39 MB, of which training holds several.
    let arguments = "train --data bars --set hidden=20000 --epochs 1 --batch 20 -q --out";
    let mut refused = 0;
    for mib in (200..=560).step_by(24) {
        let out = format!("run-{mib}");
        let (status, stderr) = cramped(here, mib, &format!("{arguments} {out}"));
        match status {
            Some(0) => {}
            Some(1) => {
                refused += 1;
                assert!(stderr.contains("bytes of memory for") && stderr.contains("lower the batch size"), "{stderr}");
                assert!(!here.join(out).exists(), "refused before anything is written");
            }
            _ => panic!("{mib} MiB, {status:?}: {stderr}"),
        }
    }
    assert!(refused > 0);
    // The digits that are built in, and their copies.
    for mib in (150..=350).step_by(50) {
        let (status, stderr) = cramped(here, mib, "train --epochs 1 --batch 20000 -q");
        assert!(status == Some(0) || status == Some(1) && stderr.contains("bytes of memory"), "{status:?}: {stderr}");
    }
}

#[test]
fn a_conversion_that_is_killed_leaves_the_old_file_or_the_new() {
    let place = place();
    let here = place.path();
    json(here, "train --data bars --set hidden=4000 --epochs 1 --batch 20 --out run");
    striate(here, "convert run out.onnx", 0);
    let whole = fs::read(here.join("out.onnx")).unwrap();
    let begun = Instant::now();
    striate(here, "convert run out.onnx", 0);
    let time = begun.elapsed();
    let mut killed = 0;
    for trial in 0..30 {
        // Half of the trials overwrite.
        let name = if trial % 2 == 0 { "out.onnx".to_owned() } else { format!("new-{trial}.onnx") };
        let mut child = Running::start(here, &format!("convert run {name}"));
        thread::sleep(time * trial / 30);
        killed += u32::from(child.runs());
        drop(child);
        let found = fs::read(here.join(&name));
        assert!(found.is_ok() || trial % 2 == 1);
        if let Ok(found) = found {
            assert!(found == whole, "trial {trial}: {} bytes of {}", found.len(), whole.len());
        }
    }
    assert!(killed > 5, "{killed}");
    striate(here, "verify run", 0);
}

/// Gives 1,000 bytes every 10 ms of what it is asked for, and tells where each request begins.
fn slow_server() -> (String, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), tell) = (stream, tell.clone()) else { continue };
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
                    let range = line.to_ascii_lowercase();
                    range.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
                });
                let start = range.unwrap_or(0);
                let _ = tell.send(start);
                // The length of the first file of Fashion-MNIST.
                let head = match range {
                    Some(start) => format!("206 Partial Content\r\nContent-Range: bytes {start}-5147/5148"),
                    None => "200 OK".to_owned(),
                };
                let length = 5148 - start;
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                for _ in 0..length.div_ceil(1000) {
                    if stream.write_all(&[7; 1000]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    (url, told)
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    let (url, told) = slow_server();
    let arguments = format!("data fetch fashion-mnist --from {url} --to data");
    let part = || {
        let stage = fs::read_dir(here.join("data.fetching")).ok()?;
        let mut files = stage.filter_map(|file| Some(file.ok()?.path()));
        let part = files.find(|file| file.extension().is_some_and(|ending| ending == "part"))?;
        Some(fs::metadata(part).ok()?.len() as usize)
    };
    let mut child = Running::start(here, &arguments);
    child.wait_for(|| part().filter(|&len| len > 0));
    drop(child);
    let have = part().unwrap();
    assert!(have > 0 && have < 5148, "{have}");
    assert_eq!(told.recv().unwrap(), 0);
    // Another command asks for the rest, and sees that this was not the file; nothing is stored.
    refused(here, &arguments, 1, &["another file than the one published"]);
    assert_eq!(told.recv().unwrap(), have);
    assert!(!here.join("data").exists());
}

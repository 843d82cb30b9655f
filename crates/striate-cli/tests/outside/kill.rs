//! Runs that are killed at random moments, also while they write, and resumed: the weights must be those of the run that
//! was left alone. `scripts/kill-trials.sh` kills 200 times.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SIDE: u32 = 12;

/// Every way in which a run keeps state, each with its own count of threads.
const TASKS: [&[&str]; 8] = [
    &["--optimizer", "adamw", "--schedule", "cosine:warmup=0.1", "--average", "0.99", "--checkpoint-every", "1"],
    &["--optimizer", "muon", "--augment", "affine,erase", "--average", "0", "--checkpoint-every", "3"],
    &["--optimizer", "momentum", "--keep", "best", "--clip", "0.5", "--checkpoint-every", "2"],
    &["--optimizer", "nesterov", "--schedule", "onecycle", "--augment", "crop", "--checkpoint-every", "7"],
    &["--optimizer", "rmsprop", "--model", "deep-convnet", "--epochs", "1", "--batch", "50", "--checkpoint-every", "1"],
    &["--optimizer", "adagrad", "--validation", "0.2", "--patience", "2", "--checkpoint-every", "5"],
    &["--optimizer", "sgd", "--schedule", "step", "--label-smoothing", "0.1"],
    &["--optimizer", "adam", "--model", "mlp", "--time", "1s", "--checkpoint-every", "4"],
];

/// Numbers that differ from trial to trial, and not from day to day.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A directory of IDX files: noise with a bright row that tells the class.
fn write_data(directory: &Path) {
    fs::create_dir(directory).unwrap();
    for (stem, count) in [("train", 400u32), ("t10k", 40)] {
        let header = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(magic).chain(sizes.iter().copied()).flat_map(u32::to_be_bytes).collect()
        };
        let mut dice = Dice(u64::from(count));
        let mut images = header(0x803, &[count, SIDE, SIDE]);
        for n in 0..count {
            for y in 0..SIDE {
                images.extend((0..SIDE).map(|_| dice.below(120) as u8 + if y == n % 4 * 3 { 120 } else { 0 }));
            }
        }
        let mut labels = header(0x801, &[count]);
        labels.extend((0..count).map(|n| (n % 4) as u8));
        fs::write(directory.join(format!("{stem}-images-idx3-ubyte")), images).unwrap();
        fs::write(directory.join(format!("{stem}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// The command that begins the run in `out`, or goes on with it if a step of it was saved.
fn command(place: &Path, task: &[&str], out: &Path, threads: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_striate"));
    command.current_dir(place).args(["train", "--json", "--quiet", "--threads", &threads.to_string()]);
    if out.join("last.ckpt").exists() {
        command.arg("--resume").arg(out);
    } else {
        command.args(["--data", "data", "--seed", "3"]).args(task).arg("--out").arg(out);
        if !task.contains(&"--epochs") && !task.contains(&"--time") {
            command.args(["--epochs", "4", "--batch", "30"]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child, what: &str) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{what}: {stderr}");
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Step and epoch lines without what depends on the clock.
fn metrics(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for field in ["seconds", "evaluation_seconds", "images_per_second"] {
            line[field] = Value::Null;
        }
        line.to_string()
    });
    lines.collect()
}

fn leftovers(out: &Path) -> usize {
    let Ok(entries) = fs::read_dir(out) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp")).count()
}

/// Kills `kills` times; the trials take turns at the tasks.
fn trials(kills: usize, seed: u64) {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"));
    let mut expected: Vec<Option<(PathBuf, Value, Duration)>> = vec![None; TASKS.len()];
    let mut dice = Dice(seed);
    let (mut killed, mut trials, mut writing, mut unsaved) = (0, 0, 0, 0);
    while killed < kills {
        let number = trials % TASKS.len();
        let task = TASKS[number];
        let (whole, result, time) = expected[number].get_or_insert_with(|| {
            let out = place.path().join(format!("whole-{number}"));
            let begun = Instant::now();
            let result = finish(command(place.path(), task, &out, 2).spawn().unwrap(), "the whole run");
            (out, result, begun.elapsed())
        });
        let out = place.path().join(format!("trial-{trials}"));
        if task.contains(&"--time") {
            // The number of steps is measured; so that the trial has the whole run's, it begins as a copy of it at its start.
            let mut child = command(place.path(), task, &out, 2).spawn().unwrap();
            while !out.join("last.ckpt").exists() && child.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let copy = place.path().join(format!("copy-{trials}"));
            fs::create_dir(&copy).unwrap();
            fs::copy(out.join("last.ckpt"), copy.join("last.ckpt")).unwrap();
            *result = finish(command(place.path(), task, &copy, 1).spawn().unwrap(), "the copy");
            *whole = copy;
            killed += 1;
        }
        // Up to three times in one run, and then it may end.
        for _ in 0..=dice.below(3) {
            let mut child = command(place.path(), task, &out, 1 + dice.below(3)).spawn().unwrap();
            let moment = Instant::now() + Duration::from_micros(dice.below(1 + time.as_micros() as u64 * 6 / 5));
            // Half of the kills wait for a file that is being written.
            let wait_for_writing = dice.below(2) == 0;
            let mut ended = false;
            while !ended && (Instant::now() < moment || wait_for_writing && leftovers(&out) == 0) {
                ended = child.try_wait().unwrap().is_some();
            }
            if ended {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            writing += usize::from(leftovers(&out) > 0);
            unsaved += usize::from(!out.join("last.ckpt").exists());
        }
        let found = finish(command(place.path(), task, &out, 1 + dice.below(3)).spawn().unwrap(), "the resumed run");
        for key in ["weights_sha256", "steps", "epochs", "test_accuracy", "test_loss", "kept_epoch"] {
            assert_eq!(found[key], result[key], "{key} of trial {trials}: {task:?}");
        }
        assert_eq!(metrics(&out), metrics(whole), "metrics.jsonl of trial {trials}: {task:?}");
        assert_eq!(leftovers(&out), 0, "{task:?}");
        fs::remove_dir_all(&out).unwrap();
        trials += 1;
    }
    println!(
        "{killed} kills in {trials} runs, {writing} of them in the middle of writing a file, {unsaved} before the first \
         checkpoint: all {trials} runs ended with the weights and the metrics of the run that was left alone"
    );
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    trials(5, 1);
}

#[test]
#[ignore = "takes minutes: scripts/kill-trials.sh"]
fn many_kills() {
    let kills = std::env::var("STRIATE_KILLS").map_or(200, |kills| kills.parse().expect("a number of kills"));
    trials(kills, std::process::id().into());
}

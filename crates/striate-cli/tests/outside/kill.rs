//! Runs that are killed at random moments, also while they write, and resumed: the weights must be those of the run that
//! was left alone. `scripts/kill-trials.sh` kills 200 times.

use crate::bars::{self, SIDE};
use crate::finished;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

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
    bars::write(directory, 400, |n| {
        let mut dice = Dice(u64::from(n));
        // Numbers one after the other have much the same first one.
        dice.below(1);
        let bright = |i: usize| i / SIDE == n as usize % 4 * 3;
        (0..SIDE * SIDE).map(|i| dice.below(120) as u8 + if bright(i) { 120 } else { 0 }).collect()
    });
}

/// The command that begins the run in `out`, or goes on with it if a step of it was saved.
fn command(place: &Path, task: &[&str], out: &Path, threads: u64) -> Command {
    let resumes = out.join("last.ckpt").exists();
    let mut arguments = vec!["train", "--json", "--quiet", if resumes { "--resume" } else { "--out" }];
    let (out, threads) = (out.to_str().unwrap(), threads.to_string());
    arguments.extend([out, "--threads", &threads]);
    if !resumes {
        arguments.extend(["--data", "data", "--seed", "3"]);
        arguments.extend(task);
        if !task.contains(&"--epochs") && !task.contains(&"--time") {
            arguments.extend(["--epochs", "4", "--batch", "30"]);
        }
    }
    let mut command = crate::command(place, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for its result.
fn finish(child: Child, what: &str) -> Value {
    let (stdout, _) = finished(child.wait_with_output().unwrap(), &[what], 0);
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

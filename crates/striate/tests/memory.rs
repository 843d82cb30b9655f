//! What a plan says it takes is what the process takes: each case runs in a process of its own, whose peak of resident memory
//! Linux tells.
#![cfg(target_os = "linux")]

use std::process::Command;
use striate::models::{self, Request};
use striate::network::{Mode, Network, Plan, Runner, StepKey};
use striate::optim::OptimizerOptions;

const CASE: &str = "STRIATE_MEMORY_CASE";

/// Name, batch, whether it trains: each of more than 100 MiB, so that what the process itself takes says little.
const CASES: [(&str, usize, bool); 4] = [
    ("alexnet-torchvision", 4, true),
    ("alexnet-torchvision", 2, false),
    ("resnet18", 2, true),
    ("simple-convnet", 2000, true),
];

/// Peak resident memory so far, in bytes.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
fn a_plan_takes_the_memory_it_says() {
    if peak().is_none() {
        return;
    }
    for (i, (name, batch, trains)) in CASES.into_iter().enumerate() {
        let description = models::build(name, &Request::default()).unwrap();
        let summary = description.summary(batch).unwrap();
        // The optimizer's velocity comes on top, as the summary says.
        let told = if trains { summary.peak_bytes + 4 * summary.parameters } else { summary.inference_bytes };
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "in_a_process_of_its_own", "--nocapture"]).env(CASE, i.to_string());
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let taken = text.lines().find_map(|line| line.strip_prefix("taken ")).expect(&text).parse::<usize>().unwrap();
        let off = taken as f64 / told as f64 - 1.0;
        assert!(told > 100 << 20, "{name}: {told} bytes are too few to tell");
        assert!(off.abs() < 0.1, "{name}, batch {batch}, trains: {trains}: told {told} bytes, took {taken}: {off:+.3}");
    }
}

/// Does nothing unless the test above asks.
#[test]
fn in_a_process_of_its_own() {
    let Some(case) = std::env::var(CASE).ok().and_then(|case| case.parse::<usize>().ok()) else { return };
    let (name, batch, trains) = CASES[case];
    // The binary, its libraries and its threads.
    rayon::broadcast(|_| ());
    let base = peak().unwrap();
    let mut network = Network::new(models::build(name, &Request::default()).unwrap(), 1).unwrap();
    let mode = if trains { Mode::Training } else { Mode::Inference };
    let mut runner = Runner::new(Plan::new(network.description(), batch, mode).unwrap()).unwrap();
    if trains {
        let mut gradients = network.parameters().zeros_like();
        let mut optimizer = OptimizerOptions::momentum().build(network.parameters().len()).unwrap();
        for step in 0..2 {
            runner.loss_and_gradient(network.parameters(), &mut gradients, StepKey { seed: 1, step });
            optimizer.update(0.001, network.parameters_mut().as_mut_slice(), gradients.as_slice());
        }
    } else {
        runner.predict(network.parameters());
    }
    println!("\ntaken {}", peak().unwrap() - base);
}

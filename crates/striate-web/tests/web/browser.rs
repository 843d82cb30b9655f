//! The page in a real browser: tests/browser/trial.mjs, which says what it needs.

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs Node.js, Chromium and a trained run: STRIATE_TRIAL_RUN=RUN cargo test -p striate-web -- --ignored"]
fn in_a_real_browser() {
    let run =
        std::env::var_os("STRIATE_TRIAL_RUN").expect("STRIATE_TRIAL_RUN names a run directory of a model of MNIST");
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let trial = crate_directory.join("tests/browser/trial.mjs");
    let root = crate_directory.ancestors().nth(2).unwrap();
    let status = Command::new("node").arg(trial).arg(run).current_dir(root).status().expect("node");
    assert!(status.success());
}

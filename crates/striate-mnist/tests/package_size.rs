//! crates.io refuses packages over 10 MiB, and the data alone takes nine.

use std::{path::Path, process::Command};

#[test]
fn the_package_stays_below_the_registrys_limit() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package-size");
    let package = target.join("package");
    // A package left by another version must not be measured.
    if package.exists() {
        std::fs::remove_dir_all(&package).unwrap();
    }
    let output = Command::new(env!("CARGO"))
        .args(["package", "--package", "striate-mnist", "--allow-dirty", "--no-verify", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = package.join(concat!("striate-mnist-", env!("CARGO_PKG_VERSION"), ".crate"));
    let bytes = std::fs::metadata(file).unwrap().len();
    assert!(bytes < 10 << 20, "the package is {bytes} bytes, over crates.io's limit of {}", 10 << 20);
}

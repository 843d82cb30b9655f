//! `striate-web build`: the page as a static site.

#[cfg(not(target_family = "wasm"))]
mod build;

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    build::main()
}

#[cfg(target_family = "wasm")]
fn main() {}

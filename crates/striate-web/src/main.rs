//! `striate-web build`: the page as a static site.

#[cfg(not(target_family = "wasm"))]
mod build;

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    build::main()
}

// As WebAssembly the program is the engine: the linker exports `local::exports`, and nobody calls this.
#[cfg(target_family = "wasm")]
use striate_web as _;

#[cfg(target_family = "wasm")]
fn main() {}

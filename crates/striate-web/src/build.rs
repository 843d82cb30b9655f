//! Builds the static site: the library for WebAssembly, the page's files and a model, in one directory that any web server
//! can serve.

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use striate::formats::{FormatError, LoadError, ModelFile, WriteError, load_model, write_atomically};
use striate_web::local::{self, Lesson, LocalError};
use striate_web::page;

const TARGET: &str = "wasm32-unknown-unknown";
/// Where the page's files lie, here and in the page's own words.
const PAGE: &str = "page";
const MODEL: &str = "model.safetensors";
const ENGINE: &str = "striate.wasm";
/// What `local::exports` gives to JavaScript.
const EXPORTS: [&str; 3] = ["room", "answer", "place"];
/// Vector instructions, and a stack for the larger arrays of decoders and plots.
const FLAGS: &str = "-C target-feature=+simd128 -C link-arg=-zstack-size=4194304";

const EXAMPLES: &str = "Examples:
  cargo run --release -p striate-web -- build
  cargo run --release -p striate-web -- build runs/simple-convnet-mnist-1 --out site
  python3 -m http.server --directory site

The engine is built with cargo for wasm32-unknown-unknown: `rustup target add wasm32-unknown-unknown`, or on Debian 12
`apt install rustc-web rust-web-src lld`.";

/// The page of Striate as a static site
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Makes the site: HTML, JavaScript, the library as WebAssembly, and a model
    Build(BuildArgs),
    /// Says whether a toolchain is here that the site can be built with; status 3 if not
    Check,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct BuildArgs {
    /// The model that the page opens with: a .safetensors or .onnx file or a run directory [default: SimpleConvNet, trained
    /// now on MNIST for one epoch]
    model: Option<PathBuf>,
    /// Where the site goes; files of an earlier build are replaced
    #[arg(long, value_name = "DIR", default_value = "site")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing on the way
    #[arg(long)]
    quiet: bool,
}

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(
        "no toolchain for {TARGET} is here; `rustup target add {TARGET}`, or on Debian 12 \
         `apt install rustc-web rust-web-src lld`"
    )]
    NoToolchain,
    #[error("{command} could not be started: {source}")]
    Start { command: String, source: std::io::Error },
    #[error("{command} failed: {status}")]
    Failed { command: String, status: std::process::ExitStatus },
    #[error("{path}: could not be {action}: {source}", path = .path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    #[error("{}: no such model; a .safetensors or .onnx file or a run directory is needed", .0.display())]
    NoModel(PathBuf),
    #[error("the page's index.html has no </title>")]
    NoTitle,
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Local(#[from] LocalError),
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Commands::Build(args) => build(&args),
        Commands::Check => match Toolchain::find() {
            Some(toolchain) => {
                println!("{}", toolchain.name());
                Ok(())
            }
            None => {
                eprintln!("{}", BuildError::NoToolchain);
                return ExitCode::from(3);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What builds for WebAssembly.
#[derive(Clone, Copy)]
enum Toolchain {
    /// The compiler that cargo uses, with the target's standard library.
    Rustup,
    /// Debian's rustc-web, which builds the standard library along.
    Debian,
}

impl Toolchain {
    const DEBIAN: &'static str = "/usr/bin/rustc";

    fn find() -> Option<Self> {
        let says = |compiler: &str, question: &[&str]| {
            let output =
                Command::new(compiler).args(question).output().ok().filter(|output| output.status.success())?;
            Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
        };
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let library = says(&compiler, &["--print", "target-libdir", "--target", TARGET]);
        if library.is_some_and(|library| holds_std(&library)) {
            return Some(Self::Rustup);
        }
        let sources = says(Self::DEBIAN, &["--print", "sysroot"])?.join("lib/rustlib/src/rust/library/std");
        let linker = Command::new("wasm-ld").arg("--version").output().is_ok();
        (sources.is_dir() && linker).then_some(Self::Debian)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup's wasm32-unknown-unknown",
            Self::Debian => "Debian's rustc-web",
        }
    }

    /// Builds the library; gives the file.
    fn build(self, root: &Path) -> Result<PathBuf, BuildError> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(&cargo);
        command.current_dir(root).env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
        command.args(["rustc", "--release", "--quiet", "-p", "striate-web", "--bin", "striate-web"]);
        command.args(["--target", TARGET]);
        // Two compilers' results don't mix.
        let directory = match self {
            Self::Rustup => root.join("target"),
            Self::Debian => root.join("target/debian"),
        };
        command.arg("--target-dir").arg(&directory);
        if let Self::Debian = self {
            command.env("RUSTC", Self::DEBIAN).env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
            command.arg("-Zbuild-std=std,panic_abort");
        }
        command.args(["--", "-C", "strip=symbols"]);
        // A program, not a cdylib: that would export what every crate below exports, and import what those want.
        for name in EXPORTS {
            command.args(["-C", &format!("link-arg=--export={name}")]);
        }
        run(&mut command, &cargo)?;
        Ok(directory.join(TARGET).join("release/striate-web.wasm"))
    }
}

fn holds_std(library: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(library) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

fn run(command: &mut Command, name: &str) -> Result<(), BuildError> {
    let status = command.status().map_err(|source| BuildError::Start { command: name.into(), source })?;
    match status.success() {
        true => Ok(()),
        false => Err(BuildError::Failed { command: name.into(), status }),
    }
}

fn build(args: &BuildArgs) -> Result<(), BuildError> {
    let say = |text: &str| {
        if !args.quiet {
            eprintln!("{text}");
        }
    };
    let toolchain = Toolchain::find().ok_or(BuildError::NoToolchain)?;
    // Before minutes of compiling: a model that can't be read.
    let model = match &args.model {
        Some(path) => load(path)?,
        None => {
            say("training SimpleConvNet for one epoch");
            let lesson = Lesson {
                images: usize::MAX,
                epochs: 1,
                optimizer: "adam".into(),
                learning_rate: None,
                seed: 1,
                steps: None,
            };
            local::train(&lesson)?
        }
    };
    say(&format!("compiling the engine with {}", toolchain.name()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let engine = read(&toolchain.build(root)?)?;
    let directory = args.out.join(PAGE).join("views");
    let io = |source| BuildError::Io { path: directory.clone(), action: "made", source };
    std::fs::create_dir_all(&directory).map_err(io)?;
    for (name, text) in page::FILES.iter().chain(page::WORKER) {
        match *name {
            "index.html" => write_atomically(args.out.join(name), index(text)?.as_bytes())?,
            name => write_atomically(args.out.join(PAGE).join(name), text.as_bytes())?,
        }
    }
    write_atomically(args.out.join(ENGINE), &engine)?;
    model.save(&args.out.join(MODEL))?;
    let (out, name) = (args.out.display(), &model.network.description().name);
    say(&format!("{out}: the page with {name}; the engine has {:.1} MB", engine.len() as f64 / 1e6));
    say(&format!("  python3 -m http.server --directory {out}"));
    if args.json {
        println!(
            "{}",
            json!({ "out": args.out, "model": name, "wasm_bytes": engine.len(), "toolchain": toolchain.name() })
        );
    }
    Ok(())
}

fn load(path: &Path) -> Result<ModelFile, BuildError> {
    let file = if path.is_dir() { path.join(MODEL) } else { path.to_owned() };
    if !file.is_file() {
        return Err(BuildError::NoModel(path.to_owned()));
    }
    Ok(load_model(&file)?)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|source| BuildError::Io { path: path.to_owned(), action: "read", source })
}

/// The page that takes its engine from a worker, and loads nothing that is not beside it.
fn index(text: &str) -> Result<String, BuildError> {
    let end = "</title>\n";
    let (before, after) = text.split_once(end).ok_or(BuildError::NoTitle)?;
    let policy = page::STATIC;
    Ok(format!(
        "{before}{end}<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"engine\" content=\"worker\">\n{after}"
    ))
}

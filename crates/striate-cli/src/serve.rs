//! `striate serve`

use crate::error::CliError;
use crate::model;
use crate::model::WeightsOption;
use crate::output::{Output, complain};
use crate::source;
use crate::source::ReadingArgs;
use clap::Args;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use striate_web::Studio;
use striate_web::server::{Options, Server};
use striate_web::studio::DataSource;

const EXAMPLES: &str = "Examples:
  striate serve runs/simple-convnet-mnist-1
  striate serve model.safetensors --addr 0.0.0.0:8080 --token $TOKEN
  curl --data-binary @digit.png http://127.0.0.1:7878/predict
  curl -F a=@one.png -F b=@two.png http://127.0.0.1:7878/predict?top=3
  curl --json '{\"images\": [\"'$(base64 -w0 digit.png)'\"]}' http://127.0.0.1:7878/predict

Beside POST /predict there are GET /model, /healthz, /metrics (Prometheus) and /openapi.json.
On loopback (the default) only this machine gets in. On any other address every request needs the token, as
`Authorization: Bearer TOKEN`, unless --open is given. Ctrl-C or SIGTERM ends the server once what it accepted is answered.";

/// Predictions over HTTP, and a page to try the model and look inside
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// Data for the page's images: a name, or a directory or list of images as for `train` [default: what the model was
    /// trained on]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Where to listen; port 0 for any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7878", value_parser = parse_address)]
    addr: SocketAddr,
    /// What every request must know [default: none on loopback, elsewhere one is made and printed]
    #[arg(long, value_name = "TOKEN", conflicts_with = "open")]
    token: Option<String>,
    /// No token, on any address: whoever reaches it may use it
    #[arg(long)]
    open: bool,
    /// How the weights are kept; bf16 rounds those of large fully connected layers, and reads half the bytes
    #[arg(long, value_enum, default_value_t = WeightsOption::F32)]
    weights: WeightsOption,
    /// Images predicted at a time, at most
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_batch: u16,
    /// Milliseconds that an image waits for others that are on their way; a lone one never waits
    #[arg(long, value_name = "MS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=1000))]
    max_wait_ms: u16,
    /// Images that may wait; beyond that the answer is 503
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// The largest body, in MiB; beyond that the answer is 413
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_body: u16,
    /// The largest picture, in millions of pixels; beyond that the answer is 413
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=64))]
    max_megapixels: u16,
    /// Connections at a time, as far as the system allows so many open files; beyond that the one that has been idle
    /// longest is closed
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// Seconds that a request's head may take, and an idle connection stays open
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    head_timeout: u16,
    /// Seconds that a body may take
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    body_timeout: u16,
}

/// HOST:PORT, a name among the hosts too.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let needed = "HOST:PORT is needed, as in 127.0.0.1:7878 or [::1]:7878";
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("{error}; {needed}"))?;
    addresses.next().ok_or_else(|| format!("the name has no address; {needed}"))
}

/// Options of a server that listens there, for those who know the token.
pub(crate) fn options_of(address: SocketAddr, token: Option<&str>, open: bool) -> Options {
    Options { address, token: token.map(Into::into), open, ..Options::default() }
}

/// Serves until it is told to end.
pub(crate) fn run(args: &ServeArgs, output: &Output) -> Result<ExitCode, CliError> {
    let model = model::load(&args.model)?;
    let name = model.network.description().name.clone();
    let options = Options {
        weights: args.weights.into(),
        max_batch: args.max_batch.into(),
        max_wait: Duration::from_millis(args.max_wait_ms.into()),
        queue: args.queue.into(),
        max_body: usize::from(args.max_body) << 20,
        max_pixels: u64::from(args.max_megapixels) * 1_000_000,
        max_connections: args.max_connections.into(),
        head_timeout: Duration::from_secs(args.head_timeout.into()),
        body_timeout: Duration::from_secs(args.body_timeout.into()),
        ..options_of(args.addr, args.token.as_deref(), args.open)
    };
    let data = args.data.as_deref().map_or_else(|| source::known(&model), |data| Some(data.to_owned()));
    let mut studio = Studio::new(model).at_most(options.max_pixels);
    if let Some(data) = data {
        if !source::exists(&data) {
            return Err(CliError::Usage(format!("--data {data:?} is not here; this version reads {}", source::KINDS)));
        }
        let reading = ReadingArgs::default().options(None, Some(&studio.model().preprocessing));
        let read = data.clone();
        studio = studio.with_data(DataSource::new(data, move || {
            let read = source::load(&read, &reading, &Output::silent());
            read.map(|source| source.splits).map_err(|error| error.to_string())
        }));
    }
    let server = Server::bind(Arc::new(studio), options)?;
    output.line(format!("{name} is served at {}", server.url()));
    output.hint("  open it in a browser to draw, drop an image, look inside");
    output.hint("  POST /predict   an image file, a form with files, or JSON; GET /openapi.json says more");
    output.hint("Ctrl-C ends it.");
    output.json(&serde_json::json!({ "url": server.url(), "address": server.address().to_string(), "model": name }));
    let quiet = output.is_quiet();
    server.run_until_signal(move || {
        if !quiet {
            complain("\nfinishing what was accepted; once more to stop at once");
        }
    });
    Ok(ExitCode::SUCCESS)
}

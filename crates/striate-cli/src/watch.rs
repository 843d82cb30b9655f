//! `striate train --watch`: a page that shows the run.

use crate::error::CliError;
use crate::model::FILE;
use crate::output::{Output, complain};
use crate::run_dir::RunDir;
use crate::serve::{options_of, parse_address};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use striate::data::{Dataset, Splits};
use striate::explain::Images;
use striate::formats::ModelFile;
use striate::train::{Control, EpochMetrics, Event, TrainOptions};
use striate_web::Studio;
use striate_web::server::{Running, Server};
use striate_web::studio::{DataSource, Live};

/// Images of each part that the page has to show, at most.
const SHOWN: usize = 10_000;

/// Where the page is, and for whom.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct WatchArgs {
    /// Show the run on a page, at 127.0.0.1:7878 or another address: curves, filters, gradients, mistakes; pause, resume, stop.
    /// The page stays until Ctrl-C. On a terminal with a display beside it, a browser is opened, unless --quiet is given
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:7878")]
    #[arg(value_parser = parse_address, conflicts_with_all = ["seeds", "find_lr"])]
    watch: Option<SocketAddr>,
    /// What every request of the page must know [default: none on loopback, elsewhere one is made and printed]
    #[arg(long, value_name = "TOKEN", conflicts_with = "open", requires = "watch")]
    token: Option<String>,
    /// No token for the page, on any address: whoever reaches it may stop the run
    #[arg(long, requires = "watch")]
    open: bool,
}

/// The page of a run.
pub(crate) struct Watched {
    studio: Arc<Studio>,
    server: Running,
    quiet: bool,
}

impl WatchArgs {
    /// Serves the page, if it is asked for: of this model, which is to be trained on these data.
    pub(crate) fn start(
        &self,
        model: ModelFile,
        (train, test): (&Dataset, &Dataset),
        options: &TrainOptions,
        history: Vec<EpochMetrics>,
        output: &Output,
    ) -> Result<Option<Watched>, CliError> {
        let Some(address) = self.watch else { return Ok(None) };
        let some = |data: &Dataset| {
            let images = Images::new(data, &model.preprocessing.normalization).at_most(SHOWN);
            data.subset(&(0..images.len()).map(|k| images.index(k)).collect::<Vec<_>>())
        };
        let splits = Splits { train: some(train), test: some(test) };
        let data = DataSource::new(train.name(), move || Ok(splits.clone()));
        let studio = Arc::new(Studio::new(model).with_data(data).with_live(Live::new(options, history)));
        let options = options_of(address, self.token.as_deref(), self.open);
        let server = Server::bind(Arc::clone(&studio), options)?.start()?;
        let quiet = output.is_quiet();
        if !quiet {
            complain(&format!("watch it at {}", server.url()));
        }
        if output.is_screen() && has_display() {
            let url = server.url().to_owned();
            // Some openers only come back when the browser is closed; and one that fails leaves the address above.
            std::thread::spawn(move || opener::open_browser(url));
        }
        Ok(Some(Watched { studio, server, quiet }))
    }
}

/// Whether a browser has somewhere to appear.
fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

impl Watched {
    /// Shows an event; says what the page wants.
    pub(crate) fn follow(&self, event: &Event<'_>, interrupted: &AtomicBool) -> Control {
        self.studio.follow(event, &|| interrupted.load(Ordering::Relaxed))
    }

    /// The run has ended well: its model can be looked at.
    pub(crate) fn finish(&self, run: &RunDir) -> Result<(), CliError> {
        self.studio.finish(ModelFile::load(&run.file(FILE))?);
        Ok(())
    }

    /// Where the page is.
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// Lets the page stand until the process is told to end.
    pub(crate) fn stay(self, interrupted: &AtomicBool) {
        if !self.quiet && !interrupted.load(Ordering::Relaxed) {
            complain(&format!("the page stays at {} until Ctrl-C", self.url()));
        }
        while !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.server.stop();
    }
}

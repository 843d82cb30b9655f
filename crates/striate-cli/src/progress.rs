//! Progress to stderr: a live bar on a terminal, a line an epoch elsewhere, nothing when quiet.

use crate::output::complain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};
use striate::train::{EpochMetrics, Event};

/// The bar of a training run.
pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    /// A person watches.
    live: bool,
    epochs: usize,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let live = !quiet && stderr().is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let template = "{prefix} [{bar:25}] {percent:>3} %  {msg}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, quiet, live, epochs: 0 }
    }

    /// Shows an event.
    pub(crate) fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { epochs, steps_per_epoch, images, total_steps, step } => {
                self.epochs = *epochs;
                self.bar.set_length(*total_steps);
                self.bar.set_position(*step);
                // What was done before takes no time now.
                self.bar.reset_eta();
                self.note(&format!("{images} images, epochs: {epochs} of {steps_per_epoch} steps"));
                if *step > 0 {
                    self.note(&format!("resumed after step {step} of {total_steps}"));
                }
            }
            Event::Step { epoch, step, loss, accuracy, images_per_second, steps_per_epoch, .. } => {
                self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
                let within = (*step as usize).saturating_sub(1) % steps_per_epoch + 1;
                self.bar.set_message(format!(
                    "step {within}/{steps_per_epoch}  loss {loss:.4}  accuracy {:.2} %  {images_per_second:.0} images/s",
                    100.0 * accuracy
                ));
                self.bar.set_position(*step);
            }
            Event::Evaluating { epoch, images } => {
                self.bar.set_message(format!("evaluating epoch {epoch} on {images} images"));
            }
            Event::Epoch { metrics, .. } => self.epoch(metrics),
            _ => {}
        }
    }

    fn epoch(&self, metrics: &EpochMetrics) {
        let accuracy = |what: &str, accuracy: Option<f64>| {
            accuracy.map_or(String::new(), |a| format!("  {what} accuracy {:.2} %", 100.0 * a))
        };
        let held_out = accuracy("validation", metrics.validation_accuracy) + &accuracy("test", metrics.test_accuracy);
        self.line(&format!(
            "epoch {:>width$}/{}  loss {:.4}  training accuracy {:.2} %{held_out}  {:.1} s",
            metrics.epoch,
            self.epochs,
            metrics.train_loss,
            100.0 * metrics.train_accuracy,
            metrics.seconds + metrics.evaluation_seconds,
            width = self.epochs.to_string().len(),
        ));
    }

    /// A line above the bar, for a person who watches.
    pub(crate) fn note(&self, text: &str) {
        if self.live {
            self.line(text);
        }
    }

    /// A line above the bar, or of the log where there is no bar.
    fn line(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| complain(text));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar on stderr, for a person who waits longer than a moment.
pub(crate) struct Bar {
    bar: ProgressBar,
    begun: Instant,
}

impl Bar {
    const MOMENT: Duration = Duration::from_millis(500);

    /// A bar with this in front of it.
    pub(crate) fn new(what: &'static str, quiet: bool) -> Self {
        let bar = if quiet || !stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::no_length() };
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:25}] {pos} of {len}  {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        Self { bar, begun: Instant::now() }
    }

    /// Shows how much is done, once a moment has passed.
    pub(crate) fn show(&self, done: usize, all: usize) {
        if self.begun.elapsed() > Self::MOMENT {
            self.bar.set_length(all as u64);
            self.bar.set_position(done as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

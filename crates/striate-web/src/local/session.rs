//! A run in slices, for one thread that has other things to do, too.

use std::time::Duration;
use striate::clock::Instant;
use striate::data::{Dataset, Normalization, Splits};
use striate::network::Network;
use striate::train::{Checkpoint, Control, Event, Fingerprints, TrainError, TrainOptions, TrainSummary, Trainer};

/// Steps after which a slice may end.
const EVERY: u64 = 5;

/// A run that is taken up again and again: each slice goes on from the checkpoint of the one before, so that slices give,
/// to the bit, what the run gives at one go.
pub struct Session {
    network: Network,
    /// If it is not all of the training set.
    train: Option<Dataset>,
    normalization: Normalization,
    options: TrainOptions,
    fingerprints: Option<Fingerprints>,
    checkpoint: Option<Checkpoint>,
    /// Whether the last slice ended so that it can be told that the next one evaluates.
    evaluates: bool,
}

impl Session {
    /// A run of this network, on the whole training set or these images of it; trains nothing yet.
    pub fn new(network: Network, train: Option<Dataset>, normalization: Normalization, options: TrainOptions) -> Self {
        Self { network, train, normalization, options, fingerprints: None, checkpoint: None, evaluates: false }
    }

    /// The network as the last slice left it.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The options that it began with.
    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// Trains for about as long as `slice`, some steps at least; or evaluates, which is a slice of its own and may take longer.
    /// Gives the run's summary once it has come to its end or `on_event` has stopped it. `splits` are the same each time.
    ///
    /// # Errors
    /// Those of [`Trainer::run`].
    pub fn advance(
        &mut self,
        splits: &Splits,
        slice: Duration,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<Option<TrainSummary>, TrainError> {
        let begun = Instant::now();
        let train = self.train.as_ref().unwrap_or(&splits.train);
        let (normalization, options) = (self.normalization.clone(), self.options.clone());
        let trainer = Trainer::new(&mut self.network, train, Some(&splits.test), normalization, options)?;
        let fingerprints = self.fingerprints.get_or_insert_with(|| trainer.fingerprints()).clone();
        let mut trainer = trainer.checkpoints(Some(EVERY)).known_by(fingerprints);
        let first = self.checkpoint.as_ref().map_or(0, Checkpoint::step);
        if let Some(checkpoint) = self.checkpoint.take() {
            trainer = trainer.resume(checkpoint);
        }
        let (mut over, mut kept) = (false, None);
        let evaluates = &mut self.evaluates;
        let summary = trainer.run(&mut |event| match event {
            Event::Checkpoint { state } => {
                over |= state.step() > first && begun.elapsed() >= slice;
                // Without one the slice would be lost: it then goes on to the run's end.
                kept = if over { state.to_checkpoint().ok() } else { None };
                if kept.is_some() { Control::Stop } else { Control::Continue }
            }
            Event::Evaluating { .. } => {
                *evaluates = !*evaluates;
                over |= *evaluates;
                match on_event(event) {
                    Control::Continue if *evaluates => Control::Stop,
                    control => control,
                }
            }
            event => on_event(event),
        })?;
        if kept.is_some() && summary.stopped {
            self.checkpoint = kept;
            return Ok(None);
        }
        Ok(Some(summary))
    }
}

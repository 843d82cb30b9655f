//! Going over the images of a data set.

use super::{ExplainError, lens};
use crate::data::{Dataset, Normalization};
use crate::network::{Mode, Network, Taps};
use std::ops::Range;

/// The images that a view goes over, and how far it has come.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    data: &'a Dataset,
    normalization: &'a Normalization,
    count: usize,
    progress: Option<&'a dyn Fn(usize, usize)>,
}

impl<'a> Images<'a> {
    /// Images of a pass at a time, where taps of this many fit into [`Self::MOST_NUMBERS`].
    const BATCH: usize = 50;
    /// Numbers that the taps of a pass may hold.
    const MOST_NUMBERS: usize = 1 << 25;

    /// All images of `data`.
    pub fn new(data: &'a Dataset, normalization: &'a Normalization) -> Self {
        Self { data, normalization, count: data.len(), progress: None }
    }

    /// No more than `most`, spread evenly over the data, which may be sorted by class.
    pub fn at_most(self, most: usize) -> Self {
        Self { count: self.count.min(most), ..self }
    }

    /// Calls `progress` with the number of images that are done and that of all.
    pub fn progress(self, progress: &'a dyn Fn(usize, usize)) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The data set.
    pub fn data(&self) -> &'a Dataset {
        self.data
    }

    /// Position in the data set of the `k`-th of them.
    ///
    /// ```
    /// use striate::data::{Dataset, Normalization, one_class_names};
    /// let x = ndarray::Array4::zeros((10, 1, 2, 2));
    /// let data = Dataset::from_arrays(x, vec![0; 10], one_class_names(1))?;
    /// let scale = Normalization::identity();
    /// let images = striate::explain::Images::new(&data, &scale).at_most(4);
    /// assert_eq!((0..images.len()).map(|k| images.index(k)).collect::<Vec<_>>(), [0, 2, 5, 7]);
    /// # Ok::<(), striate::data::DataError>(())
    /// ```
    pub fn index(&self, k: usize) -> usize {
        (k as u128 * self.data.len() as u128 / self.count.max(1) as u128) as usize
    }

    /// The class of the `k`-th.
    pub fn label(&self, k: usize) -> usize {
        self.data.labels()[self.index(k)]
    }

    /// Whether a network can be asked for the classes of these images.
    ///
    /// # Errors
    /// Images of another size, or another number of classes.
    pub fn check(&self, network: &Network) -> Result<(), ExplainError> {
        self.check_shape(network)?;
        let (found, expected) = (self.data.classes(), network.classes());
        if found == expected {
            return Ok(());
        }
        Err(ExplainError::Classes { data: self.data.name().into(), found, expected })
    }

    fn check_shape(&self, network: &Network) -> Result<(), ExplainError> {
        let (found, expected) = (self.data.shape(), network.input());
        if found == expected {
            return Ok(());
        }
        Err(ExplainError::Data { data: self.data.name().into(), found, expected })
    }

    /// Calls `work` with the images in the network's own scale, so many at a time; what lies beyond the range it is told
    /// repeats the last image.
    pub(super) fn batches(
        &self,
        network: &Network,
        batch: usize,
        mut work: impl FnMut(Range<usize>, &[f32]),
    ) -> Result<(), ExplainError> {
        self.check_shape(network)?;
        if self.is_empty() {
            let (found, expected) = ("0".into(), "1 or more".into());
            return Err(ExplainError::Option { option: "the number of images", found, expected });
        }
        let mut pixels = vec![0.0; batch * network.input().len()];
        for start in (0..self.count).step_by(batch) {
            let indices: Vec<usize> = (start..start + batch).map(|k| self.index(k.min(self.count - 1))).collect();
            self.data.gather(&indices, self.normalization, &mut pixels);
            let end = (start + batch).min(self.count);
            work(start..end, &pixels);
            if let Some(progress) = self.progress {
                progress(end, self.count);
            }
        }
        Ok(())
    }

    /// Images at a time, where a pass holds `numbers` for each.
    pub(super) fn batch(&self, numbers: usize) -> usize {
        (Self::MOST_NUMBERS / numbers.max(1)).clamp(1, Self::BATCH).min(self.count.max(1))
    }

    /// Runs the network over them, and calls `work` with the number of a layer among `layers`, that of an image, and the
    /// layer's output for it.
    pub(super) fn outputs(
        &self,
        network: &Network,
        layers: &[&str],
        mut work: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), ExplainError> {
        let mut numbers = network.input().len();
        for &layer in layers.iter().filter(|&&layer| layer != "input") {
            numbers = numbers.saturating_add(lens::shape_of(network.description(), layer)?.len());
        }
        let batch = self.batch(numbers);
        let mut runner = lens::runner(network, batch, Mode::Inference, &Taps::of(layers.iter().copied()))?;
        self.batches(network, batch, |range, pixels| {
            runner.input_mut().copy_from_slice(pixels);
            runner.predict(network.parameters());
            for (l, layer) in layers.iter().enumerate() {
                let values = runner.tap(layer).unwrap_or_default();
                let len = (values.len() / batch).max(1);
                for (k, sample) in range.clone().zip(values.chunks_exact(len)) {
                    work(l, k, sample);
                }
            }
        })
    }
}

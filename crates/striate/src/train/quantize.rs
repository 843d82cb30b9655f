//! From a network in float to one in bytes, calibrated on images of a data set.

use super::{TrainError, check_data, on_worker};
use crate::data::augment::Augment;
use crate::data::{Dataset, Normalization, gather};
use crate::int8::{Calibration, CalibrationOptions, QuantizedNetwork};
use crate::network::Network;
use ndarray::ArrayView4;

/// How a network is quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeOptions {
    /// Images to calibrate on, taken at equal distances from all of the data; all of them if there are fewer.
    pub images: usize,
    /// What is observed on them.
    pub calibration: CalibrationOptions,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self { images: 512, calibration: CalibrationOptions::default() }
    }
}

/// Post-training quantization: `network` folded, its activations calibrated on some images of `data`, and its weights
/// rounded to bytes; also the folded network with the weights that the bytes stand for. Labels are not looked at. `progress` is told how many images are done, and of how many.
///
/// # Errors
/// Data that does not fit the network, no images, weights or activations that are not finite, or memory that can't be
/// had.
pub fn quantize(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    options: &QuantizeOptions,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<(Network, QuantizedNetwork), TrainError> {
    if options.images == 0 {
        return Err(TrainError::Option { field: "calibration images", found: "0".into(), expected: "at least 1" });
    }
    check_data(data, network.input(), normalization)?;
    if let Some((name, value, position)) = super::first_non_finite(network.parameters()) {
        return Err(TrainError::NonFiniteParameter { parameter: name.into(), value, position });
    }
    let count = options.images.min(data.len());
    let indices: Vec<usize> = (0..count).map(|i| (i as u128 * data.len() as u128 / count as u128) as usize).collect();
    let mut calibration = Calibration::new(network, options.calibration)?;
    on_worker(|| {
        let shape = network.input();
        let mut pixels = vec![0.0; calibration.batch().min(count) * shape.len()];
        for indices in indices.chunks(calibration.batch()) {
            let pixels = &mut pixels[..indices.len() * shape.len()];
            gather(data, indices, normalization, (&Augment::none(), 0, 0), pixels);
            let dim = (indices.len(), shape.channels, shape.height, shape.width);
            if let Ok(x) = ArrayView4::from_shape(dim, pixels) {
                calibration.observe(x)?;
            }
            progress(calibration.images(), count);
        }
        Ok(calibration.finish()?)
    })
}

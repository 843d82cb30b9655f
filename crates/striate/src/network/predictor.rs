//! Predictions again and again: one plan, one arena, weights packed once.

use super::{Network, NetworkError, Plan, Runner, Weights, fill};
use ndarray::{Array2, ArrayView4};

/// A network ready to predict batches of one size. Unlike [`Network::predict`] it plans, reserves and packs once, so that
/// every further call only computes.
///
/// ```
/// use ndarray::Array4;
/// use striate::{models, network::{Network, Predictor, Weights}};
/// let network = Network::new(models::build("simple-convnet", &Default::default())?, 1)?;
/// let mut predictor = Predictor::new(&network, 1, Weights::F32)?;
/// let x = Array4::from_elem((1, 1, 28, 28), 0.5);
/// assert_eq!(predictor.predict(x.view())?, network.predict(x.view())?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug)]
pub struct Predictor<'a> {
    network: &'a Network,
    runner: Runner,
}

impl<'a> Predictor<'a> {
    /// For batches of `batch` samples, with weights kept as `weights` says.
    ///
    /// # Errors
    /// A batch of 0 or beyond any memory.
    pub fn new(network: &'a Network, batch: usize, weights: Weights) -> Result<Self, NetworkError> {
        let runner = Runner::new(Plan::inference(&network.description, batch, weights)?)?;
        Ok(Self { network, runner })
    }

    /// Logits (N, classes) of N samples (N, C, H, W), where N is the batch size.
    ///
    /// # Errors
    /// Another number of samples, samples of another shape, or a value that is not finite.
    pub fn predict(&mut self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        self.network.check_input(x, None)?;
        let batch = self.runner.batch();
        crate::layers::expect_shape("the batch (samples)", &[batch], &[x.dim().0])?;
        fill(&mut self.runner, x, None);
        let mut logits = Array2::zeros((batch, self.network.classes()));
        logits.iter_mut().zip(self.runner.predict(&self.network.parameters)).for_each(|(l, &s)| *l = s);
        Ok(logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use crate::random::{Purpose, Random};
    use crate::shape::Shape;
    use ndarray::Array4;

    #[test]
    fn large_layers_round_their_weights_and_no_others() {
        let input = Shape::new(1, 32, 33);
        let settings = [("hidden".to_string(), "[1024, 16]".to_string())];
        let request = models::Request { input: Some(input), classes: Some(4), settings: &settings };
        let network = Network::new(models::build("mlp", &request).unwrap(), 1).unwrap();
        let random = Random::new(1, Purpose::Test, 0);
        let x = Array4::from_shape_fn((3, 1, 32, 33), |(n, _, h, w)| random.normal((n * 1056 + h * 33 + w) as u64));
        let exact = network.predict(x.view()).unwrap();
        let mut rounded = network.clone();
        let weights = network.parameters().specs().iter().find(|spec| spec.name == "W1").unwrap().range.clone();
        for w in &mut rounded.parameters_mut().as_mut_slice()[weights] {
            *w = f32::from_bits(u32::from(crate::kernels::affine_bf16::round(*w)) << 16);
        }
        let expected = rounded.predict(x.view()).unwrap();
        let found = Predictor::new(&network, 3, Weights::Bf16).unwrap().predict(x.view()).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found} {expected}");
        assert_ne!(found, exact);
        let mut one = Predictor::new(&network, 1, Weights::Bf16).unwrap();
        // Twice: what is packed is kept.
        for _ in 0..2 {
            let alone = one.predict(x.slice(ndarray::s![2..3, .., .., ..])).unwrap();
            assert!(alone.row(0).iter().zip(found.row(2)).all(|(a, b)| (a - b).abs() < 1e-5), "{alone} {found}");
        }
        let error = one.predict(x.view()).unwrap_err().to_string();
        assert!(error.contains("[1]") && error.contains("[3]"), "{error}");
    }
}

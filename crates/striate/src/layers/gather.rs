//! What layers share that only move numbers: each output number is one of the input's, or a constant.

use super::{Backward, Forward, Operator};
use crate::shape::{Shape, ShapeError, checked_product};
use rayon::prelude::*;

/// The most places a table may have: it is kept in memory.
const MOST_PLACES: usize = 1 << 28;
/// Stands for a constant in place of the input's numbers.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Copies runs of numbers.
#[derive(Debug)]
pub(super) struct GatherOperator {
    input: usize,
    output: Shape,
    /// Numbers that stand side by side in input and output.
    run: usize,
    /// Where each run of the output begins in the input, or [`NOWHERE`].
    places: Vec<u32>,
    /// What stands where no number of the input does.
    constant: f32,
}

impl GatherOperator {
    /// `place(i)` says where run `i` of the output begins in the input.
    pub(super) fn new(
        input: Shape,
        output: Shape,
        run: usize,
        constant: f32,
        place: impl FnMut(usize) -> Option<usize>,
    ) -> Result<Self, ShapeError> {
        let count = output.len() / run.max(1);
        checked_product(&[input.checked_len(1)?])?;
        if count > MOST_PLACES || input.len() >= NOWHERE as usize {
            return Err(ShapeError::TooLarge { sizes: <[usize; 3]>::from(output).to_vec() });
        }
        let places = (0..count).map(place).map(|place| place.map_or(NOWHERE, |place| place as u32)).collect();
        Ok(Self { input: input.len(), output, run, places, constant })
    }
}

impl Operator for GatherOperator {
    fn output(&self) -> Shape {
        self.output
    }

    fn forward(&self, f: Forward<'_>) {
        let samples = f.output.par_chunks_exact_mut(self.output.len()).zip(f.input.par_chunks_exact(self.input));
        samples.for_each(|(y, x)| {
            for (y, &place) in y.chunks_exact_mut(self.run).zip(&self.places) {
                match place {
                    NOWHERE => y.fill(self.constant),
                    place => y.copy_from_slice(&x[place as usize..][..self.run]),
                }
            }
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let dx = b.input_gradient;
        let samples = dx.values.par_chunks_exact_mut(self.input);
        samples.zip(b.output_gradient.par_chunks_exact(self.output.len())).for_each(|(to, dy)| {
            if !dx.accumulate {
                to.fill(0.0);
            }
            for (dy, &place) in dy.chunks_exact(self.run).zip(&self.places).filter(|(_, place)| **place != NOWHERE) {
                to[place as usize..][..self.run].iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
            }
        });
    }
}

//! The executor of a plan (being written).
use super::{NetworkError, Parameters, plan::Plan};
/// Names a training step, so that its random numbers depend on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The run's seed.
    pub seed: u64,
    /// Steps done before this one.
    pub step: u64,
}
/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss over the batch.
    pub loss: f32,
    /// Samples whose largest logit is their label's.
    pub correct: usize,
}
/// A plan with its arena.
#[derive(Debug)]
pub struct Runner {}
impl Runner {
    /// Reserve the arena.
    pub fn new(plan: Plan) -> Result<Self, NetworkError> {
        let _ = plan;
        todo!()
    }
    /// Samples in a batch.
    pub fn batch(&self) -> usize {
        todo!()
    }
    /// (N, C, H, W) to fill before a run.
    pub fn input_mut(&mut self) -> &mut [f32] {
        todo!()
    }
    /// Labels to fill before a run with loss.
    pub fn labels_mut(&mut self) -> &mut [usize] {
        todo!()
    }
    /// Logits (N, classes).
    pub fn predict(&mut self, parameters: &Parameters) -> &[f32] {
        let _ = parameters;
        todo!()
    }
    /// Forward with loss.
    pub fn loss(&mut self, parameters: &Parameters) -> StepResult {
        let _ = parameters;
        todo!()
    }
    /// Forward, backward; overwrites `gradients`.
    pub fn loss_and_gradient(
        &mut self,
        parameters: &Parameters,
        gradients: &mut Parameters,
        key: StepKey,
    ) -> StepResult {
        let _ = (parameters, gradients, key);
        todo!()
    }
}

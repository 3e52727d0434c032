//! Which sample of the training data a bad one is.

use halfstep_data::{DataError, Sampler as Order};

use super::diagnosis::{Cause, Diagnosis};
use crate::recipe::Experiment;

impl Experiment {
    /// Adds which sample of the training data a bad one is.
    ///
    /// # Errors
    /// A batch larger than the data.
    pub(crate) fn locate(&self, diagnosis: &mut Diagnosis) -> Result<(), DataError> {
        if let Cause::BadInput { sample, .. } = diagnosis.cause {
            let part = &self.data.train;
            let mut order = Order::new(part.len(), self.recipe.train.batch, diagnosis.seed)?;
            let number = order.batch(diagnosis.attempt).1[sample];
            diagnosis
                .evidence
                .push(format!("sample {sample} of the batch is number {number} of the training data"));
        }
        Ok(())
    }
}

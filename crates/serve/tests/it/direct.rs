//! Answers by the echo model, without batches.

use std::sync::Arc;
use std::time::Duration;

use halfstep_serve::infer::{Answer, Inference, Refusal};
use halfstep_serve::limits::Reservation;
use halfstep_serve::model::{ModelInfo, ServedModel};
use halfstep_serve::tensor::Tensor;

use crate::echo::{DIGEST, Echo};

/// Answers by the model at once.
pub struct Direct(pub Arc<Echo>);

impl Inference for Direct {
    fn ready(&self) -> bool {
        true
    }

    fn info(&self, model: &str, version: Option<&str>) -> Result<ModelInfo, Refusal> {
        if model != "echo" {
            return Err(Refusal::UnknownModel(model.into()));
        }
        match version {
            Some(version) if version.is_empty() || !DIGEST.starts_with(version) => {
                Err(Refusal::UnknownVersion(version.into()))
            }
            _ => Ok(self.0.info().clone()),
        }
    }

    async fn infer(
        &self,
        model: &str,
        version: Option<&str>,
        inputs: Vec<Tensor>,
        mut held: Reservation,
    ) -> Result<Answer, Refusal> {
        let info = self.info(model, version)?;
        // A request for a pause, so that tests can do something meanwhile.
        if inputs.first().is_some_and(|tensor| tensor.name() == "pause") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        held.make(self.0.memory(&inputs))?;
        let outputs = self.0.compute(vec![self.0.prepare(&inputs)?])?.remove(0);
        Ok(Answer { digest: info.digest, outputs, held })
    }
}

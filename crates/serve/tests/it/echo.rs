//! A model that gives back what it is given, of every type.

use std::sync::Arc;

use bytes::Bytes;
use halfstep_serve::model::{ComputeError, InputError, ModelInfo, Prepared, ServedModel, TensorSpec};
use halfstep_serve::tensor::{Datatype, Tensor};

pub const DIGEST: &str = "5f3c1e0d9b8a79685746352413021fedcba987654321f0e1d2c3b4a5968778ab";

pub const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
    "FP64", "BYTES",
];

pub struct Echo(ModelInfo);

impl Echo {
    pub fn new() -> Arc<Echo> {
        let spec = |name: &&str| TensorSpec {
            name: name.to_lowercase(),
            datatype: Datatype::named(name).expect("a datatype"),
            shape: vec![None],
        };
        let specs: Vec<TensorSpec> = DATATYPES.iter().map(spec).collect();
        Arc::new(Echo(ModelInfo {
            name: "echo".into(),
            digest: DIGEST.into(),
            platform: "halfstep_echo".into(),
            inputs: specs.clone(),
            outputs: specs,
            memory: 0,
            max_batch: 8,
        }))
    }
}

impl ServedModel for Echo {
    type Samples = Vec<Tensor>;

    fn info(&self) -> &ModelInfo {
        &self.0
    }

    fn memory(&self, inputs: &[Tensor]) -> usize {
        // A copy, and an answer, which is no longer than the request was.
        2 * inputs.iter().map(|tensor| tensor.data().len()).sum::<usize>()
    }

    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared<Vec<Tensor>>, InputError> {
        if inputs.is_empty() {
            return Err(InputError("there is no input".into()));
        }
        let copy = |tensor: &Tensor| {
            let data = Bytes::copy_from_slice(tensor.data());
            Tensor::new(tensor.name(), tensor.datatype(), tensor.shape().to_vec(), data)
        };
        let samples: Result<Vec<Tensor>, _> = inputs.iter().map(copy).collect();
        Ok(Prepared { count: 1, samples: samples.map_err(|e| InputError(e.to_string()))? })
    }

    fn compute(&self, requests: Vec<Prepared<Vec<Tensor>>>) -> Result<Vec<Vec<Tensor>>, ComputeError> {
        Ok(requests.into_iter().map(|request| request.samples).collect())
    }
}

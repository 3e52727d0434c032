//! The answer to an inference: JSON, after which binary outputs may follow.

use serde::Serialize;

use super::WireError;
use super::json::Elements;
use super::request::{Form, Request, Wanted};
use crate::infer::output;
use crate::tensor::Tensor;

#[derive(Serialize)]
struct Head<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// The bytes of an answer.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// The length of the JSON, where binary outputs follow it.
    pub(super) header_length: Option<usize>,
}

/// Writes the outputs that `request` asks for.
pub(super) fn write(
    model_name: &str,
    model_version: &str,
    request: &Request,
    outputs: &[Tensor],
) -> Result<Body, WireError> {
    let chosen: Vec<(&Tensor, Form)> = match &request.wanted {
        Wanted::All(form) => outputs.iter().map(|tensor| (tensor, *form)).collect(),
        Wanted::Named(names) => {
            let named = |(name, form): &(String, Form)| {
                let tensor = output(outputs, name).map_err(|e| WireError(e.0));
                tensor.map(|tensor| (tensor, *form))
            };
            names.iter().map(named).collect::<Result<_, _>>()?
        }
    };
    let mut head = Head { model_name, model_version, id: request.id.as_deref(), outputs: Vec::new() };
    for &(tensor, form) in &chosen {
        let elements = Elements(tensor);
        if form == Form::Json {
            elements.check()?;
        }
        head.outputs.push(Output {
            name: tensor.name(),
            datatype: tensor.datatype().name(),
            shape: tensor.shape(),
            parameters: (form == Form::Binary).then(|| Parameters { binary_data_size: tensor.data().len() }),
            data: (form == Form::Json).then_some(elements),
        });
    }
    let mut bytes =
        serde_json::to_vec(&head).map_err(|_| WireError("the outputs have no JSON form".into()))?;
    let length = bytes.len();
    let mut header_length = None;
    for (tensor, _) in chosen.iter().filter(|(_, form)| *form == Form::Binary) {
        header_length = Some(length);
        bytes.extend_from_slice(tensor.data());
    }
    Ok(Body { bytes, header_length })
}

//! A request for an inference: JSON, after which binary tensors may follow.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{WireError, json};
use crate::infer::short;
use crate::tensor::{Datatype, Tensor};

/// The most inputs, and the most outputs that a request names.
const MOST_TENSORS: usize = 256;
/// The most axes of a tensor.
const MOST_AXES: usize = 32;

/// How an output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the JSON.
    Json,
    /// After the JSON, as the bytes that it is.
    Binary,
}

/// Which outputs are asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    /// All, in the order of the model.
    All(Form),
    /// Those of these names, in this order.
    Named(Vec<(String, Form)>),
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Request {
    /// A text of the client's, which the answer repeats.
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) wanted: Wanted,
}

#[derive(Deserialize)]
struct Head<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, deserialize_with = "at_most::<_, _, MOST_TENSORS>")]
    inputs: Vec<Input<'a>>,
    #[serde(default, deserialize_with = "at_most::<_, _, MOST_TENSORS>")]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    datatype: String,
    #[serde(deserialize_with = "at_most::<_, _, MOST_AXES>")]
    shape: Vec<usize>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Those that mean something here, and those of Triton's that would change the answer and are
/// refused. The protocol leaves all parameters to the server, and others are of no effect.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    classification: Option<IgnoredAny>,
    priority: Option<IgnoredAny>,
    sequence_end: Option<IgnoredAny>,
    sequence_id: Option<IgnoredAny>,
    sequence_start: Option<IgnoredAny>,
    shared_memory_region: Option<IgnoredAny>,
    timeout: Option<IgnoredAny>,
}

impl Parameters {
    fn check(&self) -> Result<(), WireError> {
        let refused = [
            ("classification", &self.classification),
            ("priority", &self.priority),
            ("sequence_end", &self.sequence_end),
            ("sequence_id", &self.sequence_id),
            ("sequence_start", &self.sequence_start),
            ("shared_memory_region", &self.shared_memory_region),
            ("timeout", &self.timeout),
        ];
        match refused.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(WireError(format!("the parameter `{name}` is not supported"))),
            None => Ok(()),
        }
    }
}

impl Request {
    /// Reads a body. `header_length` is the length of its JSON where binary tensors follow;
    /// tensors may have `most_bytes` together.
    pub(super) fn read(
        body: &Bytes,
        header_length: Option<usize>,
        most_bytes: usize,
    ) -> Result<Request, WireError> {
        let length = header_length.unwrap_or(body.len());
        if length > body.len() {
            return Err(WireError(format!(
                "Inference-Header-Content-Length is {length}, and the body has {} bytes",
                body.len()
            )));
        }
        let head: Head = serde_json::from_slice(&body[..length]).map_err(|e| malformed(&e))?;
        head.parameters.check()?;
        let mut tensors = Tensors {
            rest: header_length.map(|_| body.slice(length..)),
            room: most_bytes,
            names: HashSet::new(),
        };
        let inputs = head.inputs.into_iter().map(|input| tensors.next(input)).collect::<Result<_, _>>()?;
        if let Some(rest) = tensors.rest.filter(|rest| !rest.is_empty()) {
            return Err(WireError(format!(
                "the body has {} bytes more than its JSON and the binary data of its inputs",
                rest.len()
            )));
        }
        let form = |binary: Option<bool>| if binary == Some(true) { Form::Binary } else { Form::Json };
        let default = form(head.parameters.binary_data_output);
        let mut names = HashSet::new();
        let mut wanted = Vec::new();
        for Output { name, parameters } in head.outputs {
            parameters.check()?;
            if !names.insert(name.clone()) {
                return Err(WireError(format!("output `{}` is asked for twice", short(&name))));
            }
            wanted.push((name, parameters.binary_data.map_or(default, |binary| form(Some(binary)))));
        }
        let wanted = if wanted.is_empty() { Wanted::All(default) } else { Wanted::Named(wanted) };
        Ok(Request { id: head.id, inputs, wanted })
    }
}

/// What is left of a body.
struct Tensors {
    /// Binary data that no input has taken yet; none where the body is JSON alone.
    rest: Option<Bytes>,
    /// Bytes that further inputs may have.
    room: usize,
    names: HashSet<String>,
}

impl Tensors {
    fn next(&mut self, input: Input) -> Result<Tensor, WireError> {
        let Input { name, datatype, shape, parameters, data } = input;
        let of_input = |what: String| WireError(format!("input `{}`: {what}", short(&name)));
        parameters.check()?;
        let datatype = Datatype::named(&datatype)
            .ok_or_else(|| of_input(format!("`{}` is no datatype of the protocol", short(&datatype))))?;
        let count = shape.iter().try_fold(datatype.size().unwrap_or(4), |n, &extent| n.checked_mul(extent));
        let room = count.and_then(|bytes| self.room.checked_sub(bytes));
        self.room = room.ok_or_else(|| of_input("the tensors have more bytes than are taken".into()))?;
        if !self.names.insert(name.clone()) {
            return Err(of_input("it is given twice".into()));
        }
        let bytes = match (parameters.binary_data_size, data, &mut self.rest) {
            (None, Some(data), _) => json::read(&name, datatype, &shape, data)?,
            (Some(size), None, Some(rest)) if size <= rest.len() => rest.split_to(size),
            (Some(size), None, Some(rest)) => {
                return Err(of_input(format!(
                    "binary_data_size is {size}, and the body has {} bytes left",
                    rest.len()
                )));
            }
            (Some(_), None, None) => {
                return Err(of_input(
                    "binary data needs the header Inference-Header-Content-Length, the length of the JSON"
                        .into(),
                ));
            }
            (Some(_), Some(_), _) => {
                return Err(of_input("it has both `data` and binary_data_size".into()));
            }
            (None, None, _) => {
                return Err(of_input("it has neither `data` nor binary_data_size".into()));
            }
        };
        Tensor::new(name, datatype, shape, bytes).map_err(|e| WireError(e.to_string()))
    }
}

/// What is wrong with the JSON. The parser's own words repeat values, which messages must not.
fn malformed(error: &serde_json::Error) -> WireError {
    let what = match error.classify() {
        serde_json::error::Category::Data => {
            "its members are not those of an inference request, which has `inputs` with `name`, `shape` (at most 32 extents), `datatype` and `data` or binary data, and may have `id`, `parameters` and `outputs`; at most 256 of each"
        }
        _ => "it is no JSON",
    };
    WireError(format!("the request, at line {} column {}: {what}", error.line(), error.column()))
}

/// An array of at most `N`: a short text must not become a large list.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(d: D) -> Result<Vec<T>, D::Error> {
    struct List<T, const N: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "an array of at most {N}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                if list.len() == N {
                    return Err(de::Error::invalid_length(N + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    d.deserialize_seq(List::<T, N>(PhantomData))
}

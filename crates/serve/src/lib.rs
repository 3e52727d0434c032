//! A server of models by the Open Inference Protocol, version 2
//! (<https://github.com/kserve/open-inference-protocol>), over REST and gRPC at one address.
//!
//! The server knows tensors, requests and versions of models. What a model computes, and where
//! versions come from, it is given: a [`ServedModel`](model::ServedModel) and a
//! [`VersionSource`](model::VersionSource).
//!
//! | module | what it is for |
//! |---|---|
//! | [`tensor`] | named tensors, as they come from and go to a client |
//! | [`access`] | API keys: who may ask what |
//! | [`limits`] | what a request may be, and the memory that all share |
//! | [`model`] | what the server asks of a model, and of what names the version that answers |

#![forbid(unsafe_code)]

pub mod access;
mod files;
pub mod limits;
pub mod model;
pub mod tensor;

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
//! | [`infer`] | the one call that both protocols make |
//! | [`rest`] | the protocol over HTTP |
//! | [`guard`] | the key of each request, over both protocols |
//! | [`tls`] | the certificate of a server |
//! | [`listener`] | connections of both versions of HTTP, with their limits |
//! | [`limits`] | what a request may be, and the memory that all share |
//! | [`batcher`] | requests that wait are computed together |
//! | [`versions`] | the versions that are loaded, and the change from one to another |
//! | [`grpc`] | the protocol over gRPC |
//! | [`metrics`] | counters, as OpenMetrics |
//! | [`log`] | structured logs |
//! | [`server`] | all of it together, and its end |
//! | [`model`] | what the server asks of a model, and of what names the version that answers |

#![forbid(unsafe_code)]

pub mod access;
mod activity;
pub mod batcher;
mod files;
pub mod grpc;
pub mod guard;
pub mod infer;
pub mod limits;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod model;
pub mod rest;
pub mod server;
pub mod tensor;
pub mod tls;
pub mod versions;
mod work;

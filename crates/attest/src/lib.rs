//! Signatures and signed statements about models.
//!
//! What is signed is an [in-toto statement](statement) in a [DSSE envelope](bundle) in a Sigstore
//! bundle, as OpenSSF Model Signing 1.0 has it
//! (<https://github.com/ossf/model-signing-spec/blob/main/spec/v1.0.md>). Four kinds of statement
//! are known: the [files of a model](model), the [verdict] of a comparison with the digests of all
//! that it judged, the verdict of a [pair] of models, and a [move](movement) of a registry's alias.
//!
//! | module | what it is for |
//! |---|---|
//! | [`public_key`], [`private_key`] | keys on the NIST curves, and their files |
//! | [`certificate`] | chains of X.509 certificates |
//! | [`trust`] | who is trusted, and from when to when |
//! | [`bundle`], [`statement`] | the form of a signature and of what it signs |
//! | [`model`] | the files of a folder and their digests |
//! | [`verdict`] | what a comparison judged, and how |
//! | [`pair`] | what a converted model came to against the one that it was made of |
//! | [`movement`] | moves of an alias, and whether one is the next |
//! | [`policy`], [`margin`] | which evidence a model needs before it is promoted |
//!
//! Nothing here uses the network. Digests are SHA-256.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod certificate;
pub mod digest;
pub mod margin;
pub mod model;
pub mod movement;
pub mod pair;
pub mod policy;
pub mod private_key;
pub mod public_key;
pub mod statement;
pub mod subject;
pub mod trust;
pub mod verdict;

/// A second of UTC, as certificates have it. Its text is `2026-11-27T23:15:00Z`.
pub use x509_cert::der::DateTime;

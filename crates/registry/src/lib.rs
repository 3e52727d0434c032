//! A registry of models: versions, which never change, and aliases, which say which of them is
//! used.
//!
//! A registry is a folder: a database ([`registry::Registry`]) and files by their content.
//!
//! | module | what it is for |
//! |---|---|
//! | [`registry`] | the registry as a whole |
//! | [`names`] | names of models and aliases, and references to versions |
//! | [`actor`] | who does something, when and why |
//! | [`version`] | versions, their files, and what is attached to them |
//! | [`moves`] | the numbered history of aliases |
//! | [`mover`] | who signed a move |
//! | [`promotion`] | what a promotion rests on, and the way back |
//! | [`hold`] | what keeps a version that is in use |
//! | [`gc`] | removal of what nobody uses |
//! | [`audit`] | whether everything is what was written |
//! | [`seen`] | what a client remembers of a registry |
//! | [`archive`], [`import`] | a registry as one file |
//! | [`error`] | what can go wrong |

#![forbid(unsafe_code)]

pub mod actor;
pub mod archive;
pub mod audit;
mod blobs;
mod database;
pub mod error;
pub mod gc;
pub mod hold;
pub mod import;
mod moment;
pub mod mover;
pub mod moves;
pub mod names;
pub mod promotion;
pub mod registry;
pub mod seen;
pub mod version;

pub use error::RegistryError;
pub use registry::Registry;

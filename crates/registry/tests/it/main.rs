//! What a registry promises, on folders of its own.

mod archive;
mod killed;
mod place;
mod registry;
mod signed;

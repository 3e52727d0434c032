//! A registry of models: versions, which never change, and aliases, which say which of them is
//! used.

#![forbid(unsafe_code)]

//! The server as its clients see it, over sockets of this machine.

mod abuse;
mod changed;
mod client;
mod connections;
mod direct;
mod echo;
mod peer;
mod routes;

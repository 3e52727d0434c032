//! The server as its clients see it, over sockets of this machine.

mod abuse;
mod changed;
mod client;
mod connections;
mod direct;
mod echo;
mod grpc;
mod hot_change;
mod peer;
mod routes;

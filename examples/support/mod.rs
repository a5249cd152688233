//! What the examples stand on: cluster DNS, a node with pods, and a readable terminal, all inside one program on loopback.

#![allow(
    dead_code,
    unused_imports,
    reason = "every example compiles this module and uses a part of it"
)]

pub(crate) mod dns;
pub(crate) mod pod;
pub(crate) mod term;
mod zone;

pub(crate) use dns::ClusterDns;
pub(crate) use pod::{Node, Pod};

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

//! What the examples stand on: cluster DNS, a node with pods, and a readable terminal, all inside
//! one program on loopback.

#![allow(
    dead_code,
    unused_imports,
    reason = "every example compiles this module and uses a part of it"
)]

pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod load;
pub(crate) mod observer;
mod outcome;
pub(crate) mod pod;
#[cfg(feature = "tokio-postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "tokio-postgres")]
pub(crate) mod switchover;
pub(crate) mod term;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod workload;
mod zone;

pub(crate) use dns::ClusterDns;
pub(crate) use outcome::outcome;
pub(crate) use pod::Node;
pub(crate) use workload::Workload;

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

//! Client-side load balancing over Kubernetes headless services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod draw;

mod eject;
mod endpoint;
mod policy;
mod probe;
pub mod registry;
pub mod resolve;
mod set;

pub use endpoint::{Address, Endpoint, InFlight};
pub use policy::{
    First, LeastRequest, Policy, PolicyFn, PreferReplica, Primary, Random, Replica, RoundRobin,
    policy_fn,
};
pub use probe::{Observation, Probe, ProbeError, ProbeFn, Role, Term, probe_fn};
pub use registry::{EmptyMode, NewService, Status};
#[cfg(feature = "dns")]
pub use resolve::dns::Dns;
pub use resolve::{Fixed, Resolution, Resolve, ResolveError, ResolveErrorKind, System};
pub use set::{Candidates, Choice, EndpointSet, Position};

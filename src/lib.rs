//! Client-side load balancing over Kubernetes headless services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod draw;

mod eject;
mod endpoint;
mod probe;
pub mod resolve;
mod set;

mod policy;
pub mod registry;

mod balancer;
mod builder;
mod driver;
mod service;

#[cfg(feature = "http")]
mod http;

pub use balancer::{Balancer, Change, Changes, Pick, PickError, Pod};
pub use builder::Builder;
pub use driver::Driver;
pub use endpoint::{Address, Endpoint, InFlight};
#[cfg(feature = "http")]
pub use http::{HttpError, HttpPod, HttpResponseFuture, HttpService};
pub use policy::{
    First, LeastRequest, Policy, PolicyFn, PreferReplica, Primary, Random, Replica, RoundRobin,
    policy_fn,
};
pub use probe::{Observation, Probe, ProbeError, ProbeFn, Role, Term, probe_fn};
pub use registry::{EmptyMode, NewService, Status};
#[cfg(feature = "dns")]
pub use resolve::dns::{Dns, Family, NameError, NameErrorKind};
pub use resolve::{Fixed, Resolution, Resolve, ResolveError, ResolveErrorKind, System};
pub use service::{BalanceLayer, Error, ResponseFuture};
pub use set::{Candidates, Choice, EndpointSet, Position};

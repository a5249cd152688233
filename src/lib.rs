//! Client-side load balancing over Kubernetes headless services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod draw;

mod endpoint;
pub mod resolve;

pub use endpoint::{Address, Endpoint, InFlight};
#[cfg(feature = "dns")]
pub use resolve::dns::{Dns, Family, NameError, NameErrorKind};
pub use resolve::{Fixed, Resolution, Resolve, ResolveError, ResolveErrorKind, System};

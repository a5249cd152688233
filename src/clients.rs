//! The HTTP clients that a program already has, balanced: hyper-util's, and reqwest.
//!
//! They keep their own connections. What only the balancer's own connections can do
//! (`Builder::spawn_http`), each of them says.

#[cfg(feature = "hyper-client")]
mod counted;
#[cfg(feature = "hyper-client")]
mod error;
#[cfg(feature = "hyper-client")]
mod layer;
#[cfg(feature = "hyper-client")]
mod pod;
#[cfg(feature = "hyper-client")]
mod request;
#[cfg(feature = "reqwest")]
mod resolver;

#[cfg(feature = "hyper-client")]
pub use counted::Counted;
#[cfg(feature = "hyper-client")]
pub use error::ClientError;
#[cfg(feature = "hyper-client")]
pub use layer::ClientLayer;
#[cfg(feature = "hyper-client")]
pub use pod::ClientPod;
#[cfg(feature = "reqwest")]
pub use resolver::ReqwestResolver;

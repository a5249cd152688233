//! HTTP to the pods: each has its own connections, and exactly one address is dialled.
//!
//! ```text
//! Balancer<HttpPod>.call --> Exchange --> Attempt --> HttpPod --> Pool --> dial --> Socket (TCP, TLS)
//!                            which pods,   one pod     checkout    the pod's         hyper speaks
//!                            how often                             connections       HTTP/1.1 or /2
//! ```
//!
//! A pod takes about 1 kB without a connection. A connection of HTTP/1.1 takes 30 kB, one of HTTP/2 50 kB: hyper's
//! and h2's buffers (`cargo bench --bench overhead -- --memory`, 64-bit Linux).
//!
//! The pod's readiness *is* the checkout of a live connection, so a pod that refuses shows while the
//! request is still here and can go elsewhere.

use crate::{balancer::Balancer, builder::Builder};

mod answering;
mod attempt;
mod body;
mod classify;
mod client;
mod config;
mod connection;
mod dial;
#[cfg(feature = "http2")]
mod driving;
mod error;
mod exchange;
mod health;
mod latency;
#[cfg(feature = "http2")]
mod linking;
mod message;
mod outgoing;
mod pod;
mod pool;
mod request;
#[cfg(feature = "tls")]
mod secured;
mod service;
#[cfg(feature = "http2")]
mod shared;
mod socket;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "hyper-client")]
pub(crate) use answering::Answering;
pub use body::HttpBody;
pub use classify::HttpAnswer;
#[cfg(feature = "hyper-client")]
pub(crate) use classify::{Classify, cause_of_connect, lost};
pub use config::Http;
pub use error::HttpError;
pub use message::Idempotent;
pub use pod::HttpPod;
pub use service::{HttpResponseFuture, HttpService};

use client::{Client, Pods};

impl Builder {
    /// Builds a balanced HTTP client with the default settings ([`Http`]), and spawns its driver.
    ///
    /// The balancer is a tower service of [`http::Request<B>`] for any body `B`. The request's URI decides the `Host`
    /// header and the path as with any client; *where* it goes is the policy's choice, so the URI may
    /// name the service (`http://catalog.shop/items/1`) and its port is not dialled.
    ///
    /// Connections to a pod are kept while they are used at least every 55 s, and made when all are
    /// busy. A request that waits takes the first that is made or becomes free. A
    /// request counts as in flight until the body of its response has ended ([`HttpBody`]).
    ///
    /// ```no_run
    /// use headless_lb::{Balancer, Dns};
    /// use http_body_util::Empty;
    /// use hyper::{Request, body::Bytes};
    /// use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let catalog = Balancer::builder(Dns::headless("catalog.shop.svc.cluster.local", 8080)?).spawn_http();
    /// let request = Request::get("http://catalog.shop/items/1").body(Empty::<Bytes>::new())?;
    /// let response = catalog.clone().oneshot(request).await?;
    /// # let _ = response;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime. Connections run on the runtime of this call.
    #[must_use = "discovery ends when the last handle is dropped"]
    pub fn spawn_http(&self) -> Balancer<HttpPod> {
        self.spawn_http_with(Http::new())
    }

    /// As [`spawn_http`](Self::spawn_http), with settings of your own.
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime. Connections run on the runtime of this call.
    #[must_use = "discovery ends when the last handle is dropped"]
    pub fn spawn_http_with(&self, settings: Http) -> Balancer<HttpPod> {
        self.spawn_signalling(|signals| Pods::of(Client::new(settings, signals)))
    }
}

//! HTTP/1.1 to the pods: one pool of connections for each, and exactly one address dialled.
//!
//! First form: plain HTTP/1.1. The pod's readiness *is* the checkout of a live connection, so a pod
//! that refuses shows while the request is still here and can go elsewhere.

use std::sync::Arc;

use http_body::Body;

use crate::{balancer::Balancer, builder::Builder, endpoint::Endpoint};

mod body;
mod connection;
mod dial;
mod error;
mod pod;
mod pool;
mod request;
mod service;

pub use body::HttpBody;
pub use error::HttpError;
pub use pod::HttpPod;
pub use service::{HttpResponseFuture, HttpService};

impl Builder {
    /// Builds a balanced HTTP/1.1 client over request bodies of type `B`, and spawns its driver.
    ///
    /// The balancer is a tower service of [`http::Request<B>`]. The request's URI decides the `Host`
    /// header and the path as with any client; *where* it goes is the policy's choice, so the URI may
    /// name the service (`http://catalog.shop/items/1`) and its port is not dialled.
    ///
    /// Connections to a pod are kept while they are used at least every 55 s, and made when all are
    /// busy, within 1.5 s. A request that waits takes the first that is made or becomes free. A
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
    /// let catalog = Balancer::builder(Dns::headless("catalog.shop.svc.cluster.local", 8080)?)
    ///     .spawn_http::<Empty<Bytes>>();
    /// let request = Request::get("http://catalog.shop/items/1").body(Empty::new())?;
    /// let response = catalog.clone().oneshot(request).await?;
    /// # let _ = response;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime.
    pub fn spawn_http<B>(&self) -> Balancer<HttpPod<B>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.spawn_signalling(|signals| {
            let signals = Arc::clone(signals);
            move |endpoint: &Arc<Endpoint>| HttpPod::new(endpoint, &signals)
        })
    }
}

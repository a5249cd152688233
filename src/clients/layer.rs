//! The layer around a client, and the balanced service that it makes.

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{ClientError, ClientPod, Counted, pod::OwnClient, request::prepare};
use crate::{
    balancer::Balancer,
    builder::Builder,
    endpoint::Endpoint,
    http::{Classify, HttpAnswer},
    outcome::Outcome,
    service::{Attempts, Error},
};

/// A [`Layer`] that balances an HTTP client which the program already has: hyper-util's `Client`, or any
/// tower service of [`http::Request`]s around it. Each request goes to the pod that the policy picks.
///
/// The URI of a request names the service. The layer replaces its authority by the pod's address, and
/// puts what it was into the `Host` header, unless there is one. The client then connects to that
/// address and pools by it, as ever.
///
/// It spawns the driver when the stack is built, so build the stack inside a tokio runtime.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns};
/// use http_body_util::Empty;
/// use hyper::{Request, body::Bytes};
/// use hyper_util::{
///     client::legacy::{Client, connect::HttpConnector},
///     rt::{TokioExecutor, TokioTimer},
/// };
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let mut connector = HttpConnector::new();
/// connector.set_connect_timeout(Some(Duration::from_millis(1500))); // none by default
/// let client = Client::builder(TokioExecutor::new())
///     .pool_timer(TokioTimer::new()) // ends idle connections, those of removed pods too
///     .build::<_, Empty<Bytes>>(connector);
///
/// let service = Dns::headless("catalog.shop.svc.cluster.local", 8080)?;
/// let catalog = ServiceBuilder::new()
///     .layer(Balancer::builder(service).client_layer())
///     .service(client);
/// let request = Request::get("http://catalog.shop/items/1").body(Empty::new())?;
/// let response = catalog.oneshot(request).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// What becomes of a request is told to its endpoint as with [`spawn_http`](Builder::spawn_http): see
/// [`classify`](Self::classify).
///
/// # What this cannot do
///
/// [`spawn_http`](Builder::spawn_http) owns its connections; here they are the client's, and that has a
/// price:
///
/// - **Bodies are lost with a failed connect.** The client keeps the request. One without a body is
///   rebuilt (hence `B: Default`) and goes to another pod; one with a body fails with
///   [`Error::Unsent`], and sending it again is up to the caller. How long a connect may take is the
///   client's setting.
/// - **A connection that closes before the request is written** is the client's business: hyper-util's
///   tries once more, at the same pod.
/// - **A removed pod's idle connections** stay open for the client's idle timeout.
/// - **No `https`**, refused with [`ClientError::UnsupportedScheme`]: the client would ask the pod for a
///   certificate of its address. And over HTTP/2 `:authority` is the pod's address; the name is only in
///   `host`.
/// - **A client that does more than send the request** misleads: after a redirect or through a
///   forward proxy, a failed connect says nothing of the pod. Put such layers around the balanced
///   service instead.
#[derive(Clone, Debug)]
pub struct ClientLayer {
    builder: Builder,
    classify: Classify,
}

impl ClientLayer {
    /// What an answer says of its pod: policies that go by latency and health learn from it, and ejection. Default:
    /// [`HttpAnswer::outcome`]. As [`Http::classify`](crate::Http::classify), except that a request has no say: one
    /// that fails after its connect is a failure.
    #[must_use]
    pub fn classify(
        mut self,
        say: impl Fn(&HttpAnswer<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.classify = Classify::by(say);
        self
    }
}

impl Builder {
    /// This balancer as a layer around an HTTP client that the program already has; see
    /// [`ClientLayer`].
    pub fn client_layer(self) -> ClientLayer {
        ClientLayer {
            builder: self,
            classify: Classify::usual(),
        }
    }
}

impl<C: Clone + Send + Sync + 'static> Layer<C> for ClientLayer {
    type Service = Balancer<ClientPod<C>>;

    fn layer(&self, client: C) -> Self::Service {
        let classify = self.classify.clone();
        self.builder.spawn_with(move |endpoint: &Arc<Endpoint>| {
            ClientPod::new(client.clone(), endpoint, classify.clone())
        })
    }
}

/// Each request goes to the pod that the policy picks, through the client that the
/// [`ClientLayer`] was put around.
///
/// A request that no pod could be sent, without a host or for another scheme than `http`, fails with
/// [`Error::Unsent`] before one is picked.
impl<C, B, R> Service<Request<B>> for Balancer<ClientPod<C>>
where
    C: Service<Request<B>, Response = Response<R>> + Clone + Send + Sync + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
    C::Future: Send,
    B: Body + Default + Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<Counted<R>>;
    type Error = Error<ClientError>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let balancer = self.clone();
        Box::pin(async move {
            if let Err(error) = prepare(&mut request) {
                return Err(Error::unsent(&balancer, &mut Vec::new(), error));
            }
            let attempts = Attempts::new(OwnClient, balancer, request);
            attempts.await.map_err(lost_unsent)
        })
    }
}

/// A connect that failed cost the request, but no pod has seen it. It was the first that was tried, or
/// the request would have been tried elsewhere.
fn lost_unsent(error: Error<ClientError>) -> Error<ClientError> {
    match error {
        Error::Service {
            service,
            endpoint,
            error: error @ ClientError::Connect(_),
        } => Error::Unsent {
            service,
            tried: vec![endpoint],
            error,
        },
        error => error,
    }
}

//! One pod, as the program's own client reaches it.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, uri::Authority};
use http_body::Body;
use tower_service::Service;

use super::{
    ClientError, Counted,
    request::{aim, once_more},
};
use crate::{
    endpoint::{Endpoint, InFlight},
    http::Classify,
    service::Call,
};

/// What a balancer from a [`ClientLayer`](crate::ClientLayer) keeps for each endpoint: a clone of the
/// client, and the address to send it to.
#[derive(Clone)]
pub struct ClientPod<C> {
    client: C,
    target: Arc<Target>,
}

struct Target {
    endpoint: Arc<Endpoint>,
    /// Its address, as it goes into URIs.
    authority: Authority,
    classify: Classify,
}

/// Why a request failed, and the request if it can go elsewhere.
pub(super) struct Failed<B> {
    error: ClientError,
    unsent: Option<Request<B>>,
}

impl<C> ClientPod<C> {
    pub(super) fn new(client: C, endpoint: &Arc<Endpoint>, classify: Classify) -> Self {
        let target = Target {
            endpoint: Arc::clone(endpoint),
            authority: authority(endpoint.addr()),
            classify,
        };
        Self {
            client,
            target: Arc::new(target),
        }
    }

    /// The address that the client is sent to.
    pub fn addr(&self) -> SocketAddr {
        self.target.endpoint.addr()
    }

    /// Sends a request through the client, which is ready.
    ///
    /// A response counts as a connect that succeeded, even over a connection that was kept: a pod that
    /// answers is of use.
    async fn send<B, R>(
        mut self,
        mut request: Request<B>,
    ) -> Result<Response<Counted<R>>, Failed<B>>
    where
        C: Service<Request<B>, Response = Response<R>>,
        C::Error: Into<Box<dyn StdError + Send + Sync>>,
        B: Body + Default,
        R: Body,
    {
        let again = once_more(&request);
        aim(&mut request, &self.target.authority);
        let Target {
            endpoint, classify, ..
        } = &*self.target;
        match self.client.call(request).await {
            Ok(response) => {
                endpoint.reached();
                Ok(response.map(|body| Counted::new(body, classify)))
            }
            Err(error) => {
                let error = ClientError::of(error.into());
                let mut unsent = None;
                if let ClientError::Connect(_) = error {
                    endpoint.unreachable(error.cause_of_connect());
                    unsent = again;
                }
                Err(Failed { error, unsent })
            }
        }
    }
}

/// Without the scope of an IPv6 address, which a URI cannot carry and a pod does not have.
fn authority(addr: SocketAddr) -> Authority {
    let text = match addr {
        SocketAddr::V4(addr) => addr.to_string(),
        SocketAddr::V6(addr) => format!("[{}]:{}", addr.ip(), addr.port()),
    };
    text.parse()
        .expect("an address and a port are an authority")
}

/// How a pod is called through the program's own client.
pub(super) struct OwnClient;

impl<C, B, R> Call<ClientPod<C>, Request<B>> for OwnClient
where
    C: Service<Request<B>, Response = Response<R>> + Send + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
    C::Future: Send,
    B: Body + Default + Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<Counted<R>>;
    type Error = ClientError;
    type Failed = Failed<B>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed<B>>> + Send>>;

    /// Such a client is ready before it connects: that tells nothing of the pod.
    const REPORTS: bool = true;

    fn poll_ready(pod: &mut ClientPod<C>, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let ready = pod.client.poll_ready(cx);
        ready.map_err(|error| ClientError::of(error.into()))
    }

    fn call(pod: ClientPod<C>, request: Request<B>) -> Self::Future {
        Box::pin(pod.send(request))
    }

    fn record(&self, done: &Result<Self::Response, Failed<B>>, in_flight: &mut InFlight) {
        if let Err(failed) = done {
            in_flight.record(failed.error.outcome());
        }
    }

    fn finish(response: Self::Response, in_flight: InFlight) -> Self::Response {
        Counted::count(response, in_flight)
    }

    fn recover(failed: Failed<B>) -> (ClientError, Option<Request<B>>) {
        (failed.error, failed.unsent)
    }
}

impl<C> fmt::Debug for ClientPod<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPod")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_pod_is_an_authority_in_either_family() {
        let authority = |addr: &str| authority(addr.parse().unwrap()).to_string();
        assert_eq!(authority("10.0.0.7:8080"), "10.0.0.7:8080");
        assert_eq!(authority("[fd00::7]:80"), "[fd00::7]:80");
        assert_eq!(authority("[fe80::7%3]:80"), "[fe80::7]:80");
    }
}

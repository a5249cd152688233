//! HTTP pods as tower services: all of them behind the balancer, or one alone.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    HttpBody, HttpError, HttpPod,
    attempt::{Attempt, Event},
    exchange::Exchange,
    message::Message,
};
use crate::{balancer::Balancer, service::Error};

/// Each request goes to the pod that the policy picks, over a live connection of that pod. The body may be of
/// any type.
///
/// A request that no pod can have seen, because the connect failed, the connection closed before it was
/// written, or the pod refused it, goes to another pod with its body intact. A pod that is there gets it
/// again only when no other is left. One that a pod may have seen goes to another only if it may be repeated
/// ([`Idempotent`](crate::Idempotent)): when its connection fails ([`Http::retries`](crate::Http::retries)) and
/// when it is late ([`Http::hedging`](crate::Http::hedging)). A pod that refuses or falls silent is set aside.
///
/// A request that no pod could be sent, without a host or for another scheme than the client's, fails with
/// [`Error::Unsent`].
impl<B> Service<Request<B>> for Balancer<HttpPod>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<HttpBody>;
    type Error = Error<HttpError>;
    type Future = HttpResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> HttpResponseFuture {
        HttpResponseFuture {
            exchange: Exchange::new(self.clone(), Message::new(request)),
        }
    }
}

pin_project! {
    /// The response of a balanced HTTP client.
    ///
    /// Dropping it cancels the request: a connection that it was written to closes (a stream of HTTP/2 is
    /// reset), an unused one goes back to the pool, and a connect under way goes on for the next.
    #[must_use = "futures do nothing unless polled"]
    pub struct HttpResponseFuture {
        #[pin]
        exchange: Exchange,
    }
}

impl Future for HttpResponseFuture {
    type Output = Result<Response<HttpBody>, Error<HttpError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().exchange.poll(cx)
    }
}

impl fmt::Debug for HttpResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponseFuture").finish_non_exhaustive()
    }
}

/// One pod as a tower service, from [`HttpPod::into_service`]. Ready means: a live connection is at
/// hand. How connects go is reported to the balancer that the pod is from. Nothing is retried elsewhere.
pub struct HttpService {
    pod: HttpPod,
}

impl HttpService {
    pub(super) fn new(pod: HttpPod) -> Self {
        Self { pod }
    }
}

impl<B> Service<Request<B>> for HttpService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<HttpBody>;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<HttpBody>, HttpError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        self.pod.poll_checkout(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was made ready is called; the next call has its own checkout.
        let next = self.pod.clone();
        let mut pod = mem::replace(&mut self.pod, next);
        pod.forget_when();
        Box::pin(call(pod, Message::new(request)))
    }
}

async fn call(pod: HttpPod, mut message: Message) -> Result<Response<HttpBody>, HttpError> {
    message.prepare(pod.pool.client.form)?;
    let mut attempt = Attempt::new(pod, message.is_ignored()).uncounted();
    loop {
        let event = poll_fn(|cx| attempt.poll(cx)).await;
        match event.map_err(|failed| failed.error)? {
            Event::Answer(response) => return Ok(response),
            Event::Back(request) => message.put_back(*request),
            Event::Ready => {
                // It is there: this is the first time, or it came back.
                let request = message.take().ok_or(HttpError::SetAside)?;
                attempt.send(request).map_err(|failed| failed.error)?;
            }
        }
    }
}

impl Clone for HttpService {
    /// The same pod, not ready yet.
    fn clone(&self) -> Self {
        Self::new(self.pod.clone())
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService")
            .field("addr", &self.pod.addr())
            .finish_non_exhaustive()
    }
}

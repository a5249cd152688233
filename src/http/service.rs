//! HTTP pods as tower services: all of them behind the balancer, or one alone.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{HttpError, HttpPod, pod::Failed};
use crate::{
    balancer::Balancer,
    service::{Attempts, Call, Error},
};

type Sending<B> = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failed<B>>> + Send>>;

/// Each request goes to the pod that the policy picks, over a live connection of that pod.
///
/// A request that no pod can have seen, because the connect failed or the connection closed before it
/// was written, goes to another pod with its body intact. A pod that refuses is set aside.
impl<B> Service<Request<B>> for Balancer<HttpPod<B>>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Incoming>;
    type Error = Error<HttpError>;
    type Future = HttpResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        HttpResponseFuture {
            attempts: Attempts::new(self.clone(), request),
        }
    }
}

pin_project! {
    /// The response of a balanced HTTP client. Dropping it cancels the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct HttpResponseFuture<B>
    where
        B: Body,
        B: Send,
        B: Unpin,
        B: 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        #[pin]
        attempts: Attempts<Http, HttpPod<B>, Request<B>>,
    }
}

impl<B> Future for HttpResponseFuture<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = Result<Response<Incoming>, Error<HttpError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().attempts.poll(cx)
    }
}

/// How a pod is called: what it did not see comes back.
enum Http {}

impl<B> Call<HttpPod<B>, Request<B>> for Http
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Incoming>;
    type Error = HttpError;
    type Failed = Failed<B>;
    type Future = Sending<B>;

    fn poll_ready(pod: &mut HttpPod<B>, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        pod.poll_checkout(cx)
    }

    fn call(pod: HttpPod<B>, request: Request<B>) -> Sending<B> {
        Box::pin(pod.send(request))
    }

    fn recover(failed: Failed<B>) -> (HttpError, Option<Request<B>>) {
        (failed.error, failed.unsent)
    }
}

/// One pod as a tower service, from [`HttpPod::into_service`]. Ready means: a live connection is at
/// hand.
#[derive(Clone, Debug)]
pub struct HttpService<B> {
    pod: HttpPod<B>,
}

impl<B> HttpService<B> {
    pub(super) fn new(pod: HttpPod<B>) -> Self {
        Self { pod }
    }
}

impl<B> Service<Request<B>> for HttpService<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Incoming>;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, HttpError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        self.pod.poll_checkout(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was made ready is called; the next call has its own checkout.
        let next = self.pod.clone();
        let pod = std::mem::replace(&mut self.pod, next);
        Box::pin(async move { pod.send(request).await.map_err(|failed| failed.error) })
    }
}

impl<B> fmt::Debug for HttpResponseFuture<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponseFuture")
            .field("attempts", &self.attempts)
            .finish()
    }
}

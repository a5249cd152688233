//! HTTP pods as tower services: all of them behind the balancer, or one alone.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{HttpBody, HttpError, HttpPod, pod::Failed, request::to_origin_form};
use crate::{
    balancer::Balancer,
    endpoint::InFlight,
    service::{Attempts, Call, Error},
};

type Sending<B> = Pin<Box<dyn Future<Output = Result<Response<HttpBody>, Failed<B>>> + Send>>;

/// Each request goes to the pod that the policy picks, over a live connection of that pod.
///
/// A request that no pod can have seen, because the connect failed or the connection closed before it
/// was written, goes to another pod with its body intact. A pod that refuses is set aside.
///
/// A request that no pod could be sent, without a host or for another scheme than `http`, fails with
/// [`Error::Unsent`] before one is picked.
impl<B> Service<Request<B>> for Balancer<HttpPod<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<HttpBody>;
    type Error = Error<HttpError>;
    type Future = HttpResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = match to_origin_form(&mut request) {
            Ok(()) => State::Fit {
                attempts: Attempts::new(self.clone(), request),
            },
            Err(error) => State::Unfit {
                error: Some(Error::unsent(self, &mut Vec::new(), error)),
            },
        };
        HttpResponseFuture { state }
    }
}

pin_project! {
    /// The response of a balanced HTTP client.
    ///
    /// Dropping it cancels the request: a connection that it was written to closes, an unused one goes
    /// back to the pool, and a connect under way goes on for the next.
    #[must_use = "futures do nothing unless polled"]
    pub struct HttpResponseFuture<B>
    where
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B>
    where
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // Goes from pod to pod.
        Fit { #[pin] attempts: Attempts<Http, HttpPod<B>, Request<B>> },
        // Goes to none.
        Unfit { error: Option<Error<HttpError>> },
    }
}

impl<B> Future for HttpResponseFuture<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = Result<Response<HttpBody>, Error<HttpError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Fit { attempts } => attempts.poll(cx),
            StateProjection::Unfit { error } => {
                Poll::Ready(Err(error.take().expect("polled after its end")))
            }
        }
    }
}

/// How a pod is called: what it did not see comes back.
enum Http {}

impl<B> Call<HttpPod<B>, Request<B>> for Http
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<HttpBody>;
    type Error = HttpError;
    type Failed = Failed<B>;
    type Future = Sending<B>;

    /// Its dials do, whether or not anybody waits for them. A connection that was free tells nothing of
    /// the pod's listener.
    const REPORTS: bool = true;

    fn poll_ready(pod: &mut HttpPod<B>, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        pod.poll_checkout(cx)
    }

    fn call(pod: HttpPod<B>, request: Request<B>) -> Sending<B> {
        Box::pin(pod.send(request))
    }

    fn finish(mut response: Response<HttpBody>, in_flight: InFlight) -> Response<HttpBody> {
        response.body_mut().count(in_flight);
        response
    }

    fn recover(failed: Failed<B>) -> (HttpError, Option<Request<B>>) {
        (failed.error, failed.unsent)
    }
}

/// One pod as a tower service, from [`HttpPod::into_service`]. Ready means: a live connection is at
/// hand. How connects go is reported to the balancer that the pod is from.
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that was made ready is called; the next call has its own checkout.
        let next = self.pod.clone();
        let pod = mem::replace(&mut self.pod, next);
        Box::pin(async move {
            to_origin_form(&mut request)?;
            pod.send(request).await.map_err(|failed| failed.error)
        })
    }
}

impl<B> Clone for HttpService<B> {
    /// The same pod, not ready yet.
    fn clone(&self) -> Self {
        Self::new(self.pod.clone())
    }
}

impl<B> fmt::Debug for HttpService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService")
            .field("addr", &self.pod.addr())
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for HttpResponseFuture<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("HttpResponseFuture");
        match &self.state {
            State::Fit { attempts } => f.field("attempts", attempts),
            State::Unfit { error } => f.field("error", error),
        };
        f.finish()
    }
}

//! One request, from pick to response, over as many endpoints as it takes to send it.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::Error;
use crate::{
    balancer::{Balancer, Pick, Wait},
    endpoint::{Endpoint, InFlight},
    outcome::Cause,
};

/// How the service of an endpoint is called, and what is made of what it says.
///
/// A type parameter of the future rather than a trait of the service, so that every tower service
/// fits as it is.
pub(crate) trait Call<S, Request> {
    /// What the endpoint answers.
    type Response;
    /// What it fails with.
    type Error;
    /// What a call fails with: the error, and perhaps the request.
    type Failed;
    /// A call under way.
    type Future: Future<Output = Result<Self::Response, Self::Failed>>;

    /// Whether the service itself reports that its endpoint can be reached or not. If not, its
    /// readiness is taken for that.
    const REPORTS: bool;

    /// Makes the service ready, or says that the endpoint cannot be reached.
    fn poll_ready(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Calls the service, which is ready.
    fn call(service: S, request: Request) -> Self::Future;

    /// The call is done: tells the guard how it went, as far as that is known.
    fn record(&self, done: &Result<Self::Response, Self::Failed>, in_flight: &mut InFlight);

    /// What becomes of a response. The request counts as in flight until the guard is dropped.
    fn finish(response: Self::Response, in_flight: InFlight) -> Self::Response;

    /// The error, and the request if the endpoint cannot have seen it.
    fn recover(failed: Self::Failed) -> (Self::Error, Option<Request>);
}

pin_project! {
    /// The attempts of one request.
    pub(crate) struct Attempts<C, S, Request>
    where
        C: Call<S, Request>,
    {
        how: C,
        balancer: Balancer<S>,
        // Here until an endpoint is called, and again when it comes back unsent.
        request: Option<Request>,
        tried: Vec<Arc<Endpoint>>,
        // A request waits once: what it waited for must then be there.
        waited: bool,
        // Why the last one tried did not take the request.
        unsent: Option<C::Error>,
        #[pin]
        state: State<S, C::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        // To pick an endpoint: Wait if there is none yet, else Checkout, or the end.
        Pick,
        // For endpoints: Pick once there are some, or the end.
        Wait { wait: Wait },
        // For the endpoint's readiness: Call, or Pick another.
        Checkout { pick: Option<Pick<S>>, has_waited: bool },
        // For its response: the end, or Pick another if it did not take the request. Until then, and
        // perhaps beyond, the request counts as in flight.
        Call { #[pin] call: F, in_flight: Option<InFlight> },
    }
}

impl<C: Call<S, Request>, S, Request> Attempts<C, S, Request> {
    pub(crate) fn new(how: C, balancer: Balancer<S>, request: Request) -> Self {
        Self {
            how,
            balancer,
            request: Some(request),
            tried: Vec::new(),
            waited: false,
            unsent: None,
            state: State::Pick,
        }
    }
}

impl<C, S, Request> Future for Attempts<C, S, Request>
where
    C: Call<S, Request>,
    S: Clone + Send + Sync + 'static,
{
    type Output = Result<C::Response, Error<C::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (endpoint, error) = match this.state.as_mut().project() {
                StateProjection::Pick => {
                    match this.balancer.pick_with(None, this.tried) {
                        Ok(pick) => this.state.set(State::Checkout {
                            pick: Some(pick),
                            has_waited: false,
                        }),
                        Err(error) => {
                            if let Some(error) = this.unsent.take() {
                                let error = Error::unsent(this.balancer, this.tried, error);
                                return Poll::Ready(Err(error));
                            }
                            let first = !mem::replace(this.waited, true);
                            match this.balancer.wait_for(&error).filter(|_| first) {
                                Some(wait) => this.state.set(State::Wait { wait }),
                                None => return Poll::Ready(Err(Error::Pick(error))),
                            }
                        }
                    }
                    continue;
                }
                StateProjection::Wait { wait } => {
                    ready!(wait.as_mut().poll(cx)).map_err(Error::Pick)?;
                    this.state.set(State::Pick);
                    continue;
                }
                StateProjection::Checkout {
                    pick: place,
                    has_waited,
                } => {
                    let mut pick = place.take().expect("taken out only to replace the state");
                    match C::poll_ready(pick.service_mut(), cx) {
                        Poll::Pending => {
                            *place = Some(pick);
                            *has_waited = true;
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => {
                            if !C::REPORTS {
                                this.balancer.reached(pick.endpoint());
                            }
                            let request = this.request.take().expect("here until a call takes it");
                            let has_waited = *has_waited;
                            let (service, mut in_flight) = pick.into_parts();
                            // It is sent now, and was perhaps picked a while ago.
                            let is_later = has_waited && in_flight.is_timed();
                            in_flight.watch(is_later.then(Instant::now));
                            let call = C::call(service, request);
                            this.state.set(State::Call {
                                call,
                                in_flight: Some(in_flight),
                            });
                            continue;
                        }
                        Poll::Ready(Err(error)) => (Arc::clone(pick.endpoint()), error),
                    }
                }
                StateProjection::Call { call, in_flight } => {
                    let done = ready!(call.poll(cx));
                    let mut in_flight = in_flight.take().expect("here until the call is done");
                    this.how.record(&done, &mut in_flight);
                    let failed = match done {
                        Ok(response) => return Poll::Ready(Ok(C::finish(response, in_flight))),
                        Err(failed) => failed,
                    };
                    let endpoint = Arc::clone(in_flight.endpoint());
                    let (error, unsent) = C::recover(failed);
                    let Some(request) = unsent else {
                        let service = this.balancer.status().service().into();
                        return Poll::Ready(Err(Error::Service {
                            service,
                            endpoint,
                            error,
                        }));
                    };
                    *this.request = Some(request);
                    (endpoint, error)
                }
            };
            // The endpoint cannot be reached: the request is here, and another may take it.
            if !C::REPORTS {
                // Its service may say why; that is not known here.
                endpoint.unreachable(Cause::Unreachable);
            }
            this.tried.push(endpoint);
            if this.tried.len() >= this.balancer.max_attempts() {
                return Poll::Ready(Err(Error::unsent(this.balancer, this.tried, error)));
            }
            *this.unsent = Some(error);
            this.state.set(State::Pick);
        }
    }
}

impl<C: Call<S, Request>, S, Request> fmt::Debug for Attempts<C, S, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts")
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

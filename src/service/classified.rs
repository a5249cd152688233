//! A balanced service whose user says what its answers mean.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{Attempts, Call, Error, ResponseFuture};
use crate::{
    balancer::Balancer,
    endpoint::InFlight,
    outcome::{Cause, Outcome},
};

impl<S> Balancer<S> {
    /// This balancer as a tower service that asks `say` what each answer of an endpoint says of it: policies that go by
    /// latency and health learn from it, and ejection. Without it a response is a success, and an error a failure
    /// ([`Cause::Other`](crate::Cause::Other)). The caller gets the answer in any case.
    ///
    /// It is for tower services of your own. The HTTP clients have their own `classify`, which knows
    /// statuses.
    ///
    /// ```
    /// use headless_lb::{Balancer, Cause, Endpoint, Fixed, Outcome};
    /// use std::{io, net::SocketAddr, sync::Arc};
    /// use tower::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
    /// let balancer = Balancer::builder(pods).spawn_with(|_: &Arc<Endpoint>| {
    ///     service_fn(|_question: &'static str| async { Ok::<_, io::Error>("busy") })
    /// });
    /// let service = balancer.clone().classify(|answer: &io::Result<&'static str>| match answer {
    ///     Ok("busy") => Cause::Other.into(),
    ///     Ok(_) => Outcome::Success,
    ///     Err(error) if error.kind() == io::ErrorKind::InvalidInput => Outcome::Success, // the caller's fault
    ///     Err(_) => Cause::Reset.into(),
    /// });
    /// assert_eq!(service.oneshot("how are you?").await?, "busy");
    /// assert_eq!(balancer.endpoints().iter().next().map(|pod| pod.failed()), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a service does nothing until it is called"]
    pub fn classify<F>(self, say: F) -> Classified<S, F> {
        Classified {
            balancer: self,
            say,
        }
    }
}

/// A [`Balancer`] whose user says what answers mean: see [`Balancer::classify`].
#[derive(Clone)]
pub struct Classified<S, F> {
    balancer: Balancer<S>,
    say: F,
}

impl<S, F, Request> Service<Request> for Classified<S, F>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
    F: Fn(&Result<S::Response, S::Error>) -> Outcome + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Request, F>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let say = Say(self.say.clone());
        ResponseFuture {
            attempts: Attempts::new(say, self.balancer.clone(), request),
        }
    }
}

/// What an answer means unless the user says otherwise.
pub(super) fn usual<T, E>(answer: &Result<T, E>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Success,
        Err(_) => Cause::Other.into(),
    }
}

/// How any tower service is called: a request that it took is gone, and `F` says what its answer means.
pub(super) struct Say<F>(pub(super) F);

impl<S, Request, F> Call<S, Request> for Say<F>
where
    S: Service<Request>,
    F: Fn(&Result<S::Response, S::Error>) -> Outcome,
{
    type Response = S::Response;
    type Error = S::Error;
    type Failed = S::Error;
    type Future = S::Future;

    const REPORTS: bool = false;

    fn poll_ready(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        service.poll_ready(cx)
    }

    fn call(mut service: S, request: Request) -> S::Future {
        service.call(request)
    }

    fn record(&self, done: &Result<S::Response, S::Error>, in_flight: &mut InFlight) {
        in_flight.record(self.0(done));
    }

    /// Whether work goes on behind the response is not known here.
    fn finish(response: S::Response, _: InFlight) -> S::Response {
        response
    }

    fn recover(failed: S::Error) -> (S::Error, Option<Request>) {
        (failed, None)
    }
}

impl<S, F> fmt::Debug for Classified<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classified")
            .field("balancer", &self.balancer)
            .finish_non_exhaustive()
    }
}

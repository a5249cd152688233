//! The balancer as a tower service and layer.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    balancer::{Balancer, Pick, PickError, Wait},
    builder::Builder,
    endpoint::{Endpoint, InFlight},
    registry::NewService,
};

/// Each call goes to the endpoint that the policy picks.
///
/// `poll_ready` is always ready and reserves nothing: an endpoint is picked when the response future
/// is polled first, and *its* readiness is awaited then. If it fails (for an HTTP pod: no connection
/// can be made) the request is still here, and goes to another endpoint, each at most once and at
/// most [`max_attempts`](Builder::max_attempts) in all. The one that failed is set aside.
///
/// Before the source's first answer a call waits up to
/// [`initial_timeout`](Builder::initial_timeout).
impl<S, Request> Service<Request> for Balancer<S>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Request>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ResponseFuture {
            balancer: self.clone(),
            request: Some(request),
            tried: Vec::new(),
            unready: None,
            state: State::Pick,
        }
    }
}

pin_project! {
    /// The response of a [`Balancer`]. Dropping it ends the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Request>
    where
        S: Service<Request>,
    {
        balancer: Balancer<S>,
        // Taken when the endpoint is called.
        request: Option<Request>,
        tried: Vec<Arc<Endpoint>>,
        // Why the last one tried was not ready.
        unready: Option<S::Error>,
        #[pin]
        state: State<S, S::Future>,
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
        Checkout { pick: Option<Pick<S>> },
        // For its response: the end. The request counts as in flight until then.
        Call { #[pin] call: F, in_flight: InFlight },
    }
}

impl<S, Request> Future for ResponseFuture<S, Request>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Pick => match this.balancer.pick_with(None, this.tried) {
                    Ok(pick) => this.state.set(State::Checkout { pick: Some(pick) }),
                    Err(error) => {
                        if let Some(error) = this.unready.take() {
                            return Poll::Ready(Err(Error::unready(
                                this.balancer,
                                this.tried,
                                error,
                            )));
                        }
                        match this.balancer.wait_for(&error) {
                            Some(wait) => this.state.set(State::Wait { wait }),
                            None => return Poll::Ready(Err(Error::Pick(error))),
                        }
                    }
                },
                StateProjection::Wait { wait } => {
                    ready!(wait.as_mut().poll(cx)).map_err(Error::Pick)?;
                    this.state.set(State::Pick);
                }
                StateProjection::Checkout { pick } => {
                    let mut picked = pick
                        .take()
                        .expect("a pick is taken out only to replace the state");
                    match picked.service_mut().poll_ready(cx) {
                        Poll::Pending => {
                            *pick = Some(picked);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => {
                            this.balancer.reached(picked.endpoint());
                            let request =
                                this.request.take().expect("a request is called with once");
                            let (mut service, in_flight) = picked.into_parts();
                            let call = service.call(request);
                            this.state.set(State::Call { call, in_flight });
                        }
                        Poll::Ready(Err(error)) => {
                            this.balancer.unreachable(picked.endpoint());
                            this.tried.push(Arc::clone(picked.endpoint()));
                            if this.tried.len() >= this.balancer.max_attempts() {
                                let error = Error::unready(this.balancer, this.tried, error);
                                return Poll::Ready(Err(error));
                            }
                            *this.unready = Some(error);
                            this.state.set(State::Pick);
                        }
                    }
                }
                StateProjection::Call { call, in_flight } => {
                    let result = ready!(call.poll(cx));
                    let endpoint = in_flight.endpoint();
                    return Poll::Ready(result.map_err(|error| Error::Service {
                        service: this.balancer.status().service().into(),
                        endpoint: Arc::clone(endpoint),
                        error,
                    }));
                }
            }
        }
    }
}

/// Why a balanced call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error<E> {
    /// No endpoint could be picked. The request was not sent.
    Pick(PickError),
    /// The endpoint's service failed. The endpoint may have seen the request.
    Service {
        /// The name of the service.
        service: Arc<str>,
        /// The endpoint that was called.
        endpoint: Arc<Endpoint>,
        /// What it failed with.
        error: E,
    },
    /// No endpoint that was tried became ready. The request was not sent.
    Unready {
        /// The name of the service.
        service: Arc<str>,
        /// The endpoints that were tried, in order.
        tried: Vec<Arc<Endpoint>>,
        /// Why the last of them was not ready.
        error: E,
    },
}

impl<E> Error<E> {
    /// Whether no endpoint can have seen the request, so that it may be sent again whatever it is.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Service { .. })
    }

    fn unready<S>(balancer: &Balancer<S>, tried: &mut Vec<Arc<Endpoint>>, error: E) -> Self {
        let service = balancer.status().service().into();
        Self::Unready {
            service,
            tried: std::mem::take(tried),
            error,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick(error) => error.fmt(f),
            Self::Service {
                service,
                endpoint,
                error,
            } => write!(f, "{service}: {endpoint}: {error}"),
            Self::Unready {
                service,
                tried,
                error,
            } => {
                write!(
                    f,
                    "{service}: none of {} endpoints took a connection (",
                    tried.len()
                )?;
                for (i, endpoint) in tried.iter().enumerate() {
                    write!(f, "{}{endpoint}", if i == 0 { "" } else { ", " })?;
                }
                write!(f, "), the last: {error}")
            }
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The error itself stands in the text; what lies beneath it follows.
        match self {
            Self::Pick(error) => error.source(),
            Self::Service { error, .. } | Self::Unready { error, .. } => error.source(),
        }
    }
}

/// A [`Layer`] that turns what makes endpoint services into a balanced service.
///
/// Where tower wraps one service, this wraps the function that makes one for each endpoint
/// ([`NewService`]; a closure will do). It spawns the driver when the stack is built, so build the
/// stack inside a tokio runtime.
///
/// ```
/// use headless_lb::{Balancer, Endpoint, Fixed};
/// use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
/// let greeter = ServiceBuilder::new()
///     .timeout(Duration::from_secs(2))
///     .layer(Balancer::builder(pods).layer())
///     .service(|endpoint: &Arc<Endpoint>| {
///         let addr = endpoint.addr();
///         service_fn(move |name: &'static str| async move {
///             Ok::<_, Infallible>(format!("{addr} greets {name}"))
///         })
///     });
/// assert_eq!(greeter.oneshot("you").await?, "127.0.0.1:80 greets you");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BalanceLayer {
    builder: Builder,
}

impl Builder {
    /// This balancer as a tower layer; see [`BalanceLayer`].
    pub fn layer(self) -> BalanceLayer {
        BalanceLayer { builder: self }
    }
}

impl<N: NewService + Clone> Layer<N> for BalanceLayer {
    type Service = Balancer<N::Service>;

    fn layer(&self, new_service: N) -> Self::Service {
        self.builder.spawn_with(new_service)
    }
}

impl<S, Request> fmt::Debug for ResponseFuture<S, Request>
where
    S: Service<Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

//! The balancer as a tower service and layer.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    balancer::{Balancer, PickError},
    builder::Builder,
    endpoint::Endpoint,
    outcome::Outcome,
    registry::NewService,
};

mod attempts;
mod classified;

pub(crate) use attempts::{Attempts, Call};
pub use classified::Classified;
use classified::{Say, usual};

/// Each call goes to the endpoint that the policy picks.
///
/// `poll_ready` is always ready and reserves nothing: an endpoint is picked when the response future
/// is polled first, and *its* readiness is awaited then. If it fails (no connection can be made) the
/// request is still here, and goes to another endpoint, each at most once and at most
/// [`max_attempts`](Builder::max_attempts) in all. The one that failed is set aside.
///
/// Before the source's first answer a call waits up to
/// [`initial_timeout`](Builder::initial_timeout).
///
/// Policies and ejection take a response for a success and an error for a failure; [`Balancer::classify`] changes
/// that.
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
            attempts: Attempts::new(Say(usual as Usual<S, Request>), self.clone(), request),
        }
    }
}

type Usual<S, Request> =
    fn(&Result<<S as Service<Request>>::Response, <S as Service<Request>>::Error>) -> Outcome;

pin_project! {
    /// The response of a [`Balancer`] over tower services. Dropping it ends the request.
    ///
    /// `F` says what answers mean: see [`Balancer::classify`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Request, F = Usual<S, Request>>
    where
        S: Service<Request>,
        F: Fn(&Result<S::Response, S::Error>) -> Outcome,
    {
        #[pin]
        attempts: Attempts<Say<F>, S, Request>,
    }
}

impl<S, Request, F> Future for ResponseFuture<S, Request, F>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
    F: Fn(&Result<S::Response, S::Error>) -> Outcome,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().attempts.poll(cx)
    }
}

/// Why a balanced call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error<E> {
    /// No endpoint could be picked. The request was not sent.
    Pick(PickError),
    /// The endpoint's service failed. The endpoint may have seen the request.
    #[non_exhaustive]
    Service {
        /// The name of the service.
        service: Arc<str>,
        /// The endpoint that was called.
        endpoint: Arc<Endpoint>,
        /// What it failed with.
        error: E,
    },
    /// No endpoint that was tried took the request: none of them can have seen it. Or it was not fit to
    /// be sent to any, and none was tried.
    #[non_exhaustive]
    Unsent {
        /// The name of the service.
        service: Arc<str>,
        /// The endpoints that were tried, in order.
        tried: Vec<Arc<Endpoint>>,
        /// Why the last of them did not, or what is wrong with the request.
        error: E,
    },
}

impl<E> Error<E> {
    /// Whether no endpoint can have seen the request, so that it may be sent again whatever it is.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Service { .. })
    }

    pub(crate) fn unsent<S>(
        balancer: &Balancer<S>,
        tried: &mut Vec<Arc<Endpoint>>,
        error: E,
    ) -> Self {
        let service = balancer.status().service().into();
        Self::Unsent {
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
            Self::Unsent {
                service,
                tried,
                error,
            } => {
                if tried.is_empty() {
                    return write!(f, "{service}: {error}");
                }
                write!(
                    f,
                    "{service}: none of {} endpoints took the request (",
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

/// For any `E` that can be shown, tower's boxed errors included, which are no [`Error`](StdError)
/// themselves. So the chain ends here: match for `E` to go on.
impl<E: fmt::Debug + fmt::Display> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Pick(error) => error.source(),
            Self::Service { .. } | Self::Unsent { .. } => None,
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

impl<S, Request, F> fmt::Debug for ResponseFuture<S, Request, F>
where
    S: Service<Request>,
    F: Fn(&Result<S::Response, S::Error>) -> Outcome,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempts", &self.attempts)
            .finish()
    }
}

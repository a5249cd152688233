//! The HTTP service of one pod.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tokio::sync::oneshot;

use super::{
    HttpBody, HttpError, HttpService,
    connection::Connection,
    dial,
    pool::{self, Outcome, Pool},
};
use crate::{balancer::Signals, endpoint::Endpoint};

/// One pod's HTTP/1.1 connections: what a balancer from [`spawn_http`](crate::Builder::spawn_http)
/// keeps for each endpoint. Clones share them.
///
/// To call one certain pod, take its tower service:
///
/// ```no_run
/// # use headless_lb::{Balancer, HttpPod};
/// # use http_body_util::Empty;
/// # use hyper::{Request, body::Bytes};
/// # use tower::ServiceExt;
/// # async fn example(catalog: Balancer<HttpPod<Empty<Bytes>>>) -> Result<(), Box<dyn std::error::Error>> {
/// let (pod, _in_flight) = catalog.pod("catalog-0")?.into_parts();
/// let request = Request::post("http://catalog.shop/cache/flush").body(Empty::new())?;
/// let response = pod.into_service().oneshot(request).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
pub struct HttpPod<B> {
    pool: Arc<Pool<B>>,
    checkout: Checkout<B>,
}

enum Checkout<B> {
    /// Nothing yet. Polled: Ready, or Waiting.
    Idle,
    /// No connection was free. The first that is, or is made: Ready. None can be made: Idle. Dropped:
    /// what came too late goes to the next.
    Waiting(oneshot::Receiver<Outcome<B>>),
    /// A connection of this clone. Called: Idle. Dropped: back to the pool.
    Ready(Box<Connection<B>>),
}

/// Why a request failed, and the request if the pod cannot have seen it.
pub(super) struct Failed<B> {
    pub(super) error: HttpError,
    pub(super) unsent: Option<Request<B>>,
}

impl<B> HttpPod<B> {
    pub(super) fn new(endpoint: &Arc<Endpoint>, signals: &Arc<Signals>) -> Self {
        let pool = Pool::new(Arc::clone(endpoint), Arc::clone(signals));
        Self {
            pool: Arc::new(pool),
            checkout: Checkout::Idle,
        }
    }

    /// The address that is dialled.
    pub fn addr(&self) -> SocketAddr {
        self.pool.addr()
    }

    /// This pod alone as a tower service.
    pub fn into_service(self) -> HttpService<B> {
        HttpService::new(self)
    }
}

impl<B> HttpPod<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Waits for a connection that can take a request: a free one, or else the first that becomes free
    /// or is made.
    pub(super) fn poll_checkout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            self.checkout = match &mut self.checkout {
                Checkout::Ready(connection) if !connection.is_closed() => {
                    return Poll::Ready(Ok(()));
                }
                Checkout::Ready(_) => Checkout::Idle,
                Checkout::Idle => match self.pool.checkout() {
                    pool::Checkout::Free(connection) => Checkout::Ready(connection),
                    pool::Checkout::Wait(outcome, dial) => {
                        dial::start(&self.pool, dial);
                        Checkout::Waiting(outcome)
                    }
                },
                Checkout::Waiting(outcome) => {
                    let outcome = connected(ready!(Pin::new(outcome).poll(cx)));
                    self.checkout = Checkout::Idle;
                    // It may have closed again, but a pod that closes each connection must not be
                    // dialled without end.
                    self.checkout = Checkout::Ready(outcome?);
                    return Poll::Ready(Ok(()));
                }
            };
        }
    }

    /// Sends the request, which has its final form, over the connection that was checked out.
    ///
    /// If that closed between checkout and write, the request is still here, and so may be the pod, for
    /// an idle connection may end at any time: one more that is not idle is tried.
    pub(super) async fn send(
        mut self,
        request: Request<B>,
    ) -> Result<Response<HttpBody>, Failed<B>> {
        let request = match mem::replace(&mut self.checkout, Checkout::Idle) {
            Checkout::Ready(connection) => match self.send_over(connection, request).await {
                Err(Failed {
                    unsent: Some(unsent),
                    ..
                }) => unsent,
                done => return done,
            },
            Checkout::Idle | Checkout::Waiting(_) => request,
        };
        self.checkout = self.wait();
        if let Err(error) = poll_fn(|cx| self.poll_checkout(cx)).await {
            let unsent = Some(request);
            return Err(Failed { error, unsent });
        }
        let Checkout::Ready(connection) = mem::replace(&mut self.checkout, Checkout::Idle) else {
            unreachable!("a checkout that succeeds leaves a connection");
        };
        let done = self.send_over(connection, request).await;
        if let Err(Failed {
            unsent: Some(_), ..
        }) = &done
        {
            self.pool.closed_at_once();
        }
        done
    }

    async fn send_over(
        &self,
        mut connection: Box<Connection<B>>,
        request: Request<B>,
    ) -> Result<Response<HttpBody>, Failed<B>> {
        let response = connection.send(request).await?;
        self.pool.served();
        Ok(HttpBody::of(response, connection))
    }

    fn wait(&self) -> Checkout<B> {
        let (outcome, dial) = self.pool.wait();
        dial::start(&self.pool, dial);
        Checkout::Waiting(outcome)
    }
}

fn connected<B>(
    outcome: Result<Outcome<B>, oneshot::error::RecvError>,
) -> Result<Box<Connection<B>>, HttpError> {
    outcome
        .unwrap_or_else(|gone| Err(io::Error::other(gone)))
        .map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => HttpError::ConnectTimeout,
            _ => HttpError::Connect(error),
        })
}

impl<B> Clone for HttpPod<B> {
    /// The same pod, with no connection checked out.
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            checkout: Checkout::Idle,
        }
    }
}

impl<B> Drop for HttpPod<B> {
    fn drop(&mut self) {
        match mem::replace(&mut self.checkout, Checkout::Idle) {
            Checkout::Idle => {}
            Checkout::Waiting(mut outcome) => {
                outcome.close();
                if let Ok(Ok(connection)) = outcome.try_recv() {
                    connection.give_back();
                }
            }
            Checkout::Ready(connection) => connection.give_back(),
        }
    }
}

impl<B> fmt::Debug for HttpPod<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPod")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

//! The HTTP service of one pod.

use std::{
    error::Error,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use sync_wrapper::SyncFuture;

use super::{HttpError, HttpService, connection::Pool, request::to_origin_form};
use crate::endpoint::Endpoint;

type Dial<B> = Pin<Box<dyn Future<Output = Result<SendRequest<B>, HttpError>> + Send>>;

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
    /// Nothing yet. Polled: Ready, or Dialling.
    Idle,
    /// No connection was free. Made: Ready. Failed: Idle.
    Dialling(SyncFuture<Dial<B>>),
    /// A connection of this clone. Called: Idle. Dropped: back to the pool.
    Ready(SendRequest<B>),
}

/// Why a request failed, and the request if the pod cannot have seen it.
pub(super) struct Failed<B> {
    pub(super) error: HttpError,
    pub(super) unsent: Option<Request<B>>,
}

impl<B> HttpPod<B> {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self {
            pool: Arc::new(Pool::new(endpoint.addr())),
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
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Waits for a connection that can take a request: a free one of the pool, or a new one.
    pub(super) fn poll_checkout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            self.checkout = match &mut self.checkout {
                Checkout::Ready(connection) if !connection.is_closed() => {
                    return Poll::Ready(Ok(()));
                }
                Checkout::Ready(_) => Checkout::Idle,
                Checkout::Idle => match self.pool.checkout() {
                    Some(connection) => Checkout::Ready(connection),
                    None => {
                        let pool = Arc::clone(&self.pool);
                        let dial = Box::pin(async move { pool.dial().await });
                        Checkout::Dialling(SyncFuture::new(dial))
                    }
                },
                Checkout::Dialling(dial) => match ready!(Pin::new(dial).poll(cx)) {
                    Ok(connection) => Checkout::Ready(connection),
                    Err(error) => {
                        self.checkout = Checkout::Idle;
                        return Poll::Ready(Err(error));
                    }
                },
            };
        }
    }

    /// Sends the request over the connection that was checked out, or else over a new one.
    ///
    /// If that closed between checkout and write, the request is still here: one more connection is
    /// made, for an idle connection may end at any time without the pod being gone.
    pub(super) async fn send(
        mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Failed<B>> {
        if let Err(error) = to_origin_form(&mut request) {
            return Err(Failed {
                error,
                unsent: None,
            });
        }
        if let Checkout::Ready(connection) = std::mem::replace(&mut self.checkout, Checkout::Idle) {
            match self.pool.send(connection, request).await {
                Err(Failed {
                    unsent: Some(unsent),
                    ..
                }) => request = unsent,
                done => return done,
            }
        }
        match self.pool.dial().await {
            Ok(connection) => self.pool.send(connection, request).await,
            Err(error) => Err(Failed {
                error,
                unsent: Some(request),
            }),
        }
    }
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
        if let Checkout::Ready(connection) = std::mem::replace(&mut self.checkout, Checkout::Idle) {
            self.pool.give_back(connection);
        }
    }
}

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
use tower_service::Service;

use super::{HttpError, connection::Pool, request::to_origin_form};
use crate::endpoint::Endpoint;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The HTTP/1.1 service of one pod: what a balancer from
/// [`spawn_http`](crate::Builder::spawn_http) keeps for each endpoint. Clones share the pod's pool.
///
/// Ready means: a live connection is at hand.
pub struct HttpPod<B> {
    pool: Arc<Pool<B>>,
    checkout: Checkout<B>,
}

enum Checkout<B> {
    /// Nothing yet. Polled: Ready, or Dialling.
    Idle,
    /// No connection was free. Made: Ready. Failed: Idle.
    Dialling(SyncFuture<BoxFuture<Result<SendRequest<B>, HttpError>>>),
    /// A connection of this clone. Called: Idle. Dropped: back to the pool.
    Ready(SendRequest<B>),
}

impl<B> HttpPod<B> {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self {
            pool: Arc::new(Pool::new(endpoint.addr())),
            checkout: Checkout::Idle,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.pool.addr()
    }
}

impl<B> Service<Request<B>> for HttpPod<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Incoming>;
    type Error = HttpError;
    type Future = BoxFuture<Result<Response<Incoming>, HttpError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
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
                        Checkout::Dialling(SyncFuture::new(Box::pin(
                            async move { pool.dial().await },
                        )))
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

    /// Sends over the connection that [`poll_ready`](Service::poll_ready) checked out. Called without
    /// one, it makes one.
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let pool = Arc::clone(&self.pool);
        let checkout = std::mem::replace(&mut self.checkout, Checkout::Idle);
        Box::pin(async move {
            to_origin_form(&mut request)?;
            let mut connection = match checkout {
                Checkout::Ready(connection) => connection,
                Checkout::Dialling(dial) => dial.await?,
                Checkout::Idle => pool.dial().await?,
            };
            let mut again = true;
            loop {
                match connection.try_send_request(request).await {
                    Ok(response) => {
                        pool.give_back(connection);
                        return Ok(response);
                    }
                    Err(mut error) => match error.take_message() {
                        None => return Err(HttpError::Request(error.into_error())),
                        // The connection closed between checkout and write: the request is back, whole.
                        Some(unsent) if again => {
                            again = false;
                            request = unsent;
                            connection = pool.dial().await?;
                        }
                        Some(_) => return Err(HttpError::Unsent(error.into_error())),
                    },
                }
            }
        })
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

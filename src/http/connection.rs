//! One connection to a pod, and its way back into the pool.

use std::sync::Weak;

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::runtime::Handle;

use super::{HttpError, pod::Failed, pool::Pool};

/// A connection, in the one box that it moves in as long as it lives: from the pool to a request, with
/// the response to its body, and back. So none of these moves allocates.
pub(super) struct Connection<B> {
    sender: SendRequest<B>,
    /// Weak, for the pool owns those that are free. A pool that is gone wants none back.
    pool: Weak<Pool<B>>,
}

impl<B> Connection<B> {
    pub(super) fn new(sender: SendRequest<B>, pool: Weak<Pool<B>>) -> Self {
        Self { sender, pool }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// To the next request.
    pub(super) fn give_back(self: Box<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give_back(self);
        }
    }
}

impl<B: Body + 'static> Connection<B> {
    /// Sends a request. What the pod cannot have seen comes back.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it takes the request back, or hyper closes the connection.
    pub(super) async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, Failed<B>> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| {
                let unsent = error.take_message();
                let error = error.into_error();
                let error = match unsent {
                    Some(_) => HttpError::Unsent(error),
                    None => HttpError::Request(error),
                };
                Failed { error, unsent }
            })
    }
}

/// A connection that a response body occupies. The body's type does not name the request's.
pub(super) trait Lease: Send + Sync {
    /// The body has ended.
    fn end(self: Box<Self>);

    /// The body was dropped before its end was seen.
    fn abandon(self: Box<Self>);
}

impl<B: Send + 'static> Lease for Connection<B> {
    /// Nearly always hyper knows of the end as well. If not, it is about to, or it still writes the
    /// request, which the pod has answered early: the one case in which a task waits for it.
    fn end(mut self: Box<Self>) {
        if self.sender.is_ready() {
            self.give_back();
        } else if !self.is_closed()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                if self.sender.ready().await.is_ok() {
                    self.give_back();
                }
            });
        }
    }

    /// Ready all the same: all has arrived, and only the last look was missing. Otherwise hyper closes
    /// the connection rather than read what nobody wants.
    fn abandon(self: Box<Self>) {
        if self.sender.is_ready() {
            self.give_back();
        }
    }
}

//! A connection to a pod, as a request has it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Weak},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use tokio::time::Instant;

use super::{
    HttpError,
    outgoing::Outgoing,
    pool::Pool,
    request::{LastHost, to_http1},
    socket::{Close, Refusal},
};
#[cfg(feature = "http2")]
use super::{classify::is_of_connection, request::to_http2, shared::Stream};

/// A response under way. Dropped before its end, hyper takes the request back, or closes the connection or
/// its stream.
pub(super) type Sending = Pin<
    Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + Send>,
>;

/// What one request has to itself: a connection of HTTP/1.1, or a stream of HTTP/2. Dropped while the
/// request is under way, it ends.
pub(super) enum Connection {
    Exclusive(Box<Exclusive>),
    #[cfg(feature = "http2")]
    Stream(Stream),
}

/// A connection of HTTP/1.1, in the one box that it moves in as long as it lives: from the pool to a
/// request, with the response to its body, and back. So none of these moves allocates.
pub(super) struct Exclusive {
    sender: SendRequest<Outgoing>,
    /// Weak, for the pool owns those that are free. A pool that is gone wants none back.
    pool: Weak<Pool>,
    expires: Option<Instant>,
    refusal: Option<Refusal>,
    /// Its socket's.
    close: Arc<Close>,
    host: LastHost,
}

impl Connection {
    /// Sends a request.
    pub(super) fn send(&mut self, request: Request<Outgoing>) -> Sending {
        match self {
            Self::Exclusive(connection) => {
                connection.close.ending.begin();
                Box::pin(connection.sender.try_send_request(request))
            }
            #[cfg(feature = "http2")]
            Self::Stream(stream) => stream.send(request),
        }
    }

    /// Puts the request into the form that the connection speaks.
    pub(super) fn adapt(
        &mut self,
        request: &mut Request<Outgoing>,
        is_tls: bool,
    ) -> Result<(), HttpError> {
        match self {
            Self::Exclusive(connection) => to_http1(request, is_tls, &mut connection.host),
            #[cfg(feature = "http2")]
            Self::Stream(_) => to_http2(request, is_tls),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Exclusive(connection) => connection.is_closed(),
            #[cfg(feature = "http2")]
            Self::Stream(stream) => stream.is_closed(),
        }
    }

    /// Why the pod turned the connection down, and so saw nothing of what was sent, if it did. A pod that permits
    /// streams has accepted it before.
    pub(super) fn refusal(&self) -> Option<Arc<io::Error>> {
        match self {
            Self::Exclusive(connection) => connection.refusal.as_ref()?.get().cloned(),
            #[cfg(feature = "http2")]
            Self::Stream(_) => None,
        }
    }

    /// It broke while its pod had the request.
    pub(super) fn broke(&self, error: &hyper::Error) {
        let ending = match self {
            Self::Exclusive(connection) => &connection.close.ending,
            // Its driver tells.
            #[cfg(feature = "http2")]
            Self::Stream(_) => return,
        };
        match error.is_user() {
            // The request's own body failed.
            true => ending.went_wrong(),
            false => ending.broke(),
        }
    }

    /// A request failed with it, or its answer. Whether that is news of the pod: those that share a connection lose
    /// it once, and the first to find out tells.
    pub(super) fn is_news(&self, error: &hyper::Error) -> bool {
        #[cfg(feature = "http2")]
        if let Self::Stream(stream) = self {
            return !is_of_connection(error) || stream.is_first_loss();
        }
        let _ = error;
        true
    }

    pub(super) fn is_exclusive(&self) -> bool {
        matches!(self, Self::Exclusive(_))
    }

    /// To the next request, unused.
    pub(super) fn give_back(self) {
        match self {
            Self::Exclusive(connection) => connection.give_back(),
            #[cfg(feature = "http2")]
            Self::Stream(_) => {}
        }
    }

    /// The response has ended.
    ///
    /// Nearly always hyper knows of the end as well. If not, it is about to, or it still writes the
    /// request, which the pod has answered early: the one case in which a task waits for it.
    pub(super) fn end(self) {
        let mut connection = match self {
            Self::Exclusive(connection) => connection,
            #[cfg(feature = "http2")]
            Self::Stream(_) => return,
        };
        if connection.sender.is_ready() {
            connection.give_back();
        } else if connection.is_closed() {
            // The response said so, or its end was the end of the connection.
            connection.close.ending.closed_by_pod();
        } else if let Some(pool) = connection.pool.upgrade() {
            pool.client.runtime.spawn(async move {
                match connection.sender.ready().await {
                    Ok(()) => connection.give_back(),
                    Err(_) => connection.close.ending.closed_by_pod(),
                }
            });
        }
    }

    /// It has become a tunnel (an upgrade, or a `CONNECT`), and is the caller's.
    pub(super) fn hand_over(self) {
        match self {
            Self::Exclusive(_) => {}
            #[cfg(feature = "http2")]
            Self::Stream(stream) => stream.hand_over(),
        }
    }

    /// The response was dropped before its end was seen. Ready all the same: all has arrived, and only the
    /// last look was missing. Otherwise hyper closes rather than read what nobody wants.
    pub(super) fn abandon(self) {
        if let Self::Exclusive(connection) = self
            && connection.sender.is_ready()
        {
            connection.give_back();
        }
    }
}

impl Exclusive {
    pub(super) fn new(
        sender: SendRequest<Outgoing>,
        pool: &Arc<Pool>,
        expires: Option<Instant>,
        refusal: Option<Refusal>,
        close: Arc<Close>,
    ) -> Self {
        Self {
            sender,
            pool: Arc::downgrade(pool),
            expires,
            refusal,
            close,
            host: LastHost::default(),
        }
    }

    /// Its pod fell silent, so it is of no use.
    pub(super) fn silent(&self) {
        self.close.ending.silent();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn is_old(&self) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Instant::now())
    }

    fn give_back(self: Box<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            self.close.ending.end();
            pool.give_back(self);
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.close.ending.end();
    }
}

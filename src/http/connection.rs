//! One pod's connections.

use std::{error::Error, net::SocketAddr, sync::PoisonError, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{HttpError, pod::Failed};

#[expect(
    clippy::disallowed_types,
    reason = "one pod's, held for some nanoseconds, after the pick"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// The most that one connect may take. As in linkerd2-proxy; within a cluster an answer takes
/// milliseconds, and one lost SYN is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to one address. Dropping the pool closes those that are idle; the others end with
/// their response.
pub(super) struct Pool<B> {
    addr: SocketAddr,
    /// Also those that are busy with a response body: `is_ready` tells them apart. Last in, first out,
    /// so that surplus ones grow old and the pod closes them.
    connections: Mutex<Vec<SendRequest<B>>>,
}

impl<B> Pool<B> {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            connections: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes a connection back, which may still be busy with a response body.
    pub(super) fn give_back(&self, connection: SendRequest<B>) {
        if !connection.is_closed() {
            self.connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A connection that can take a request now, if there is one.
    pub(super) fn checkout(&self) -> Option<SendRequest<B>> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_closed());
        let place = connections.iter().rposition(SendRequest::is_ready)?;
        Some(connections.remove(place))
    }

    /// Makes a new connection, to the one address.
    pub(super) async fn dial(&self) -> Result<SendRequest<B>, HttpError> {
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(self.addr)).await {
            Ok(connected) => connected.map_err(HttpError::Connect)?,
            Err(_) => return Err(HttpError::ConnectTimeout),
        };
        // Requests are whole messages: waiting for more to send would only delay them.
        stream.set_nodelay(true).map_err(HttpError::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(HttpError::Request)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "hyper's connections are futures that somebody must poll"
        )]
        tokio::spawn(async move {
            // Its end, and why, is the response's or the next checkout's to tell.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Sends a request, and takes the connection back when the response's head is there.
    pub(super) async fn send(
        &self,
        mut connection: SendRequest<B>,
        request: Request<B>,
    ) -> Result<Response<Incoming>, Failed<B>> {
        match connection.try_send_request(request).await {
            Ok(response) => {
                self.give_back(connection);
                Ok(response)
            }
            Err(mut error) => {
                let unsent = error.take_message();
                let error = error.into_error();
                let error = if unsent.is_some() {
                    HttpError::Unsent(error)
                } else {
                    HttpError::Request(error)
                };
                Err(Failed { error, unsent })
            }
        }
    }
}

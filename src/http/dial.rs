//! Making connections, in tasks of the client: they outlive the request that wanted one.

use std::{
    io,
    pin::pin,
    sync::{Arc, Weak},
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

#[cfg(feature = "http2")]
use super::linking::{self, Linking};
use super::{
    config::{Http, Protocol},
    connection::Exclusive,
    error::ConnectError,
    outgoing::Outgoing,
    pool::{self, Pool},
    socket::{Close, Refusal, Socket, Stream},
};
use crate::{backoff::spread, draw::thread_unit, endpoint::Endpoint};

/// Dials, if the pool says so, and as often as it does.
pub(super) fn start(pool: &Arc<Pool>, mut dial: pool::Dial) {
    while dial == pool::Dial::Yes {
        start_one(pool);
        // One that ends may show that connections carry less than was expected: then more are wanted.
        dial = pool.another();
    }
}

/// A caller that gave up meanwhile leaves a connection for the next, or the news that the pod does not
/// answer.
fn start_one(pool: &Arc<Pool>) {
    let dialling = Dialling {
        pool: Arc::downgrade(pool),
        began: Instant::now(),
    };
    // The pool itself lives with those who use it.
    let (client, endpoint) = (Arc::clone(&pool.client), Arc::clone(&pool.endpoint));
    let runtime = client.runtime.clone();
    runtime.spawn(async move {
        let limit = client.settings.connect_timeout;
        let connected = timeout(limit, connect(&client.settings, &endpoint, &dialling.pool)).await;
        let connected = connected.unwrap_or(Err(ConnectError::Timeout));
        let meter = &client.signals.meter;
        meter.connected(
            connected
                .as_ref()
                .map_or_else(ConnectError::label, |_| "ok"),
        );
        match connected {
            Ok(Connected::Http1(sender, connection, refusal, close)) => {
                let expires = expiry(&client.settings);
                close.ending.established(meter, expires);
                drop((client, endpoint));
                dialling.end(|pool| {
                    let close = Arc::clone(&close);
                    let connection = Exclusive::new(sender, pool, expires, refusal, close);
                    pool.dialled(Box::new(connection))
                });
                // Its end, and why, is the response's or the next checkout's to tell. The socket is there until this ends.
                let mut connection = pin!(connection.with_upgrades());
                if connection.as_mut().await.is_err() {
                    close.ending.went_wrong();
                }
            }
            #[cfg(feature = "http2")]
            Ok(Connected::Http2(linking)) => {
                let expires = expiry(&client.settings);
                linking.established(meter, expires);
                drop((client, endpoint));
                linking.run(dialling, expires).await;
            }
            Err(error) => dialling.fail(&error),
        }
    });
}

#[cfg_attr(
    feature = "http2",
    expect(
        clippy::large_enum_variant,
        reason = "made once a connection, and taken apart at once"
    )
)]
enum Connected {
    Http1(
        http1::SendRequest<Outgoing>,
        http1::Connection<TokioIo<Socket>, Outgoing>,
        Option<Refusal>,
        Arc<Close>,
    ),
    #[cfg(feature = "http2")]
    Http2(Linking),
}

async fn connect(
    settings: &Http,
    endpoint: &Endpoint,
    pool: &Weak<Pool>,
) -> Result<Connected, ConnectError> {
    let stream = TcpStream::connect(endpoint.addr())
        .await
        .map_err(ConnectError::io)?;
    // Requests are whole messages: waiting for more to send would only delay them.
    stream.set_nodelay(true).map_err(ConnectError::io)?;
    let (stream, is_http2) = secure(settings, endpoint, stream).await?;
    let refusal = stream.refusal();
    let socket = Socket::new(stream, pool).ok_or_else(ConnectError::gone)?;
    #[cfg(feature = "http2")]
    if is_http2 {
        let linked = linking::link(settings, socket).await;
        return linked.map(Connected::Http2).map_err(|error| {
            let refusal = refusal.as_ref().and_then(|refusal| refusal.get());
            refusal.map_or(error, |refusal| ConnectError::Tls(Arc::clone(refusal)))
        });
    }
    debug_assert!(!is_http2, "it is not offered without its feature");
    let close = socket.handle();
    let (sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| ConnectError::io(io::Error::other(error)))?;
    Ok(Connected::Http1(sender, connection, refusal, close))
}

/// TLS, if it is on, and whether HTTP/2 is spoken over the stream.
async fn secure(
    settings: &Http,
    endpoint: &Endpoint,
    stream: TcpStream,
) -> Result<(Stream, bool), ConnectError> {
    let is_http2 = match settings.protocol {
        Protocol::Usual | Protocol::Http1 => false,
        #[cfg(feature = "http2")]
        Protocol::Http2 => true,
    };
    #[cfg(feature = "tls")]
    if let Some(tls) = &settings.tls {
        let stream = tls.connect(endpoint, stream).await?;
        // A server that knows no ALPN speaks HTTP/1.1, unless HTTP/2 was all that was offered.
        let is_http2 = is_http2 || stream.is_http2();
        return Ok((Stream::Tls(Box::new(stream)), is_http2));
    }
    let _ = endpoint;
    Ok((Stream::Plain(stream), is_http2))
}

/// When a connection made now is too old.
fn expiry(settings: &Http) -> Option<Instant> {
    Instant::now().checked_add(spread(settings.max_age?, 0.9, 1.1, thread_unit()))
}

/// A dial that the pool counts, until it ends in one way or another.
pub(super) struct Dialling {
    /// Empty when the pool was told. A pool that is gone needs no news.
    pub(super) pool: Weak<Pool>,
    began: Instant,
}

impl Dialling {
    /// The pool gets a connection.
    pub(super) fn end(mut self, tell: impl FnOnce(&Arc<Pool>) -> pool::Dial) {
        if let Some(pool) = std::mem::take(&mut self.pool).upgrade() {
            let dial = tell(&pool);
            start(&pool, dial);
        }
    }

    fn fail(mut self, error: &ConnectError) {
        if let Some(pool) = std::mem::take(&mut self.pool).upgrade() {
            pool.refused(self.began, error);
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.dropped();
        }
    }
}

//! HTTP/2: from a socket to a connection that requests can share, and on to its end.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};

use super::{
    config::Http,
    dial::{self, Dialling},
    error::ConnectError,
    outgoing::Outgoing,
    shared::Link,
    socket::Socket,
};

/// What hyper believes the pod permits before the pod has said so: a number that no server says.
const UNTOLD: usize = 0x7fff_fffe;

/// gRPC's keep-alive timeout is 20 s (gRFC A8); pods of one cluster are nearer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Http2 = Connection<TokioIo<Socket>, Outgoing, TokioExecutor>;

/// A connection whose pod has shown that it speaks HTTP/2.
pub(super) struct Linking {
    id: u64,
    sender: SendRequest<Outgoing>,
    connection: Http2,
    /// Our own limit.
    max_streams: usize,
}

/// Speaks first, and waits for the pod's settings, which is what a server says first (RFC 9113, 3.4). So a
/// pod that hangs, or speaks something else, shows before any request is written.
pub(super) async fn link(settings: &Http, socket: Socket) -> Result<Linking, ConnectError> {
    let id = socket.id();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNTOLD);
    if let Some(interval) = settings.ping {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(PING_TIMEOUT.min(interval));
    }
    let no_http2 = |error: hyper::Error| ConnectError::NotHttp2(Arc::new(io::Error::other(error)));
    let (sender, mut connection) = builder
        .handshake(TokioIo::new(socket))
        .await
        .map_err(no_http2)?;
    // hyper reads the settings in a task of its own and wakes nobody, so look again and again: at first soon,
    // for pods are near.
    let mut pause = Duration::from_millis(1);
    while connection.current_max_send_streams() == UNTOLD {
        tokio::select! {
            ended = &mut connection => {
                ended.map_err(no_http2)?;
                let closed = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection closed before the pod sent its settings",
                );
                return Err(ConnectError::NotHttp2(Arc::new(closed)));
            }
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(20)),
        }
    }
    if connection.current_max_send_streams() == 0 {
        let none = io::Error::other("the pod permits no streams");
        return Err(ConnectError::io(none));
    }
    Ok(Linking {
        id,
        sender,
        connection,
        max_streams: settings.max_streams,
    })
}

impl Linking {
    /// Hands the connection to the pool, and drives it to its end.
    pub(super) async fn run(self, dialling: Dialling, expires: Option<Instant>) {
        let Self {
            id,
            sender,
            mut connection,
            max_streams,
        } = self;
        let weak = dialling.pool.clone();
        let mut permitted = connection.current_max_send_streams();
        dialling
            .end(|pool| pool.linked(Link::new(id, sender, permitted.min(max_streams), expires)));
        let ended = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            let permits = connection.current_max_send_streams();
            if permits != permitted {
                permitted = permits;
                if let Some(pool) = weak.upgrade() {
                    pool.with_links(|links| links.permit(id, permitted.min(max_streams)));
                }
            }
            match polled {
                Poll::Pending => Poll::Pending,
                Poll::Ready(_) => Poll::Ready(()),
            }
        });
        ended.await;
        let Some(pool) = weak.upgrade() else { return };
        let (is_news, next) = pool.ended(id);
        dial::start(&pool, next);
        if is_news {
            // The pod said goodbye, or died: it may be about to leave the service.
            pool.client.signals.refresh();
        }
    }
}

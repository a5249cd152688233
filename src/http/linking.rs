//! HTTP/2: from a socket to a connection that requests can share, and on to its end.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    config::Http,
    dial::{self, Dialling},
    driving::{self, Driver},
    error::ConnectError,
    outgoing::Outgoing,
    pool::Pool,
    shared::Link,
    socket::{Close, Socket},
};
use crate::meter::Meter;

/// What hyper believes the pod permits before the pod has said so: a number that no server says.
const UNTOLD: usize = 0x7fff_fffe;

/// gRPC's keep-alive timeout is 20 s (gRFC A8); pods of one cluster are nearer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose pod has shown that it speaks HTTP/2.
pub(super) struct Linking {
    id: u64,
    close: Arc<Close>,
    sender: SendRequest<Outgoing>,
    driver: Driver,
    /// What the pod permits.
    permitted: usize,
    /// Our own limit.
    max_streams: usize,
}

/// Speaks first, and waits for the pod's settings, which is what a server says first (RFC 9113, 3.4). So a
/// pod that hangs, or speaks something else, shows before any request is written.
pub(super) async fn link(settings: &Http, socket: Socket) -> Result<Linking, ConnectError> {
    let (id, close) = (socket.id(), socket.handle());
    let (executor, tasks) = driving::executor();
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNTOLD);
    if let Some(interval) = settings.ping {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(PING_TIMEOUT.min(interval));
    }
    let no_http2 = |error: hyper::Error| ConnectError::NotHttp2(Arc::new(io::Error::other(error)));
    let (sender, connection) = builder
        .handshake(TokioIo::new(socket))
        .await
        .map_err(no_http2)?;
    let mut driver = Driver::new(connection, tasks);
    let told = poll_fn(|cx| {
        let ended = driver.poll(cx);
        match driver.max_streams() {
            None => ended.map(|ended| ended.map(|()| None)),
            Some(UNTOLD) => Poll::Pending,
            Some(permitted) => Poll::Ready(Ok(Some(permitted))),
        }
    });
    match told.await.map_err(no_http2)? {
        None => {
            let closed = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection closed before the pod sent its settings",
            );
            Err(ConnectError::NotHttp2(Arc::new(closed)))
        }
        Some(0) => {
            let none = io::Error::other("the pod permits no streams");
            Err(ConnectError::io(none))
        }
        Some(permitted) => Ok(Linking {
            id,
            close,
            sender,
            driver,
            permitted,
            max_streams: settings.max_streams,
        }),
    }
}

impl Linking {
    /// It can take requests, until it is too old.
    pub(super) fn established(&self, meter: &Meter, expires: Option<Instant>) {
        self.close.ending.established(meter, expires);
    }

    /// Hands the connection to the pool, and drives it to its end.
    pub(super) async fn run(self, dialling: Dialling, expires: Option<Instant>) {
        let Self {
            id,
            close,
            sender,
            mut driver,
            mut permitted,
            max_streams,
        } = self;
        let weak = dialling.pool.clone();
        let streams = permitted.min(max_streams);
        let link = Link::new(id, weak.clone(), sender, streams, expires);
        dialling.end(|pool| pool.linked(link));
        close.ending.begin();
        let over = poll_fn(|cx| {
            let ended = driver.poll(cx);
            if let Poll::Ready(Err(error)) = &ended {
                why(error, &close);
            }
            let permits = driver.max_streams().unwrap_or(permitted);
            if (ended.is_ready() || permits != permitted)
                && let Some(pool) = weak.upgrade()
            {
                match ended {
                    Poll::Ready(_) => end(&pool, id, &close),
                    Poll::Pending => {
                        pool.with_links(|links| links.permit(id, permits.min(max_streams)));
                    }
                }
            }
            permitted = permits;
            match driver.is_over() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        over.await;
        close.ending.end();
    }
}

/// Notes why the connection failed.
fn why(error: &hyper::Error, close: &Close) {
    if error.is_timeout() {
        return close.ending.unanswered();
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.is_remote() && error.is_go_away() {
                true => close.ending.closed_by_pod(),
                false => close.ending.broke(),
            };
        }
        cause = error.source();
    }
    close.ending.went_wrong();
}

/// The connection takes no more requests: the pod said goodbye, or died, or the pool let it go.
fn end(pool: &Arc<Pool>, id: u64, close: &Close) {
    let (is_news, next) = pool.ended(id);
    dial::start(pool, next);
    if !is_news {
        close.ending.let_go();
    } else {
        close.ending.closed_by_pod();
        // The pod may be about to leave the service.
        pool.client.signals.refresh();
    }
}

//! Making connections, in tasks of the pool: they outlive the request that wanted one.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use http_body::Body;
use hyper::client::conn::http1::{Connection as Http1, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    connection::Connection,
    pool::{self, Pool},
};

/// The most that one connect, to the one address, may take. Within a cluster an answer takes less than
/// a millisecond; but a lost SYN is sent again after 1 s (RFC 6298, 2), and its answer must win. The
/// second repetition, after 3 s, is not waited for: another pod is the better guess, and callers who
/// give a request 2 s have time for it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Dials, if the pool says so. A caller that gave up meanwhile leaves a connection for the next, or
/// the news that the pod does not answer.
pub(super) fn start<B>(pool: &Arc<Pool<B>>, dial: pool::Dial)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if dial == pool::Dial::No {
        return;
    }
    let addr = pool.addr();
    let dialling = Dialling {
        pool: Arc::downgrade(pool),
        began: Instant::now(),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "hyper's connections are futures that somebody must poll"
    )]
    tokio::spawn(async move {
        match connect(addr).await {
            Ok((sender, connection)) => {
                dialling.end(sender);
                // Its end, and why, is the response's or the next checkout's to tell.
                let _ = connection.with_upgrades().await;
            }
            Err(error) => dialling.fail(&error),
        }
    });
}

async fn connect<B>(addr: SocketAddr) -> io::Result<(SendRequest<B>, Http1<TokioIo<TcpStream>, B>)>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await??;
    // Requests are whole messages: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)
}

/// A dial that the pool counts, until it ends in one way or another.
struct Dialling<B> {
    /// Empty when the pool was told. A pool that is gone needs no news.
    pool: Weak<Pool<B>>,
    began: Instant,
}

impl<B> Dialling<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn end(mut self, sender: SendRequest<B>) {
        let weak = std::mem::take(&mut self.pool);
        if let Some(pool) = weak.upgrade() {
            let dial = pool.dialled(Box::new(Connection::new(sender, weak)));
            start(&pool, dial);
        }
    }
}

impl<B> Dialling<B> {
    fn fail(mut self, error: &io::Error) {
        if let Some(pool) = std::mem::take(&mut self.pool).upgrade() {
            pool.refused(self.began, error);
        }
    }
}

impl<B> Drop for Dialling<B> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.dropped();
        }
    }
}

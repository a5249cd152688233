//! The socket beneath a connection: plain or TLS, counted, and closed from outside when it must.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[cfg(feature = "tls")]
use super::secured::Secured;
use super::{dial, pool::Pool};
use crate::meter::Ending;

/// A socket to a pod. The pool knows of it until it is dropped, whoever has it then: hyper, or after an
/// upgrade the user.
pub(super) struct Socket {
    stream: Stream,
    close: Arc<Close>,
    /// Who was registered to be woken when it is to close: nearly always the same task.
    reader: Option<Waker>,
    pool: Weak<Pool>,
    id: u64,
}

pub(super) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<Secured>),
}

/// Why the pod turned the connection down after it was made, if it did: it has seen no request then. Only TLS
/// knows such a thing.
pub(super) type Refusal = Arc<OnceLock<Arc<io::Error>>>;

impl Stream {
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Plain(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Some(stream.refusal()),
        }
    }
}

/// Closes a socket from outside. Its reader finds out at once, and so does all that waits above it.
#[derive(Debug, Default)]
pub(super) struct Close {
    told: AtomicBool,
    reader: AtomicWaker,
    /// Why it ends, for the count.
    pub(super) ending: Ending,
}

impl Close {
    pub(super) fn now(&self) {
        self.ending.cut();
        self.told.store(true, Relaxed);
        self.reader.wake();
    }
}

/// The pod has left the service, and the time that its last requests had is over.
#[derive(Debug)]
struct Drained;

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pod left the service, and its time to drain is over")
    }
}

impl std::error::Error for Drained {}

impl Socket {
    /// `None` if the pool wants none any more.
    pub(super) fn new(stream: Stream, pool: &Weak<Pool>) -> Option<Self> {
        let (id, close) = pool.upgrade()?.opened()?;
        Some(Self {
            stream,
            close,
            reader: None,
            pool: Weak::clone(pool),
            id,
        })
    }

    /// What the pool knows of it.
    pub(super) fn handle(&self) -> Arc<Close> {
        Arc::clone(&self.close)
    }

    /// What the pool calls it.
    #[cfg(feature = "http2")]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Notes how the stream failed, if it did.
    #[inline]
    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done {
            self.close.ending.failed(error);
        }
        done
    }

    fn is_closed(&self) -> io::Result<()> {
        if self.close.told.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, Drained));
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close.ending.closed();
        if let Some(pool) = self.pool.upgrade() {
            let dial = pool.closed(self.id);
            dial::start(&pool, dial);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if read.is_pending() {
            if !self
                .reader
                .as_ref()
                .is_some_and(|reader| reader.will_wake(cx.waker()))
            {
                self.close.reader.register(cx.waker());
                self.reader = Some(cx.waker().clone());
            }
            self.is_closed()?;
        }
        match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => {
                self.close.ending.closed_by_pod();
            }
            Poll::Ready(Err(error)) => self.close.ending.failed(error),
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_closed()?;
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        };
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_closed()?;
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        };
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

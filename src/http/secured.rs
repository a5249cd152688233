//! A TLS stream that knows whether the pod turned us down.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{self, AlertDescription, ProtocolVersion},
};

use super::socket::Refusal;

/// TLS to a pod, after our side of the handshake.
///
/// In TLS 1.3 a client may send before it knows whether the server takes its certificate: the server's
/// refusal comes later, as an alert in place of the response. That the request before it was not processed
/// can be proved, so it may go to another pod:
///
/// - Our certificate and our `Finished` precede the request on the wire, and a server may take application data
///   only when it has validated that `Finished` (RFC 8446, 4.4.4). The alerts below are defined as ends of a
///   handshake (RFC 8446, 4.4.2.4, 4.4.3 and 6.2): the server has not come to the records behind it. Early
///   data, which is the exception, is never sent.
/// - Nor can they be about a later certificate: a server may ask for one only if the client says that it may
///   (RFC 8446, 4.6.2), and rustls does not. TLS 1.2 ends its handshake before the first request.
/// - A server that says something first has ended the handshake, whatever it thinks of us later. (One that speaks
///   before it has heard us out loses nothing but this proof.)
pub(super) struct Secured {
    stream: TlsStream<TcpStream>,
    /// The pod has yet to say something that shows that it has accepted us.
    is_open: bool,
    refusal: Refusal,
}

impl Secured {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        let version = stream.get_ref().1.protocol_version();
        Self {
            stream,
            is_open: version == Some(ProtocolVersion::TLSv1_3),
            refusal: Refusal::default(),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    pub(super) fn refusal(&self) -> Refusal {
        Arc::clone(&self.refusal)
    }

    /// Remembers the alert, if it is one that turns us down.
    fn note(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        if let Some(cause @ rustls::Error::AlertReceived(alert)) = cause
            && self.is_open
            && is_refusal(*alert)
        {
            // The first one, if there are several.
            let _ = self.refusal.set(Arc::new(io::Error::other(cause.clone())));
        }
    }

    /// A write may fail because the pod has hung up: then what it said last is here, or about to be, and tells
    /// more. Its end is as certain, so this waits for nothing that may not come.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_open
            && let Poll::Ready(Err(error)) = &done
            && matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        {
            let mut nowhere = [0; 1];
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut nowhere));
            if let Err(last) = ready!(read) {
                self.note(&last);
            }
        }
        done
    }
}

/// Alerts that say that our side of the handshake was not accepted (RFC 8446, 6.2). Others, `internal_error`
/// above all, may come at any time.
fn is_refusal(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &read {
            Ok(()) => self.is_open &= buffer.filled().len() == before,
            Err(error) => self.note(error),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, data);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

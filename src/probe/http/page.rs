//! A page that a pod serves, asked for on a connection of its own.

use std::{borrow::Cow, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::reply::{LONGEST_BODY, LONGEST_HEAD, Reply};
use crate::{endpoint::Endpoint, probe::ProbeError};

/// Where it is, on each pod.
#[derive(Clone, Debug)]
pub(in crate::probe) struct Page {
    pub(in crate::probe) path: Cow<'static, str>,
    /// `None`: the endpoint's own.
    pub(in crate::probe) port: Option<u16>,
    #[cfg(feature = "tls")]
    pub(in crate::probe) tls: Option<crate::tls::Tls>,
}

impl Page {
    pub(in crate::probe) fn new(
        path: impl Into<Cow<'static, str>>,
        port: impl Into<Option<u16>>,
    ) -> Self {
        Self {
            path: path.into(),
            port: port.into(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Over TLS, without ALPN: a configuration that is shared with another client may offer HTTP/2, and a server
    /// would take that.
    #[cfg(feature = "tls")]
    pub(in crate::probe) fn secured(&mut self, mut tls: crate::tls::Tls) {
        std::sync::Arc::make_mut(&mut tls.config)
            .alpn_protocols
            .clear();
        self.tls = Some(tls);
    }

    /// The whole page, by HTTP/1.0: that has no chunks.
    pub(in crate::probe) async fn load(&self, endpoint: &Endpoint) -> Result<Reply, ProbeError> {
        self.ask(endpoint, "1.0", Reply::read).await
    }

    /// The status alone, by HTTP/1.1: a proxy beside the pod may take nothing older (Envoy, unless it is told to),
    /// and the body, be it in chunks, is not read.
    pub(super) async fn status(&self, endpoint: &Endpoint) -> Result<u16, ProbeError> {
        self.ask(endpoint, "1.1", Reply::status).await
    }

    /// Connects, asks, reads what is wanted of the reply, and hangs up.
    ///
    /// No failure is definitive: what serves the page may be down while the database beside it works.
    async fn ask<T>(
        &self,
        endpoint: &Endpoint,
        version: &str,
        read: impl Fn(&[u8], bool) -> Result<Option<T>, &'static str>,
    ) -> Result<T, ProbeError> {
        let addr = SocketAddr::new(
            endpoint.addr().ip(),
            self.port.unwrap_or_else(|| endpoint.addr().port()),
        );
        let request = self.request(addr, version)?;
        let stream = TcpStream::connect(addr).await;
        let stream = stream.map_err(|error| ProbeError::opening(error).unproven())?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let failed = |error| ProbeError::new(crate::probe::ProbeFailure::Tls, error);
            let name = tls.name_of(endpoint).map_err(failed)?;
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&tls.config));
            let secured = connector.connect(name, stream).await;
            let stream = secured.map_err(|error| ProbeError::securing(error).unproven())?;
            return exchange(stream, &request, read).await;
        }
        exchange(stream, &request, read).await
    }

    /// The connection ends with the reply.
    fn request(&self, host: SocketAddr, version: &str) -> Result<String, ProbeError> {
        let path = &*self.path;
        if !path.starts_with('/') || path.bytes().any(|c| c.is_ascii_control() || c == b' ') {
            return Err(ProbeError::passing(format!("`{path}` is no path")));
        }
        Ok(format!(
            "GET {path} HTTP/{version}\r\nHost: {host}\r\nAccept: */*\r\nUser-Agent: headless-lb\r\nConnection: close\r\n\r\n"
        ))
    }
}

async fn exchange<T>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    wanted: impl Fn(&[u8], bool) -> Result<Option<T>, &'static str>,
) -> Result<T, ProbeError> {
    // One that hangs up at once may have replied first.
    let sent = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    let sent = sent.await;
    let mut bytes = Vec::with_capacity(1024);
    while bytes.len() <= LONGEST_HEAD + LONGEST_BODY {
        let read = match stream.read_buf(&mut bytes).await {
            // Python's TLS ends without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(ProbeError::closed)?,
        };
        let reply = wanted(&bytes, read == 0);
        match reply.map_err(|error| unreadable(error, &bytes, &sent))? {
            Some(reply) => return Ok(reply),
            None if read == 0 => break,
            None => {}
        }
    }
    Err(ProbeError::passing("the reply has no end"))
}

fn unreadable(error: &'static str, bytes: &[u8], sent: &io::Result<()>) -> ProbeError {
    match sent {
        _ if !bytes.is_empty() => ProbeError::passing(error),
        Err(failed) => ProbeError::closed(io::Error::from(failed.kind())),
        Ok(()) => ProbeError::closed("closed without a reply"),
    }
}

#[cfg(test)]
pub(in crate::probe) mod tests {
    use std::sync::Arc;

    use tokio::{net::TcpListener, time::Instant};

    use super::*;
    use crate::probe::ProbeFailure;

    /// A pod on loopback that answers each request with the next of these, in these pieces, and hangs up.
    pub(in crate::probe) struct Peer {
        pub(in crate::probe) endpoint: Endpoint,
        pub(in crate::probe) port: u16,
        listener: TcpListener,
    }

    impl Peer {
        pub(in crate::probe) async fn bind() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            // The database is at another port than the page.
            let database = SocketAddr::from(([127, 0, 0, 1], 5432));
            let endpoint = Endpoint::new(database.into(), Instant::now());
            Self {
                endpoint,
                port,
                listener,
            }
        }

        /// Serves one request: the request's text.
        pub(in crate::probe) async fn serve(&self, pieces: &[&[u8]]) -> String {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8(request).unwrap()
        }

        /// Hears something, says this, and hangs up: what it heard.
        #[cfg(feature = "tls")]
        pub(in crate::probe) async fn hang_up(&self, said: &[u8]) -> Vec<u8> {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut heard = Vec::with_capacity(4096);
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
            stream.write_all(said).await.unwrap();
            heard
        }

        pub(in crate::probe) async fn answer(
            &self,
            probe: &impl crate::probe::Probe<Session = ()>,
            text: &str,
        ) -> Result<crate::probe::Observation, ProbeError> {
            let pieces = [text.as_bytes()];
            let served = self.serve(&pieces);
            let mut session = ();
            let seen = probe.observe(&self.endpoint, &mut session);
            tokio::join!(seen, served).0
        }
    }

    #[tokio::test]
    async fn the_request_is_one_that_any_server_answers_and_hangs_up_after() {
        let peer = Peer::bind().await;
        let page = Page::new("/primary?x=1", peer.port);
        let (reply, request) = tokio::join!(
            page.load(&peer.endpoint),
            peer.serve(&[b"HTTP/1.0 200 OK\r\n\r\nbody"])
        );
        assert_eq!(reply.unwrap().body, b"body");
        assert!(
            request.starts_with("GET /primary?x=1 HTTP/1.0\r\n"),
            "{request}"
        );
        assert!(request.contains(&format!("\r\nHost: 127.0.0.1:{}\r\n", peer.port)));
        assert!(request.contains("\r\nConnection: close\r\n"));
    }

    #[tokio::test]
    async fn a_reply_split_at_any_byte_is_the_same_reply() {
        let peer = Arc::new(Peer::bind().await);
        let text = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 7\r\nX: y\r\n\r\n{\"a\":1}";
        for at in 0..=text.len() {
            let page = Page::new("/", peer.port);
            let (first, second) = text.split_at(at);
            let pieces = [first, second];
            let (reply, _) = tokio::join!(page.load(&peer.endpoint), peer.serve(&pieces));
            let reply = reply.unwrap();
            assert_eq!(
                (reply.status, &reply.body[..]),
                (503, &b"{\"a\":1}"[..]),
                "{at}"
            );
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_not_there_or_hangs_up_proves_nothing() {
        let peer = Peer::bind().await;
        let page = Page::new("/", peer.port);
        let (error, _) = tokio::join!(page.load(&peer.endpoint), peer.serve(&[]));
        let error = error.unwrap_err();
        assert_eq!(
            (error.failure(), error.is_definitive()),
            (ProbeFailure::Closed, false)
        );

        let Peer {
            endpoint, listener, ..
        } = peer;
        drop(listener);
        let error = page.load(&endpoint).await.unwrap_err();
        assert_eq!(
            (error.failure(), error.is_definitive()),
            (ProbeFailure::Refused, false)
        );
    }

    #[tokio::test]
    async fn a_peer_that_sends_without_end_is_cut_off() {
        let peer = Peer::bind().await;
        let page = Page::new("/", peer.port);
        let long = vec![b'x'; 2 * (LONGEST_HEAD + LONGEST_BODY)];
        let (body, head) = ([&b"HTTP/1.0 200 OK\r\n\r\n"[..], &long].concat(), long);
        for (text, is_reply) in [(body, true), (head, false)] {
            let served = async {
                let (mut stream, _) = peer.listener.accept().await.unwrap();
                // It hangs up on us while we send.
                let _ = stream.write_all(&text).await;
            };
            let (reply, ()) = tokio::join!(page.load(&peer.endpoint), served);
            assert_eq!(reply.is_ok(), is_reply, "{reply:?}");
        }
    }

    #[tokio::test]
    async fn a_path_cannot_carry_another_request() {
        let peer = Peer::bind().await;
        for path in ["primary", "", "/a b", "/a\r\nX: y"] {
            let error = Page::new(path, peer.port).load(&peer.endpoint).await;
            assert!(error.is_err(), "{path:?}");
        }
    }
}

//! A pod that says exactly the frames that a test wants (RFC 9113, 4.1 and 6).

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// On DATA and HEADERS.
const END_STREAM: u8 = 1;
/// On SETTINGS and PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Index 8 of HPACK's static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x80 | 8;

const MAX_CONCURRENT_STREAMS: u16 = 3;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;

/// Plays a script on each connection, until it is dropped.
pub(super) struct Scripted {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Scripted {
    /// A script that ends closes its connection. It is told which connection that is, from 1.
    pub(super) async fn start<F>(
        ip: [u8; 4],
        script: impl Fn(Wire, usize) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0)))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let number = count.fetch_add(1, Relaxed) + 1;
                let playing = script(Wire::over(stream), number);
                // A client that is gone ends the script as well.
                open.spawn(async move { drop(playing.await) });
            }
        });
        Self {
            addr,
            connections,
            _serving: serving,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// One connection.
pub(super) struct Wire {
    pub(super) socket: TcpStream,
    /// Requests that have begun.
    open: Vec<Received>,
}

/// A request that has arrived, whole or up to its head.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) stream: u32,
    pub(super) body: String,
}

impl Wire {
    fn over(socket: TcpStream) -> Self {
        let open = Vec::new();
        Self { socket, open }
    }

    /// Says what a server says first.
    pub(super) async fn greet(&mut self, max_streams: u32) -> io::Result<()> {
        let mut preface = [0; 24];
        self.socket.read_exact(&mut preface).await?;
        self.permit(max_streams).await
    }

    /// SETTINGS: so many streams from now on.
    pub(super) async fn permit(&mut self, streams: u32) -> io::Result<()> {
        let id = MAX_CONCURRENT_STREAMS.to_be_bytes();
        let setting = [&id[..], &streams.to_be_bytes()].concat();
        self.send(SETTINGS, 0, 0, &setting).await
    }

    /// The next request, when all of it is there.
    pub(super) async fn request(&mut self) -> io::Result<Received> {
        loop {
            let (kind, flags, stream, payload) = self.frame().await?;
            match kind {
                HEADERS => self.open.push(Received {
                    stream,
                    body: String::new(),
                }),
                DATA => {
                    if let Some(one) = self.open.iter_mut().find(|one| one.stream == stream) {
                        one.body.push_str(&String::from_utf8_lossy(&payload));
                    }
                }
                _ => continue,
            }
            if flags & END_STREAM != 0
                && let Some(place) = self.open.iter().position(|one| one.stream == stream)
            {
                return Ok(self.open.swap_remove(place));
            }
        }
    }

    /// The head of the next request, whatever becomes of its body.
    pub(super) async fn head(&mut self) -> io::Result<u32> {
        loop {
            let (kind, _, stream, _) = self.frame().await?;
            if kind == HEADERS {
                return Ok(stream);
            }
        }
    }

    pub(super) async fn answer(&mut self, stream: u32, body: &str) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS, stream, &[STATUS_200])
            .await?;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await
    }

    /// The head and a first part of a body.
    pub(super) async fn begin(&mut self, stream: u32, body: &str) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS, stream, &[STATUS_200])
            .await?;
        self.send(DATA, 0, stream, body.as_bytes()).await
    }

    pub(super) async fn reset(&mut self, stream: u32, reason: u32) -> io::Result<()> {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
            .await
    }

    pub(super) async fn goodbye(&mut self, last: u32, reason: u32) -> io::Result<()> {
        let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload).await
    }

    /// Reads until the client closes.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        loop {
            self.frame().await?;
        }
    }

    /// The next frame. Settings and pings are answered, and what was taken may be sent again.
    async fn frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).await?;
        if kind == DATA && !payload.is_empty() {
            let more = (payload.len() as u32).to_be_bytes();
            self.send(WINDOW_UPDATE, 0, 0, &more).await?;
            self.send(WINDOW_UPDATE, 0, stream, &more).await?;
        }
        if flags & ACK == 0 {
            match kind {
                SETTINGS => self.send(SETTINGS, ACK, 0, &[]).await?,
                PING => self.send(PING, ACK, 0, &payload).await?,
                _ => {}
            }
        }
        Ok((kind, flags, stream, payload))
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).await
    }
}

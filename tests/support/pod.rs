//! A pod of bytes: a loopback HTTP/1.1 server that remembers what it saw and dies when told to.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::sleep,
};

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// Serves until it is dropped, which breaks its connections and closes its port.
pub struct Pod {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

/// What a pod saw.
#[derive(Default)]
pub struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<String>>,
    refuse: Notify,
}

/// Connections that may wait to be accepted: as short a queue as Java's, the shortest in common use.
const LISTEN_QUEUE: u32 = 50;

/// How long `/slow` takes.
pub const SLOW: Duration = Duration::from_millis(50);

/// How a pod ends an exchange.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// Keeps the connection.
    KeepsAlive,
    /// Closes it after each response, without saying so before.
    ClosesUnannounced,
}

impl Pod {
    /// Serves on a loopback address with a port of its own.
    pub async fn start(ip: [u8; 4], manner: Manner) -> Self {
        Self::start_at(SocketAddr::from((ip, 0)), manner).await
    }

    /// Serves where another pod may have been a moment ago.
    pub async fn start_at(addr: SocketAddr, manner: Manner) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Connections of the pod before may wait for their end.
        socket.set_reuseaddr(true).expect("an option of sockets");
        socket.bind(addr).expect("a loopback port");
        let listener = socket.listen(LISTEN_QUEUE).expect("a loopback port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        let log = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a connection").0,
                    () = log.refuse.notified() => break,
                };
                log.connections.fetch_add(1, Relaxed);
                let log = Arc::clone(&log);
                connections.spawn(async move {
                    log.open.fetch_add(1, Relaxed);
                    let _ = serve(stream, &log, addr, manner).await;
                    log.open.fetch_sub(1, Relaxed);
                });
            }
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
        Self {
            addr,
            seen,
            _serving: serving,
        }
    }

    /// Closes the port, and keeps the connections.
    pub fn refuse(&self) {
        self.seen.refuse.notify_one();
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Relaxed)
    }

    /// The requests so far, head and body as received.
    pub fn requests(&self) -> Vec<String> {
        self.seen
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Answers each request with the pod's own address, after a while (`/slow`), in chunks (`/chunked`),
/// without end (`/endless`), or not with it (`/nothing`, `/upgrade`, and any `HEAD`).
async fn serve(
    mut stream: TcpStream,
    seen: &Seen,
    addr: SocketAddr,
    manner: Manner,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let mut line = request.split(' ');
        let (method, path) = (
            line.next().unwrap_or("").to_owned(),
            line.next().unwrap_or("").to_owned(),
        );
        seen.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        let body = addr.to_string();
        let length = body.len();
        let answer = match (method.as_str(), path.as_str()) {
            ("HEAD", _) => format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"),
            (_, "/chunked") => format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
            (_, "/endless") => format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{body}"),
            (_, "/nothing") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            (_, "/upgrade") => {
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
                    .to_owned()
            }
            _ => format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
        };
        if path == "/slow" {
            sleep(SLOW).await;
        }
        stream.write_all(answer.as_bytes()).await?;
        if manner == Manner::ClosesUnannounced {
            return Ok(());
        }
    }
}

/// One request with a `content-length` body or none; `None` at the end of the stream.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text[..head].to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:")
                    .and_then(|value| value.trim().parse::<usize>().ok())
            });
            let end = head + 4 + length.unwrap_or(0);
            if buffer.len() >= end {
                let request = buffer.drain(..end).collect::<Vec<u8>>();
                return Ok(Some(String::from_utf8_lossy(&request).into_owned()));
            }
        }
        let mut chunk = [0; 16 * 1024];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok(None);
        }
        buffer.extend_from_slice(&chunk[..read]);
    }
}

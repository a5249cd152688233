//! A pod of bytes: a loopback HTTP/1.1 server that remembers what it saw and dies when told to.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
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
}

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
        let listener = TcpListener::bind(SocketAddr::from((ip, 0)))
            .await
            .expect("a loopback port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        let log = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                log.connections.fetch_add(1, Relaxed);
                let log = Arc::clone(&log);
                connections.spawn(async move {
                    log.open.fetch_add(1, Relaxed);
                    let _ = serve(stream, &log, addr, manner).await;
                    log.open.fetch_sub(1, Relaxed);
                });
            }
        });
        Self {
            addr,
            seen,
            _serving: serving,
        }
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

/// Answers each request with the pod's own address.
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
        seen.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        let body = addr.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
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

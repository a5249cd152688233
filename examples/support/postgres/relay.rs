//! A way to a server that can fall silent, in both directions.
#![expect(
    clippy::disallowed_methods,
    reason = "bytes are carried beside the story"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::Result;

/// Completed connections that wait to be accepted. Small: a silent relay fills it.
const BACKLOG: u32 = 16;

/// On loopback a connect completes within microseconds or, with its SYN dropped, not before the first
/// retransmission after a second.
const CONNECTS: Duration = Duration::from_millis(200);

/// Carries connections to a server. Dropped: all are closed.
#[derive(Debug)]
pub(crate) struct Relay {
    addr: SocketAddr,
    silent: watch::Sender<bool>,
    asked: Arc<AtomicU64>,
    carrying: JoinHandle<()>,
}

impl Relay {
    pub(super) async fn start(addr: SocketAddr, to: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let (silent, is_silent) = watch::channel(false);
        let asked = Arc::new(AtomicU64::new(0));
        let carrying = tokio::spawn(carry(listener, to, is_silent, Arc::clone(&asked)));
        Ok(Self {
            addr,
            silent,
            asked,
            carrying,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many messages of clients were carried: one for each write, as long as they are short.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    /// Carries nothing more, neither bytes nor ends of connections, and drops every SYN: a Linux listener
    /// whose queue of completed connections is full ignores them (`tcp_conn_request`, as
    /// `net.ipv4.tcp_abort_on_overflow` is off).
    pub(crate) async fn silence(&self) -> Result<()> {
        self.silent.send_replace(true);
        // Bounded by more than the queue takes; clients may have filled a part of it.
        for _ in 0..4 * BACKLOG {
            match timeout(CONNECTS, TcpStream::connect(self.addr)).await {
                Ok(connected) => drop(connected?),
                Err(_unanswered) => return Ok(()),
            }
        }
        Err("connects are still answered: only Linux drops those that find a full queue".into())
    }

    /// Carries again, what was held up included.
    pub(crate) fn heal(&self) {
        self.silent.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(
    listener: TcpListener,
    to: SocketAddr,
    mut silent: watch::Receiver<bool>,
    asked: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    // Ends with the relay.
    while silent.wait_for(|silent| !silent).await.is_ok() {
        let accepted = tokio::select! {
            biased;
            _ = silent.changed() => continue,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        if let Ok((client, _)) = accepted {
            connections.spawn(connect(client, to, silent.clone(), Arc::clone(&asked)));
        }
    }
}

async fn connect(
    client: TcpStream,
    to: SocketAddr,
    silent: watch::Receiver<bool>,
    asked: Arc<AtomicU64>,
) {
    // A server that refuses: the client sees its connection close.
    let Ok(server) = TcpStream::connect(to).await else {
        // A reset, as a refused connect would be.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pass(from_client, to_server, silent.clone(), || {
            asked.fetch_add(1, Relaxed);
        }),
        pass(from_server, to_client, silent, || {}),
    );
}

/// One direction, until its end, which is passed on too.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silent: watch::Receiver<bool>,
    passed: impl Fn(),
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if silent.wait_for(|silent| !silent).await.is_err() {
            return;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
        passed();
    }
}

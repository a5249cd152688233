//! A relay in front of a server that counts what goes through it.
#![expect(
    clippy::disallowed_methods,
    reason = "bytes are carried beside what is measured"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::support::Result;

/// What was counted until now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    /// Answered questions: a client's turn that ended with a server's.
    pub(crate) questions: u64,
    /// In both directions.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Cells {
    connections: AtomicU64,
    questions: AtomicU64,
    bytes: AtomicU64,
}

/// Carries connections to a server. Dropped: all are closed.
#[derive(Debug)]
pub(crate) struct Counting {
    addr: SocketAddr,
    cells: Arc<Cells>,
    carrying: JoinHandle<()>,
}

impl Counting {
    pub(crate) async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (addr, cells) = (listener.local_addr()?, Arc::new(Cells::default()));
        let carrying = tokio::spawn(carry(listener, to, Arc::clone(&cells)));
        Ok(Self {
            addr,
            cells,
            carrying,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            connections: self.cells.connections.load(Relaxed),
            questions: self.cells.questions.load(Relaxed),
            bytes: self.cells.bytes.load(Relaxed),
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(listener: TcpListener, to: SocketAddr, cells: Arc<Cells>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        cells.connections.fetch_add(1, Relaxed);
        let cells = Arc::clone(&cells);
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            // Turns: whoever had the last word is who speaks on.
            let turns = Arc::new(AtomicU64::new(0));
            tokio::join!(
                pass(&mut from_client, &mut to_server, &cells, || {
                    turns.store(1, Relaxed);
                }),
                pass(&mut from_server, &mut to_client, &cells, || {
                    cells.questions.fetch_add(turns.swap(0, Relaxed), Relaxed);
                }),
            );
        });
    }
}

/// One direction, until its end, which is passed on too.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cells: &Cells,
    speaks: impl Fn(),
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        cells.bytes.fetch_add(read as u64, Relaxed);
        speaks();
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

//! A server that greets as PostgreSQL does, when the test says so, and then is silent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    heard: AtomicUsize,
}

/// Dropped: closed with all its connections.
#[derive(Debug)]
pub(crate) struct Greeter {
    pub(crate) addr: SocketAddr,
    pub(crate) accepted: mpsc::UnboundedReceiver<Instant>,
    pub(crate) greets: watch::Sender<bool>,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

impl Greeter {
    pub(crate) async fn start(greets: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (report, accepted) = mpsc::unbounded_channel();
        let (greets, allowed) = watch::channel(greets);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // The test may have heard enough.
                let _ = report.send(Instant::now());
                shared.open.fetch_add(1, Relaxed);
                let (allowed, counts) = (allowed.clone(), Arc::clone(&shared));
                sessions.spawn(async move {
                    // A client that breaks off has left, too.
                    let _ = serve(stream, allowed, &counts.heard).await;
                    counts.open.fetch_sub(1, Relaxed);
                });
                while sessions.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            addr,
            accepted,
            greets,
            counts,
            task,
        })
    }

    /// Waits until nobody is connected any more.
    pub(crate) async fn left(&self) {
        while self.counts.open.load(Relaxed) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many bytes it was sent after its greetings.
    pub(crate) fn heard(&self) -> usize {
        self.counts.heard.load(Relaxed)
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    mut allowed: watch::Receiver<bool>,
    heard: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = [0; 1024];
    // The startup message, which is not looked at.
    let _startup = stream.read(&mut bytes).await?;
    tokio::select! {
        _ = allowed.wait_for(|allowed| *allowed) => {}
        // It does not wait.
        _ = stream.read(&mut bytes) => return Ok(()),
    }
    stream.write_all(&greeting()).await?;
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            // A goodbye is no statement.
            _ if bytes[0] == b'X' => {}
            read => {
                heard.fetch_add(read, Relaxed);
            }
        }
    }
}

/// AuthenticationOk, one ParameterStatus, BackendKeyData, ReadyForQuery ("Message Formats" in PostgreSQL's
/// documentation).
fn greeting() -> Vec<u8> {
    let message = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).expect("a short message");
        [&[kind][..], &length.to_be_bytes(), body].concat()
    };
    [
        message(b'R', &0u32.to_be_bytes()),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'K', &[0; 8]),
        message(b'Z', b"I"),
    ]
    .concat()
}

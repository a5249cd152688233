//! Pods that end their connections in one way or another.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Response,
    body::Bytes,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::sleep,
};

/// How a pod treats a connection.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    /// Answers in HTTP/1.1.
    Http1,
    /// Answers in HTTP/2.
    Http2,
    /// Answers once, and closes without saying so before.
    ClosesAfterOne,
    /// Says in its answer that it will close, and waits for the other side to.
    SaysClose,
    /// Dies within each response's head, after a moment.
    Breaks,
    /// Dies within each response's body.
    BreaksOff,
    /// Takes requests and says nothing.
    Hangs,
}

/// Serves until it is dropped.
pub(crate) struct Pod {
    pub(crate) addr: SocketAddr,
    told: Arc<Told>,
    _serving: JoinSet<()>,
}

/// What connections are told.
#[derive(Default)]
struct Told {
    goodbye: Notify,
    freeze: Notify,
}

impl Pod {
    pub(crate) async fn start(host: u8, manner: Manner) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 9, host), 0)).await;
        let listener = listener.expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let told = Arc::new(Told::default());
        let mut serving = JoinSet::new();
        let of_all = Arc::clone(&told);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, manner, Arc::clone(&of_all)));
            }
        });
        Self {
            addr,
            told,
            _serving: serving,
        }
    }

    /// Its connections end politely, over HTTP/2 with `GOAWAY`.
    pub(crate) fn say_goodbye(&self) {
        self.told.goodbye.notify_waiters();
    }

    /// Its connections stay open and say nothing any more.
    pub(crate) fn freeze(&self) {
        self.told.freeze.notify_waiters();
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, told: Arc<Told>) {
    let answer = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"here"))))
    });
    match manner {
        Manner::Http1 => {
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            let _ = serving.await;
        }
        Manner::Http2 => {
            let serving = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer);
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                _ = serving.as_mut() => return,
                () = told.goodbye.notified() => serving.as_mut().graceful_shutdown(),
                () = told.freeze.notified() => std::future::pending().await,
            }
            let _ = serving.await;
        }
        Manner::ClosesAfterOne
        | Manner::SaysClose
        | Manner::Breaks
        | Manner::BreaksOff
        | Manner::Hangs => {
            let mut request = [0; 4096];
            if !matches!(stream.read(&mut request).await, Ok(1..)) {
                return;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n";
            let answer = match manner {
                Manner::ClosesAfterOne => format!("{head}\r\nhere"),
                Manner::SaysClose => format!("{head}connection: close\r\n\r\nhere"),
                Manner::Breaks => head.to_owned(),
                Manner::BreaksOff => format!("{head}\r\nhe"),
                _ => return std::future::pending().await,
            };
            sleep(Duration::from_millis(20)).await;
            // Who gave up needs no answer.
            let _ = stream.write_all(answer.as_bytes()).await;
            if manner == Manner::SaysClose {
                let _ = stream.read(&mut request).await;
            }
        }
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody(host: u8) -> SocketAddr {
    Pod::start(host, Manner::Http1).await.addr
}

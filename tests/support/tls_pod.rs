//! A pod behind TLS: speaks what ALPN decides, and remembers what it saw.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use headless_lb::rustls::{ServerConfig, server::Acceptor};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, Version,
    body::{Bytes, Incoming},
    header::HOST,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Duration, sleep},
};
use tokio_rustls::LazyConfigAcceptor;

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// Serves until it is dropped, which breaks its connections and closes its port.
pub struct TlsPod {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    /// In their names, as SNI had them.
    names: Mutex<Vec<Option<String>>>,
    requests: Mutex<Vec<Call>>,
    /// Of TLS, as the server saw them.
    failures: Mutex<Vec<String>>,
}

/// A request, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub version: Version,
    /// Host and port, by whatever the version has for that.
    pub host: String,
    pub method: String,
}

impl TlsPod {
    /// Offers both protocols, HTTP/2 first as servers do.
    pub async fn start(ip: [u8; 4], config: ServerConfig) -> Self {
        Self::offering(&["h2", "http/1.1"], ip, config).await
    }

    /// Offers these protocols by ALPN; none: knows no ALPN.
    pub async fn offering(alpn: &[&str], ip: [u8; 4], config: ServerConfig) -> Self {
        Self::bind(alpn, (ip, 0).into(), config).await
    }

    /// The same on a certain port, which may have been another pod's.
    pub async fn bind(alpn: &[&str], addr: SocketAddr, mut config: ServerConfig) -> Self {
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let config = Arc::new(config);
        let listener = listen(addr).await;
        let addr = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, config, Arc::clone(&seen)));
        Self {
            addr,
            seen,
            _serving: serving,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far, whatever became of them.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Relaxed)
    }

    /// What SNI said, of each connection that came so far.
    pub fn names(&self) -> Vec<Option<String>> {
        lock(&self.seen.names).clone()
    }

    pub fn requests(&self) -> Vec<Call> {
        lock(&self.seen.requests).clone()
    }

    /// Handshakes that failed.
    pub fn failures(&self) -> Vec<String> {
        lock(&self.seen.failures).clone()
    }
}

/// Who had the port before may need a moment to let it go.
async fn listen(addr: SocketAddr) -> TcpListener {
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket");
        if let Ok(listener) = socket.bind(addr).and_then(|()| socket.listen(50)) {
            return listener;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{addr} stays in use");
}

fn lock<T>(log: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, config: Arc<ServerConfig>, seen: Arc<Seen>) {
    let addr = listener.local_addr().expect("a bound socket");
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Relaxed);
        let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
        connections.spawn(async move {
            if let Err(error) = serve(stream, config, &seen, addr).await {
                lock(&seen.failures).push(error.to_string());
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Arc<Seen>,
    addr: SocketAddr,
) -> std::io::Result<()> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = hello.client_hello().server_name().map(str::to_owned);
    lock(&seen.names).push(name);
    let stream = hello.into_stream(config).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let service = service_fn(|request| answer(request, Arc::clone(seen), addr));
    // How it ends is the client's business.
    if is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(stream, service).await;
    } else {
        let builder = http1::Builder::new();
        let _ = builder.serve_connection(stream, service).await;
    }
    Ok(())
}

/// Who answers, whatever was asked.
async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    addr: SocketAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = match request.uri().authority() {
        Some(authority) => authority.to_string(),
        None => {
            let host = request
                .headers()
                .get(HOST)
                .and_then(|host| host.to_str().ok());
            host.unwrap_or_default().to_owned()
        }
    };
    lock(&seen.requests).push(Call {
        version: request.version(),
        host,
        method: request.method().to_string(),
    });
    // All of the request is taken: who sends it must not find the door closed.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::from(addr.to_string())))
}

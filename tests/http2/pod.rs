//! A pod that speaks HTTP/2: a real server on loopback that counts, holds answers back, and says goodbye
//! when told to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    http::request::Parts,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

pub(super) type Server = http2::Builder<TokioExecutor>;

/// How long `/slow` takes.
pub(super) const SLOW: Duration = Duration::from_millis(30);

/// Serves until it is dropped, which breaks its connections and closes its port.
pub(super) struct Pod {
    addr: SocketAddr,
    seen: Arc<Seen>,
    orders: watch::Sender<Orders>,
    serving: JoinSet<()>,
}

#[derive(Clone, Copy, Default)]
struct Orders {
    /// How often all connections of that moment were told to end.
    goodbyes: u32,
    /// Take no more connections.
    is_leaving: bool,
    /// `/held` and `/stream` go on.
    is_released: bool,
}

/// What a pod saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    under_way: AtomicUsize,
    /// The most requests that one connection had at once.
    busiest: AtomicUsize,
    requests: Mutex<Vec<(Parts, Bytes)>>,
}

impl Pod {
    pub(super) async fn start(ip: [u8; 4]) -> Self {
        Self::with(ip, |_| {}).await
    }

    /// With settings of its own.
    pub(super) async fn with(ip: [u8; 4], set: impl FnOnce(&mut Server)) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0)))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let mut server = Server::new(TokioExecutor::new());
        set(&mut server);
        let (orders, listening) = watch::channel(Orders::default());
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, server, listening, Arc::clone(&seen), addr));
        Self {
            addr,
            seen,
            orders,
            serving,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Relaxed)
    }

    /// Connections that are open now.
    pub(super) fn open(&self) -> usize {
        self.seen.open.load(Relaxed)
    }

    /// Requests whose response is not written.
    pub(super) fn under_way(&self) -> usize {
        self.seen.under_way.load(Relaxed)
    }

    pub(super) fn busiest(&self) -> usize {
        self.seen.busiest.load(Relaxed)
    }

    /// The requests so far, each with its whole body.
    pub(super) fn requests(&self) -> Vec<(Parts, Bytes)> {
        let requests = self.seen.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        let text = |(_, body): &(Parts, Bytes)| String::from_utf8_lossy(body).into_owned();
        self.requests().iter().map(text).collect()
    }

    /// `/held` and `/stream` go on.
    pub(super) fn release(&self) {
        self.orders.send_modify(|orders| orders.is_released = true);
    }

    /// Ends each connection politely (GOAWAY), and takes others.
    pub(super) fn say_goodbye(&self) {
        self.orders.send_modify(|orders| orders.goodbyes += 1);
    }

    /// SIGTERM: closes the port, and ends each connection politely.
    pub(super) fn leave(&self) {
        self.orders.send_modify(|orders| {
            orders.goodbyes += 1;
            orders.is_leaving = true;
        });
    }

    /// Until all that was under way has ended.
    pub(super) async fn ended(&mut self) {
        while self.serving.join_next().await.is_some() {}
    }
}

async fn accept(
    listener: TcpListener,
    server: Server,
    mut orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    addr: SocketAddr,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.expect("a connection").0,
            told = orders.wait_for(|orders| orders.is_leaving) => {
                drop(told);
                break;
            }
        };
        seen.connections.fetch_add(1, Relaxed);
        let serving = serve(
            stream,
            server.clone(),
            orders.clone(),
            Arc::clone(&seen),
            addr,
        );
        let open = Counted::new(&seen, |seen| &seen.open);
        connections.spawn(async move {
            serving.await;
            drop(open);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection.
async fn serve(
    stream: TcpStream,
    server: Server,
    orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    addr: SocketAddr,
) {
    stream.set_nodelay(true).expect("a socket");
    let goodbyes = orders.borrow().goodbyes;
    let busy = Arc::new(AtomicUsize::new(0));
    let service = service_fn(|request: Request<Incoming>| {
        let now = busy.fetch_add(1, Relaxed) + 1;
        seen.busiest.fetch_max(now, Relaxed);
        let under_way = Counted::new(&seen, |seen| &seen.under_way);
        let answer = answer(request, orders.clone(), Arc::clone(&seen), addr);
        let busy = Arc::clone(&busy);
        async move {
            let answer = answer.await;
            busy.fetch_sub(1, Relaxed);
            drop(under_way);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut told = orders.clone();
    tokio::select! {
        _ = &mut connection => return,
        _ = told.wait_for(|orders| orders.goodbyes > goodbyes) => {}
    }
    connection.as_mut().graceful_shutdown();
    // How it ends is the client's business.
    let _ = connection.await;
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers with the pod's own address: at once, after a while (`/slow`), when it is told to (`/held`), or
/// piece by piece, the second when it is told to (`/stream`). Otherwise with what was sent and its trailers
/// (`/echo`), without end (`/endless`), with large headers (`/headers`), without a body (`HEAD`), or with a tunnel
/// (`CONNECT`).
async fn answer(
    request: Request<Incoming>,
    mut orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    addr: SocketAddr,
) -> Answer {
    if request.method() == Method::CONNECT {
        return tunnel(request, &seen);
    }
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let path = head.uri.path().to_owned();
    let Ok(body) = body.collect().await else {
        return Response::new(Empty::new().boxed_unsync());
    };
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    log(&seen, head, body.clone());
    let own = Bytes::from(addr.to_string());
    let mut response = Response::new(Full::new(own.clone()).boxed_unsync());
    match path.as_str() {
        "/slow" => sleep(SLOW).await,
        "/held" => drop(orders.wait_for(|orders| orders.is_released).await),
        "/stream" => {
            let pieces = stream::unfold((0, orders), move |(n, mut orders)| {
                let own = own.clone();
                async move {
                    if n == 1 {
                        drop(orders.wait_for(|orders| orders.is_released).await);
                    }
                    (n < 2).then(|| (Ok(Frame::data(own)), (n + 1, orders)))
                }
            });
            *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
        }
        "/echo" => {
            let frames = [Frame::data(body)].into_iter();
            let frames = frames.chain(trailers.map(Frame::<Bytes>::trailers)).map(Ok);
            *response.body_mut() = StreamBody::new(stream::iter(frames)).boxed_unsync();
        }
        "/endless" => *response.body_mut() = Endless.boxed_unsync(),
        "/headers" => {
            let large = "x".repeat(20_000).parse().expect("a header value");
            response.headers_mut().insert("x-large", large);
        }
        _ if is_head => *response.body_mut() = Empty::new().boxed_unsync(),
        _ => {}
    }
    response
}

fn log(seen: &Seen, head: Parts, body: Bytes) {
    let requests = seen.requests.lock();
    requests
        .unwrap_or_else(PoisonError::into_inner)
        .push((head, body));
}

#[expect(clippy::disallowed_methods, reason = "a tunnel outlives its request")]
fn tunnel(request: Request<Incoming>, seen: &Seen) -> Answer {
    let (head, body) = request.into_parts();
    log(seen, head.clone(), Bytes::new());
    let request = Request::from_parts(head, body);
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    response
}

/// A body that does not end.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1024])))))
    }
}

/// Counts while it is there.
struct Counted(Arc<Seen>, fn(&Seen) -> &AtomicUsize);

impl Counted {
    fn new(seen: &Arc<Seen>, which: fn(&Seen) -> &AtomicUsize) -> Self {
        which(seen).fetch_add(1, Relaxed);
        Self(Arc::clone(seen), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Relaxed);
    }
}

/// Trailers as a test sends them.
pub(super) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(
        hyper::header::ETAG,
        "checked".parse().expect("a header value"),
    )])
}

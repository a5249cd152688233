//! Pods: HTTP/1.1 servers with keep-alive on addresses of their own, which can be stopped politely
//! or killed.
#![expect(
    clippy::disallowed_methods,
    reason = "a pod is a task set of its own, which is killed by aborting it"
)]

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use headless_lb::Address;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::Result;

/// How long a pod works on each request.
const WORK: Duration = Duration::from_millis(10);

/// A node: gives each pod an address of its own out of 127.0.x.0/24, as a cluster does out of the
/// node's pod range.
pub(crate) struct Node {
    /// Held so that two programs on one machine never share a range.
    gateway: TcpListener,
    next: u8,
}

impl Node {
    /// Takes the first range of 127.0.0.0/24, 127.0.1.0/24, .. whose gateway address `.1` is free
    /// on port 8080.
    pub(crate) async fn claim() -> Result<Self> {
        const RANGES: u8 = 16;
        let mut last = String::new();
        for range in 0..RANGES {
            let address = SocketAddr::from(([127, 0, range, 1], 8080));
            match TcpListener::bind(address).await {
                Ok(gateway) => return Ok(Self { gateway, next: 2 }),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(
            format!("no range 127.0.x.0/24 has port 8080 free (is 0.0.0.0:8080 taken?); the last try: {last}")
                .into(),
        )
    }

    /// Starts a pod on the next address.
    pub(crate) async fn run(&mut self, name: &str, port: u16) -> Result<Pod> {
        let addr = self.address(port)?;
        Ok(Pod::start(name, addr).await?)
    }

    /// The next address. None is given out twice.
    pub(crate) fn address(&mut self, port: u16) -> Result<SocketAddr> {
        let SocketAddr::V4(gateway) = self.gateway.local_addr()? else {
            return Err("the gateway was bound to an IPv4 address".into());
        };
        let [a, b, range, _] = gateway.ip().octets();
        let ip = Ipv4Addr::new(a, b, range, self.next);
        self.next = self.next.checked_add(1).ok_or("the range is used up")?;
        Ok((ip, port).into())
    }
}

/// One running pod. Dropping it kills it.
pub(crate) struct Pod {
    name: Arc<str>,
    addr: SocketAddr,
    sigterm: watch::Sender<()>,
    server: Option<JoinHandle<()>>,
}

impl Pod {
    async fn start(name: &str, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "another program listens there",
                io::ErrorKind::AddrNotAvailable => {
                    "this system has only 127.0.0.1 on loopback; add the address as an alias"
                }
                _ => "see the cause",
            };
            io::Error::new(
                error.kind(),
                format!("pod {name} cannot listen on {addr} ({hint}): {error}"),
            )
        })?;
        let name: Arc<str> = name.into();
        let (sigterm, stop) = watch::channel(());
        let answer = {
            let name = Arc::clone(&name);
            move |_| answer(Arc::clone(&name))
        };
        let server = tokio::spawn(serve(listener, answer, stop));
        Ok(Self {
            name,
            addr,
            sigterm,
            server: Some(server),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address with the pod's hostname, as a StatefulSet publishes it.
    pub(crate) fn named(&self) -> Address {
        Address::from(self.addr).named(&*self.name)
    }

    /// A crash: the listener and all connections close at once, responses half written.
    pub(crate) async fn kill(mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Aborted is what it was told to be.
            let _ = server.await;
        }
    }

    /// SIGTERM: accepts no more, answers what is in flight with `connection: close`, and ends.
    pub(crate) async fn stop(mut self) {
        self.sigterm.send_replace(());
        if let Some(server) = self.server.take() {
            // It ends by itself; if it panicked, it ended as well.
            let _ = server.await;
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl From<&Pod> for Address {
    fn from(pod: &Pod) -> Self {
        pod.addr.into()
    }
}

/// Accepts until SIGTERM, then waits for the connections. They live in this task's set, so that
/// aborting the task drops them all.
pub(crate) async fn serve<A, F>(listener: TcpListener, answer: A, mut stop: watch::Receiver<()>)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, answer.clone(), stop.clone()));
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection; how it ends is the client's business.
async fn connection<A, F>(stream: TcpStream, answer: A, mut stop: watch::Receiver<()>)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut connection =
        pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut connection => {}
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Says who answers, after a little work.
async fn answer(name: Arc<str>) -> Response<Full<Bytes>> {
    tokio::time::sleep(WORK).await;
    Response::new(Full::from(format!("{name}\n")))
}

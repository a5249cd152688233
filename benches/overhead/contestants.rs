//! The clients: each as one that a worker calls.

use std::{
    env, iter,
    net::SocketAddr,
    process::{Command, ExitCode, Stdio},
};

use headless_lb::{Balancer, Builder, Fixed, Http};
use http_body_util::Empty;
use hyper::{
    Request, Response, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::{http1, http2},
    header::{HOST, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use crate::{
    CLIENT, Error,
    load::{Caller, Load, Run},
    pinned::{self, Side},
    pods::{self, Pods},
};

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) pods: usize,
    /// The name of the one that it is compared with.
    pub(crate) fixed: &'static str,
}

pub(crate) const CONTESTANTS: &[Contestant] = &[
    contestant("raw", 1, "fixed"),
    contestant("fixed", 1, "fixed"),
    contestant("balanced-3", 3, "fixed"),
    contestant("balanced-10", 10, "fixed"),
    contestant("raw-h2", 1, "fixed-h2"),
    contestant("fixed-h2", 1, "fixed-h2"),
    contestant("balanced-h2-3", 3, "fixed-h2"),
    contestant("balanced-h2-10", 10, "fixed-h2"),
];

const fn contestant(name: &'static str, pods: usize, fixed: &'static str) -> Contestant {
    Contestant { name, pods, fixed }
}

/// What the process of a client does.
async fn run(name: &str, load: Load, addrs: &[SocketAddr]) -> Result<Run, Error> {
    match name {
        "raw" => load.run(RawHttp1::connect(load, addrs[0]).await?).await,
        "raw-h2" => load.run(RawHttp2::connect(load, addrs[0]).await?).await,
        "fixed" => load.run(callers(load, legacy(false), addrs)?).await,
        "fixed-h2" => load.run(callers(load, legacy(true), addrs)?).await,
        "balanced-3" | "balanced-10" => {
            let client = balanced(addrs).spawn_http();
            load.run(resolved(load, client, addrs).await?).await
        }
        "balanced-h2-3" | "balanced-h2-10" => {
            let client = balanced(addrs).spawn_http_with(Http::new().http2());
            load.run(resolved(load, client, addrs).await?).await
        }
        name => Err(format!("no client is called {name}").into()),
    }
}

pub(crate) fn balanced(addrs: &[SocketAddr]) -> Builder {
    Balancer::builder(Fixed::new(addrs.iter().copied()))
}

pub(crate) type Legacy = Client<HttpConnector, Empty<Bytes>>;

/// As it comes, but for what all clients of short requests set.
pub(crate) fn legacy(http2: bool) -> Legacy {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector)
}

/// As many as any of them needs.
pub(crate) fn most_pods() -> usize {
    let pods = CONTESTANTS.iter().map(|contestant| contestant.pods);
    pods.max().unwrap_or_default()
}

impl Contestant {
    /// Where the one stands that it is compared with.
    pub(crate) fn fixed_place(&self) -> usize {
        CONTESTANTS
            .iter()
            .position(|other| other.name == self.fixed)
            .expect("it is among them")
    }

    /// The arguments with which this program is this client.
    pub(crate) fn arguments(&self, pods: &Pods, load: Load) -> Vec<String> {
        vec![
            CLIENT.to_owned(),
            self.name.to_owned(),
            load.requests.to_string(),
            load.concurrency.to_string(),
            pods.first(self.pods),
        ]
    }

    /// Runs it in a process of its own.
    pub(crate) fn run(&self, pods: &Pods, load: Load) -> Result<Run, Error> {
        let output = Command::new(env::current_exe()?)
            .args(self.arguments(pods, load))
            .stderr(Stdio::inherit())
            .output()?;
        let line = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            return Err(format!("{}: {}", self.name, line.trim()).into());
        }
        line.parse()
    }
}

/// Runs the client that the arguments name, and prints what it took.
pub(crate) fn be_client(arguments: &[String]) -> Result<ExitCode, Error> {
    let [name, requests, concurrency, addrs] = arguments else {
        return Err("name, requests, concurrency and addresses of a client?".into());
    };
    let load = Load {
        requests: requests.parse()?,
        concurrency: concurrency.parse()?,
    };
    let addrs = pods::addrs(addrs)?;
    pinned::to(Side::Client)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let run = runtime.block_on(run(name, load, &addrs))?;
    println!("{run}");
    Ok(ExitCode::SUCCESS)
}

/// As many clones of a client as there are workers.
fn callers<S: Clone>(
    load: Load,
    client: S,
    addrs: &[SocketAddr],
) -> Result<Vec<Through<S>>, Error> {
    let uri = uri(addrs[0])?;
    let caller = Through { client, uri };
    Ok(iter::repeat_n(caller, load.concurrency as usize).collect())
}

/// The same, when it knows its pods.
async fn resolved<S>(
    load: Load,
    client: Balancer<S>,
    addrs: &[SocketAddr],
) -> Result<Vec<Through<Balancer<S>>>, Error> {
    client.resolved().await?;
    callers(load, client, addrs)
}

/// The same for all clients, also for those that only take the `Host` header from it.
pub(crate) fn uri(addr: SocketAddr) -> Result<Uri, Error> {
    Ok(format!("http://{addr}/").parse()?)
}

pub(crate) fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    request
}

/// A client that is a tower service.
#[derive(Clone)]
struct Through<S> {
    client: S,
    uri: Uri,
}

impl<S, B> Caller for Through<S>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Send + 'static,
    S::Error: Into<Error> + Send,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<Error>> + Send + Unpin,
{
    type Body = B;

    async fn call(&mut self) -> Result<B, Error> {
        let client = self.client.ready().await.map_err(Into::into)?;
        let response = client.call(request(&self.uri)).await.map_err(Into::into)?;
        Ok(response.into_body())
    }
}

/// A connection of the worker's own.
struct RawHttp1 {
    sender: http1::SendRequest<Empty<Bytes>>,
    host: HeaderValue,
}

impl RawHttp1 {
    async fn connect(load: Load, addr: SocketAddr) -> Result<Vec<Self>, Error> {
        let mut callers = Vec::new();
        for _ in 0..load.concurrency {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            keep(connection);
            let host = addr.to_string().parse()?;
            callers.push(Self { sender, host });
        }
        Ok(callers)
    }
}

impl Caller for RawHttp1 {
    type Body = Incoming;

    async fn call(&mut self) -> Result<Incoming, Error> {
        let mut request = Request::new(Empty::new());
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?.into_body())
    }
}

/// A connection of all workers.
#[derive(Clone)]
struct RawHttp2 {
    sender: http2::SendRequest<Empty<Bytes>>,
    uri: Uri,
}

impl RawHttp2 {
    async fn connect(load: Load, addr: SocketAddr) -> Result<Vec<Self>, Error> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        keep(connection);
        let uri = uri(addr)?;
        let caller = Self { sender, uri };
        Ok(iter::repeat_n(caller, load.concurrency as usize).collect())
    }
}

impl Caller for RawHttp2 {
    type Body = Incoming;

    async fn call(&mut self) -> Result<Incoming, Error> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request(&self.uri)).await?;
        Ok(response.into_body())
    }
}

/// Lets a connection work until its sender is gone.
fn keep(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    #[expect(
        clippy::disallowed_methods,
        reason = "hyper's connections are futures that somebody must poll"
    )]
    tokio::spawn(connection);
}

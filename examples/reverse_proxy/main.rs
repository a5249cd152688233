//! A reverse proxy with axum in front of a headless service: `proxy.rs` is all of it. Here are the pods
//! behind it and the clients in front, in one program on loopback.
//!
//! Run it with `cargo run --example reverse_proxy`. Look at the table: the shares of the pods, the
//! headers that the pods see, an upgrade that passes through, and what the proxy answers in a pod's
//! place.

mod pod;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode};

use axum::Router;
use headless_lb::{Address, Balancer, Dns, Fixed, RoundRobin};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, UPGRADE},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use support::{ClusterDns, Result, outcome, term};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

#[tokio::main]
async fn main() -> ExitCode {
    outcome("reverse_proxy", run().await)
}

async fn run() -> Result<String> {
    // Servers of this program; dropped, they end.
    let mut servers = JoinSet::new();
    let mut pods = Vec::new();
    for name in ["shop-0", "shop-1", "shop-2"] {
        let addr = serve(&mut servers, pod::pod(name)).await?;
        pods.push(Address::from(addr).named(name));
    }
    let dns = ClusterDns::start().await?;
    dns.service("shop.workshop").ready(pods);
    let find = |service: &str| -> Result<_> {
        let name = format!("_http._tcp.{service}.workshop.svc.cluster.local");
        Ok(
            Balancer::builder(Dns::srv(&name)?.name_servers([dns.addr()]))
                .policy(RoundRobin::new()),
        )
    };
    // Bound, so that nobody else gets the port, and without a listener.
    let nobody = TcpSocket::new_v4()?;
    nobody.bind("127.0.0.1:0".parse()?)?;
    let shop = serve(&mut servers, proxy::proxy(&find("shop")?)).await?;
    let empty = serve(&mut servers, proxy::proxy(&find("empty")?)).await?;
    let gone = Balancer::builder(Fixed::new([nobody.local_addr()?]));
    let gone = serve(&mut servers, proxy::proxy(&gone)).await?;

    let client = Browser::new();
    let mut table = Table::default();
    let mut shares = BTreeMap::new();
    for _ in 0..30 {
        let (_, pod) = client.get(shop, "/").await?;
        *shares.entry(pod).or_default() += 1;
    }
    term::heading("30 requests through the proxy:");
    term::bars(&shares);
    table.row("GET / 30 times", "3 pods", format!("{} pods", shares.len()));

    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let post = Request::post(format!("http://{shop}/orders")).body(Full::new(body))?;
    let (_, received) = text(client.0.request(post).await?).await?;
    table.row("POST /orders, 1 MiB", "1048576 bytes", received);
    let request = Request::get(format!("http://{shop}/headers"))
        .header(CONNECTION, "x-secret")
        .header("x-secret", "for the proxy alone");
    let (_, seen) = text(client.0.request(request.body(Full::default())?).await?).await?;
    let expected = "x-secret none, x-forwarded-for 127.0.0.1";
    table.row("GET /headers", expected, seen);
    table.row(
        "upgrade /echo",
        "101: hello",
        client.echo(shop, "hello").await?,
    );
    for (asked, proxy, path, expected) in [
        ("a pod that is slow", shop, "/slow", 504),
        ("a service without pods", empty, "/", 503),
        ("a pod that refuses", gone, "/", 502),
    ] {
        let (status, _) = client.get(proxy, path).await?;
        table.row(asked, &expected.to_string(), status.as_str().to_owned());
    }
    table.check()
}

/// What was asked, what was expected, and what came.
#[derive(Default)]
struct Table(Vec<[String; 3]>);

impl Table {
    fn row(&mut self, asked: &str, expected: &str, came: String) {
        self.0.push([asked.to_owned(), expected.to_owned(), came]);
    }

    fn check(self) -> Result<String> {
        term::heading("What came of each:");
        term::table(["asked", "expected", "came"], &self.0);
        let (rows, wrong) = (
            self.0.len(),
            self.0.iter().filter(|[_, want, is]| want != is),
        );
        match wrong.count() {
            0 => Ok(format!("pods=3 checks={rows}")),
            wrong => Err(format!("{wrong} of {rows} rows are not as expected").into()),
        }
    }
}

/// Serves on a port of its own.
async fn serve(servers: &mut JoinSet<()>, router: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    servers.spawn(async move {
        // It serves until it is dropped.
        let _ = axum::serve(listener, service).await;
    });
    Ok(addr)
}

/// Whoever is in front of the proxy.
struct Browser(Client<HttpConnector, Full<Bytes>>);

impl Browser {
    fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    async fn get(&self, proxy: SocketAddr, path: &str) -> Result<(StatusCode, String)> {
        let request = Request::get(format!("http://{proxy}{path}")).body(Full::default())?;
        text(self.0.request(request).await?).await
    }

    /// Says something over an upgraded connection, and hears it again.
    async fn echo(&self, proxy: SocketAddr, text: &str) -> Result<String> {
        let request = Request::get(format!("http://{proxy}/echo"))
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "echo");
        let response = self.0.request(request.body(Full::default())?).await?;
        let status = response.status().as_u16();
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await?);
        stream.write_all(text.as_bytes()).await?;
        // To its end: the close passes through as well.
        stream.shutdown().await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        Ok(format!("{status}: {heard}"))
    }
}

async fn text(response: Response<Incoming>) -> Result<(StatusCode, String)> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

//! Connections that become something else: upgrades of HTTP/1.1, and `CONNECT` over HTTP/2.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use headless_lb::HttpBody;
use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    ext::Protocol,
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{self, sleep, timeout},
};

use super::{PATIENCE, call, client, get, over, pending, pod::Pod, until};

type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

async fn upgraded(response: Response<HttpBody>) -> Tunnel {
    let upgraded = timeout(PATIENCE, hyper::upgrade::on(response)).await;
    TokioIo::new(upgraded.expect("in time").expect("an upgrade"))
}

/// What is said comes back.
async fn echoes(tunnel: &mut Tunnel, text: &str) {
    tunnel
        .write_all(text.as_bytes())
        .await
        .expect("an open tunnel");
    tunnel.flush().await.expect("an open tunnel");
    let mut back = vec![0; text.len()];
    let read = timeout(PATIENCE, tunnel.read_exact(&mut back)).await;
    read.expect("in time").expect("an echo");
    assert_eq!(back, text.as_bytes());
}

/// A server that takes a connection over, and echoes.
async fn echo_by_upgrade() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.3.8:0")
        .await
        .expect("a loopback port");
    let addr = listener.local_addr().expect("a bound socket");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            connections.spawn(async move {
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(switch));
                let _ = connection.with_upgrades().await;
            });
        }
    });
    (addr, serving)
}

#[expect(clippy::disallowed_methods, reason = "a tunnel outlives its request")]
async fn switch(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    assert_eq!(request.headers()[header::UPGRADE], "echo");
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, "upgrade".parse().expect("a value"));
    headers.insert(header::UPGRADE, "echo".parse().expect("a value"));
    Ok(response)
}

#[tokio::test]
async fn an_upgrade_of_http1_is_a_tunnel_both_ways() {
    let (addr, _serving) = echo_by_upgrade().await;
    let client = over([addr]).spawn_http();
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        let request = Request::get("http://web.default/chat")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "echo")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let response = call(&client, request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        tunnels.push(upgraded(response).await);
        assert_eq!(pending(&client), 0, "the tunnel is the caller's");
    }
    for n in 0..3 {
        for tunnel in &mut tunnels {
            echoes(tunnel, &format!("hello {n}")).await;
        }
    }
}

async fn pod(max_streams: u32) -> Pod {
    Pod::with([127, 0, 3, 1], |server| {
        server
            .enable_connect_protocol()
            .max_concurrent_streams(max_streams);
    })
    .await
}

fn connect(uri: &str, protocol: Option<&'static str>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().method(Method::CONNECT).uri(uri);
    if let Some(protocol) = protocol {
        request = request.extension(Protocol::from_static(protocol));
    }
    request.body(Empty::new()).expect("a request")
}

#[tokio::test]
async fn plain_and_extended_connect_are_tunnels_both_ways_over_one_connection() {
    let pod = pod(100).await;
    let client = client([pod.addr()]);
    let plain = call(&client, connect("db.default:5432", None))
        .await
        .expect("an answer");
    let (seen, _) = pod.requests().pop().expect("a request");
    assert_eq!(
        (seen.method, seen.uri),
        (Method::CONNECT, "db.default:5432".parse().expect("a URI"))
    );
    let chat = connect("http://web.default/chat", Some("websocket"));
    let extended = call(&client, chat).await.expect("an answer");
    let (seen, _) = pod.requests().pop().expect("a request");
    assert_eq!(seen.uri, "http://web.default/chat");
    assert_eq!(
        seen.extensions.get::<Protocol>().map(Protocol::as_str),
        Some("websocket")
    );
    assert!(!seen.headers.contains_key(header::HOST));

    let (mut plain, mut extended) = (upgraded(plain).await, upgraded(extended).await);
    echoes(&mut plain, "hello").await;
    echoes(&mut extended, "hi").await;
    get(&client, "/").await;
    echoes(&mut plain, "again").await;
    assert_eq!((pod.connections(), pending(&client)), (1, 0));
}

#[tokio::test]
async fn a_tunnel_outlives_the_idle_time_of_its_connection() {
    let pod = pod(100).await;
    let client = client([pod.addr()]);
    let mut tunnel = upgraded(
        call(&client, connect("db:1", None))
            .await
            .expect("an answer"),
    )
    .await;
    get(&client, "/").await;
    for _ in 0..2 {
        time::pause();
        time::advance(Duration::from_secs(60)).await;
        time::resume();
        sleep(Duration::from_millis(20)).await;
        echoes(&mut tunnel, "still here").await;
    }
    drop(tunnel);
    until("the connection closes behind it", || pod.open() == 0).await;
}

#[tokio::test]
async fn tunnels_take_places_on_their_connection_so_that_no_request_waits_behind_them() {
    let pod = pod(2).await;
    let client = client([pod.addr()]);
    let mut tunnels = Vec::new();
    for i in 0..5 {
        let response = call(&client, connect("db:1", None))
            .await
            .expect("an answer");
        tunnels.push(upgraded(response).await);
        assert_eq!(
            get(&client, "/").await,
            pod.addr().to_string(),
            "beside {i} tunnels"
        );
    }
    for tunnel in &mut tunnels {
        echoes(tunnel, "hello").await;
    }
    tunnels.clear();
    until("connections that only tunnels used are gone", || {
        pod.open() <= 1
    })
    .await;
    get(&client, "/").await;
}

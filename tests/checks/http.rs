//! Real HTTP servers.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use headless_lb::{Balancer, Check, Fixed};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

use super::{AtomicBool, Relaxed, quickly, set_aside, until_unhealthy};

/// `/healthz` says how the pod is, in a body of chunks or not; any other path is not there. Ends when it is dropped.
struct Pod {
    addr: SocketAddr,
    is_ill: Arc<AtomicBool>,
    _serving: JoinSet<()>,
}

impl Pod {
    async fn start(ip: [u8; 4]) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0))).await;
        let listener = listener.expect("a loopback port");
        let addr = listener.local_addr().expect("it is bound");
        let is_ill = Arc::new(AtomicBool::new(false));
        let (mut serving, health) = (JoinSet::new(), Arc::clone(&is_ill));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let health = Arc::clone(&health);
                let service = service_fn(move |request: Request<Incoming>| {
                    let is_ill = health.load(Relaxed);
                    async move { Ok::<_, Infallible>(answer(&request, is_ill)) }
                });
                connections.spawn(async move {
                    let stream = TokioIo::new(stream);
                    // How it ends is the client's business.
                    let _ = http1::Builder::new()
                        .serve_connection(stream, service)
                        .await;
                });
            }
        });
        Self {
            addr,
            is_ill,
            _serving: serving,
        }
    }
}

fn answer(request: &Request<Incoming>, is_ill: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"so so")));
    *response.status_mut() = match request.uri().path() {
        "/healthz" if is_ill => StatusCode::SERVICE_UNAVAILABLE,
        "/healthz" => StatusCode::NO_CONTENT,
        "/moved" => StatusCode::FOUND,
        _ => StatusCode::NOT_FOUND,
    };
    response
}

#[tokio::test]
async fn a_pod_that_answers_503_is_set_aside_until_it_does_not() {
    let [one, two] = [
        Pod::start([127, 0, 4, 3]).await,
        Pod::start([127, 0, 4, 4]).await,
    ];
    let web = Balancer::builder(Fixed::new([one.addr, two.addr]))
        .check(quickly(Check::http("/healthz")))
        .spawn();
    web.resolved().await.expect("it is fixed");
    two.is_ill.store(true, Relaxed);
    until_unhealthy(&web, 1).await;
    assert_eq!(set_aside(&web), [two.addr]);
    two.is_ill.store(false, Relaxed);
    until_unhealthy(&web, 0).await;
    assert!(set_aside(&web).is_empty(), "{web}");
}

#[tokio::test]
async fn health_may_have_a_port_and_statuses_of_its_own() {
    let [pod, health] = [
        Pod::start([127, 0, 4, 5]).await,
        Pod::start([127, 0, 4, 5]).await,
    ];
    // Nothing listens at that port of the second: a port drawn for it is the same once in some ten thousand runs.
    let mut other = Pod::start([127, 0, 4, 6]).await;
    while other.addr.port() == health.addr.port() {
        other = Pod::start([127, 0, 4, 6]).await;
    }
    let web = Balancer::builder(Fixed::new([pod.addr, other.addr]))
        .check(quickly(Check::http("/moved").port(health.addr.port())))
        .spawn();
    until_unhealthy(&web, 1).await;
    assert_eq!(set_aside(&web), [other.addr]);

    let web = Balancer::builder(Fixed::new([pod.addr, other.addr]))
        .check(quickly(Check::http("/moved").status(200..=299)))
        .spawn();
    until_unhealthy(&web, 2).await;
    assert!(
        set_aside(&web).is_empty(),
        "a path that is wrong takes no pod away"
    );
}

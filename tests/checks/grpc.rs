//! Real gRPC servers, with tonic's health service.

use std::net::SocketAddr;

use headless_lb::{
    Address, Balancer, Check, Endpoint, EndpointSet, Fixed, Probe, probe::GrpcHealth,
};
use tokio::task::JoinSet;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};

use super::{PATIENCE, ProbeFailure, quickly, set_aside, timeout, until_unhealthy};

const SERVICE: &str = "shop.Catalog";

/// Says how its service is; the server as a whole is always well. Ends when it is dropped.
struct Pod {
    addr: SocketAddr,
    health: HealthReporter,
    serving: JoinSet<()>,
}

impl Pod {
    async fn start(ip: [u8; 4]) -> Self {
        let incoming = TcpIncoming::bind((ip, 0).into()).expect("a loopback port");
        let addr = incoming.local_addr().expect("it is bound");
        let (health, service) = health_reporter();
        health
            .set_service_status(SERVICE, ServingStatus::Serving)
            .await;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let server = Server::builder().add_service(service);
            server
                .serve_with_incoming(incoming)
                .await
                .expect("it serves");
        });
        Self {
            addr,
            health,
            serving,
        }
    }

    async fn says(&self, status: ServingStatus) {
        self.health.set_service_status(SERVICE, status).await;
    }
}

/// One question on a connection of its own: `Err` with what it says.
async fn ask(probe: &impl Probe, addr: SocketAddr) -> Result<(), (ProbeFailure, String)> {
    let set = EndpointSet::of([Address::from(addr)]);
    let endpoint: &Endpoint = set.iter().next().expect("there is one");
    let opened = timeout(PATIENCE, probe.open(endpoint))
        .await
        .expect("an answer");
    match opened {
        Ok((_, seen)) => {
            assert!(seen.is_some(), "opening asks at once");
            Ok(())
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            Err((error.failure(), source.unwrap_or_default()))
        }
    }
}

#[tokio::test]
async fn a_pod_that_does_not_serve_is_set_aside_until_it_does() {
    let [one, two] = [
        Pod::start([127, 0, 4, 7]).await,
        Pod::start([127, 0, 4, 8]).await,
    ];
    let web = Balancer::builder(Fixed::new([one.addr, two.addr]))
        .check(quickly(Check::grpc().service(SERVICE)))
        .spawn();
    web.resolved().await.expect("it is fixed");
    two.says(ServingStatus::NotServing).await;
    until_unhealthy(&web, 1).await;
    assert_eq!(set_aside(&web), [two.addr]);
    two.says(ServingStatus::Serving).await;
    until_unhealthy(&web, 0).await;
    assert!(set_aside(&web).is_empty(), "{web}");
}

#[tokio::test]
async fn a_pod_that_is_gone_fails_its_check() {
    let [one, mut two] = [
        Pod::start([127, 0, 4, 9]).await,
        Pod::start([127, 0, 4, 10]).await,
    ];
    let web = Balancer::builder(Fixed::new([one.addr, two.addr]))
        .check(quickly(Check::grpc()))
        .spawn();
    web.resolved().await.expect("it is fixed");
    two.serving.shutdown().await;
    until_unhealthy(&web, 1).await;
    assert_eq!(set_aside(&web), [two.addr]);
}

#[tokio::test]
async fn each_answer_says_what_it_is() {
    let pod = Pod::start([127, 0, 4, 11]).await;
    let [server, service] = [GrpcHealth::new(), GrpcHealth::new().service(SERVICE)];
    assert_eq!(ask(&server, pod.addr).await, Ok(()));
    assert_eq!(ask(&service, pod.addr).await, Ok(()));
    pod.says(ServingStatus::NotServing).await;
    assert_eq!(ask(&server, pod.addr).await, Ok(()), "the others are well");
    let (_, source) = ask(&service, pod.addr)
        .await
        .expect_err("it does not serve");
    assert_eq!(source, "the server says NOT_SERVING");
    pod.says(ServingStatus::Unknown).await;
    let (_, source) = ask(&service, pod.addr).await.expect_err("it is not known");
    assert_eq!(source, "the server says UNKNOWN");
    let typo = GrpcHealth::new().service("shop.Catalogue");
    let (_, source) = ask(&typo, pod.addr).await.expect_err("there is none");
    assert_eq!(source, "the server knows no service `shop.Catalogue`");
}

#[tokio::test]
async fn a_session_is_asked_again_and_again() {
    let pod = Pod::start([127, 0, 4, 12]).await;
    let (probe, set) = (
        GrpcHealth::new().service(SERVICE),
        EndpointSet::of([pod.addr]),
    );
    let endpoint = set.iter().next().expect("there is one");
    let (mut session, _) = probe.open(endpoint).await.expect("it serves");
    for i in 0..300 {
        let seen = timeout(PATIENCE, probe.observe(endpoint, &mut session)).await;
        assert!(seen.is_ok_and(|seen| seen.is_ok()), "{i}");
    }
    pod.says(ServingStatus::NotServing).await;
    let seen = timeout(PATIENCE, probe.observe(endpoint, &mut session)).await;
    assert!(seen.is_ok_and(|seen| seen.is_err()));
}

#[cfg(feature = "tls")]
mod over_tls {
    use std::sync::Arc;

    use headless_lb::Tls;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{super::authority::Authority, *};

    #[tokio::test]
    async fn a_pod_that_is_the_service_is_asked_over_http2_and_an_impostor_is_not() {
        let authority = Authority::new();
        let mut config = authority.certify("web.default.svc").server();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.4.13:0")
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("it is bound");
        let (_health, service) = health_reporter();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let service = hyper_util::service::TowerToHyperService::new(service.clone());
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // One after the other, each to its end.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let named = |name: &str| Tls::service(authority.client(), name).expect("a name");
        let probe = GrpcHealth::new().tls(named("web.default.svc"));
        assert_eq!(ask(&probe, addr).await, Ok(()));
        let probe = GrpcHealth::new().tls(named("other.default.svc"));
        let (failure, _) = ask(&probe, addr).await.expect_err("another name");
        assert_eq!(failure, ProbeFailure::Tls);
    }
}

//! The probes that ask HTTP and DNS, in a whole balancer and against a real HTTP server.

#![expect(
    clippy::disallowed_methods,
    reason = "servers are tasks of their own here"
)]
#![cfg_attr(
    feature = "tls",
    expect(unreachable_pub, reason = "nothing is reachable from outside a test")
)]

#[cfg(feature = "tls")]
#[path = "support/authority.rs"]
mod certificates;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use headless_lb::{
    Address, Balancer, Fixed, Patroni, Probe, Resolution, Resolve, ResolveError,
    probe::{ByName, HttpStatus, Tcp, authority},
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two pods, db-0 and db-1, on addresses of their own with one port for the page.
struct Pods {
    addresses: Vec<Address>,
    port: u16,
    /// Who holds the lock.
    leader: Arc<AtomicUsize>,
    _databases: Vec<TcpListener>,
}

impl Pods {
    async fn start(network: u8) -> Self {
        let leader = Arc::new(AtomicUsize::new(0));
        let (mut addresses, mut databases, mut port) = (Vec::new(), Vec::new(), 0);
        for number in 0..2 {
            let ip = [127, 83, network, 2 + number];
            // The first takes any port, the second the same, and before its database can have taken that.
            let page = TcpListener::bind(SocketAddr::from((ip, port))).await;
            let page = page.expect("a port that is free here is free at the next address");
            port = page.local_addr().expect("bound").port();
            let database = TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).await;
            let database = database.expect("loopback");
            let address = Address::from(database.local_addr().expect("bound"));
            addresses.push(address.named(format!("db-{number}")));
            databases.push(database);
            let leader = Arc::clone(&leader);
            let answer = move || async move {
                let is_leader = leader.load(Relaxed) == usize::from(number);
                let (status, role) = match is_leader {
                    true => (StatusCode::OK, "primary"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "replica"),
                };
                (
                    status,
                    format!(r#"{{"state": "running", "role": "{role}"}}"#),
                )
            };
            let app = Router::new().route("/primary", get(answer));
            tokio::spawn(async move { axum::serve(page, app).await });
        }
        Self {
            addresses,
            port,
            leader,
            _databases: databases,
        }
    }

    /// Moves the leader and waits until the probe has found both out.
    async fn are_followed_by(&self, probe: impl Probe) {
        let db = Balancer::builder(Fixed::new(self.addresses.clone()))
            .probe(probe)
            .spawn();
        for leader in [0, 1, 0] {
            self.leader.store(leader, Relaxed);
            let wanted = format!("db-{leader}");
            let began = Instant::now();
            loop {
                let writer = db.primary().wait(PATIENCE).await.expect("a primary");
                if writer.name() == Some(&*wanted) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{}", db.status());
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn the_status_of_a_page_is_followed() {
    let pods = Pods::start(1).await;
    let probe = HttpStatus::new("/primary", pods.port);
    pods.are_followed_by(probe).await;
}

#[tokio::test]
async fn the_lock_of_patroni_is_followed_if_the_node_is_there() {
    let pods = Pods::start(2).await;
    let probe = authority(Patroni::new().port(pods.port)).confirm(Tcp::new());
    pods.are_followed_by(probe).await;
}

#[tokio::test]
async fn a_name_that_moves_is_followed() {
    struct Name(Vec<Address>, Arc<AtomicUsize>);

    impl Resolve for Name {
        async fn resolve(&self) -> Result<Resolution, ResolveError> {
            Ok(Resolution::new([self.0[self.1.load(Relaxed)].clone()]))
        }
    }

    let pods = Pods::start(3).await;
    let probe = ByName::new(Name(pods.addresses.clone(), Arc::clone(&pods.leader)));
    pods.are_followed_by(probe).await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_page_over_tls_is_read_to_its_end_and_not_from_an_impostor() {
    use certificates::Authority;
    use headless_lb::Tls;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    let trusted = Authority::new();
    let identity = trusted.certify("db.prod.svc");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = vec![0; 1024];
            let _ = stream.read(&mut request).await;
            // No length, and an end that TLS is not told of, as Python's servers have it.
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nbody").await;
            let _ = stream.flush().await;
        }
    });

    let primary = async |client, name: &str| {
        let tls = Tls::service(client, name).unwrap();
        let db = Balancer::builder(Fixed::new([SocketAddr::from(([127, 0, 0, 1], 5432))]))
            .probe(HttpStatus::new("/", port).tls(tls))
            .spawn();
        let primary = db.primary().wait(Duration::from_secs(3)).await;
        primary.map(|writer| writer.addr())
    };
    primary(trusted.client(), "db.prod.svc").await.unwrap();
    let other_name = primary(trusted.client(), "cache.prod.svc")
        .await
        .unwrap_err();
    assert!(
        other_name.to_string().contains("TLS failed"),
        "{other_name}"
    );
    primary(Authority::new().client(), "db.prod.svc")
        .await
        .unwrap_err();
}

//! The probes that ask HTTP and DNS, in a whole balancer and against a real HTTP server.

#![expect(
    clippy::disallowed_methods,
    reason = "servers are tasks of their own here"
)]

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
    Address, Balancer, ByName, Fixed, HttpStatus, Patroni, Probe, Resolution, Resolve,
    ResolveError, Tcp, authority,
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
            let database = TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).await;
            let database = database.expect("loopback");
            let address = Address::from(database.local_addr().expect("bound"));
            addresses.push(address.named(format!("db-{number}")));
            databases.push(database);
            // The first takes any port, the second the same.
            let page = TcpListener::bind(SocketAddr::from((ip, port))).await;
            let page = page.expect("a port that is free here is free at the next address");
            port = page.local_addr().expect("bound").port();
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

//! The balancer together with what people have: tower-http around it, hyper-util's client and reqwest
//! beneath it.
#![allow(
    dead_code,
    reason = "the tests of each client use another part of what they share"
)]

#[cfg(feature = "hyper-client")]
#[path = "integrations/hyper_client.rs"]
mod hyper_client;
#[cfg(feature = "reqwest")]
#[path = "integrations/reqwest.rs"]
mod reqwest_client;
mod support;
#[path = "integrations/tower_http.rs"]
mod tower_http_layers;

use std::{net::SocketAddr, time::Duration};

use headless_lb::{Balancer, Builder, Fixed, RoundRobin};
use support::pod::{Manner, Pod};
use tokio::{net::TcpSocket, time::sleep};

const PATIENCE: Duration = Duration::from_secs(10);

async fn pods(n: u8) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 1..=n {
        pods.push(Pod::start([127, 0, 2, i], Manner::KeepsAlive).await);
    }
    pods
}

fn over(pods: &[Pod]) -> Builder {
    // In turn: what happens to which pod is then known.
    Balancer::builder(Fixed::new(pods.iter().map(Pod::addr))).policy(RoundRobin::new())
}

/// How many requests each pod saw.
fn shares(pods: &[Pod]) -> Vec<usize> {
    pods.iter().map(|pod| pod.requests().len()).collect()
}

fn pending<S>(balancer: &Balancer<S>) -> u32 {
    balancer.endpoints().iter().map(|pod| pod.pending()).sum()
}

/// An address that refuses: a port that is taken, and that nobody listens on.
struct Nobody(TcpSocket);

impl Nobody {
    fn on(ip: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from((ip, 0));
        socket.bind(any).expect("a loopback port");
        Self(socket)
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }
}

fn nobody() -> Nobody {
    Nobody::on([127, 0, 2, 99])
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain: {what}");
}

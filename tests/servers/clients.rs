//! The clients that people already have, over nginx.

use std::collections::BTreeMap;

use headless_lb::{Balancer, Builder, Fixed, ReqwestResolver, RoundRobin};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};

use crate::{
    nginx::Pod,
    process::{free_address, free_ip},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Three pods on one port.
async fn pods() -> (Vec<Pod>, Builder, u16) {
    let port = free_address().port();
    let mut pods = Vec::new();
    for index in 0..3 {
        let address = (free_ip(), port).into();
        pods.push(Pod::start(&format!("pod-{index}"), address).await);
    }
    let builder =
        Balancer::builder(Fixed::new(pods.iter().map(Pod::address))).policy(RoundRobin::new());
    (pods, builder, port)
}

/// How many answers came from each pod, and for which host.
#[derive(Debug, Default, PartialEq)]
struct Shares {
    pods: BTreeMap<String, u32>,
    hosts: BTreeMap<String, u32>,
}

impl Shares {
    /// An answer of nginx: pod, connection, protocol, host.
    fn count(&mut self, answer: &str) {
        let words: Vec<&str> = answer.split(' ').collect();
        let [pod, _, _, host] = words[..] else {
            panic!("a strange answer: {answer}");
        };
        *self.pods.entry(pod.to_owned()).or_default() += 1;
        *self.hosts.entry(host.to_owned()).or_default() += 1;
    }

    fn assert_even(&self, each: u32) {
        let shares: Vec<u32> = self.pods.values().copied().collect();
        assert_eq!(shares, [each; 3], "{self:?}");
        assert_eq!(self.hosts.keys().collect::<Vec<_>>(), ["web.ns"]);
    }
}

#[tokio::test]
async fn the_layer_balances_a_client_of_hyper_util_over_nginx() -> Result<(), Failure> {
    let (mut pods, builder, _) = pods().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = builder.client_layer().layer(client);
    let get = || async {
        let request = Request::get("http://web.ns/").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, Failure>(String::from_utf8(body.to_vec())?)
    };
    let mut shares = Shares::default();
    for _ in 0..60 {
        shares.count(&get().await?);
    }
    shares.assert_even(20);
    // A pod that is dead costs no request without a body, once the client has heard that its idle connections are.
    drop(pods.pop());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for _ in 0..60 {
        get().await?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_of_reqwest_are_balanced_over_nginx() -> Result<(), Failure> {
    let (_pods, builder, _) = pods().await;
    let (client, balancer) = (reqwest::Client::new(), builder.spawn_http());
    let mut shares = Shares::default();
    for _ in 0..60 {
        let request = client.get("http://web.ns/").build()?;
        let request: hyper::Request<reqwest::Body> = request.try_into()?;
        let response = balancer.clone().oneshot(request).await?;
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        shares.count(&response.text().await?);
    }
    shares.assert_even(20);
    Ok(())
}

#[tokio::test]
async fn connections_of_reqwest_go_to_the_pods_of_nginx() -> Result<(), Failure> {
    let (_pods, builder, port) = pods().await;
    let resolver = ReqwestResolver::new().host("web.ns", &builder.spawn());
    let client = reqwest::Client::builder()
        .dns_resolver(resolver)
        // Each request its own connection, so that each is resolved.
        .pool_max_idle_per_host(0)
        .build()?;
    let mut shares = Shares::default();
    for _ in 0..60 {
        let response = client.get(format!("http://web.ns:{port}/")).send().await?;
        shares.count(&response.text().await?);
    }
    assert_eq!(shares.pods.len(), 3, "{shares:?}");
    Ok(())
}

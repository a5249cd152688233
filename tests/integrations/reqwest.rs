//! reqwest: its connections to addresses from the balancer, and its requests through the balancer.

use std::{error::Error as StdError, iter, net::SocketAddr, time::Duration};

use headless_lb::{Balancer, Fixed, PickError, ReqwestResolver, Resolution};
use reqwest::{Body, Client, ClientBuilder, Response};

use super::{
    Nobody, PATIENCE, nobody, over, pending, pods, shares,
    support::{
        pod::{Manner, Pod},
        script::Script,
    },
};

const URL: &str = "http://Web.Default/items/1";

fn client(balancer: &Balancer) -> ClientBuilder {
    Client::builder()
        .dns_resolver(ReqwestResolver::new().host("web.default.", balancer))
        .timeout(PATIENCE)
        .no_proxy()
}

async fn text(client: &Client, url: &str) -> reqwest::Result<String> {
    client.get(url).send().await?.text().await
}

#[tokio::test]
async fn each_connection_is_balanced_and_one_that_is_kept_takes_every_request() {
    let pods = pods(3).await;
    let balancer = over(&pods).spawn();
    let keeping = client(&balancer).build().expect("a client");
    for _ in 0..6 {
        text(&keeping, URL).await.expect("an answer");
    }
    let mut kept = shares(&pods);
    kept.sort_unstable();
    assert_eq!(kept, [0, 0, 6], "this is what the resolver cannot change");

    let connecting = client(&balancer).pool_max_idle_per_host(0);
    let connecting = connecting.build().expect("a client");
    let before = shares(&pods);
    for _ in 0..90 {
        text(&connecting, URL).await.expect("an answer");
    }
    let more: Vec<_> = iter::zip(shares(&pods), before)
        .map(|(now, before)| now - before)
        .collect();
    // Less has a chance of about one in a million.
    assert!(more.iter().all(|&share| share >= 10), "{more:?}");
    assert_eq!(pending(&balancer), 0);
}

#[tokio::test]
async fn the_port_is_the_pods_unless_the_url_has_one() {
    let pods = pods(1).await;
    let balancer = over(&pods).spawn();
    let client = client(&balancer).build().expect("a client");
    text(&client, "http://web.default/")
        .await
        .expect("the pod's port");
    let nobody = Nobody::on([127, 0, 2, 1]);
    let port = nobody.addr().port();
    let error = text(&client, &format!("http://web.default:{port}/")).await;
    assert!(error.expect_err("nobody is there").is_connect());
    assert_eq!(shares(&pods), [1]);
    let seen = pods[0].requests().remove(0);
    assert!(seen.contains("\r\nhost: web.default\r\n"), "{seen}");
}

#[tokio::test]
async fn pods_that_refuse_are_passed_over_up_to_the_attempts_of_a_call() {
    let pods = pods(1).await;
    let refusing = [nobody(), nobody(), nobody()];
    let refused = refusing.iter().map(Nobody::addr);
    let source = Fixed::new(refused.chain([pods[0].addr()]));
    for attempts in [4, 1] {
        let balancer = Balancer::builder(source.clone()).max_attempts(attempts);
        let balancer = balancer.spawn();
        let client = client(&balancer).pool_max_idle_per_host(0);
        let client = client.build().expect("a client");
        let mut answers = 0;
        for _ in 0..60 {
            answers += usize::from(text(&client, URL).await.is_ok());
        }
        // One attempt of four succeeds; that all sixty do, or none, has a chance of 1 in 10^7.
        let expected = if attempts == 4 { 60..=60 } else { 1..=59 };
        assert!(expected.contains(&answers), "{answers} by {attempts}");
    }
}

#[tokio::test]
async fn other_hosts_are_the_systems() {
    let pods = pods(1).await;
    let elsewhere = Pod::start([127, 0, 0, 1], Manner::KeepsAlive).await;
    let balancer = over(&pods).spawn();
    let client = client(&balancer).build().expect("a client");
    let url = format!("http://localhost:{}/", elsewhere.addr().port());
    text(&client, &url).await.expect("an answer");
    assert_eq!((shares(&pods), elsewhere.requests().len()), (vec![0], 1));
}

#[tokio::test]
async fn without_pods_the_reason_is_among_the_causes() {
    let none = Balancer::builder(Fixed::new(Vec::<SocketAddr>::new())).spawn();
    let client = client(&none).build().expect("a client");
    let error = text(&client, URL).await.expect_err("no pods");
    let mut causes = iter::successors(Some(&error as &(dyn StdError + 'static)), |error| {
        (*error).source()
    });
    let reason = causes.find_map(|cause| cause.downcast_ref::<PickError>());
    assert!(
        matches!(reason, Some(PickError::NoEndpoints(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_connect_before_the_first_answer_waits_as_long_as_a_call_does() {
    let pods = pods(1).await;
    let late = Script::new(Ok(Resolution::from_iter([pods[0].addr()])));
    late.takes(Duration::from_millis(50));
    for (timeout, answers) in [(PATIENCE, true), (Duration::from_millis(5), false)] {
        let late = Balancer::builder(late.clone()).initial_timeout(timeout);
        let late = late.spawn();
        let client = client(&late).build().expect("a client");
        assert_eq!(text(&client, URL).await.is_ok(), answers, "{timeout:?}");
    }
}

#[tokio::test]
async fn the_balancer_itself_serves_requests_that_reqwest_made() {
    let pods = pods(3).await;
    let balancer = over(&pods).spawn_http();
    let maker = Client::builder().no_proxy().build().expect("a client");
    for _ in 0..30 {
        let request = maker.post(URL).body("order").build().expect("a request");
        let request: http::Request<Body> = request.try_into().expect("the same");
        let response = tower::ServiceExt::oneshot(balancer.clone(), request);
        let response = response.await.expect("an answer").map(Body::wrap);
        let response = Response::from(response);
        assert!(response.status().is_success());
        assert!(!response.text().await.expect("a body").is_empty());
    }
    assert_eq!(shares(&pods), [10, 10, 10]);
    assert_eq!(pending(&balancer), 0);
    for seen in pods.iter().flat_map(|pod| pod.requests()) {
        assert!(seen.starts_with("POST /items/1 HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("\r\nhost: web.default\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\norder"), "{seen}");
    }
}

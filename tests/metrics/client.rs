//! The HTTP client's metrics, over real connections.

use std::{net::SocketAddr, time::Duration};

use headless_lb::{
    Balancer, Builder, Error, Fixed, Http, HttpError, HttpPod, Resolution, policy_fn,
};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use crate::{
    page::{Page, Recorded},
    server::{Manner, Pod, nobody},
    support::script::Script,
};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

const CONNECTS: &str = "headless_lb_connects_total";
const DISCONNECTS: &str = "headless_lb_disconnects_total";
const PICKS: &str = "headless_lb_picks_total";
const RETRIES: &str = "headless_lb_retries_total";
const REFUSED: &str = "headless_lb_retry_refused_total";
const HEDGES: &str = "headless_lb_hedges_total";

struct Case {
    recorded: Recorded,
    client: Balancer<HttpPod>,
}

impl Case {
    /// Requests go to the first of these that is available.
    async fn over(pods: &[SocketAddr], settings: Http) -> Self {
        Self::of(
            Balancer::builder(Fixed::new(pods.iter().copied())),
            pods,
            settings,
        )
        .await
    }

    async fn of(builder: Builder, order: &[SocketAddr], settings: Http) -> Self {
        let order = order.to_vec();
        let in_order = policy_fn(move |candidates| {
            let place_of = |addr| candidates.iter().position(|one| one.addr() == addr);
            candidates.choose(order.iter().find_map(|&addr| place_of(addr))?)
        });
        let builder = builder.service_name("web.default").policy(in_order);
        let recorded = Recorded::new();
        let client = recorded.while_building(|| builder.spawn_http_with(settings));
        client.resolved().await.expect("endpoints");
        Self { recorded, client }
    }

    async fn call(&self, method: Method) -> Result<Bytes, Error<HttpError>> {
        let request = Request::builder()
            .method(method)
            .uri("http://web.default/")
            .body(Empty::<Bytes>::new())
            .expect("a valid request");
        let answer = timeout(PATIENCE, self.client.clone().oneshot(request)).await;
        let body = answer.expect("an answer in time")?.into_body().collect();
        let body = timeout(PATIENCE, body).await.expect("a body in time");
        Ok(body.expect("a whole body").to_bytes())
    }

    async fn get(&self) {
        assert_eq!(self.call(Method::GET).await.expect("an answer"), "here");
    }

    /// The page as soon as the counts of a metric add up to this: connections end a moment later.
    async fn page_at(&self, name: &str, total: f64) -> Page {
        let enough = async {
            loop {
                let page = self.recorded.page();
                if page.total(name) >= total {
                    return page;
                }
                sleep(5 * MS).await;
            }
        };
        let page = timeout(PATIENCE, enough).await;
        page.unwrap_or_else(|_| {
            let stays = self.recorded.page().total(name);
            panic!("{name} stays at {stays}, below {total}")
        })
    }
}

// ===== connects and picks =====

#[tokio::test]
async fn a_pick_is_warm_where_a_connection_was_free_and_cold_where_one_is_made() {
    let pod = Pod::start(1, Manner::Http1).await;
    let case = Case::over(&[pod.addr], Http::new()).await;
    for _ in 0..4 {
        case.get().await;
    }
    let page = case.page_at(PICKS, 4.0).await;
    page.only(PICKS, [("cold", 1.0), ("warm", 3.0)]);
    page.only(CONNECTS, [("ok", 1.0)]);
    page.only(DISCONNECTS, []);
    page.only(RETRIES, []);
    assert_eq!((page.value(REFUSED), page.value(HEDGES)), (0.0, 0.0));

    // By hand: nobody knows yet what it is for.
    drop(case.client.pick().expect("a pod"));
    let page = case.page_at(PICKS, 5.0).await;
    assert_eq!(page.with(PICKS, "unknown"), 1.0);
}

#[tokio::test]
async fn a_pod_that_refuses_is_a_refused_connect_and_an_unsent_retry() {
    let (gone, pod) = (nobody(2).await, Pod::start(3, Manner::Http1).await);
    let case = Case::over(&[gone, pod.addr], Http::new()).await;
    assert_eq!(case.call(Method::POST).await.expect("an answer"), "here");
    let page = case.page_at(PICKS, 2.0).await;
    page.only(CONNECTS, [("refused", 1.0), ("ok", 1.0)]);
    page.only(RETRIES, [("unsent", 1.0)]);
    page.only(PICKS, [("cold", 2.0)]);
    page.only(DISCONNECTS, []);
    page.only("headless_lb_no_endpoint_total", []);
}

#[tokio::test]
async fn when_no_pod_takes_a_connection_picks_go_to_those_set_aside() {
    let gone = nobody(4).await;
    let case = Case::over(&[gone], Http::new()).await;
    case.call(Method::GET).await.expect_err("nobody is there");
    // The driver has heard of it within this time, and the pod is not back.
    sleep(30 * MS).await;
    case.call(Method::GET).await.expect_err("nobody is there");
    let page = case.page_at(PICKS, 2.0).await;
    page.only(PICKS, [("cold", 1.0), ("panic", 1.0)]);
    page.only(CONNECTS, [("refused", 2.0)]);
}

#[tokio::test]
async fn a_pod_that_says_nothing_over_http2_is_a_connect_that_took_too_long() {
    let pod = Pod::start(5, Manner::Hangs).await;
    let settings = Http::new().http2().connect_timeout(50 * MS);
    let case = Case::over(&[pod.addr], settings).await;
    case.call(Method::GET).await.expect_err("no connection");
    let page = case.page_at(CONNECTS, 1.0).await;
    page.only(CONNECTS, [("timeout", 1.0)]);
    page.only(DISCONNECTS, []);
}

#[tokio::test]
async fn a_pod_of_another_protocol_is_a_connect_that_failed() {
    let pod = Pod::start(6, Manner::Http1).await;
    let case = Case::over(&[pod.addr], Http::new().http2()).await;
    case.call(Method::GET).await.expect_err("no connection");
    let page = case.page_at(CONNECTS, 1.0).await;
    page.only(CONNECTS, [("not_http2", 1.0)]);
    page.only(DISCONNECTS, []);
}

#[tokio::test]
async fn a_request_without_endpoints_is_counted_once() {
    let builder = Balancer::builder(Fixed::new(Vec::<SocketAddr>::new()))
        .service_name("web.default")
        .initial_timeout(Duration::ZERO);
    let recorded = Recorded::new();
    let client = recorded.while_building(|| builder.spawn_http());
    while !client.status().is_resolved() {
        sleep(5 * MS).await;
    }
    let case = Case { recorded, client };
    case.call(Method::GET).await.expect_err("no pod");
    let page = case.recorded.page();
    page.only("headless_lb_no_endpoint_total", [("no_endpoints", 1.0)]);
    page.only(PICKS, []);
}

// ===== disconnects =====

/// One request, and why its connection ends.
async fn ends(host: u8, manner: Manner, settings: Http) -> Page {
    let pod = Pod::start(host, manner).await;
    let case = Case::over(&[pod.addr], settings).await;
    case.get().await;
    case.page_at(DISCONNECTS, 1.0).await
}

#[tokio::test]
async fn a_connection_that_its_pod_closes_after_a_response_said_goodbye() {
    for (host, manner) in [(10, Manner::ClosesAfterOne), (9, Manner::SaysClose)] {
        let page = ends(host, manner, Http::new()).await;
        page.only(DISCONNECTS, [("goaway", 1.0)]);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_ends_here() {
    for (host, manner) in [(11, Manner::Http1), (12, Manner::Http2)] {
        let settings = Http::new().idle_timeout(80 * MS);
        let settings = match manner {
            Manner::Http2 => settings.http2(),
            _ => settings,
        };
        let page = ends(host, manner, settings).await;
        page.only(DISCONNECTS, [("local", 1.0)]);
    }
}

#[tokio::test]
async fn a_connection_that_grows_too_old_ends_for_its_age() {
    for (host, manner) in [(13, Manner::Http1), (14, Manner::Http2)] {
        let pod = Pod::start(host, manner).await;
        let settings = Http::new().max_age(50 * MS);
        let settings = match manner {
            Manner::Http2 => settings.http2(),
            _ => settings,
        };
        let case = Case::over(&[pod.addr], settings).await;
        case.get().await;
        sleep(80 * MS).await;
        // Serves once more, and has a successor.
        case.get().await;
        let page = case.page_at(DISCONNECTS, 1.0).await;
        page.only(DISCONNECTS, [("max_age", 1.0)]);
        assert_eq!(case.page_at(CONNECTS, 2.0).await.with(CONNECTS, "ok"), 2.0);
    }
}

#[tokio::test]
async fn a_connection_whose_pod_leaves_the_set_is_drained() {
    for (host, manner) in [(15, Manner::Http1), (17, Manner::Http2)] {
        let settings = match manner {
            Manner::Http2 => Http::new().http2(),
            _ => Http::new(),
        };
        let leaving = Pod::start(host, manner).await;
        let staying = Pod::start(host + 1, manner).await;
        let script = Script::new(Ok(Resolution::new([leaving.addr, staying.addr])));
        let builder = Balancer::builder(script.clone())
            .min_interval(20 * MS)
            .refresh_interval(20 * MS);
        let case = Case::of(builder, &[leaving.addr, staying.addr], settings).await;
        case.get().await;
        script.say(Ok(Resolution::new([staying.addr])));
        let page = case.page_at(DISCONNECTS, 1.0).await;
        page.only(DISCONNECTS, [("drained", 1.0)]);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_when_the_time_to_drain_is_over_did_not_break() {
    for (host, manner) in [(31, Manner::Hangs), (33, Manner::Http2)] {
        let settings = match manner {
            Manner::Http2 => Http::new().http2(),
            _ => Http::new(),
        };
        let leaving = Pod::start(host, manner).await;
        let staying = Pod::start(host + 1, Manner::Http1).await;
        let script = Script::new(Ok(Resolution::new([leaving.addr, staying.addr])));
        let builder = Balancer::builder(script.clone())
            .min_interval(20 * MS)
            .refresh_interval(20 * MS)
            .linger(300 * MS);
        let case = Case::of(builder, &[leaving.addr, staying.addr], settings).await;
        if manner == Manner::Http2 {
            case.get().await;
            leaving.freeze();
        }
        let leave = async {
            sleep(50 * MS).await;
            script.say(Ok(Resolution::new([staying.addr])));
        };
        let (answer, ()) = tokio::join!(case.call(Method::POST), leave);
        answer.expect_err("nobody answers, and its pod has left");
        let page = case.page_at(DISCONNECTS, 1.0).await;
        page.only(DISCONNECTS, [("drained", 1.0)]);
    }
}

#[tokio::test]
async fn a_pod_that_says_goodbye_over_http2_is_told_from_one_that_falls_silent() {
    let pod = Pod::start(19, Manner::Http2).await;
    let settings = || Http::new().http2().ping(100 * MS);
    let case = Case::over(&[pod.addr], settings()).await;
    case.get().await;
    pod.say_goodbye();
    let page = case.page_at(DISCONNECTS, 1.0).await;
    page.only(DISCONNECTS, [("goaway", 1.0)]);

    let case = Case::over(&[pod.addr], settings()).await;
    case.get().await;
    pod.freeze();
    // Pings go out while something is waited for.
    let error = case.call(Method::POST).await;
    error.expect_err("the pod says nothing any more");
    let page = case.page_at(DISCONNECTS, 1.0).await;
    page.only(DISCONNECTS, [("timeout", 1.0)]);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_connection_that_broke() {
    let pod = Pod::start(27, Manner::BreaksOff).await;
    let case = Case::over(&[pod.addr], Http::new()).await;
    let request = Request::get("http://web.default/").body(Empty::<Bytes>::new());
    let answer = case.client.clone().oneshot(request.expect("a request"));
    let body = answer.await.expect("a head").into_body().collect();
    timeout(PATIENCE, body)
        .await
        .expect("in time")
        .expect_err("half a body");
    let page = case.page_at(DISCONNECTS, 1.0).await;
    page.only(DISCONNECTS, [("reset", 1.0)]);
    page.only(RETRIES, []);
}

#[tokio::test]
async fn a_response_that_nobody_waits_for_ends_its_connection_here() {
    let pod = Pod::start(28, Manner::Hangs).await;
    let case = Case::over(&[pod.addr], Http::new()).await;
    let given_up = timeout(100 * MS, case.call(Method::POST)).await;
    assert!(given_up.is_err(), "the pod says nothing");
    let page = case.page_at(DISCONNECTS, 1.0).await;
    page.only(DISCONNECTS, [("local", 1.0)]);
}

// ===== retries =====

#[tokio::test]
async fn a_get_whose_pod_dies_over_it_breaks_a_connection_and_is_a_sent_retry() {
    let (dying, pod) = (
        Pod::start(20, Manner::Breaks).await,
        Pod::start(21, Manner::Http1).await,
    );
    let case = Case::over(&[dying.addr, pod.addr], Http::new()).await;
    case.get().await;
    let page = case.page_at(PICKS, 2.0).await;
    page.only(RETRIES, [("sent", 1.0)]);
    page.only(CONNECTS, [("ok", 2.0)]);
    let page = case.page_at(DISCONNECTS, 1.0).await;
    page.only(DISCONNECTS, [("reset", 1.0)]);
    assert_eq!((page.value(REFUSED), page.value(HEDGES)), (0.0, 0.0));

    // A POST stays where it was seen.
    case.call(Method::POST)
        .await
        .expect_err("it may have been seen");
    case.recorded.page().only(RETRIES, [("sent", 1.0)]);
}

#[tokio::test]
async fn retries_that_the_budget_does_not_permit_are_counted() {
    let pods = [
        Pod::start(22, Manner::Breaks).await,
        Pod::start(23, Manner::Breaks).await,
    ];
    let case = Case::over(&[pods[0].addr, pods[1].addr], Http::new()).await;
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let client = case.client.clone();
        let request = Request::get("http://web.default/").body(Empty::<Bytes>::new());
        calls.spawn(timeout(
            PATIENCE,
            client.oneshot(request.expect("a valid request")),
        ));
    }
    for outcome in calls.join_all().await {
        outcome.expect("an end in time").expect_err("all pods die");
    }
    let page = case.recorded.page();
    let (sent, refused) = (page.with(RETRIES, "sent"), page.value(REFUSED));
    // 20 % of 60, 3 in the purse and 3 at once; each of the others was refused once.
    assert!(sent >= 3.0, "{sent}");
    assert!((30.0..=60.0).contains(&refused), "{refused}");
}

#[tokio::test]
async fn retries_that_are_switched_off_are_not_refused() {
    let pod = Pod::start(24, Manner::Breaks).await;
    let case = Case::over(&[pod.addr], Http::new().retries(false)).await;
    case.call(Method::GET).await.expect_err("the pod dies");
    let page = case.recorded.page();
    assert_eq!(page.value(REFUSED), 0.0);
    page.only(RETRIES, []);
}

#[tokio::test]
async fn a_late_get_goes_to_another_pod_as_a_hedge_and_no_retry() {
    let (slow, pod) = (
        Pod::start(25, Manner::Hangs).await,
        Pod::start(26, Manner::Http1).await,
    );
    let case = Case::over(&[slow.addr, pod.addr], Http::new()).await;
    case.get().await;
    let page = case.page_at(PICKS, 2.0).await;
    assert_eq!((page.value(HEDGES), page.value(REFUSED)), (1.0, 0.0));
    page.only(RETRIES, []);
    page.only(PICKS, [("cold", 2.0)]);
}

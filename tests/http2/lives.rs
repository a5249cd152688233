//! How long connections live, and what ends with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Balancer, Error, Http, HttpError, Resolution, RoundRobin};
use http_body_util::BodyExt;
use tokio::time::{self, Instant, sleep, timeout};

use super::{
    Client, all, burst, call, client,
    frames::Scripted,
    get, over, pending,
    pod::{Pod, SLOW},
    pods, posting, read, request, shares,
    support::script::Script,
    until,
};

/// Lets time pass.
async fn pass(time: Duration) {
    time::pause();
    time::advance(time).await;
    time::resume();
}

#[tokio::test]
async fn a_response_that_is_dropped_half_read_resets_its_stream_and_the_connection_goes_on() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let mut other = call(&client, request("GET", "/stream", ""))
        .await
        .expect("an answer")
        .into_body();
    other
        .frame()
        .await
        .expect("a piece")
        .expect("a whole piece");
    // More than may be open at once: each gives its place back.
    for _ in 0..250 {
        let response = call(&client, request("GET", "/endless", ""))
            .await
            .expect("an answer");
        let mut body = response.into_body();
        body.frame().await.expect("a piece").expect("a whole piece");
        drop(body);
        assert_eq!(pending(&client), 1);
    }
    get(&client, "/").await;
    pod.release();
    other
        .frame()
        .await
        .expect("a piece")
        .expect("a whole piece");
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn a_request_that_is_given_up_resets_its_stream_and_the_connection_goes_on() {
    let pod = Pod::with([127, 0, 3, 1], |server| {
        server.max_concurrent_streams(3);
    })
    .await;
    let client = client([pod.addr()]);
    for _ in 0..20 {
        let call = call(&client, request("POST", "/held", ""));
        let given_up = timeout(Duration::from_millis(10), call).await;
        assert!(given_up.is_err());
        assert_eq!(pending(&client), 0);
    }
    get(&client, "/").await;
    until("the pod has stopped to work on them", || {
        pod.under_way() == 0
    })
    .await;
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn a_response_goes_on_to_its_end_when_its_pod_leaves_the_set() {
    let pods = pods::<2>().await;
    let script = Script::new(Ok(all(&pods).collect()));
    let client: Client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .min_interval(Duration::from_millis(10))
        .refresh_interval(Duration::from_millis(20))
        .spawn_http_with(Http::new().http2());
    for _ in 0..4 {
        get(&client, "/").await;
    }
    let response = call(&client, request("GET", "/stream", ""))
        .await
        .expect("an answer");
    let (leaving, staying) = match pods[0].requests().len() > pods[1].requests().len() {
        true => (&pods[0], &pods[1]),
        false => (&pods[1], &pods[0]),
    };
    script.say(Ok(Resolution::new([staying.addr()])));
    until("the set shrinks", || client.endpoints().len() == 1).await;
    for _ in 0..4 {
        assert_eq!(get(&client, "/").await, staying.addr().to_string());
    }
    assert_eq!(leaving.open(), 1);
    leaving.release();
    assert_eq!(read(response).await, leaving.addr().to_string().repeat(2));
    until("its connection closes with its last stream", || {
        leaving.open() == 0
    })
    .await;
    assert_eq!(staying.open(), 1);
}

#[tokio::test]
async fn the_connection_of_a_removed_pod_closes_at_once_if_it_is_idle() {
    let pods = pods::<2>().await;
    let script = Script::new(Ok(all(&pods).collect()));
    let client: Client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .min_interval(Duration::from_millis(10))
        .refresh_interval(Duration::from_millis(20))
        .spawn_http_with(Http::new().http2());
    for _ in 0..2 {
        get(&client, "/").await;
    }
    assert_eq!((pods[0].open(), pods[1].open()), (1, 1));
    script.say(Ok(Resolution::new([pods[1].addr()])));
    until("its connection closes", || pods[0].open() == 0).await;
    // It returns, and is served again.
    script.say(Ok(all(&pods).collect()));
    until("the set grows", || client.endpoints().len() == 2).await;
    for _ in 0..4 {
        get(&client, "/").await;
    }
    assert_eq!((pods[0].open(), pods[0].connections()), (1, 2));
}

#[tokio::test]
async fn connections_that_nobody_uses_close() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    for connections in 1..=3 {
        shares(burst(&client, 150, "/slow")).await;
        assert!(pod.open() >= 2);
        // One stays in use, the others grow idle.
        for _ in 0..3 {
            pass(Duration::from_secs(30)).await;
            get(&client, "/").await;
        }
        until("one is left", || pod.open() == 1).await;
        pass(Duration::from_secs(56)).await;
        until("none is left", || pod.open() == 0).await;
        assert!(pod.connections() >= 2 * connections);
    }
}

#[tokio::test]
async fn a_connection_that_came_too_late_for_its_request_closes_when_nobody_uses_it() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    client.resolved().await.expect("a fixed list");
    let mut calling = Box::pin(call(&client, request("POST", "/", "")));
    // Polled once, so that it dials.
    assert!(futures_util::poll!(&mut calling).is_pending());
    drop(calling);
    until("it is made all the same", || pod.open() == 1).await;
    sleep(Duration::from_millis(50)).await;
    pass(Duration::from_secs(56)).await;
    until("it closes", || pod.open() == 0).await;
    assert!(pod.requests().is_empty());
}

#[tokio::test]
async fn a_connection_that_no_request_has_used_yet_is_not_older_for_the_age_of_its_client() {
    let pods = pods::<2>().await;
    let script = Script::new(Ok(Resolution::new([pods[0].addr()])));
    let client: Client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .warm_up(Duration::from_secs(5))
        .min_interval(Duration::from_millis(10))
        .refresh_interval(Duration::from_millis(20))
        .spawn_http_with(Http::new().http2());
    get(&client, "/").await;
    pass(Duration::from_secs(600)).await;
    script.say(Ok(all(&pods).collect()));
    until("the new pod is connected to", || pods[1].open() == 1).await;
    sleep(Duration::from_millis(50)).await;
    pass(Duration::from_secs(20)).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(pods[1].open(), 1, "for its first request");
    pass(Duration::from_secs(36)).await;
    until("it closes", || pods[1].open() == 0).await;
    assert!(pods[1].requests().is_empty());
}

const CALLERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_grows_too_old_is_replaced_and_costs_no_request() {
    let [pod] = pods().await;
    let settings = Http::new()
        .http2()
        .max_age(Duration::from_millis(60))
        .retries(false)
        .hedging(false);
    let client = over([pod.addr()]).spawn_http_with(settings);
    let began = Instant::now();
    let stop = Arc::<AtomicBool>::default();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        load.spawn(async move {
            while !stop.load(Relaxed) {
                super::post(&client, "/slow", "order")
                    .await
                    .expect("an answer");
            }
        });
    }
    until("it is replaced", || pod.connections() >= 8).await;
    stop.store(true, Relaxed);
    load.join_all().await;
    let (connections, orders) = (pod.connections(), pod.requests().len());
    let (least, most) = (Duration::from_millis(54), Duration::from_millis(66));
    // The first is not older when its successor is made than the last is now.
    assert!(
        began.elapsed() >= least * (connections as u32 - 1),
        "{connections} within {:?}",
        began.elapsed()
    );
    // Told in orders, for these take longer on a busy machine, but never less than `SLOW`: so many of each caller begin
    // before the connection is too old, and one that finds out, or while the next is made.
    let of_each = most.div_duration_f64(SLOW).ceil() as usize + 1;
    assert!(
        orders <= CALLERS * of_each * connections,
        "{orders} over {connections}"
    );
    until("the old ones close", || pod.open() == 1).await;
}

#[tokio::test]
async fn a_ping_finds_a_connection_whose_pod_fell_silent() {
    let silent = Scripted::start([127, 0, 3, 9], |mut wire, _| async move {
        wire.greet(100).await?;
        let first = wire.request().await?;
        wire.answer(first.stream, "ok").await?;
        wire.request().await?;
        // From here on it reads nothing, and says nothing.
        std::future::pending().await
    })
    .await;
    let ping = Http::new()
        .http2()
        .ping(Duration::from_millis(100))
        .hedging(false);
    let client = over([silent.addr()]).spawn_http_with(ping);
    get(&client, "/").await;
    let began = Instant::now();
    let error = posting(&client, "/", "order")
        .await
        .expect("no panic")
        .expect_err("silence");
    assert!(
        matches!(
            &error,
            Error::Service {
                error: HttpError::Request(_),
                ..
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("web.default") && text.contains(&silent.addr().to_string()),
        "{text}"
    );
    assert!(text.contains("timed out"), "{text}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(get(&client, "/").await, "ok", "over a new connection");
    assert_eq!(silent.connections(), 2);
}

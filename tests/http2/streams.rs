//! Many requests on few connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::Http;
use tokio::time::{sleep, timeout};

use super::{
    PATIENCE, all, burst, client, frames::Scripted, get, over, pending, pod::Pod, pods, post,
    shares, until,
};

/// Warm, so that no dial stands between a request and its first pod.
async fn warm(client: &super::Client, pods: &[Pod]) {
    for _ in pods {
        get(client, "/").await;
    }
}

#[tokio::test]
async fn a_thousand_streams_share_few_connections() {
    let pods = pods::<3>().await;
    // One attempt: where a dial takes 250 ms, as beside other work it may, a request would wait at a second pod as
    // well, and that one would make a connection for it.
    let settings = Http::new().http2();
    let client = over(all(&pods)).max_attempts(1).spawn_http_with(settings);
    warm(&client, &pods).await;
    let held = burst(&client, 1_000, "/held");
    until("all are with their pods", || {
        pods.iter().map(Pod::under_way).sum::<usize>() == 1_000
    })
    .await;
    assert_eq!(pending(&client), 1_000);
    pods.iter().for_each(Pod::release);
    let shares = shares(held).await;
    for pod in &pods {
        // 333 and a third, and 100 on a connection.
        let share = shares[&pod.addr().to_string()];
        assert!((333..=334).contains(&share), "{shares:?}");
        assert_eq!(pod.connections(), 4, "{shares:?}");
        assert!(pod.busiest() <= 100, "{}", pod.busiest());
    }
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn a_pod_that_permits_few_streams_gets_more_connections() {
    let pod = Pod::with([127, 0, 3, 1], |server| {
        server.max_concurrent_streams(10);
    })
    .await;
    let client = client([pod.addr()]);
    let held = burst(&client, 95, "/held");
    until("all are with the pod", || pod.under_way() == 95).await;
    assert_eq!((pod.connections(), pod.busiest()), (10, 10));
    pod.release();
    shares(held).await;
}

#[tokio::test]
async fn our_own_limit_counts_as_well() {
    let [pod] = pods().await;
    let settings = Http::new().http2().max_streams(7);
    let client = over([pod.addr()]).spawn_http_with(settings);
    let held = burst(&client, 21, "/held");
    until("all are with the pod", || pod.under_way() == 21).await;
    assert_eq!((pod.connections(), pod.busiest()), (3, 7));
    pod.release();
    shares(held).await;
}

#[tokio::test]
async fn requests_wait_for_a_stream_if_no_more_connections_may_be_made() {
    let pod = Pod::with([127, 0, 3, 1], |server| {
        server.max_concurrent_streams(10);
    })
    .await;
    let settings = Http::new().http2().max_connections(1);
    let client = over([pod.addr()]).spawn_http_with(settings);
    shares(burst(&client, 100, "/slow")).await;
    assert_eq!((pod.connections(), pod.busiest()), (1, 10));
}

#[tokio::test]
async fn a_request_that_gave_up_waiting_leaves_its_place_to_the_next() {
    let pod = Pod::with([127, 0, 3, 1], |server| {
        server.max_concurrent_streams(1);
    })
    .await;
    let settings = Http::new().http2().max_connections(1);
    let client = over([pod.addr()]).spawn_http_with(settings);
    let held = super::posting(&client, "/held", "");
    until("the stream is taken", || pod.under_way() == 1).await;
    let gives_up = timeout(Duration::from_millis(50), post(&client, "/", "impatient"));
    assert!(gives_up.await.is_err());
    let patient = super::posting(&client, "/", "patient");
    pod.release();
    held.await.expect("no panic").expect("an answer");
    patient.await.expect("no panic").expect("an answer");
    assert_eq!(pod.bodies(), ["", "patient"]);
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn a_limit_that_the_pod_lowers_and_raises_fails_no_request() {
    let answered = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&answered);
    let pod = Scripted::start([127, 0, 3, 1], move |mut wire, _| {
        let answered = Arc::clone(&count);
        async move {
            wire.greet(100).await?;
            for n in 1.. {
                let request = wire.request().await?;
                match n {
                    5 => wire.permit(1).await?,
                    20 => wire.permit(0).await?,
                    _ => {}
                }
                sleep(Duration::from_millis(1)).await;
                wire.answer(request.stream, "ok").await?;
                if n == 20 {
                    sleep(Duration::from_millis(50)).await;
                    wire.permit(50).await?;
                }
                answered.fetch_add(1, Relaxed);
            }
            Ok(())
        }
    })
    .await;
    let settings = Http::new().http2().max_connections(1);
    let client = over([pod.addr()]).spawn_http_with(settings);
    for _ in 0..5 {
        let orders = burst(&client, 20, "/");
        let shares = timeout(PATIENCE, shares(orders)).await.expect("in time");
        assert_eq!(shares["ok"], 20);
    }
    assert_eq!(answered.load(Relaxed), 100);
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn more_connections_are_made_when_the_pod_lowers_its_limit() {
    let pod = Scripted::start([127, 0, 3, 9], |mut wire, number| async move {
        wire.greet(if number == 1 { 100 } else { 5 }).await?;
        if number == 1 {
            let first = wire.request().await?;
            wire.permit(5).await?;
            wire.answer(first.stream, "ok").await?;
            // With this one the client notices.
            let second = wire.request().await?;
            wire.answer(second.stream, "ok").await?;
        }
        loop {
            let mut five = Vec::new();
            for _ in 0..5 {
                five.push(wire.request().await?);
            }
            for request in five {
                wire.answer(request.stream, "ok").await?;
            }
        }
    })
    .await;
    let client = client([pod.addr()]);
    for _ in 0..2 {
        get(&client, "/").await;
    }
    let shares = shares(burst(&client, 20, "/")).await;
    assert_eq!((shares["ok"], pod.connections()), (20, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways_at_once_on_one_connection() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    get(&client, "/").await;
    let mut echoes = tokio::task::JoinSet::new();
    for i in 0..40_u8 {
        let client = client.clone();
        echoes.spawn(async move {
            let body = char::from(b'A' + i).to_string().repeat(500_000);
            let echo = post(&client, "/echo", &body).await.expect("an answer");
            assert!(echo == body, "{} of {} bytes", echo.len(), body.len());
        });
    }
    timeout(PATIENCE, echoes.join_all()).await.expect("in time");
    assert_eq!((pod.connections(), pending(&client)), (1, 0));
}

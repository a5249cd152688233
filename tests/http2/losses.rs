//! What a lost connection says of its pod, and what lost streams say: one failure, and one each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Cause, Outcome};
use tokio::{task::JoinSet, time::sleep};
use tower::ServiceExt;

use super::{
    Client, burst, call, client,
    frames::{INTERNAL_ERROR, Scripted},
    pending, read, request, until,
};

const STREAMS: usize = 5;

/// Takes five requests on a connection, begins to answer so many of them, and breaks the connection.
async fn breaking(answered: usize) -> Scripted {
    Scripted::start([127, 0, 3, 1], move |mut wire, _| async move {
        wire.greet(100).await?;
        let mut requests = Vec::new();
        for _ in 0..STREAMS {
            requests.push(wire.request().await?);
        }
        for request in &requests[..answered] {
            wire.begin(request.stream, "half").await?;
        }
        sleep(Duration::from_millis(100)).await;
        // Closing sends a reset.
        wire.socket.set_zero_linger()
    })
    .await
}

/// Successes, failures, failures in a row, and why the last one failed.
fn left(client: &Client) -> (u32, u32, u32, Option<Cause>) {
    let set = client.endpoints();
    let pod = set.iter().next().expect("a pod");
    let counts = (pod.succeeded(), pod.failed(), pod.streak());
    (counts.0, counts.1, counts.2, pod.last_failure())
}

/// Sends five requests at once, none of which is answered whole.
async fn lose(client: &Client) {
    let mut callers = JoinSet::new();
    for _ in 0..STREAMS {
        let client = client.clone();
        callers.spawn(async move {
            if let Ok(response) = call(&client, request("POST", "/", "order")).await {
                let body = http_body_util::BodyExt::collect(response.into_body()).await;
                assert!(body.is_err(), "it breaks off");
            }
        });
    }
    callers.join_all().await;
    assert_eq!(pending(client), 0);
}

#[tokio::test]
async fn a_connection_that_is_lost_with_five_requests_is_one_failure() {
    for answered in [0, 2, STREAMS] {
        let pod = breaking(answered).await;
        let client = client([pod.addr()]);
        lose(&client).await;
        let reset = Some(Cause::Reset);
        assert_eq!(left(&client), (answered as u32, 1, 1, reset));
        lose(&client).await;
        assert_eq!(pod.connections(), 2);
        assert_eq!(left(&client).1, 2, "each connection counts");
    }
}

#[tokio::test]
async fn a_request_that_is_to_be_ignored_does_not_hide_that_its_connection_was_lost() {
    let pod = breaking(0).await;
    let client = client([pod.addr()]);
    let mut ignored = request("POST", "/", "order");
    ignored.extensions_mut().insert(Outcome::Ignore);
    let (own, first) = (client.clone(), ignored);
    let first = tokio::spawn(async move { call(&own, first).await.is_err() });
    sleep(Duration::from_millis(20)).await;
    let others = burst(&client, STREAMS - 1, "/");
    assert!(first.await.expect("no panic"));
    assert!(others.join_all().await.iter().all(Result::is_err));
    assert_eq!(left(&client), (0, 1, 1, Some(Cause::Reset)));
}

#[tokio::test]
async fn a_request_to_one_pod_alone_does_not_hide_that_its_connection_was_lost() {
    let pod = breaking(0).await;
    let client = client([pod.addr()]);
    client.resolved().await.expect("a fixed list");
    // What becomes of it is the caller's to say, who says nothing.
    let (alone, in_flight) = client.pick().expect("a pod").into_parts();
    let first = alone.into_service().oneshot(request("POST", "/", "order"));
    let first = tokio::spawn(async move { first.await.is_err() });
    sleep(Duration::from_millis(20)).await;
    let others = burst(&client, STREAMS - 1, "/");
    assert!(first.await.expect("no panic"));
    assert!(others.join_all().await.iter().all(Result::is_err));
    drop(in_flight);
    assert_eq!(left(&client), (0, 1, 1, Some(Cause::Reset)));
}

#[tokio::test]
async fn streams_that_the_pod_resets_one_by_one_are_a_failure_each() {
    let pod = Scripted::start([127, 0, 3, 1], |mut wire, _| async move {
        wire.greet(100).await?;
        for n in 0.. {
            let request = wire.request().await?;
            if n % 2 == 1 {
                wire.begin(request.stream, "half").await?;
            }
            wire.reset(request.stream, INTERNAL_ERROR).await?;
        }
        Ok(())
    })
    .await;
    let client = client([pod.addr()]);
    lose(&client).await;
    assert_eq!(pod.connections(), 1);
    assert_eq!(left(&client).1, STREAMS as u32);
}

#[tokio::test]
async fn a_connection_that_the_pod_cannot_go_on_with_is_one_failure() {
    let lost = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&lost);
    let pod = Scripted::start([127, 0, 3, 1], move |mut wire, number| {
        let count = Arc::clone(&count);
        async move {
            wire.greet(100).await?;
            let mut last = 0;
            for _ in 0..STREAMS {
                let request = wire.request().await?;
                if number > 1 {
                    wire.answer(request.stream, "well").await?;
                }
                last = request.stream;
            }
            if number == 1 {
                wire.goodbye(last, INTERNAL_ERROR).await?;
                count.fetch_add(1, Relaxed);
                return Ok(());
            }
            wire.end().await
        }
    })
    .await;
    let client = client([pod.addr()]);
    lose(&client).await;
    until("it said goodbye", || lost.load(Relaxed) == 1).await;
    assert_eq!(left(&client), (0, 1, 1, Some(Cause::Reset)));
    let response = call(&client, request("POST", "/", "order")).await;
    assert_eq!(read(response.expect("an answer")).await, "well");
    assert_eq!(left(&client).2, 0);
}

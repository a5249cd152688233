//! Pods that refuse, say goodbye, or break off: what was not processed goes on, whatever it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Error, First, Http, HttpError};
use http_body_util::StreamBody;
use hyper::{
    Request,
    body::{Bytes, Frame},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Client, PATIENCE, burst, call, client,
    frames::{INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Scripted},
    get, over, pending, pods, post, posting, read, request, shares, until,
};

/// Refuses every request when all of it is there.
async fn refusing() -> Scripted {
    Scripted::start(FIRST, |mut wire, _| async move {
        wire.greet(100).await?;
        loop {
            let request = wire.request().await?;
            wire.reset(request.stream, REFUSED_STREAM).await?;
        }
    })
    .await
}

/// Before those of [`pods`], in the order of [`First`].
const FIRST: [u8; 4] = [127, 0, 2, 200];

/// To the pod of that address, as long as it is there and the request was not tried there.
fn first_first(pods: [std::net::SocketAddr; 2]) -> Client {
    let policy = First::new();
    over(pods)
        .policy(policy)
        .spawn_http_with(Http::new().http2())
}

#[tokio::test]
async fn a_refused_request_goes_to_another_pod_body_intact_exactly_once() {
    let ([pod], refusing) = (pods().await, refusing().await);
    let client = client([refusing.addr(), pod.addr()]);
    let orders: Vec<String> = (0..20)
        .map(|i| format!("order {i} {}", "x".repeat(3_000 * i)))
        .collect();
    for order in &orders {
        post(&client, "/orders", order).await.expect("an answer");
    }
    assert_eq!(pod.bodies(), orders);
    assert_eq!((refusing.connections(), pending(&client)), (1, 0));
}

#[tokio::test]
async fn a_pod_that_refuses_once_gets_the_request_again_if_it_is_the_only_one() {
    let pod = Scripted::start([127, 0, 3, 1], |mut wire, _| async move {
        wire.greet(100).await?;
        let first = wire.request().await?;
        wire.reset(first.stream, REFUSED_STREAM).await?;
        let second = wire.request().await?;
        wire.answer(second.stream, &second.body).await?;
        wire.end().await
    })
    .await;
    let client = client([pod.addr()]);
    let answer = post(&client, "/", "order").await.expect("an answer");
    assert_eq!(answer, "order");
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn when_the_only_pod_goes_on_refusing_the_error_says_so() {
    let refusing = refusing().await;
    let client = client([refusing.addr()]);
    let error = post(&client, "/", "order").await.expect_err("refused");
    assert!(
        matches!(
            &error,
            Error::Unsent {
                error: HttpError::Unsent(_),
                ..
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    for part in ["web.default", &refusing.addr().to_string(), "refused"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_body_that_was_too_large_to_be_kept_is_not_sent_again_and_the_error_says_unsent() {
    let refusing = Scripted::start(FIRST, |mut wire, _| async move {
        wire.greet(100).await?;
        loop {
            let stream = wire.head().await?;
            sleep(Duration::from_millis(50)).await;
            wire.reset(stream, REFUSED_STREAM).await?;
        }
    })
    .await;
    let [pod] = pods().await;
    let client = first_first([refusing.addr(), pod.addr()]);
    let large = "x".repeat(64 * 1024 + 1);
    let error = post(&client, "/", &large)
        .await
        .expect_err("the body is gone");
    assert!(error.is_unsent(), "{error}");
    let text = error.to_string();
    for part in ["web.default", &refusing.addr().to_string(), "refused"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // One byte less is kept.
    post(&client, "/", &large[1..]).await.expect("an answer");
    assert_eq!(pod.bodies(), [&large[1..]]);
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn a_body_that_is_still_being_written_goes_on_at_the_next_pod() {
    let refusing = Scripted::start(FIRST, |mut wire, _| async move {
        wire.greet(100).await?;
        let stream = wire.head().await?;
        wire.reset(stream, REFUSED_STREAM).await?;
        wire.end().await
    })
    .await;
    let [pod] = pods().await;
    let client = first_first([refusing.addr(), pod.addr()]);
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let frames = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
    let request = Request::post("http://web.default/").body(StreamBody::new(frames));
    let frame = |text: &'static str| Ok::<_, std::io::Error>(Frame::data(Bytes::from(text)));
    send.send(frame("one ")).expect("a reader");
    let own = client.clone();
    let calling = tokio::spawn(async move { call(&own, request.expect("a request")).await });
    sleep(Duration::from_millis(50)).await;
    send.send(frame("two")).expect("a reader");
    drop(send);
    let response = calling.await.expect("no panic").expect("an answer");
    read(response).await;
    assert_eq!(pod.bodies(), ["one two"]);
}

/// Callers without pause, POSTs and GETs, until they are stopped. None of their requests may fail.
struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn on(client: &Client) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut callers = JoinSet::new();
        for i in 0..8 {
            let (client, stop, answered) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            callers.spawn(async move {
                while !stop.load(Relaxed) {
                    let method = if i % 4 == 0 { "GET" } else { "POST" };
                    let response = call(&client, request(method, "/slow", "order")).await;
                    read(response.unwrap_or_else(|error| panic!("{method}: {error}"))).await;
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        Self {
            callers,
            stop,
            answered,
        }
    }

    /// Until so many more were answered, however long the machine takes for them.
    async fn goes_on(&self, more: usize) {
        let enough = self.answered.load(Relaxed) + more;
        until("more are answered", || {
            self.answered.load(Relaxed) >= enough
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Relaxed);
        self.callers.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_leaves_politely_with_fifty_streams_costs_no_request() {
    let [mut leaving, staying] = pods().await;
    let client = client([leaving.addr(), staying.addr()]);
    for _ in 0..2 {
        get(&client, "/").await;
    }
    let held = burst(&client, 100, "/held");
    until("all are with their pods", || {
        leaving.under_way() + staying.under_way() == 100
    })
    .await;
    let streams = leaving.under_way();
    assert!((40..=60).contains(&streams), "{streams}");
    let load = Load::on(&client);
    load.goes_on(16).await;
    leaving.leave();
    load.goes_on(48).await;
    leaving.release();
    staying.release();
    assert_eq!(shares(held).await[&leaving.addr().to_string()], streams);
    timeout(PATIENCE, leaving.ended())
        .await
        .expect("it ends when its streams have");
    load.end().await;
    assert_eq!(pending(&client), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_goodbye_again_and_again_cost_no_request() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let load = Load::on(&client);
    for n in 1..=10 {
        until("it has a successor", || pod.connections() >= n).await;
        load.goes_on(8).await;
        pod.say_goodbye();
    }
    load.end().await;
    until("old connections are gone", || pod.open() <= 1).await;
}

#[tokio::test]
async fn a_goodbye_to_an_idle_connection_is_heard_before_the_next_request() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    for _ in 0..10 {
        get(&client, "/").await;
        pod.say_goodbye();
        until("it is closed", || pod.open() == 0).await;
    }
    assert_eq!(pod.requests().len(), 10, "none was sent twice");
}

#[tokio::test]
async fn above_the_last_stream_of_a_goodbye_requests_are_sent_again_and_below_they_are_not() {
    let leaving = Scripted::start(FIRST, |mut wire, number| async move {
        wire.greet(100).await?;
        if number > 1 {
            return Ok(());
        }
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.push(wire.request().await?);
        }
        let (first, second) = (&requests[0], &requests[1]);
        wire.goodbye(second.stream, INTERNAL_ERROR).await?;
        sleep(Duration::from_millis(50)).await;
        wire.answer(first.stream, "late").await
        // And the connection breaks with the second.
    })
    .await;
    let [pod] = pods().await;
    let client = first_first([leaving.addr(), pod.addr()]);
    let mut orders = Vec::new();
    for order in ["first", "second", "third", "fourth"] {
        orders.push(posting(&client, "/", order));
        // In this order.
        sleep(Duration::from_millis(20)).await;
    }
    let mut answers = Vec::new();
    for order in orders {
        answers.push(
            timeout(PATIENCE, order)
                .await
                .expect("in time")
                .expect("no panic"),
        );
    }
    assert_eq!(
        answers[0].as_deref().expect("answered after the goodbye"),
        "late"
    );
    let error = answers[1].as_ref().expect_err("broken");
    assert!(
        matches!(
            error,
            Error::Service {
                error: HttpError::Request(_),
                ..
            }
        ),
        "{error}"
    );
    assert!(
        !error.is_unsent() && error.to_string().contains(&leaving.addr().to_string()),
        "{error}"
    );
    for answer in &answers[2..] {
        assert_eq!(
            answer.as_deref().expect("sent again"),
            pod.addr().to_string()
        );
    }
    let mut bodies = pod.bodies();
    bodies.sort_unstable();
    assert_eq!(bodies, ["fourth", "third"]);
}

#[tokio::test]
async fn requests_that_wait_for_a_limit_go_on_when_the_pod_says_goodbye() {
    let leaving = Scripted::start(FIRST, |mut wire, number| async move {
        wire.greet(100).await?;
        if number > 1 {
            return Ok(());
        }
        let first = wire.request().await?;
        // More are on their way to this connection, and stay there.
        wire.permit(1).await?;
        sleep(Duration::from_millis(200)).await;
        wire.goodbye(first.stream, NO_ERROR).await?;
        wire.answer(first.stream, "done").await?;
        wire.end().await
    })
    .await;
    let [pod] = pods().await;
    let client = first_first([leaving.addr(), pod.addr()]);
    let first = posting(&client, "/", "first");
    sleep(Duration::from_millis(100)).await;
    let others = ["next", "a", "b", "c"].map(|order| (order, posting(&client, "/", order)));
    assert_eq!(first.await.expect("no panic").expect("an answer"), "done");
    for (order, answer) in others {
        let answer = timeout(PATIENCE, answer).await.expect("in time");
        match answer.expect("no panic") {
            Ok(answer) => assert_eq!(answer, pod.addr().to_string()),
            // hyper takes one request beyond the limit, and forgets whether it was written.
            Err(error) => assert!(order == "next" && !error.is_unsent(), "{order}: {error}"),
        }
    }
    let mut bodies = pod.bodies();
    bodies.retain(|order| order != "next");
    bodies.sort_unstable();
    assert_eq!(bodies, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_connection_that_breaks_repeats_what_may_be_repeated_and_reports_the_rest() {
    let breaking = Scripted::start(FIRST, |mut wire, _| async move {
        wire.greet(100).await?;
        for _ in 0..2 {
            wire.request().await?;
        }
        // Closing sends a reset.
        wire.socket.set_zero_linger()
    })
    .await;
    let [pod] = pods().await;
    let client = first_first([breaking.addr(), pod.addr()]);
    let order = posting(&client, "/", "order");
    sleep(Duration::from_millis(50)).await;
    assert_eq!(get(&client, "/").await, pod.addr().to_string());
    let error = order.await.expect("no panic").expect_err("seen, perhaps");
    assert!(!error.is_unsent(), "{error}");
    let text = error.to_string();
    for part in ["web.default", &breaking.addr().to_string(), "reset"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(pod.bodies(), [""], "the GET alone");
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn a_long_answer_on_a_connection_that_said_goodbye_holds_up_no_request() {
    let [pod] = pods().await;
    let settings = Http::new().http2().max_connections(1);
    let client = over([pod.addr()]).spawn_http_with(settings);
    let stream = call(&client, request("GET", "/stream", ""))
        .await
        .expect("an answer");
    pod.say_goodbye();
    sleep(Duration::from_millis(50)).await;
    for _ in 0..3 {
        post(&client, "/", "order").await.expect("an answer");
    }
    assert_eq!((pod.open(), pod.connections()), (2, 2));
    pod.release();
    read(stream).await;
    until("the old one closes", || pod.open() == 1).await;
}

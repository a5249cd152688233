//! What may be sent again, to whom and how often; and what ends when nobody wants it any more.

use std::time::Duration;

use futures_util::future::join_all;
use headless_lb::{Error, Http, HttpError, Idempotent};
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    client_in_order, client_with, get, is_aside, pending,
    pod::{Conduct, How, Moment, Pod, Unreachable},
    read, request, send, streamed, until,
};

const DIES: Conduct = Conduct::Ends(Moment::Whole, How::Reset);

/// All of them die of each request.
async fn dying(ip: u8, n: u8) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 0..n {
        pods.push(Pod::start([127, 0, 3, ip + i], || DIES).await);
    }
    pods
}

fn counts(pods: &[Pod]) -> Vec<usize> {
    pods.iter().map(Pod::requests).collect()
}

#[tokio::test]
async fn a_get_that_each_pod_fails_is_seen_by_three_pods_and_no_more() {
    let pods = dying(1, 5).await;
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
    let error = send(&client, request("GET", "item", "")).await;
    assert!(!error.expect_err("all die").is_unsent());
    assert_eq!(counts(&pods), [1, 1, 1, 0, 0]);
}

#[tokio::test]
async fn a_put_is_sent_again_byte_for_byte_wherever_the_pods_before_broke_off() {
    let body: Bytes = (0..60_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    for says_length in [true, false] {
        let pods = [
            Pod::scripted(
                [127, 0, 3, 7],
                [Conduct::Ends(Moment::Body(30_000), How::Reset)],
            )
            .await,
            Pod::scripted([127, 0, 3, 8], [DIES]).await,
            Pod::good([127, 0, 3, 9]).await,
        ];
        let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
        let put = streamed("PUT", "item", body.clone(), 1_000, says_length);
        let response = send(&client, put).await.expect("an answer");
        assert_eq!(read(response).await.expect("a body"), pods[2].addr());
        let bodies = pods.iter().flat_map(Pod::received).map(|one| one.body);
        let whole = Some(body.to_vec());
        assert_eq!(bodies.collect::<Vec<_>>(), [None, whole.clone(), whole]);
    }
}

#[tokio::test]
async fn a_body_above_64_kb_is_sent_once() {
    let pods = [
        Pod::scripted([127, 0, 3, 10], [DIES]).await,
        Pod::good([127, 0, 3, 11]).await,
    ];
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
    let body = Bytes::from(vec![7; 64 * 1024 + 1]);
    let error = send(&client, streamed("PUT", "item", body, 1_000, true)).await;
    assert!(!error.expect_err("it dies").is_unsent());
    assert_eq!(counts(&pods), [1, 0]);
}

#[tokio::test]
async fn the_mark_of_a_request_outweighs_its_method() {
    for (method, mark, times) in [
        ("GET", None, 2),
        ("POST", None, 1),
        ("PATCH", None, 1),
        ("POST", Some(Idempotent::Yes), 2),
        ("GET", Some(Idempotent::No), 1),
        ("DELETE", None, 2),
    ] {
        let pods = [
            Pod::scripted([127, 0, 3, 12], [DIES]).await,
            Pod::good([127, 0, 3, 13]).await,
        ];
        let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
        let mut request = request(method, "item", "lamp");
        if let Some(mark) = mark {
            request.extensions_mut().insert(mark);
        }
        let outcome = send(&client, request).await;
        assert_eq!(outcome.is_ok(), times == 2, "{method} {mark:?}");
        assert_eq!(counts(&pods), [1, times - 1], "{method} {mark:?}");
    }
}

#[tokio::test]
async fn the_only_pod_is_asked_again() {
    let pods = [Pod::scripted([127, 0, 3, 14], [DIES]).await];
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
    assert_eq!(get(&client, "item").await, pods[0].addr());
    assert_eq!(counts(&pods), [2]);
}

#[tokio::test]
async fn when_every_pod_fails_the_budget_keeps_retries_from_multiplying_the_load() {
    const REQUESTS: usize = 100;
    let fails = || Conduct::FailsAfter(Duration::from_millis(300));
    let mut pods = Vec::new();
    for ip in 15..=17 {
        pods.push(Pod::start([127, 0, 3, ip], fails).await);
    }
    // Without those that are late: on a busy machine these would be some, and their budget is another.
    let settings = Http::new().hedging(false);
    let client = client_with(pods.iter().map(Pod::addr), settings);
    // All at once, so that those always allowed are few.
    let gets = (0..REQUESTS).map(|_| send(&client, request("GET", "item", "")));
    let outcomes = join_all(gets).await;
    assert!(outcomes.iter().all(Result::is_err));
    let seen: usize = counts(&pods).iter().sum();
    println!("{REQUESTS} requests were seen {seen} times");
    // A fifth, the purse's start, and three at once, the first and the second time.
    assert!(seen <= REQUESTS + REQUESTS / 5 + 3 + 3 + 3, "{seen}");
    assert!(seen >= REQUESTS + REQUESTS / 5, "{seen}: some are retried");
}

#[tokio::test]
async fn retries_can_be_switched_off() {
    let pods = [
        Pod::scripted([127, 0, 3, 18], [DIES]).await,
        Pod::good([127, 0, 3, 19]).await,
    ];
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new().retries(false));
    let error = send(&client, request("GET", "item", "")).await;
    assert!(!error.expect_err("it dies").is_unsent());
    assert_eq!(counts(&pods), [1, 0]);
}

#[tokio::test]
async fn a_request_that_one_pod_failed_goes_to_no_other_unpermitted_though_one_is_still_dialled() {
    for settings in [
        Http::new().retries(false),
        Http::new()
            .retries(false)
            .connect_timeout(Duration::from_millis(500)),
    ] {
        let hangs = Unreachable::start([127, 0, 3, 20]).await;
        let pods = [
            Pod::scripted([127, 0, 3, 21], [DIES]).await,
            Pod::good([127, 0, 3, 22]).await,
        ];
        let addresses = [hangs.addr()].into_iter().chain(pods.iter().map(Pod::addr));
        let client = client_in_order(addresses, settings);
        let error = send(&client, request("GET", "item", "")).await;
        assert!(!error.expect_err("it dies").is_unsent());
        assert_eq!(counts(&pods), [1, 0]);
    }
}

#[tokio::test]
async fn a_retry_whose_connect_hangs_goes_on_to_the_next_pod_soon() {
    let pods = [
        Pod::scripted([127, 0, 3, 23], [DIES]).await,
        Pod::good([127, 0, 3, 25]).await,
    ];
    let hangs = Unreachable::start([127, 0, 3, 24]).await;
    let addresses = [pods[0].addr(), hangs.addr(), pods[1].addr()];
    let client = client_in_order(addresses, Http::new());
    let begun = Instant::now();
    assert_eq!(get(&client, "item").await, pods[1].addr());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(counts(&pods), [1, 1]);
}

/// Knows how long answers take, over one connection to the first pod.
async fn warm(client: &super::Client) {
    for _ in 0..200 {
        get(client, "warm").await;
    }
}

#[tokio::test]
async fn a_late_request_goes_to_another_pod_unless_that_is_switched_off() {
    for hedging in [true, false] {
        let pods = [
            Pod::good([127, 0, 3, 26]).await,
            Pod::good([127, 0, 3, 27]).await,
        ];
        let settings = Http::new().hedging(hedging);
        let client = client_in_order(pods.iter().map(Pod::addr), settings);
        warm(&client).await;
        // On a busy machine one of these may have been late as well.
        let before = pods[1].requests();
        pods[0].hang(true);
        let late = async {
            // Where the other pod answers, the first may hang for as long as that takes.
            if !hedging {
                sleep(Duration::from_millis(400)).await;
                pods[0].hang(false);
            }
        };
        let (answered, ()) = tokio::join!(get(&client, "item"), late);
        let expected = &pods[usize::from(hedging)];
        assert_eq!(answered, expected.addr(), "hedging {hedging}");
        assert_eq!(pods[1].requests() - before, usize::from(hedging));
    }
}

#[tokio::test]
async fn a_late_put_goes_to_another_pod_only_when_all_of_its_body_is_known() {
    for is_known in [true, false] {
        let pods = [
            Pod::good([127, 0, 3, 28]).await,
            Pod::good([127, 0, 3, 29]).await,
        ];
        let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
        warm(&client).await;
        let before = pods[1].received().len();
        pods[0].hang(true);
        let (send_piece, mut receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::poll_fn(move |cx| {
            let piece = receive.poll_recv(cx);
            piece
                .map(|piece| piece.map(|piece| Ok::<_, HttpError>(hyper::body::Frame::data(piece))))
        });
        let put = hyper::Request::put("http://web.default/item")
            .body(http_body_util::StreamBody::new(frames))
            .expect("a valid request");
        let feed = async {
            send_piece.send("one ".into()).await.expect("a reader");
            if !is_known {
                sleep(Duration::from_millis(200)).await;
                assert_eq!(pods[1].received().len(), before, "a body not known whole");
                pods[0].hang(false);
            }
            // The first pod goes on with it all the same.
            send_piece.send("two".into()).await.expect("a reader");
            drop(send_piece);
        };
        let (outcome, ()) = tokio::join!(send(&client, put), feed);
        let answered = read(outcome.expect("an answer")).await.expect("a body");
        let pod = &pods[usize::from(is_known)];
        assert_eq!(answered, pod.addr());
        let last = pod.received().pop().expect("a request");
        assert_eq!(last.body.as_deref(), Some(&b"one two"[..]));
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_ends_and_its_pod_is_set_aside() {
    let limit = Duration::from_millis(200);
    for (method, is_answered) in [("GET", true), ("POST", false)] {
        let pods = [
            Pod::good([127, 0, 3, 30]).await,
            Pod::good([127, 0, 3, 31]).await,
        ];
        pods[0].hang(true);
        let settings = Http::new().try_timeout(limit);
        let client = client_in_order(pods.iter().map(Pod::addr), settings);
        let begun = Instant::now();
        let outcome = send(&client, request(method, "item", "")).await;
        let took = begun.elapsed();
        assert!((limit..2 * limit).contains(&took), "{method}: {took:?}");
        assert_eq!(outcome.is_ok(), is_answered, "{method}");
        if let Err(error) = &outcome {
            assert!(!error.is_unsent(), "{error}");
            let Error::Service { error, .. } = error else {
                panic!("{error}")
            };
            assert!(matches!(error, HttpError::TryTimeout), "{error}");
        }
        until("it is set aside", || is_aside(&client, &pods[0])).await;
        until("its connection closes", || pods[0].open() == 0).await;
        assert_eq!(counts(&pods), [1, usize::from(is_answered)]);
        drop(outcome);
        assert_eq!(pending(&client), 0);
    }
}

#[tokio::test]
async fn whoever_drops_a_response_to_come_cancels_all_its_tries() {
    let pods = [
        Pod::good([127, 0, 3, 32]).await,
        Pod::good([127, 0, 3, 33]).await,
    ];
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
    warm(&client).await;
    pods.iter().for_each(|pod| pod.hang(true));
    let mut call = Box::pin(send(&client, request("GET", "item", "")));
    let both = until("both have it", || {
        pods.iter().all(|pod| {
            let last = pod.received().pop();
            last.is_some_and(|one| one.id == "item")
        })
    });
    tokio::select! {
        _ = &mut call => panic!("no pod answers"),
        () = both => {}
    }
    assert_eq!(pending(&client), 2);
    drop(call);
    assert_eq!(pending(&client), 0);
    until("their connections close", || {
        pods.iter().all(|pod| pod.open() == 0)
    })
    .await;
}

#[tokio::test]
async fn the_loser_of_a_race_is_not_in_flight_when_the_winner_is_here() {
    let pods = [
        Pod::good([127, 0, 3, 34]).await,
        Pod::good([127, 0, 3, 35]).await,
    ];
    let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
    warm(&client).await;
    pods[0].hang(true);
    let response = send(&client, request("GET", "item", "")).await;
    let response = response.expect("an answer");
    let set = client.endpoints();
    let busy: Vec<_> = set.iter().filter(|one| one.pending() > 0).collect();
    assert_eq!(busy.len(), 1);
    assert_eq!(busy[0].addr(), pods[1].addr());
    until("the loser's connection closes", || pods[0].open() == 0).await;
    assert_eq!(read(response).await.expect("a body"), pods[1].addr());
    assert_eq!(pending(&client), 0);
}

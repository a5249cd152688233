//! What a request does that is offered to several pods, one of which fails it.

#![expect(
    clippy::disallowed_methods,
    reason = "callers and pods are tasks of their own"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Balancer, First, Fixed, Http, HttpPod};
use http_body_util::{Empty, Full};
use hyper::{Method, Request, Response, body::Bytes, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpListener,
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

/// How a pod treats a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Says nothing for so long, then speaks HTTP/2, and dies when it has seen a request.
    DiesAfter(Duration),
    /// Says nothing for so long, then closes.
    ClosesAfter(Duration),
    /// Answers each request after so long.
    Answers(Duration),
}

/// An HTTP/2 pod, and the requests it saw.
async fn pod(host: u8, manner: Manner) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 7, host), 0)).await;
    let listener = listener.expect("a loopback port");
    let addr = listener.local_addr().expect("an address");
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let answer = match manner {
                    Manner::ClosesAfter(pause) => return sleep(pause).await,
                    Manner::DiesAfter(pause) => {
                        sleep(pause).await;
                        None
                    }
                    Manner::Answers(pause) => Some(pause),
                };
                let dies = Arc::new(Notify::new());
                let death = Arc::clone(&dies);
                let service = service_fn(move |_| {
                    count.fetch_add(1, Relaxed);
                    let dies = Arc::clone(&dies);
                    async move {
                        match answer {
                            Some(pause) => sleep(pause).await,
                            None => {
                                dies.notify_one();
                                std::future::pending().await
                            }
                        }
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let serving = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = serving => {}
                    () = death.notified() => {}
                }
            });
        }
    });
    (addr, seen)
}

fn client(settings: Http, pods: &[SocketAddr]) -> Balancer<HttpPod> {
    Balancer::builder(Fixed::new(pods.iter().copied()))
        .policy(First::new())
        .spawn_http_with(settings.http2())
}

fn request(method: Method) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri("http://shop/orders")
        .body(Full::default())
        .expect("a valid request")
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_post_that_its_pod_has_seen_is_not_sent_to_the_next_when_another_connect_fails() {
    // The first pod takes the request after the second was asked for a connection too; then it
    // dies, and after it the second refuses.
    let (first, by_first) = pod(1, Manner::DiesAfter(350 * MS)).await;
    let (second, _) = pod(2, Manner::ClosesAfter(300 * MS)).await;
    let (third, by_third) = pod(3, Manner::Answers(Duration::ZERO)).await;
    let client = client(Http::new(), &[first, second, third]);
    let answer = timeout(5_000 * MS, client.oneshot(request(Method::POST))).await;
    let answer = answer.expect("an end in time");
    assert_eq!(by_first.load(Relaxed), 1, "the first has seen it");
    assert_eq!(by_third.load(Relaxed), 0, "sent twice: {answer:?}");
    answer.expect_err("the first has failed");
}

#[tokio::test]
async fn a_post_that_its_pod_has_seen_is_not_sent_to_the_next_when_another_connect_succeeds() {
    // As above, but both take a connection, the second before the first or after it.
    for (one, other) in [(450, 100), (350, 200)] {
        let (first, by_first) = pod(4, Manner::DiesAfter(one * MS)).await;
        let (second, by_second) = pod(5, Manner::DiesAfter(other * MS)).await;
        let (third, by_third) = pod(6, Manner::Answers(Duration::ZERO)).await;
        let client = client(Http::new(), &[first, second, third]);
        let begun = Instant::now();
        let answer = timeout(5_000 * MS, client.oneshot(request(Method::POST))).await;
        let answer = answer.expect("an end in time");
        let seen = [&by_first, &by_second, &by_third].map(|seen| seen.load(Relaxed));
        assert_eq!(seen.iter().sum::<usize>(), 1, "{seen:?} {answer:?}");
        answer.expect_err("its pod has failed");
        assert!(begun.elapsed() < 900 * MS, "it is known at once");
    }
}

#[tokio::test]
async fn a_request_that_is_not_to_be_retried_is_sent_once_also_when_another_connect_fails() {
    let (first, by_first) = pod(7, Manner::DiesAfter(350 * MS)).await;
    let (second, _) = pod(8, Manner::ClosesAfter(300 * MS)).await;
    let (third, by_third) = pod(9, Manner::Answers(Duration::ZERO)).await;
    let settings = Http::new().retries(false).hedging(false);
    let client = client(settings, &[first, second, third]);
    let answer = timeout(5_000 * MS, client.oneshot(request(Method::GET))).await;
    answer.expect("an end in time").expect_err("no retries");
    assert_eq!((by_first.load(Relaxed), by_third.load(Relaxed)), (1, 0));
}

#[tokio::test]
async fn a_retry_does_not_wait_for_a_connect_that_hangs_either() {
    let (first, by_first) = pod(10, Manner::DiesAfter(Duration::ZERO)).await;
    let (second, _) = pod(11, Manner::ClosesAfter(10_000 * MS)).await;
    let (third, by_third) = pod(12, Manner::Answers(Duration::ZERO)).await;
    let client = client(Http::new(), &[first, second, third]);
    let answer = timeout(1_000 * MS, client.oneshot(request(Method::GET))).await;
    answer
        .expect("an answer within the second that callers give it")
        .expect("the third answers");
    assert_eq!((by_first.load(Relaxed), by_third.load(Relaxed)), (1, 1));
}

/// An HTTP/2 pod that takes its time for a handshake, permits few streams and answers nothing.
async fn narrow(host: u8, streams: u32, pause: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 7, host), 0)).await;
    let listener = listener.expect("a loopback port");
    let addr = listener.local_addr().expect("an address");
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                sleep(pause).await;
                let service = service_fn(move |_| {
                    count.fetch_add(1, Relaxed);
                    std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>()
                });
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(streams);
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (addr, seen)
}

#[tokio::test]
async fn connections_are_made_side_by_side_when_a_pod_permits_fewer_streams_than_was_expected() {
    let (pod, seen) = narrow(13, 1, 50 * MS).await;
    let client = client(Http::new(), &[pod]);
    for _ in 0..20 {
        tokio::spawn(client.clone().oneshot(request(Method::POST)));
    }
    sleep(500 * MS).await;
    assert_eq!(seen.load(Relaxed), 20, "after ten times a handshake");
}

#[tokio::test]
async fn a_connection_that_said_goodbye_and_still_streams_does_not_use_up_the_most_there_may_be() {
    let listener = TcpListener::bind("127.0.7.14:0").await;
    let listener = listener.expect("a loopback port");
    let addr = listener.local_addr().expect("an address");
    let goodbye = Arc::new(Notify::new());
    let said = Arc::clone(&goodbye);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let said = Arc::clone(&said);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<_>| async move {
                    let _: &Request<hyper::body::Incoming> = &request;
                    if request.method() == Method::GET {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                });
                let serving = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = said.notified() => serving.as_mut().graceful_shutdown(),
                }
                let _ = serving.await;
            });
        }
    });
    let client = client(Http::new().max_connections(1), &[addr]);
    let long = tokio::spawn(client.clone().oneshot(request(Method::GET)));
    sleep(100 * MS).await;
    goodbye.notify_one();
    sleep(100 * MS).await;
    let answer = timeout(2_000 * MS, client.oneshot(request(Method::POST))).await;
    answer
        .expect("an answer in time")
        .expect("another connection");
    assert!(!long.is_finished());
}

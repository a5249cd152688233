//! Which connection serves a request, and what becomes of it.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use headless_lb::{Balancer, Fixed, HttpPod, Position, RoundRobin};
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Body, Bytes, Frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{self, Instant, Sleep, sleep, timeout},
};
use tower::ServiceExt;

use super::{
    Client, PATIENCE, answer, call, get, nobody, over, pods, read, request,
    support::{
        pod::{Manner, Pod, SLOW},
        script::Script,
    },
    until,
};

/// Connections that fill the queue of a listener that accepts none of them: the next connect hangs.
pub(super) async fn fill(addr: SocketAddr) -> Vec<TcpStream> {
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(addr)).await {
        queue.push(stream);
    }
    queue
}

pub(super) fn short_queue() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = "127.0.1.98:0".parse().expect("an address");
    socket.bind(any).expect("a loopback port");
    socket.listen(1).expect("a loopback port")
}

#[tokio::test]
async fn a_pod_that_closes_idle_connections_is_dialled_again() {
    let pod = Pod::start([127, 0, 1, 1], Manner::ClosesUnannounced).await;
    let client: Client = Balancer::builder(Fixed::new([pod.addr()])).spawn_http();
    for i in 1..=20 {
        answer(&client).await;
        until("the pod closes", || pod.open() == 0).await;
        // The close has arrived here too, or arrives between checkout and write: both are covered.
        sleep(Duration::from_millis(5)).await;
        assert_eq!(pod.connections(), i);
    }
}

#[tokio::test]
async fn a_connection_is_free_again_when_the_body_was_read_and_not_before() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    let first = call(&client, request("GET", "http://web.default/", ""))
        .await
        .expect("an answer");
    let second = call(&client, request("GET", "http://web.default/", ""))
        .await
        .expect("an answer");
    for response in [first, second] {
        response.into_body().collect().await.expect("a whole body");
    }
    let connections = pods[0].connections();
    assert!(connections <= 2);
    for _ in 0..10 {
        answer(&client).await;
    }
    assert_eq!(pods[0].connections(), connections);
}

#[tokio::test]
async fn idle_connections_to_a_removed_pod_close_though_a_clone_sits_idle() {
    let pods = pods(2).await;
    let both: headless_lb::Resolution = pods.iter().map(Pod::addr).collect();
    let script = Script::new(Ok(both));
    let client: Client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .min_interval(Duration::from_millis(10))
        .refresh_interval(Duration::from_millis(20))
        .spawn_http();
    let idle = client.clone();
    for _ in 0..4 {
        answer(&client).await;
    }
    script.say(Ok([pods[0].addr()].into_iter().collect()));
    until("the set shrinks", || client.endpoints().len() == 1).await;
    until("its connection closes", || pods[1].open() == 0).await;
    assert_eq!(pods[0].open(), 1);
    drop(client);
    assert_eq!(pods[0].open(), 1);
    drop(idle);
    until("the last handle closes the rest", || pods[0].open() == 0).await;
}

#[tokio::test]
async fn a_burst_at_one_pod_fails_no_request() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for _ in 0..3 {
        let mut burst = JoinSet::new();
        for _ in 0..300 {
            let client = client.clone();
            burst.spawn(async move { answer(&client).await });
        }
        assert_eq!(burst.join_all().await.len(), 300);
    }
}

#[tokio::test]
async fn a_request_that_waits_takes_a_connection_that_becomes_free() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    let serving = tokio::spawn(async move {
        // One connection, and never another.
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _queue = fill(addr).await;
        let mut requests = [0; 4096];
        while stream.read(&mut requests).await.is_ok_and(|read| read > 0) {
            sleep(SLOW).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("a client");
        }
    });
    assert_eq!(read(get(&client, "/").await).await, "ok");
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let client = client.clone();
        waiting.spawn(async move { read(get(&client, "/").await).await });
    }
    assert_eq!(waiting.join_all().await, ["ok"; 5]);
    serving.abort();
}

#[tokio::test]
async fn a_pod_that_hangs_is_set_aside_though_no_caller_waits_for_its_connect() {
    let pods = pods(1).await;
    let hangs = short_queue();
    let addr = hangs.local_addr().expect("a bound socket");
    let _queue = fill(addr).await;
    // By turns: of two requests one goes to the pod that hangs.
    let client: Client = Balancer::builder(Fixed::new([addr, pods[0].addr()]))
        .policy(RoundRobin::new())
        .spawn_http();
    client.resolved().await.expect("a fixed list");
    let is_aside = || {
        let set = client.endpoints();
        let mut positions = set.positions();
        positions.any(|(position, pod)| position == Position::Ejected && pod.addr() == addr)
    };
    for _ in 0..2 {
        let get = client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""));
        // The caller that met the pod that hangs gives up.
        let _ = timeout(Duration::from_millis(100), get).await;
    }
    assert!(!is_aside());
    until("it is set aside", is_aside).await;
}

#[tokio::test]
async fn a_pod_that_closes_each_connection_at_once_is_set_aside() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let accepting = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    for _ in 0..20 {
        let error = call(&client, request("POST", "http://web.default/", "order"))
            .await
            .expect_err("no answer");
        if error.is_unsent() {
            until("it is set aside", || {
                let set = client.endpoints();
                set.positions()
                    .all(|(position, _)| position == Position::Ejected)
            })
            .await;
            break;
        }
    }
    accepting.abort();
}

#[test]
fn a_dial_that_ends_with_its_runtime_leaves_nobody_waiting() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let (addr, client, _guard) = first.block_on(async {
        let hangs = short_queue();
        let addr = hangs.local_addr().expect("a bound socket");
        let queue = fill(addr).await;
        let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
        client.resolved().await.expect("a fixed list");
        (addr, client, (hangs, queue))
    });
    let get = || {
        client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""))
    };
    let gave_up = second.block_on(async { timeout(SLOW, get()).await });
    assert!(gave_up.is_err(), "{addr} hangs");
    drop(second);
    let error = first.block_on(async { timeout(PATIENCE, get()).await });
    let error = error.expect("an end").expect_err("no connection");
    assert!(
        error.to_string().contains("no answer to the connect"),
        "{error}"
    );
}

#[tokio::test]
async fn connects_that_fail_together_count_as_one_failure() {
    let addr = nobody().await;
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    client.resolved().await.expect("a fixed list");
    let mut burst = JoinSet::new();
    for _ in 0..20 {
        let get = client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""));
        burst.spawn(async move { get.await.expect_err("nobody is there").is_unsent() });
    }
    assert_eq!(burst.join_all().await, [true; 20]);
    // The first failure costs 100 ms, the twentieth in a row would cost 10 s.
    sleep(Duration::from_millis(500)).await;
    let set = client.endpoints();
    let position = set.positions().next().map(|(position, _)| position);
    assert_eq!(position, Some(Position::Unknown));
}

#[tokio::test]
async fn a_free_connection_does_not_end_the_back_off_of_a_pod_that_refuses() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    answer(&client).await;
    pods[0].refuse();
    sleep(SLOW).await;
    let mut last = Instant::now();
    let is_aside = || {
        let set = client.endpoints();
        set.positions()
            .all(|(position, _)| position == Position::Ejected)
    };
    for _ in 0..5 {
        // The first takes the connection, so the second dials.
        let first = tokio::spawn({
            let client = client.clone();
            async move { get(&client, "/slow").await }
        });
        sleep(SLOW / 2).await;
        let get = client.clone();
        let second = get.oneshot(request("GET", "http://web.default/", ""));
        second.await.expect_err("no more connections");
        read(first.await.expect("no panic")).await;
        answer(&client).await;
        until("it is set aside", is_aside).await;
        last = Instant::now();
        until("it is back", || !is_aside()).await;
    }
    // 100 ms the first time, 1.6 s the fifth in a row.
    let absence = last.elapsed();
    assert!(absence > Duration::from_secs(1), "{absence:?}");
}

#[tokio::test]
async fn a_connection_serves_again_when_its_body_has_ended_however_it_ends() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for _ in 0..5 {
        read(get(&client, "/").await).await;
        read(get(&client, "/chunked").await).await;
        // Nobody asks for the end of these.
        let _nothing = get(&client, "/nothing").await;
        let _head = call(&client, request("HEAD", "http://web.default/", "")).await;
        let mut body = get(&client, "/").await.into_body();
        body.frame().await;
        assert!(body.is_end_stream());
        answer(&client).await;
    }
    assert_eq!(pods[0].connections(), 1);
}

#[tokio::test]
async fn a_connection_does_not_serve_again_when_its_body_was_dropped_or_it_was_upgraded() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for i in 1..=5 {
        drop(get(&client, "/endless").await);
        answer(&client).await;
        assert_eq!(pods[0].connections(), 2 * i);
        let upgraded = get(&client, "/upgrade").await;
        assert_eq!(pods[0].connections(), 2 * i);
        let _io = hyper::upgrade::on(upgraded).await.expect("an upgrade");
        answer(&client).await;
        assert_eq!(pods[0].connections(), 2 * i + 1);
    }
}

#[tokio::test]
async fn connections_that_nobody_used_for_a_while_are_not_used_again() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for (idle, connections) in [(50, 1), (50, 1), (60, 2)] {
        answer(&client).await;
        time::pause();
        for _ in 0..idle {
            time::advance(Duration::from_secs(1)).await;
        }
        time::resume();
        answer(&client).await;
        assert_eq!(pods[0].connections(), connections, "after {idle} s");
    }
    until("the old one closes", || pods[0].open() == 1).await;
}

#[tokio::test]
async fn a_machine_that_slept_uses_no_connection_of_before() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    answer(&client).await;
    time::pause();
    time::advance(Duration::from_secs(60)).await;
    time::resume();
    answer(&client).await;
    assert_eq!(pods[0].connections(), 2);
}

#[tokio::test]
async fn surplus_connections_grow_old_while_one_is_in_use() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    let mut burst = JoinSet::new();
    for _ in 0..150 {
        let client = client.clone();
        burst.spawn(async move { read(get(&client, "/slow").await).await });
    }
    burst.join_all().await;
    until("some are kept", || pods[0].open() <= 100).await;
    assert!(pods[0].open() > 30, "{}", pods[0].open());
    for _ in 0..3 {
        time::pause();
        time::advance(Duration::from_secs(30)).await;
        time::resume();
        answer(&client).await;
    }
    until("one is left", || pods[0].open() == 1).await;
}

/// A request body that takes its time.
struct Late(Pin<Box<Sleep>>, bool);

impl Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.1 {
            return Poll::Ready(None);
        }
        ready!(self.0.as_mut().poll(cx));
        self.1 = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"late")))))
    }
}

#[tokio::test]
async fn a_connection_that_was_answered_early_serves_again_when_the_request_is_written() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let client: Balancer<HttpPod> = Balancer::builder(Fixed::new([addr])).spawn_http();
    let post = |takes| {
        let body = Late(Box::pin(sleep(takes)), false);
        let request = Request::post("http://web.default/").body(body);
        client.clone().oneshot(request.expect("a valid request"))
    };
    let serving = tokio::spawn(async move {
        // Each answer comes at once, whatever of its request has.
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut seen = Vec::new();
        for heads in 1.. {
            while seen.windows(5).filter(|part| part == b"POST ").count() < heads {
                stream.read_buf(&mut seen).await.expect("a request");
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("a client");
        }
    });
    read(post(SLOW).await.expect("an answer")).await;
    sleep(2 * SLOW).await;
    // There is no other connection to be had.
    let second = timeout(PATIENCE, post(Duration::ZERO)).await;
    read(second.expect("in time").expect("an answer")).await;
    serving.abort();
}

#[tokio::test]
async fn a_pod_that_closes_each_connection_at_once_is_tried_less_and_less() {
    let good = Pod::start([127, 0, 1, 1], Manner::KeepsAlive).await;
    let listener = TcpListener::bind("127.0.1.2:0")
        .await
        .expect("a loopback port");
    let addr = listener.local_addr().expect("a bound socket");
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            drop(stream);
        }
    });
    let client: Client = Balancer::builder(Fixed::new([good.addr(), addr])).spawn_http();
    let mut seconds = Vec::new();
    for _ in 0..4 {
        let before = accepted.load(Relaxed);
        for _ in 0..50 {
            // Some are written before the close is seen: these fail, as any that may have been received.
            let _ = call(&client, request("POST", "http://web.default/", "order")).await;
            sleep(Duration::from_millis(20)).await;
        }
        seconds.push(accepted.load(Relaxed) - before);
    }
    accepting.abort();
    assert!(
        seconds[3] <= 8,
        "connections to the closing pod in each second: {seconds:?}"
    );
}

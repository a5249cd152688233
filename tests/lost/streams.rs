//! HTTP/2: a connection carries many bodies, and ends in the middle of all of them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use headless_lb::Http;
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, duplex, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::{client_in_order, request, send, streamed, support::seed};

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// How one connection goes.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    /// The pod says nothing before, not even its settings.
    mute: Duration,
    /// It is reset after so many bytes from the client.
    breaks_at: Option<usize>,
}

/// What came of a body: its path, and its bytes if it came whole.
type Received = Arc<Mutex<Vec<(String, Option<Bytes>)>>>;

/// A server behind a wire that breaks.
struct Pod {
    addr: SocketAddr,
    received: Received,
    _serving: JoinSet<()>,
}

impl Pod {
    /// Asked for each connection.
    async fn start(ip: [u8; 4], mut wire: impl FnMut() -> Wire + Send + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0)))
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let received = Received::default();
        let log = Arc::clone(&received);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(stream, wire(), Arc::clone(&log)));
            }
        });
        Self {
            addr,
            received,
            _serving: serving,
        }
    }

    fn received(&self) -> Vec<(String, Option<Bytes>)> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, wire: Wire, received: Received) {
    let (server, own) = duplex(64 * 1024);
    let service = service_fn(move |request: Request<Incoming>| {
        let received = Arc::clone(&received);
        async move {
            let id = request.uri().path().trim_start_matches('/').to_owned();
            let place = {
                let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
                received.push((id, None));
                received.len() - 1
            };
            if let Ok(body) = request.into_body().collect().await {
                let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
                received[place].1 = Some(body.to_bytes());
            }
            Ok::<_, Infallible>(Response::new(String::from("ok")))
        }
    });
    let serving =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
    let (mut from_client, mut to_client) = split(stream);
    let (mut from_server, mut to_server) = split(own);
    let up = async {
        let mut left = wire.breaks_at.unwrap_or(usize::MAX);
        let mut piece = vec![0; 16 * 1024];
        while left > 0 {
            let room = left.min(piece.len());
            let read = from_client.read(&mut piece[..room]).await.unwrap_or(0);
            if read == 0 || to_server.write_all(&piece[..read]).await.is_err() {
                return;
            }
            left -= read;
        }
        // What has come is seen before the end.
        sleep(Duration::from_millis(20)).await;
    };
    let down = async {
        sleep(wire.mute).await;
        let _ = copy(&mut from_server, &mut to_client).await;
    };
    tokio::select! {
        _ = serving => {}
        () = up => {}
        () = down => {}
    }
    let stream = from_client.unsplit(to_client);
    let _ = stream.set_zero_linger();
}

/// Breaks so early that nothing is answered: preface, settings, the head of the request, its body, all of it.
const OFFSETS: [usize; 12] = [
    0, 1, 23, 24, 40, 60, 100, 150, 1_000, 30_000, 60_000, 200_000,
];

#[tokio::test]
async fn a_post_whose_http2_connection_ends_anywhere_arrives_once_or_fails_with_the_truth() {
    let body: Bytes = (0..60_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    for offset in OFFSETS {
        let mut is_first = true;
        let broken = Pod::start([127, 0, 6, 1], move || Wire {
            breaks_at: Some(offset).filter(|_| std::mem::take(&mut is_first)),
            ..Wire::default()
        })
        .await;
        let good = Pod::start([127, 0, 6, 2], Wire::default).await;
        let client = client_in_order([broken.addr, good.addr], Http::new().http2());
        let outcome = send(
            &client,
            streamed("POST", "order", body.clone(), 5_000, true),
        )
        .await;
        let received: Vec<_> = [broken.received(), good.received()].concat();
        match &outcome {
            Ok(_) => assert_eq!(
                received,
                [("order".to_owned(), Some(body.clone()))],
                "{offset}"
            ),
            Err(error) if error.is_unsent() => panic!("{offset}: a good pod was there: {error}"),
            Err(error) => {
                assert!(received.len() <= 1, "{offset}: {error}");
                assert!(good.received().is_empty(), "{offset}: {error}");
            }
        }
        assert!(outcome.is_ok() || offset < 100_000, "{offset}");
    }
}

#[tokio::test]
async fn a_post_that_one_pod_failed_goes_to_no_other_though_one_is_still_dialled() {
    let mute = Wire {
        mute: Duration::from_millis(600),
        breaks_at: None,
    };
    let slow = Pod::start([127, 0, 6, 3], move || mute).await;
    let breaks = Wire {
        mute: Duration::ZERO,
        breaks_at: Some(1_000),
    };
    let broken = Pod::start([127, 0, 6, 4], move || breaks).await;
    let good = Pod::start([127, 0, 6, 5], Wire::default).await;
    let addresses = [slow.addr, broken.addr, good.addr];
    let client = client_in_order(addresses, Http::new().http2());
    let post = request("POST", "order", vec![7; 20_000]);
    let error = send(&client, post).await.expect_err("it broke off");
    assert!(!error.is_unsent(), "{error}");
    sleep(Duration::from_millis(600)).await;
    assert_eq!(broken.received().len(), 1);
    assert_eq!(slow.received(), []);
    assert_eq!(good.received(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_over_http2_connections_that_end_anywhere_arrive_once_or_fail_with_the_truth() {
    const POSTS: usize = 150;
    let seed = seed();
    let mut pods = Vec::new();
    for ip in 6..=8 {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(ip));
        let wire = move || Wire {
            breaks_at: (ip != 8).then(|| rng.random_range(0..1_000_000)),
            ..Wire::default()
        };
        pods.push(Pod::start([127, 0, 6, ip], wire).await);
    }
    let addresses = pods.iter().map(|pod| pod.addr);
    let client = headless_lb::Balancer::builder(headless_lb::Fixed::new(addresses))
        .spawn_http_with(Http::new().http2());
    let mut rng = SmallRng::seed_from_u64(seed);
    let plans = (0..POSTS).map(|i| {
        (
            i,
            rng.random_range(0..200_000),
            rng.random_range(500..40_000),
        )
    });
    let mut outcomes = Vec::new();
    for plans in plans.collect::<Vec<_>>().chunks(25) {
        let posts = plans.iter().map(async |&(i, length, piece)| {
            let body = Bytes::from(vec![i as u8; length]);
            let post = streamed("POST", &i.to_string(), body.clone(), piece, i % 2 == 0);
            let outcome = send(&client, post).await.map(drop);
            (i, body, outcome)
        });
        outcomes.extend(join_all(posts).await);
    }
    let received: Vec<_> = pods.iter().flat_map(Pod::received).collect();
    let mut ok = 0;
    for (i, body, outcome) in outcomes {
        let mut own = received.iter().filter(|(id, _)| *id == i.to_string());
        let (first, second) = (own.next(), own.next());
        assert!(second.is_none(), "post {i} was received twice: {outcome:?}");
        match outcome {
            Ok(()) => {
                ok += 1;
                let whole = first.and_then(|(_, received)| received.as_ref());
                assert!(whole == Some(&body), "post {i} was answered");
            }
            Err(error) if error.is_unsent() => {
                assert!(first.is_none(), "post {i} was received: {error}");
            }
            Err(_) => {}
        }
    }
    println!("{ok} of {POSTS} answered");
    // Half of them met a connection that broke, and each break takes up to 25 at once.
    assert!(ok > POSTS / 5, "{ok}");
}

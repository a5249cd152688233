//! Servers that do not speak as they should, over both protocols: each failure is typed, names service and
//! pod, and leaves nothing behind that the next request could stumble over.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Error, Http, HttpError};
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use super::{call, over, pending, pod::Pod, read, request, until};

#[derive(Clone, Copy, Debug)]
enum Manner {
    Http1Only,
    Http2Only,
    Garbage,
    ClosesAtOnce,
    ClosesAfterTheRequest,
    SaysNothing,
    LargeHeaders,
}

/// Has bad manners until it is told to behave, and then speaks both protocols.
struct Strange {
    addr: SocketAddr,
    behaves: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Strange {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.3.7:0")
            .await
            .expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let behaves = Arc::<AtomicBool>::default();
        let open = Arc::<AtomicUsize>::default();
        let (asks, count) = (Arc::clone(&behaves), Arc::clone(&open));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let manner = (!asks.load(Relaxed)).then_some(manner);
                let count = Arc::clone(&count);
                count.fetch_add(1, Relaxed);
                connections.spawn(async move {
                    // How it ends is not its business.
                    let _ = serve(stream, manner).await;
                    count.fetch_sub(1, Relaxed);
                });
            }
        });
        Self {
            addr,
            behaves,
            open,
            _serving: serving,
        }
    }
}

async fn serve(mut stream: TcpStream, manner: Option<Manner>) -> io::Result<()> {
    let ok = service_fn(|_| async { Ok::<_, io::Error>(Response::new("ok".to_owned())) });
    let mut buffer = [0; 4096];
    match manner {
        None => {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), ok).await;
        }
        Some(Manner::Http1Only) => {
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), ok)
                .await;
        }
        Some(Manner::Http2Only) => {
            let _ = super::pod::Server::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), ok)
                .await;
        }
        Some(Manner::Garbage) => {
            let _some = stream.read(&mut buffer).await?;
            stream.write_all(&[b'?'; 100]).await?;
            while stream.read(&mut buffer).await? > 0 {}
        }
        Some(Manner::ClosesAtOnce) => {}
        Some(Manner::ClosesAfterTheRequest) => {
            let _some = stream.read(&mut buffer).await?;
        }
        Some(Manner::SaysNothing) => while stream.read(&mut buffer).await? > 0 {},
        Some(Manner::LargeHeaders) => {
            // 1.5 MB. hyper reads 400 kB in HTTP/1.1, and 16 kB in HTTP/2, where it can skip a little more.
            let large = service_fn(|_| async {
                let mut response = Response::new("ok".to_owned());
                for i in 0..50 {
                    let name =
                        hyper::header::HeaderName::try_from(format!("x-{i}")).expect("a name");
                    response
                        .headers_mut()
                        .insert(name, "x".repeat(30_000).parse().expect("a value"));
                }
                Ok::<_, io::Error>(response)
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), large).await;
        }
    }
    Ok(())
}

/// One POST to a pod of such manners, which fails; and another when it behaves, which must not.
async fn fails(manner: Manner, settings: Http) -> HttpError {
    let pod = Strange::start(manner).await;
    let client = over([pod.addr]).spawn_http_with(settings);
    let error = call(&client, request("POST", "/", "order"))
        .await
        .expect_err("bad manners");
    let text = error.to_string();
    for part in ["web.default", &pod.addr.to_string()] {
        assert!(text.contains(part), "{manner:?}: {part} in {text}");
    }
    assert_eq!(pending(&client), 0, "{manner:?}");
    pod.behaves.store(true, Relaxed);
    until("nothing is left open", || pod.open.load(Relaxed) == 0).await;
    let response = call(&client, request("POST", "/", "order"))
        .await
        .expect("it behaves");
    assert_eq!(read(response).await, "ok", "{manner:?}");
    match error {
        Error::Service { error, .. } | Error::Unsent { error, .. } => error,
        error => panic!("{manner:?}: {error}"),
    }
}

fn http1() -> Http {
    Http::new().connect_timeout(Duration::from_millis(200))
}

fn http2() -> Http {
    http1().http2()
}

#[tokio::test]
async fn a_pod_that_does_not_speak_http2_is_known_before_the_request_is_sent() {
    for manner in [
        Manner::Http1Only,
        Manner::Garbage,
        Manner::ClosesAtOnce,
        Manner::ClosesAfterTheRequest,
    ] {
        let error = fails(manner, http2()).await;
        assert!(
            matches!(error, HttpError::NotHttp2(_)),
            "{manner:?}: {error}"
        );
        assert!(error.is_unsent());
    }
}

#[tokio::test]
async fn over_http2_a_pod_that_says_nothing_has_not_taken_the_connection() {
    let began = Instant::now();
    let error = fails(Manner::SaysNothing, http2()).await;
    assert!(matches!(error, HttpError::ConnectTimeout), "{error}");
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_pod_that_does_not_speak_http1_may_have_seen_the_request() {
    for manner in [Manner::Garbage, Manner::ClosesAfterTheRequest] {
        let error = fails(manner, http1()).await;
        assert!(
            matches!(error, HttpError::Request(_)),
            "{manner:?}: {error}"
        );
        assert!(!error.is_unsent());
    }
}

#[tokio::test]
async fn over_http1_a_pod_that_speaks_first_or_closes_fails_a_request_that_it_may_have_seen_or_not()
{
    for manner in [Manner::Http2Only, Manner::ClosesAtOnce] {
        let error = fails(manner, http1()).await;
        assert!(
            matches!(error, HttpError::Unsent(_) | HttpError::Request(_)),
            "{manner:?}: {error}"
        );
    }
}

#[tokio::test]
async fn over_http1_a_pod_that_says_nothing_fails_when_the_time_of_a_try_is_over() {
    let settings = http1().try_timeout(Duration::from_millis(100));
    let error = fails(Manner::SaysNothing, settings).await;
    assert!(matches!(error, HttpError::TryTimeout), "{error}");
}

#[tokio::test]
async fn headers_far_over_the_limit_fail_the_connection_and_not_the_next_one() {
    for settings in [http1(), http2()] {
        let error = fails(Manner::LargeHeaders, settings).await;
        assert!(matches!(error, HttpError::Request(_)), "{error}");
    }
}

#[tokio::test]
async fn over_http2_headers_just_over_the_limit_fail_their_response_alone() {
    // 20 kB: hyper reads 16 kB.
    let pod = Pod::start([127, 0, 3, 1]).await;
    let client = over([pod.addr()]).spawn_http_with(http2());
    let beside = super::posting(&client, "/held", "");
    until("it is there", || pod.under_way() == 1).await;
    let error = call(&client, request("POST", "/headers", ""))
        .await
        .expect_err("too large");
    for part in ["web.default", &pod.addr().to_string(), "stream error"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    pod.release();
    beside.await.expect("no panic").expect("an answer");
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn a_pod_that_does_not_speak_http2_costs_no_request_while_others_do() {
    let strange = Strange::start(Manner::Http1Only).await;
    let pod = Pod::start([127, 0, 3, 1]).await;
    let client = over([strange.addr, pod.addr()]).spawn_http_with(http2());
    for _ in 0..20 {
        let response = call(&client, request("POST", "/", "order"))
            .await
            .expect("an answer");
        assert_eq!(read(response).await, pod.addr().to_string());
    }
    assert_eq!(pod.requests().len(), 20);
}

//! nginx by every protocol: HTTP/1.1 and HTTP/2, in the open and over TLS.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use headless_lb::{Balancer, Fixed, Http, HttpPod, RoundRobin, Tls};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use crate::{
    authority::{Authority, Identity},
    nginx::{Pod, Speech},
    process::{free_ip, free_port},
};

type Client = Balancer<HttpPod>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "web.ns.svc";

/// For a request that needs more, something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Three pods that speak so, and a client that does.
struct Pods {
    pods: Vec<Pod>,
    caller: Caller,
}

#[derive(Clone)]
struct Caller {
    client: Client,
    scheme: &'static str,
    /// As nginx calls it.
    protocol: &'static str,
}

/// What a pod says of a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    pod: String,
    connection: String,
}

impl Pods {
    async fn start(speech: Speech<'_>, settings: Http, protocol: &'static str) -> Self {
        let scheme = match speech {
            Speech::Http1 | Speech::Http2 => "http",
            Speech::Tls(_) | Speech::TlsHttp2(_) => "https",
        };
        let mut pods = Vec::new();
        for index in 0..3 {
            let ip: Ipv4Addr = free_ip();
            pods.push(Pod::speaking(speech, &format!("pod-{index}"), free_port(ip)).await);
        }
        let source = Fixed::new(pods.iter().map(Pod::address));
        let client = Balancer::builder(source)
            .service_name(SERVICE)
            .policy(RoundRobin::new());
        // A busy machine may make an answer late, and a second try would move the walk on.
        let client = client.spawn_http_with(settings.hedging(false));
        let caller = Caller {
            client,
            scheme,
            protocol,
        };
        Self { pods, caller }
    }

    /// Each pod answers a third, over one connection.
    async fn share(&self) {
        let mut counts = BTreeMap::<_, u32>::new();
        for _ in 0..300 {
            let answer = self.caller.call(Method::GET).await.expect("an answer");
            *counts.entry(answer).or_default() += 1;
        }
        println!("{} {counts:?}", self.caller.protocol);
        assert_eq!(
            counts.values().copied().collect::<Vec<_>>(),
            [100, 100, 100]
        );
    }

    /// Two pods quit, one after the other, while many callers are busy, and are still listed.
    async fn lose_two(mut self, methods: &'static [Method]) {
        let (stop, stopped) = watch::channel(());
        let mut load = JoinSet::new();
        for _ in 0..24 {
            let (caller, stopped) = (self.caller.clone(), stopped.clone());
            load.spawn(async move {
                let mut counts = BTreeMap::<String, u32>::new();
                for method in methods.iter().cycle().take(100_000) {
                    if stopped.has_changed().is_err() {
                        break;
                    }
                    let answer = caller.call(method.clone()).await.expect("no request fails");
                    *counts.entry(answer.pod).or_default() += 1;
                }
                counts
            });
        }
        for _ in 0..2 {
            sleep(Duration::from_millis(200)).await;
            let leaving = self.pods.remove(1);
            leaving.drain();
            leaving.drained().await;
        }
        sleep(Duration::from_millis(200)).await;
        drop(stop);
        let mut all = BTreeMap::<String, u32>::new();
        while let Some(counts) = load.join_next().await {
            for (pod, count) in counts.expect("no request fails") {
                *all.entry(pod).or_default() += count;
            }
        }
        println!("{} {all:?}", self.caller.protocol);
        assert_eq!(all.len(), 3, "each had some");
        assert!(all["pod-1"] < all["pod-2"] && all["pod-2"] < all["pod-0"]);
    }
}

impl Caller {
    async fn call(&self, method: Method) -> Result<Answer, Failure> {
        let uri = format!("{}://{SERVICE}/", self.scheme);
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Full::<Bytes>::default())?;
        let response = timeout(PATIENCE, self.client.clone().oneshot(request)).await??;
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8(body.to_vec())?;
        let [pod, connection, protocol, host] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("a strange body: {text}").into());
        };
        assert_eq!((protocol, host), (self.protocol, SERVICE));
        Ok(Answer {
            pod: pod.to_owned(),
            connection: connection.to_owned(),
        })
    }
}

fn identity() -> (Identity, Http) {
    let authority = Authority::new();
    let tls = Tls::service(authority.client(), SERVICE).expect("a name");
    (authority.certify(SERVICE), Http::new().tls(tls))
}

/// What a pod that quits may have seen is repeated only if it may be: these lose nothing.
const SAFE: &[Method] = &[Method::GET];

/// HTTP/2 says what was not seen: nothing is lost at all.
const ANY: &[Method] = &[Method::GET, Method::POST];

#[tokio::test]
async fn nginx_speaks_http1_over_tls() {
    let (identity, settings) = identity();
    let pods = Pods::start(Speech::Tls(&identity), settings, "HTTP/1.1").await;
    pods.share().await;
    pods.lose_two(SAFE).await;
}

#[tokio::test]
async fn nginx_speaks_http2_over_tls_as_alpn_decides() {
    let (identity, settings) = identity();
    let pods = Pods::start(Speech::TlsHttp2(&identity), settings, "HTTP/2.0").await;
    pods.share().await;
    pods.lose_two(ANY).await;
}

#[tokio::test]
async fn nginx_speaks_http2_in_the_open_by_prior_knowledge() {
    let pods = Pods::start(Speech::Http2, Http::new().http2(), "HTTP/2.0").await;
    pods.share().await;
    pods.lose_two(ANY).await;
}

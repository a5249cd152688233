//! A client in the words of tower: the balanced HTTP client, retries around it, a deadline around
//! both, and counters of what became of it all.

use std::{
    error::Error as StdError,
    fmt,
    future::{Ready, ready},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Balancer, Error, HttpError, HttpPod, PickError};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use tokio::time::timeout;
use tower::{
    ServiceExt,
    retry::{Policy, Retry},
};

/// Everything together: a request that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);

/// More than a pod ever says.
const MAX_BODY: usize = 64 * 1024;

/// A pod, as the balancer calls it.
pub(crate) type Http = HttpPod;

/// Sends GETs and counts what became of them. Clones count together.
#[derive(Clone)]
pub(crate) struct Client {
    service: Retry<Resend, Balancer<Http>>,
    url: Arc<str>,
    counts: Arc<Counts>,
}

impl Client {
    pub(crate) fn new(balancer: Balancer<Http>, url: &str, counts: &Arc<Counts>) -> Self {
        let policy = Resend {
            tries: 2,
            counts: Arc::clone(counts),
        };
        Self {
            service: Retry::new(policy, balancer),
            url: url.into(),
            counts: Arc::clone(counts),
        }
    }

    /// One GET: the name of the pod that served it, or nothing if it failed.
    pub(crate) async fn get(&self) -> Option<String> {
        self.counts.requests.fetch_add(1, Relaxed);
        let error: Box<dyn StdError + Send + Sync> = match timeout(DEADLINE, self.send()).await {
            Ok(Ok(pod)) => return Some(pod),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        match error.downcast_ref::<Error<HttpError>>() {
            Some(Error::Pick(PickError::NoEndpoints(_))) => {
                self.counts.no_pods.fetch_add(1, Relaxed);
            }
            _ => {
                self.counts.failed.fetch_add(1, Relaxed);
                self.counts.first_failure.get_or_init(|| chain(&*error));
            }
        }
        None
    }

    async fn send(&self) -> Result<String, Box<dyn StdError + Send + Sync>> {
        let request = Request::get(&*self.url).body(Full::<Bytes>::default())?;
        let response = self.service.clone().oneshot(request).await?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()).into());
        }
        // A response that ends early is a failure too.
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await?;
        let pod = str::from_utf8(&body.to_bytes())?.trim().to_owned();
        Ok(pod)
    }
}

/// Sends an idempotent request again if its connection broke.
///
/// The balancer by itself moves a request to another pod only while nothing of it was written. Once
/// it was, the pod may have acted on it, and whether doing it twice is harmless is known to the
/// caller alone. Here it is: a GET.
#[derive(Clone)]
struct Resend {
    tries: u32,
    counts: Arc<Counts>,
}

impl<B: Clone, R> Policy<Request<B>, R, Error<HttpError>> for Resend {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<R, Error<HttpError>>,
    ) -> Option<Self::Future> {
        let Err(Error::Service {
            error: HttpError::Request(_),
            ..
        }) = result
        else {
            return None;
        };
        if !request.method().is_idempotent() {
            return None;
        }
        self.tries = self.tries.checked_sub(1)?;
        self.counts.retried.fetch_add(1, Relaxed);
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// What became of the requests. One that found no pod to go to has not failed by any fault of the
/// client, and is counted apart.
#[derive(Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    no_pods: AtomicU64,
    retried: AtomicU64,
    first_failure: OnceLock<String>,
}

impl Counts {
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(crate) fn no_pods(&self) -> u64 {
        self.no_pods.load(Relaxed)
    }

    pub(crate) fn retried(&self) -> u64 {
        self.retried.load(Relaxed)
    }

    pub(crate) fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, failed) = (self.requests(), self.failed());
        let (no_pods, retried) = (self.no_pods(), self.retried());
        write!(
            f,
            "requests={requests} failed={failed} no_pods={no_pods} retried={retried}"
        )
    }
}

/// An error with its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

//! Ten pods of one worker each, one of which is odd.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::sleep,
};

use crate::support::{Result, pod};

pub(crate) const PODS: usize = 10;

/// How much work a request is, in microseconds: every policy meets the same.
pub(crate) const WORK: &str = "x-work-us";

/// What is wrong with the last pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    Slow,
    Failing,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "is ten times slower",
            Self::Failing => "answers 503 at once",
        })
    }
}

/// Dropping it kills the pods.
pub(crate) struct Fleet {
    addresses: Vec<SocketAddr>,
    served: Vec<Arc<AtomicU64>>,
    servers: Vec<AbortHandle>,
    _stop: watch::Sender<()>,
}

impl Fleet {
    pub(crate) async fn start(odd: Odd) -> Result<Self> {
        let (_stop, stop) = watch::channel(());
        let mut fleet = Self {
            addresses: Vec::new(),
            served: Vec::new(),
            servers: Vec::new(),
            _stop,
        };
        for i in 0..PODS {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            fleet.addresses.push(listener.local_addr()?);
            let served = Arc::new(AtomicU64::new(0));
            fleet.served.push(Arc::clone(&served));
            let (odd, worker) = ((i + 1 == PODS).then_some(odd), Arc::new(Semaphore::new(1)));
            let answer =
                move |request| answer(request, odd, Arc::clone(&worker), Arc::clone(&served));
            let serving = pod::serve(listener, answer, stop.clone());
            #[expect(clippy::disallowed_methods, reason = "a pod is a task of its own")]
            fleet.servers.push(tokio::spawn(serving).abort_handle());
        }
        Ok(fleet)
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many requests each pod has had, the odd one last.
    pub(crate) fn served(&self) -> Vec<u64> {
        self.served.iter().map(|one| one.load(Relaxed)).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.servers.iter().for_each(AbortHandle::abort);
    }
}

/// One after the other, in the order in which they came.
async fn answer(
    request: Request<Incoming>,
    odd: Option<Odd>,
    worker: Arc<Semaphore>,
    served: Arc<AtomicU64>,
) -> Response<Full<Bytes>> {
    served.fetch_add(1, Relaxed);
    let mut response = Response::new(Full::default());
    if odd == Some(Odd::Failing) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let work = request.headers().get(WORK);
    let work = work.and_then(|work| work.to_str().ok()?.parse().ok());
    let slowness = if odd == Some(Odd::Slow) { 10 } else { 1 };
    let _turn = worker.acquire().await;
    sleep(Duration::from_micros(work.unwrap_or(0)) * slowness).await;
    response
}

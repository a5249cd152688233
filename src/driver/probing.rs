//! Probes of all endpoints, in parallel, inside the driver's own task.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use rand::{RngExt, rngs::SmallRng};
use tokio::{
    sync::mpsc,
    time::{error::Elapsed, sleep, timeout},
};

use super::BoxFuture;
use crate::{
    backoff::spread,
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, ProbeFailure},
    set::EndpointSet,
};

type Report = (u64, Result<Observation, ProbeError>);

/// A [`Probe`] behind a pointer, so that the handle's type does not name it.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Observes one endpoint until the future is dropped.
    fn follow(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        reports: mpsc::Sender<Report>,
    ) -> BoxFuture<'static, ()>;

    /// How long an observation may stand without being renewed.
    fn lease(&self) -> Duration;
}

impl<P: Probe> Prober for P {
    fn follow(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        reports: mpsc::Sender<Report>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut rng: SmallRng = rand::make_rng();
            while let Err(error) = session(&*self, &endpoint, &reports, &mut rng).await {
                if reports.send((endpoint.id(), Err(error))).await.is_err() {
                    return;
                }
                sleep(spread(self.interval(), 0.8, 1.2, rng.random())).await;
            }
        })
    }

    fn lease(&self) -> Duration {
        // Two intervals at their longest, and between them a question that is lost, a session that is
        // opened anew, and its first question.
        (self.interval().saturating_mul(12) / 5).saturating_add(self.timeout().saturating_mul(3))
    }
}

/// Opens a session and asks it again and again, until it fails (`Err`) or nobody listens (`Ok`).
async fn session<P: Probe>(
    probe: &P,
    endpoint: &Endpoint,
    reports: &mpsc::Sender<Report>,
    rng: &mut SmallRng,
) -> Result<(), ProbeError> {
    let opened = timeout(probe.timeout(), probe.open(endpoint)).await;
    let (mut session, mut seen) = opened.map_err(too_late)??;
    loop {
        let observation = match seen.take() {
            Some(observation) => observation,
            None => {
                let asked = timeout(probe.timeout(), probe.observe(endpoint, &mut session)).await;
                asked.map_err(too_late)??
            }
        };
        if reports
            .send((endpoint.id(), Ok(observation)))
            .await
            .is_err()
        {
            return Ok(());
        }
        tokio::select! {
            () = sleep(spread(probe.interval(), 0.8, 1.2, rng.random())) => {}
            () = probe.signalled(&mut session) => {}
        }
    }
}

fn too_late(elapsed: Elapsed) -> ProbeError {
    ProbeError::new(ProbeFailure::Timeout, elapsed)
}

/// The probes that run, one for each endpoint of the set.
pub(super) struct Probing {
    prober: Option<Arc<dyn Prober>>,
    running: FuturesUnordered<Abortable<BoxFuture<'static, ()>>>,
    /// By endpoint id.
    handles: HashMap<u64, AbortHandle>,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

impl Probing {
    pub(super) fn new(prober: Option<Arc<dyn Prober>>) -> Self {
        // A full channel makes probes wait for the registry, which is right.
        let (sender, reports) = mpsc::channel(64);
        let (running, handles) = (FuturesUnordered::new(), HashMap::new());
        Self {
            prober,
            running,
            handles,
            sender,
            reports,
        }
    }

    /// Starts probes of endpoints that came, stops those of endpoints that went.
    pub(super) fn follow(&mut self, set: &EndpointSet) {
        let Some(prober) = &self.prober else { return };
        let mut gone = std::mem::take(&mut self.handles);
        for endpoint in set {
            let handle = gone.remove(&endpoint.id()).unwrap_or_else(|| {
                let (handle, registration) = AbortHandle::new_pair();
                let probe = Arc::clone(prober).follow(Arc::clone(endpoint), self.sender.clone());
                self.running.push(Abortable::new(probe, registration));
                handle
            });
            self.handles.insert(endpoint.id(), handle);
        }
        gone.into_values().for_each(|handle| handle.abort());
    }

    /// The next report. Never completes without a probe.
    ///
    /// Cancel safe: the probes go on where they were.
    pub(super) async fn next(&mut self) -> Report {
        loop {
            let ended = async {
                if self.running.is_empty() {
                    std::future::pending().await
                } else {
                    // A stopped probe; the others run while this waits.
                    self.running.next().await
                }
            };
            tokio::select! {
                Some(report) = self.reports.recv() => return report,
                _ = ended => {}
            }
        }
    }
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing")
            .field("endpoints", &self.handles.len())
            .finish_non_exhaustive()
    }
}

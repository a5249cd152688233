//! Probes of all endpoints, in parallel, inside the driver's own task.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use rand::{RngExt, rngs::SmallRng};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, error::Elapsed, sleep, sleep_until, timeout},
};

use super::BoxFuture;
use crate::{
    backoff::spread,
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, ProbeFailure},
    set::EndpointSet,
};

pub(super) type Report = (u64, Result<Observation, ProbeError>);

/// A [`Probe`] behind a pointer, so that the handle's type does not name it.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Observes one endpoint until the future is dropped.
    fn follow(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        rhythm: Arc<Rhythm>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> BoxFuture<'static, ()>;

    /// The time between two questions while all is well.
    fn interval(&self) -> Duration;

    /// The most that a question may take.
    fn timeout(&self) -> Duration;
}

/// Whom to ask about the endpoints of a set, if anybody.
#[derive(Clone, Default)]
pub(crate) struct Probers {
    pub(crate) roles: Option<Arc<dyn Prober>>,
    pub(crate) health: Option<Arc<dyn Prober>>,
}

impl<P: Probe> Prober for P {
    fn follow(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        rhythm: Arc<Rhythm>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut watch = Watch {
                probe: &*self,
                endpoint: &endpoint,
                rhythm: &rhythm,
                rng: rand::make_rng(),
            };
            loop {
                let mut answered = false;
                let Err(error) = watch.session(&reports, &mut answered).await else {
                    return;
                };
                // The end of a session proves nothing; whether another can be opened does.
                let again = answered && error.failure() == ProbeFailure::Closed;
                if reports.send((endpoint.id(), Err(error))).is_err() {
                    return;
                }
                if !again {
                    watch.pause(std::future::pending()).await;
                }
            }
        })
    }

    fn interval(&self) -> Duration {
        Probe::interval(self).max(FLOOR)
    }

    fn timeout(&self) -> Duration {
        Probe::timeout(self)
    }
}

/// No node is asked more often, whatever signals and hints say.
pub(super) const FLOOR: Duration = Duration::from_millis(50);

/// How often one endpoint is asked: written by the driver, read by its probe.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    /// Ask now.
    now: Notify,
    /// The milliseconds between two questions while something is in doubt; 0 while nothing is.
    fast: AtomicU64,
}

/// The probe of one endpoint.
struct Watch<'a, P> {
    probe: &'a P,
    endpoint: &'a Endpoint,
    rhythm: &'a Rhythm,
    rng: SmallRng,
}

impl<P: Probe> Watch<'_, P> {
    /// Opens a session and asks it again and again, until it fails (`Err`) or nobody listens (`Ok`).
    async fn session(
        &mut self,
        reports: &mpsc::UnboundedSender<Report>,
        answered: &mut bool,
    ) -> Result<(), ProbeError> {
        let Self {
            probe, endpoint, ..
        } = *self;
        let opening = async {
            let (mut session, seen) = probe.open(endpoint).await?;
            let seen = match seen {
                Some(seen) => seen,
                None => probe.observe(endpoint, &mut session).await?,
            };
            Ok((session, seen))
        };
        // One limit on all of it: a stopped node's kernel still accepts connections.
        let opened = timeout(probe.timeout(), opening).await;
        let (mut session, mut seen) = opened.map_err(too_late)??;
        loop {
            if reports.send((endpoint.id(), Ok(seen))).is_err() {
                return Ok(());
            }
            *answered = true;
            self.pause(probe.signalled(&mut session)).await;
            let asked = timeout(probe.timeout(), probe.observe(endpoint, &mut session)).await;
            seen = asked.map_err(too_late)??;
        }
    }

    /// Waits until it is time to ask again: by the clock, by a signal of the session, or by a hint.
    async fn pause(&mut self, signalled: impl Future<Output = ()>) {
        let steady = self.probe.interval().max(FLOOR);
        let time = match self.rhythm.fast.load(Relaxed) {
            0 => steady,
            fast => Duration::from_millis(fast).min(steady),
        };
        let start = Instant::now();
        let time = spread(time, 0.8, 1.2, self.rng.random());
        tokio::select! {
            () = sleep(time) => return,
            () = signalled => {}
            () = self.rhythm.now.notified() => {}
        }
        sleep_until(start + FLOOR.min(time)).await;
    }
}

pub(super) fn too_late(elapsed: Elapsed) -> ProbeError {
    ProbeError::new(ProbeFailure::Timeout, elapsed)
}

/// The probes that run, one for each endpoint of the set.
pub(super) struct Probing {
    prober: Option<Arc<dyn Prober>>,
    running: FuturesUnordered<Abortable<BoxFuture<'static, ()>>>,
    /// By endpoint id.
    handles: HashMap<u64, (AbortHandle, Arc<Rhythm>)>,
    /// See [`Rhythm::fast`].
    fast: Duration,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Probing {
    pub(super) fn new(prober: Option<Arc<dyn Prober>>) -> Self {
        // It needs no bound: probes run only while their reports are waited for, and rest between two of them.
        let (sender, reports) = mpsc::unbounded_channel();
        let (running, handles) = (FuturesUnordered::new(), HashMap::new());
        Self {
            prober,
            running,
            handles,
            fast: Duration::ZERO,
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
                let rhythm = Arc::new(Rhythm::default());
                rhythm.set(self.fast);
                let probe = Arc::clone(prober).follow(
                    Arc::clone(endpoint),
                    Arc::clone(&rhythm),
                    self.sender.clone(),
                );
                self.running.push(Abortable::new(probe, registration));
                (handle, rhythm)
            });
            self.handles.insert(endpoint.id(), handle);
        }
        gone.into_values().for_each(|(handle, _)| handle.abort());
    }

    /// From the next question on, asks so often; zero: as often as the probe says.
    pub(super) fn set_pace(&mut self, fast: Duration) {
        if fast != self.fast {
            self.fast = fast;
            let rhythms = self.handles.values();
            rhythms.for_each(|(_, rhythm)| rhythm.set(fast));
        }
    }

    /// Asks every endpoint now.
    pub(super) fn ask_all(&self) {
        let rhythms = self.handles.values();
        rhythms.for_each(|(_, rhythm)| rhythm.now.notify_one());
    }

    /// Asks this endpoint now.
    pub(super) fn ask(&self, id: u64) {
        if let Some((_, rhythm)) = self.handles.get(&id) {
            rhythm.now.notify_one();
        }
    }

    /// The next report, with all that are there by now, in the order in which they came. Never completes without a
    /// probe.
    ///
    /// The first waits for no other: who is not ready now reports in the next turn.
    ///
    /// Cancel safe: the probes go on where they were.
    pub(super) async fn next(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
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
                // First the probes go on, so that what they find is among what is there.
                biased;
                _ = ended => {}
                _ = self.reports.recv_many(&mut reports, usize::MAX) => return reports,
            }
        }
    }
}

impl Rhythm {
    fn set(&self, fast: Duration) {
        let millis = u64::try_from(fast.as_millis()).unwrap_or(u64::MAX);
        self.fast.store(millis, Relaxed);
    }
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing")
            .field("endpoints", &self.handles.len())
            .finish_non_exhaustive()
    }
}

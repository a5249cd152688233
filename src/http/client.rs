//! What all pods of one HTTP client share: settings, how long answers take, and what is left to retry with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{
    config::Http,
    latency::{LATE, Latencies},
    message::Form,
    pod::HttpPod,
};
use crate::{balancer::Signals, budget::Budget, endpoint::Endpoint, registry::NewService};

/// Retries that are always allowed to be under way (Envoy's `min_retry_concurrency`): the budget of a
/// client with few requests is empty most of the time.
const RETRIES_AT_ONCE: u32 = 3;

pub(super) struct Client {
    pub(super) settings: Http,
    pub(super) form: Form,
    pub(super) signals: Arc<Signals>,
    /// Dials and connections run here, whichever runtime a request comes from: one that stops to be driven
    /// must not hold what others wait for.
    pub(super) runtime: Handle,
    start: Instant,
    latencies: Latencies,
    /// The latest moment, in milliseconds since the start, at which a request was sent that was answered.
    answered_from: AtomicU64,
    /// How long that took, in milliseconds.
    answered_in: AtomicU64,
    hedges: Budget,
    retries: Budget,
    retrying: AtomicU32,
}

impl Client {
    pub(super) fn new(settings: Http, signals: &Arc<Signals>) -> Self {
        Self {
            form: settings.form(),
            settings: settings.ready(),
            signals: Arc::clone(signals),
            runtime: Handle::current(),
            start: Instant::now(),
            latencies: Latencies::new(),
            answered_from: AtomicU64::new(0),
            answered_in: AtomicU64::new(0),
            // 5 % of the requests, and one: a new client's first request may meet a pod that hangs.
            hedges: Budget::new(0.05, 1, 100),
            // 20 %, and a purse for the requests that one dead pod of a busy service leaves behind.
            retries: Budget::new(0.2, RETRIES_AT_ONCE, 500),
            retrying: AtomicU32::new(0),
        }
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.hedges.earn();
        self.retries.earn();
    }

    /// A pod has answered a request that was sent at `sent`. The time, also in milliseconds since the start.
    /// Of one that is ignored nothing is learned: those that are meant to take long would hide who is late.
    #[inline]
    pub(super) fn answered(&self, sent: Instant, is_ignored: bool) -> (Instant, u64) {
        let now = Instant::now();
        let (at, latency) = (now - self.start, now - sent);
        if is_ignored {
            return (now, at.as_millis() as u64);
        }
        self.latencies.record(at, latency);
        let sent = at.saturating_sub(latency).as_millis() as u64;
        if self.answered_from.load(Relaxed) < sent {
            self.answered_from.fetch_max(sent, Relaxed);
            let took = self.millis(now).saturating_sub(sent);
            self.answered_in.store(took, Relaxed);
        }
        (now, at.as_millis() as u64)
    }

    /// Whether a request has been answered that was sent after this moment, in milliseconds since the start.
    pub(super) fn answers_since(&self, sent: u64) -> bool {
        self.answered_from.load(Relaxed) > sent
    }

    /// Whether a request that has waited so many milliseconds is late as answers are just now, too.
    pub(super) fn is_late_now(&self, waited: u64) -> bool {
        waited >= self.answered_in.load(Relaxed) * u64::from(LATE)
    }

    /// From when on a request without an answer is late.
    pub(super) fn late_after(&self) -> Option<Duration> {
        self.latencies.late_after()
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now - self.start
    }

    /// Milliseconds are fine enough to compare, and coarse enough that not every answer writes.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_millis() as u64
    }

    /// Permission to send a late request to another pod as well.
    pub(super) fn may_hedge(&self) -> bool {
        self.settings.hedging && self.hedges.take()
    }

    /// There was no other pod.
    pub(super) fn return_hedge(&self) {
        self.hedges.give_back();
    }

    /// Permission to send a request again that its pod has failed.
    pub(super) fn may_retry(self: &Arc<Self>) -> Option<Retrying> {
        if !self.settings.retries {
            return None;
        }
        let others = self.retrying.fetch_add(1, Relaxed);
        let retrying = Retrying {
            client: Arc::clone(self),
        };
        let is_permitted = others < RETRIES_AT_ONCE || self.retries.take();
        if !is_permitted {
            self.signals.meter.retry_refused();
        }
        is_permitted.then_some(retrying)
    }
}

/// A request that is being retried.
pub(super) struct Retrying {
    client: Arc<Client>,
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.client.retrying.fetch_sub(1, Relaxed);
    }
}

/// Makes the pods of one client.
pub(super) struct Pods {
    client: Arc<Client>,
}

impl Pods {
    pub(super) fn of(client: Client) -> Self {
        Self {
            client: Arc::new(client),
        }
    }
}

impl NewService for Pods {
    type Service = HttpPod;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> HttpPod {
        HttpPod::new(endpoint, &self.client)
    }

    fn warm(&self, pod: &HttpPod) -> bool {
        pod.warm()
    }

    /// Idle connections close, for they would hold up the pod's own end.
    fn removed(&self, pod: &HttpPod) {
        pod.pool.drain();
    }

    fn returned(&self, pod: &HttpPod) {
        pod.pool.revive();
    }

    fn retired(&self, pod: &HttpPod) {
        pod.pool.close();
    }
}

//! One request, from the pick to its end.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{Endpoint, load::Timing};
use crate::outcome::{Cause, Outcome};

/// One request in flight on an endpoint; dropping it ends the request.
///
/// Tell it how the request went ([`record`](Self::record)): policies and ejection learn from that. Nothing is
/// learned from one that is dropped without a word.
///
/// ```
/// use headless_lb::{Cause, EndpointSet, Outcome};
/// use std::net::SocketAddr;
///
/// let set = EndpointSet::of([SocketAddr::from(([10, 0, 0, 1], 80))]);
/// let endpoint = set.iter().next().expect("one");
/// let mut request = endpoint.begin();
/// request.record(Cause::TimedOut.into());
/// assert_eq!((endpoint.pending(), endpoint.streak()), (1, 1));
/// drop(request);
/// assert_eq!(endpoint.pending(), 0);
/// ```
#[must_use = "the request counts as ended when this is dropped"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// When it was sent, if it is timed.
    sent: Option<Instant>,
    is_watched: bool,
    is_recorded: bool,
}

impl InFlight {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            sent: None,
            is_watched: false,
            is_recorded: false,
        }
    }

    /// The endpoint that serves the request.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The request is sent at `now`: its latency counts from here. A pick through a policy that goes by
    /// latency ([`Policy::is_timed`](crate::Policy::is_timed)) has called this; call it again if the request is
    /// sent later.
    #[inline]
    pub fn sent_at(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// Whether the request is timed.
    #[inline]
    pub fn is_timed(&self) -> bool {
        self.sent.is_some()
    }

    /// The request is over as far as the endpoint's latency and health go, and this is how it went. The first
    /// call counts. The request stays in flight until this is dropped: a response body may still come.
    ///
    /// Reads the clock if the request is timed.
    #[inline]
    pub fn record(&mut self, outcome: Outcome) {
        // Without a start no end is needed.
        let now = self.sent.map(|_| Instant::now());
        self.end(now, outcome);
    }

    /// As [`record`](Self::record), at a moment that is known already.
    #[inline]
    pub fn record_at(&mut self, now: Instant, outcome: Outcome) {
        self.end(Some(now), outcome);
    }

    /// The caller waits no more. If the request is timed: within the latency to expect this says nothing;
    /// beyond it the request was slow; after a second it has failed ([`Cause::GaveUp`]), for a timeout
    /// around the call looks like this.
    pub fn cancel_at(&mut self, now: Instant) {
        let Some(sent) = self.sent.filter(|_| !self.is_recorded) else {
            return;
        };
        let timing = self.endpoint.timing(sent, now);
        if self.endpoint.load.give_up(&self.endpoint.baseline, timing) {
            self.record_at(now, Cause::GaveUp.into());
        }
        self.is_recorded = true;
    }

    /// From now on a drop without a word is a cancellation.
    #[inline]
    pub(crate) fn watch(&mut self) {
        self.is_watched = true;
    }

    #[inline]
    fn end(&mut self, now: Option<Instant>, outcome: Outcome) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        let endpoint = &*self.endpoint;
        let timing = now
            .zip(self.sent)
            .map(|(now, sent)| endpoint.timing(sent, now));
        match outcome {
            Outcome::Success => endpoint.succeed(timing),
            Outcome::Failure(failure) => endpoint.fail(failure, timing),
            Outcome::Ignore => {}
        }
    }
}

impl Endpoint {
    fn timing(&self, sent: Instant, now: Instant) -> Timing {
        Timing {
            latency: now.saturating_duration_since(sent),
            stamp: self.baseline.stamp(now),
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if self.is_watched && !self.is_recorded && self.sent.is_some() {
            self.cancel_at(Instant::now());
        }
        self.endpoint.load.pending.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("endpoint", &self.endpoint)
            .field("is_recorded", &self.is_recorded)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Failure;

    const MS: Duration = Duration::from_millis(1);

    fn endpoint() -> Arc<Endpoint> {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        Arc::new(Endpoint::new(addr.into(), Instant::now()))
    }

    #[test]
    fn a_timed_request_leaves_its_latency_and_only_its_first_outcome_counts() {
        let (endpoint, now) = (endpoint(), Instant::now());
        let mut request = endpoint.begin();
        request.sent_at(now);
        request.record_at(now + 20 * MS, Outcome::Success);
        request.record_at(now + 90 * MS, Cause::Reset.into());
        let expected = endpoint.latency(now + 20 * MS).unwrap();
        assert!(
            (expected.as_secs_f32() - 0.020).abs() < 1e-5,
            "{expected:?}"
        );
        assert_eq!((endpoint.succeeded(), endpoint.failed()), (1, 0));
        assert_eq!(endpoint.pending(), 1, "its body may still come");
    }

    #[test]
    fn what_is_not_timed_counts_and_leaves_no_latency() {
        let endpoint = endpoint();
        let mut request = endpoint.begin();
        request.record(Outcome::Success);
        let mut request = endpoint.begin();
        request.record(Failure::of(Cause::Status(500)).into());
        assert_eq!(endpoint.latency(Instant::now()), None);
        assert_eq!((endpoint.succeeded(), endpoint.streak()), (1, 1));
    }

    #[test]
    fn dropped_without_a_word_it_says_nothing_unless_somebody_watches() {
        let (endpoint, now) = (endpoint(), Instant::now());
        let long_ago = now.checked_sub(2 * Duration::from_secs(1)).unwrap();
        let mut request = endpoint.begin();
        request.sent_at(long_ago);
        drop(request);
        assert_eq!(endpoint.failed(), 0);
        let mut request = endpoint.begin();
        request.sent_at(long_ago);
        request.watch();
        drop(request);
        assert_eq!(endpoint.last_failure(), Some(Cause::GaveUp));
        let mut request = endpoint.begin();
        request.sent_at(long_ago);
        request.watch();
        request.record(Outcome::Ignore);
        drop(request);
        assert_eq!((endpoint.failed(), endpoint.succeeded()), (1, 0));
    }
}

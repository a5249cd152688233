//! One request, from the pick to its end.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{Endpoint, load::Timing};
#[cfg(any(test, feature = "http"))]
use crate::outcome::Failure;
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
    told: Told,
}

/// What was said of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// That it is served: no more than a late failure can follow.
    Success,
    All,
}

impl InFlight {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            sent: None,
            is_watched: false,
            told: Told::Nothing,
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

    /// When it was sent, if it is timed.
    #[cfg(feature = "http")]
    #[inline]
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.sent
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
    /// beyond it the request was slow; after a second, or the mean of all endpoints if that is longer, it has failed
    /// ([`Cause::GaveUp`]), for a timeout around the call looks like this.
    pub fn cancel_at(&mut self, now: Instant) {
        let Some(sent) = self.sent.filter(|_| self.told == Told::Nothing) else {
            return;
        };
        let timing = self.timing(sent, now);
        if self.endpoint.load.give_up(&self.endpoint.baseline, timing) {
            self.record_at(now, Cause::GaveUp.into());
        }
        self.told = Told::All;
    }

    /// Another endpoint was quicker with the same request. That is no failure, however long it took: as
    /// [`cancel_at`](Self::cancel_at) otherwise.
    #[cfg(any(test, feature = "http"))]
    pub(crate) fn beaten_at(&mut self, now: Instant) {
        if let Some(sent) = self.sent.filter(|_| self.told == Told::Nothing) {
            let timing = self.timing(sent, now);
            self.endpoint.load.outlast(&self.endpoint.baseline, timing);
        }
        self.told = Told::All;
    }

    /// Its answer had begun, and ends as a failure: beside the success that it is perhaps recorded as. How long
    /// the answer took until then is not held against the endpoint.
    #[cfg(any(test, feature = "http"))]
    #[cold]
    pub(crate) fn fail_late(&mut self, failure: Failure) {
        if self.told != Told::All {
            self.told = Told::Nothing;
            let now = self.sent.map(|_| Instant::now());
            self.sent = now;
            self.end(now, failure.into());
        }
    }

    /// Whether a drop without a word is a cancellation: while the endpoint has the request.
    #[inline]
    pub(crate) fn watch(&mut self, on: bool) {
        self.is_watched = on;
    }

    #[inline]
    fn end(&mut self, now: Option<Instant>, outcome: Outcome) {
        if self.told != Told::Nothing {
            return;
        }
        let timing = now.zip(self.sent).map(|(now, sent)| self.timing(sent, now));
        self.told = Told::All;
        match outcome {
            Outcome::Success => {
                self.told = Told::Success;
                self.endpoint.succeed(timing);
            }
            Outcome::Failure(failure) => self.endpoint.fail(failure, timing),
            Outcome::Ignore => {}
        }
    }

    fn timing(&self, sent: Instant, now: Instant) -> Timing {
        Timing {
            latency: now.saturating_duration_since(sent),
            stamp: self.endpoint.baseline.stamp(now),
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if self.is_watched && self.told == Told::Nothing && self.sent.is_some() {
            self.cancel_at(Instant::now());
        }
        self.endpoint.load.pending.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("endpoint", &self.endpoint)
            .field("told", &self.told)
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
        request.watch(true);
        drop(request);
        assert_eq!(endpoint.last_failure(), Some(Cause::GaveUp));
        let mut request = endpoint.begin();
        request.sent_at(long_ago);
        request.watch(true);
        request.record(Outcome::Ignore);
        drop(request);
        assert_eq!((endpoint.failed(), endpoint.succeeded()), (1, 0));
    }

    #[test]
    fn one_that_was_beaten_was_slow_if_it_took_longer_than_expected_and_has_not_failed() {
        let (endpoint, now) = (endpoint(), Instant::now());
        let mut request = endpoint.begin();
        request.sent_at(now);
        request.record_at(now + 20 * MS, Outcome::Success);
        let beaten_after = |elapsed: Duration, end: Instant| {
            let mut request = endpoint.begin();
            request.sent_at(end.checked_sub(elapsed).unwrap());
            request.watch(true);
            request.beaten_at(end);
            drop(request);
            endpoint.latency(end).unwrap()
        };
        let soon = now + 30 * MS;
        assert!(beaten_after(10 * MS, soon) < 21 * MS);
        assert!(beaten_after(1_500 * MS, now + 1_000 * MS) > 500 * MS);
        assert_eq!((endpoint.succeeded(), endpoint.failed()), (1, 0));
    }

    #[test]
    fn a_late_failure_counts_beside_a_success_and_once() {
        let endpoint = endpoint();
        let reset = Failure::of(Cause::Reset);
        for (outcome, expected) in [
            (Some(Outcome::Success), (1, 1)),
            (Some(reset.into()), (1, 2)),
            (Some(Outcome::Ignore), (1, 2)),
            (None, (1, 3)),
        ] {
            let mut request = endpoint.begin();
            if let Some(outcome) = outcome {
                request.record(outcome);
            }
            request.fail_late(reset);
            request.fail_late(reset);
            assert_eq!((endpoint.succeeded(), endpoint.failed()), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_late_is_a_failure_with_the_latency_of_its_head() {
        let endpoint = endpoint();
        let mut download = endpoint.begin();
        download.sent_at(Instant::now());
        tokio::time::advance(10 * MS).await;
        download.record_at(Instant::now(), Outcome::Success);
        tokio::time::advance(Duration::from_secs(600)).await;
        download.fail_late(Failure::of(Cause::Reset));
        let penalty = endpoint.latency(Instant::now()).unwrap();
        assert!(penalty > Duration::from_millis(900), "{penalty:?}");
        assert!(penalty < Duration::from_secs(2), "{penalty:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_began_long_ago_has_the_latency_of_its_head_and_ages_nothing() {
        let endpoint = endpoint();
        let begin = || {
            let mut request = endpoint.begin();
            request.sent_at(Instant::now());
            request
        };
        let mut stream = begin();
        tokio::time::advance(10 * MS).await;
        let answered = Instant::now();
        tokio::time::advance(Duration::from_secs(60)).await;
        // Meanwhile another tells that the endpoint has become slow.
        let mut request = begin();
        tokio::time::advance(400 * MS).await;
        request.record(Outcome::Success);
        let latency = || endpoint.latency(Instant::now()).unwrap();
        let before = latency();
        stream.record_at(answered, Outcome::Success);
        assert_eq!(endpoint.succeeded(), 2);
        assert!(latency() > before * 9 / 10, "{:?} < {before:?}", latency());
        // A failure is one of this moment, and took no time.
        let mut stream = begin();
        tokio::time::advance(Duration::from_secs(600)).await;
        stream.fail_late(Cause::Grpc(14).into());
        let penalty = latency();
        assert!(penalty > Duration::from_millis(900), "{penalty:?}");
        assert!(penalty < Duration::from_secs(60), "{penalty:?}");
    }
}

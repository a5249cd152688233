//! One request, from the pick to its end.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{Endpoint, caution::Ticket, load::Timing, notes::is_too_long};
#[cfg(any(test, feature = "http"))]
use crate::outcome::Failure;
use crate::outcome::{Cause, Outcome};

/// One request in flight on an endpoint; dropping it ends the request.
///
/// Tell it how the request went ([`record`](Self::record)): policies and ejection learn from that. Nothing is
/// learned from one that is dropped without a word, unless a balanced service has sent it: then its caller has
/// [given up](Self::cancel_at).
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
    /// When it was sent, if that is known.
    sent: Option<Instant>,
    /// Its latency counts. If not, when it was sent tells only whether a caller who gives up means the endpoint.
    is_timed: bool,
    is_watched: bool,
    told: Told,
    trial: Ticket,
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
    #[inline]
    pub(super) fn begin(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.pending.fetch_add(1, Relaxed);
        Self {
            trial: endpoint.load.trial.enter(),
            endpoint,
            sent: None,
            is_timed: false,
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
        self.is_timed = true;
    }

    /// When it was sent, if that is known.
    #[cfg(feature = "http")]
    #[inline]
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.sent
    }

    /// Whether the request is timed.
    #[inline]
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// The request is over as far as the endpoint's latency and health go, and this is how it went. The first
    /// call counts. The request stays in flight until this is dropped: a response body may still come.
    ///
    /// Reads the clock if the request is timed.
    #[inline]
    pub fn record(&mut self, outcome: Outcome) {
        // Without a start no end is needed.
        let now = self.is_timed.then(Instant::now);
        self.end(now, outcome);
    }

    /// As [`record`](Self::record), at a moment that is known already.
    #[inline]
    pub fn record_at(&mut self, now: Instant, outcome: Outcome) {
        self.end(Some(now), outcome);
    }

    /// The caller waits no more. Within the latency to expect this says nothing; beyond it the request was slow, if it
    /// is timed; after a second, or the mean of all endpoints if that is longer, it has failed
    /// ([`Cause::GaveUp`]), for a timeout around the call looks like this.
    ///
    /// Nothing is said by a request of which nobody knows when it was [sent](Self::sent_at).
    pub fn cancel_at(&mut self, now: Instant) {
        if self.told != Told::Nothing {
            return;
        }
        let Endpoint { load, baseline, .. } = &*self.endpoint;
        let has_failed = match self.sent {
            Some(sent) if self.is_timed => load.give_up(baseline, self.timing(sent, now)),
            Some(sent) => is_too_long(baseline, now.saturating_duration_since(sent)),
            // Only of one that is watched it is certain that it would have a note, were it younger than those.
            None if self.is_watched => {
                is_too_long(baseline, load.notes.give_up(baseline.stamp(now)))
            }
            None => return,
        };
        if has_failed {
            self.record_at(now, Cause::GaveUp.into());
        }
        self.told = Told::All;
    }

    /// Another endpoint was quicker with the same request. That is no failure, however long it took: as
    /// [`cancel_at`](Self::cancel_at) otherwise.
    #[cfg(any(test, feature = "http"))]
    pub(crate) fn beaten_at(&mut self, now: Instant) {
        if let Some(sent) = self.timed().filter(|_| self.told == Told::Nothing) {
            let timing = self.timing(sent, now);
            self.endpoint.load.outlast(&self.endpoint.baseline, timing);
        }
        self.told = Told::All;
    }

    /// Whether nothing more can be said of it.
    #[cfg(feature = "http")]
    pub(crate) fn is_over(&self) -> bool {
        self.told == Told::All
    }

    /// Its answer had begun, and ends as a failure: beside the success that it is perhaps recorded as. How long
    /// the answer took until then is not held against the endpoint.
    #[cfg(any(test, feature = "http"))]
    #[cold]
    pub(crate) fn fail_late(&mut self, failure: Failure) {
        if self.told != Told::All {
            self.told = Told::Nothing;
            let now = self.is_timed.then(Instant::now);
            self.sent = now;
            self.end(now, failure.into());
        }
    }

    /// The endpoint has the request, from `at` on if the clock has been read: dropped without a word it is
    /// [cancelled](Self::cancel_at) from now on.
    ///
    /// Policies that do not go by time read no clock. For them it is read from when on a caller has given up
    /// at this endpoint: where nobody does, requests cost none.
    #[inline]
    pub(crate) fn watch(&mut self, at: Option<Instant>) {
        self.is_watched = true;
        if at.is_some() {
            self.sent = at;
        } else if !self.is_timed && self.endpoint.load.notes.are_taken() {
            self.note();
        }
    }

    /// A drop without a word says nothing any more.
    #[cfg(feature = "http")]
    #[inline]
    pub(crate) fn unwatch(&mut self) {
        self.is_watched = false;
    }

    #[cold]
    fn note(&mut self) {
        let now = Instant::now();
        let stamp = self.endpoint.stamp(now);
        self.sent = self.endpoint.load.notes.are_taken_at(stamp).then_some(now);
    }

    /// When it was sent, if its latency counts.
    #[inline]
    fn timed(&self) -> Option<Instant> {
        self.sent.filter(|_| self.is_timed)
    }

    #[inline]
    fn end(&mut self, now: Option<Instant>, outcome: Outcome) {
        if self.told != Told::Nothing {
            return;
        }
        let timing = now
            .zip(self.timed())
            .map(|(now, sent)| self.timing(sent, now));
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
        if self.is_watched && self.told == Told::Nothing {
            self.cancel_at(Instant::now());
        }
        let load = &self.endpoint.load;
        load.pending.fetch_sub(1, Relaxed);
        load.trial.leave(self.trial);
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
        request.watch(None);
        drop(request);
        assert_eq!(endpoint.last_failure(), Some(Cause::GaveUp));
        let mut request = endpoint.begin();
        request.sent_at(long_ago);
        request.watch(None);
        request.record(Outcome::Ignore);
        drop(request);
        assert_eq!((endpoint.failed(), endpoint.succeeded()), (1, 0));
    }

    /// One that is not timed, sent now and given up after so long.
    async fn given_up(endpoint: &Arc<Endpoint>, after: Duration) {
        let mut request = endpoint.begin();
        request.watch(None);
        tokio::time::sleep(after).await;
        drop(request);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_timed_is_noted_once_somebody_gave_up_and_fails_after_a_second_as_well() {
        let endpoint = endpoint();
        let failed = || endpoint.failed();
        given_up(&endpoint, 2_000 * MS).await;
        assert_eq!(failed(), 0, "nobody knows how long");
        given_up(&endpoint, 999 * MS).await;
        assert_eq!(failed(), 0);
        given_up(&endpoint, 1_000 * MS).await;
        let left = (failed(), endpoint.streak(), endpoint.last_failure());
        assert_eq!(left, (1, 1, Some(Cause::GaveUp)));
        assert_eq!(endpoint.latency(Instant::now()), None);
        // However many give up at once.
        for _ in 0..10_000 {
            given_up(&endpoint, MS).await;
        }
        assert_eq!(failed(), 1);
        // However long it took to say how it went.
        for outcome in [Outcome::Success, Outcome::Ignore] {
            let mut request = endpoint.begin();
            request.watch(None);
            tokio::time::sleep(2_000 * MS).await;
            request.record(outcome);
        }
        assert_eq!((failed(), endpoint.streak()), (1, 0));
        assert_eq!(endpoint.latency(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_anybody_gave_up_has_waited_since_then_at_least() {
        let endpoint = endpoint();
        let mut requests: Vec<InFlight> = (0..3).map(|_| endpoint.begin()).collect();
        requests.iter_mut().for_each(|request| request.watch(None));
        tokio::time::sleep(5_000 * MS).await;
        drop(requests.pop());
        tokio::time::sleep(999 * MS).await;
        drop(requests.pop());
        assert_eq!(endpoint.failed(), 0);
        tokio::time::sleep(2 * MS).await;
        drop(requests.pop());
        assert_eq!(endpoint.failed(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn notes_are_taken_for_ten_minutes() {
        let endpoint = endpoint();
        given_up(&endpoint, MS).await;
        let takes_notes = || {
            let mut request = endpoint.begin();
            request.watch(None);
            request.record(Outcome::Success);
            request.sent.is_some()
        };
        tokio::time::sleep(Duration::from_secs(599)).await;
        assert!(takes_notes());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!takes_notes() && !takes_notes());
        given_up(&endpoint, MS).await;
        assert!(takes_notes(), "and again");
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_clock_was_read_anyway_the_first_one_counts() {
        let endpoint = endpoint();
        let mut request = endpoint.begin();
        request.watch(Some(Instant::now()));
        assert!(!request.is_timed());
        tokio::time::sleep(1_000 * MS).await;
        drop(request);
        assert_eq!(endpoint.last_failure(), Some(Cause::GaveUp));
        assert_eq!(endpoint.latency(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_service_is_given_its_time_by_those_who_do_not_time_their_requests_too() {
        let (endpoint, now) = (endpoint(), Instant::now());
        let mut request = endpoint.begin();
        request.sent_at(now);
        request.record_at(now + Duration::from_secs(5), Outcome::Success);
        for (seconds, failed) in [(9, 0), (4, 0), (6, 1)] {
            given_up(&endpoint, Duration::from_secs(seconds)).await;
            assert_eq!(endpoint.failed(), failed, "{seconds}");
        }
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
            request.watch(None);
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

//! One pod: its address, its name if DNS told one, and its live counters.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    eject::{Connects, Tally},
    outcome::{Cause, Failure},
};

mod address;
mod baseline;
mod caution;
mod decay;
mod in_flight;
mod load;
mod notes;
mod replication;
mod stamped;
mod told;

pub use address::Address;
pub(crate) use address::rank;
use address::{is_dashed_ip, write_labelled};
pub(crate) use baseline::Baseline;
use caution::Caution;
pub use in_flight::InFlight;
use load::{Load, Timing};
use replication::Replication;
use told::Told;

/// One address of a service and what is known about it while it lives.
///
/// An `Endpoint` outlives the answers that list it: its counters survive every swap of the set, and a short absence (`linger`). An address that
/// returns under another pod name is another endpoint.
///
/// It takes 384 bytes, reference counts included: what requests write, what they count references with
/// and what they read are on cache line pairs of their own. What it is called is beside it.
pub struct Endpoint {
    id: u64,
    socket: SocketAddr,
    since: Instant,
    told: Box<Told>,
    /// Shared with the other endpoints of the service.
    baseline: Arc<Baseline>,
    /// Which of its successes move the mean: not the same ones at each endpoint.
    phase: u8,
    caution: Caution,
    replication: Replication,
    load: Load,
}

impl Endpoint {
    /// An endpoint by itself.
    #[cfg(test)]
    pub(crate) fn new(address: Address, since: Instant) -> Self {
        Self::among(address, since, Arc::new(Baseline::new(since)))
    }

    /// One of several that are compared with each other.
    pub(crate) fn among(address: Address, since: Instant, baseline: Arc<Baseline>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            socket: address.socket,
            since,
            baseline,
            phase: rank(address.socket, 0) as u8,
            told: Told::of(address),
            caution: Caution::default(),
            replication: Replication::default(),
            load: Load::default(),
        }
    }

    /// The socket address to dial: a pod's IP and the container's port.
    #[inline]
    pub fn addr(&self) -> SocketAddr {
        self.socket
    }

    /// The StatefulSet ordinal at the end of the name: 2 for `db-2`; none for a dashed IP address.
    pub fn ordinal(&self) -> Option<u32> {
        let name = self.name()?;
        if is_dashed_ip(name) {
            return None;
        }
        name.rsplit_once('-')?.1.parse().ok()
    }

    /// A number that no other endpoint of this process has or had.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When this endpoint was first seen.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Requests in flight: picks that were not dropped yet.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.load.pending.load(Relaxed)
    }

    /// Counts one request until the guard is dropped.
    ///
    /// A [`Pick`](crate::Pick) does this by itself; call it for work that goes on after the pick, such as a response body.
    #[inline]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        InFlight::begin(Arc::clone(self))
    }

    /// The latency to expect at `now`: what requests through policies that go by time have measured, fading within
    /// seconds to the mean of all endpoints of the service. `None` before the first success of any of them.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let mean = self.baseline.mean()?;
        let expected = self.load.expected_beside(mean, self.baseline.stamp(now));
        Some(Duration::try_from_secs_f32(expected).unwrap_or(Duration::MAX))
    }

    /// Requests that failed since the last success, or since its [trial](Endpoint::is_on_trial) began.
    #[inline]
    pub fn streak(&self) -> u32 {
        self.load.streak()
    }

    /// Requests that succeeded so far, modulo 2^32.
    pub fn succeeded(&self) -> u32 {
        self.load.succeeded()
    }

    /// Requests that failed so far, modulo 2^32.
    pub fn failed(&self) -> u32 {
        self.load.failed()
    }

    /// Why the last request that failed did, or the last connect.
    pub fn last_failure(&self) -> Option<Cause> {
        self.load.cause()
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            succeeded: self.succeeded(),
            failed: self.failed(),
        }
    }

    /// Whether the last request failed, and without an answer.
    #[inline]
    pub(crate) fn is_doubtful(&self) -> bool {
        self.streak() > 0 && self.last_failure().is_some_and(Cause::is_unanswered)
    }

    /// The moment as the cells have it.
    #[inline]
    pub(crate) fn stamp(&self, now: Instant) -> u32 {
        self.baseline.stamp(now)
    }

    /// The mean latency of the service's endpoints in seconds, or what stands for it before the first success.
    #[inline]
    pub(crate) fn usual(&self) -> f32 {
        self.baseline.usual()
    }

    /// What a request would cost here: the latency to expect, `floor` at least, times the requests that would then be in flight.
    #[inline]
    pub(crate) fn cost(&self, mean: f32, floor: f32, stamp: u32) -> f32 {
        let expected = self.load.expected_beside(mean, stamp);
        // One instruction, where `max` has to tell apart which of them is no number: the floor is one.
        let expected = if expected > floor { expected } else { floor };
        expected * (self.pending() + 1) as f32
    }

    /// The same by the peak latency.
    #[inline]
    pub(crate) fn peak_cost(&self, stamp: u32) -> f32 {
        self.load.peak(stamp) * (self.pending() + 1) as f32
    }

    /// How many picks a second it gets, as far as they were [counted](Self::count_send).
    #[inline]
    pub(crate) fn sends(&self, stamp: u32) -> f32 {
        self.load.sends(stamp)
    }

    #[inline]
    pub(crate) fn count_send(&self, stamp: u32) {
        self.load.sent(stamp);
    }

    #[inline]
    fn succeed(&self, timing: Option<Timing>) {
        self.load
            .succeed(&self.baseline, u32::from(self.phase), timing);
        if self.load.trial.is_on() {
            // It is what the driver waits for.
            self.baseline.alarm();
        }
    }

    #[cold]
    fn fail(&self, failure: Failure, timing: Option<Timing>) {
        let streak = self.load.fail(&self.baseline, failure, timing);
        // Every so many: the driver may have been unable to act on the first.
        if self.load.trial.is_on() || streak.is_multiple_of(self.baseline.consecutive()) {
            self.baseline.alarm();
        }
    }

    /// A connect failed: the endpoint is to be set aside for a moment (100 ms, doubling up to 10 s).
    /// [`Balancer::unreachable`](crate::Balancer::unreachable) says the same.
    pub fn unreachable(&self, cause: Cause) {
        self.load.connect_failed(cause);
        self.baseline.alarm();
    }

    /// A connect succeeded, which ends a row of failures.
    pub fn reached(&self) {
        if self.load.connected() {
            self.baseline.alarm();
        }
    }

    /// Whether the driver waits for a connect that succeeds.
    pub(crate) fn is_warming(&self) -> bool {
        self.load.warming.load(Relaxed)
    }

    pub(crate) fn set_warming(&self, warming: bool) {
        self.load.warming.store(warming, Relaxed);
    }

    #[inline]
    pub(crate) fn connects(&self) -> Connects {
        self.load.connects()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("addr", &self.socket)
            .field("name", &self.name())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labelled(f, self.name(), self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn endpoint(name: &str) -> Arc<Endpoint> {
        let address = Address::from(SocketAddr::from(([10, 244, 1, 7], 5432))).named(name);
        Arc::new(Endpoint::new(address, Instant::now()))
    }

    #[test]
    fn the_ordinal_is_read_from_a_stateful_name_only() {
        assert_eq!(endpoint("db-2").ordinal(), Some(2));
        assert_eq!(endpoint("my-db-11").ordinal(), Some(11));
        assert_eq!(endpoint("10-244-1-7").ordinal(), None);
        assert_eq!(endpoint("fd00-10-244--6-1").ordinal(), None);
        assert_eq!(endpoint("db").ordinal(), None);
    }

    #[test]
    fn a_latency_that_no_duration_can_hold_is_the_longest_that_one_can() {
        let (endpoint, now) = (endpoint("db-0"), Instant::now());
        let age = Duration::from_secs(1 << 61);
        let took = |outcome: Outcome| {
            let mut request = endpoint.begin();
            request.sent_at(now);
            request.record_at(now + age, outcome);
        };
        took(Outcome::Success);
        // A penalty of 20 times the mean.
        took(Cause::Reset.into());
        assert_eq!(endpoint.latency(now + age), Some(Duration::MAX));
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let endpoint = endpoint("db-0");
        let (one, two) = (endpoint.begin(), endpoint.begin());
        assert_eq!(endpoint.pending(), 2);
        drop(one);
        assert_eq!(endpoint.pending(), 1);
        drop(two);
        assert_eq!(endpoint.pending(), 0);
    }

    #[test]
    fn an_endpoint_takes_as_much_memory_as_its_documentation_says() {
        // `Arc` puts its two counts in front, padded to the alignment.
        assert_eq!(size_of::<Endpoint>() + align_of::<Endpoint>(), 384);
    }

    #[test]
    fn a_connect_is_news_only_if_it_ends_a_row_of_failures_or_somebody_waits_for_it() {
        let endpoint = endpoint("db-0");
        assert!(!endpoint.load.connected());
        endpoint.unreachable(Cause::Refused);
        assert!(endpoint.load.connected() && !endpoint.load.connected());
        endpoint.set_warming(true);
        assert!(endpoint.load.connected() && !endpoint.load.connected());
        let recoveries = endpoint.connects().recoveries;
        assert_eq!(recoveries, 1, "a first connect ends no row");
    }
}

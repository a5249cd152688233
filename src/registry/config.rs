//! The settings of a registry, each default with its reason.

use std::time::Duration;

use crate::{backoff::FOREVER, check, eject::Ejection, primary::OnConflict};

/// When to ask, what to believe, how long to keep. [`Builder`](crate::Builder) has a setter for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Longest wait between two questions. Default 5 s, as Envoy and Finagle poll: cluster DNS says
    /// TTL 30 but answers fresh, so waiting out a TTL is staleness for nothing.
    pub refresh_interval: Duration,
    /// Shortest wait between two questions. Default 1 s: CoreDNS permits `ttl 0`, which without a floor
    /// is a busy loop.
    pub min_interval: Duration,
    /// Wait for the TTL, up to this. Default `None`. For resolvers that bill by query; up to 30 s stale.
    pub respect_ttl: Option<Duration>,
    /// What an answer "no endpoints" does to a set that has some.
    pub empty: EmptyMode,
    /// Drop endpoints that no answer confirmed for this long. Default `None`: an old address that
    /// works beats none, and one that does not costs a connect. 10 min where addresses are re-used.
    pub max_stale: Option<Duration>,
    /// How long a removed endpoint keeps its counters and what is in flight. Default 30 s, the default
    /// grace period of a terminating pod: responses end in peace, and a pod that flaps returns as the
    /// same endpoint.
    pub linger: Duration,
    /// How long a new endpoint may wait for the first connect before it is published. Default `None`,
    /// not at all: a connect inside a cluster is cheaper than capacity that waits.
    pub warm_up: Option<Duration>,
    /// When requests that fail set their pod aside. Default: five in a row.
    pub ejection: Ejection,
    /// Over how long a pod that joins or returns gets to its full share. Default `None`, at once.
    pub slow_start: Option<Duration>,
    /// The time between two questions of the probe; `None` without one, and then there are no roles. An
    /// observation counts for two of them and a timeout.
    pub probe_interval: Option<Duration>,
    /// The most that a question of the probe may take. Default 500 ms.
    pub probe_timeout: Duration,
    /// So many successful health checks in a row make an unhealthy endpoint healthy. Default 2, at least 1.
    pub check_rise: u32,
    /// So many failed health checks in a row make a healthy endpoint unhealthy. Default 3, at least 1.
    pub check_fall: u32,
    /// Whom to believe of two that both say they are the primary, where nothing tells who came later.
    pub on_conflict: OnConflict,
    /// Seed of the order of endpoints; by default one for each process.
    pub order_seed: u64,
    /// Seed of the jitter; by default drawn anew for each registry.
    pub jitter_seed: u64,
}

/// What an answer "no endpoints" (NXDOMAIN, NODATA) does to a set that has some.
///
/// It is the regular answer when a service is scaled to zero, and also that of a typo, of a lagging
/// DNS replica and of known bugs (coredns #6518, #6658).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmptyMode {
    /// Believe the first one.
    Immediate,
    /// Believe it after `answers` independent ones in a row, `over` apart from first to last. Two
    /// sightings of one cached answer count once. The default: 3 over 10 s.
    Confirm {
        /// How many, at least 1.
        answers: u32,
        /// The least time from the first to the last.
        over: Duration,
    },
    /// Never believe it; `max_stale` alone drops endpoints.
    KeepLast,
}

impl Config {
    /// The same settings, where they make sense together.
    pub(super) fn bounded(mut self) -> Self {
        self.min_interval = self.min_interval.clamp(Duration::from_millis(1), FOREVER);
        self.refresh_interval = self.refresh_interval.clamp(self.min_interval, FOREVER);
        self.respect_ttl = self
            .respect_ttl
            .map(|cap| cap.clamp(self.min_interval, FOREVER));
        // Two answers may be that far apart, and more: that alone is no reason to drop a set.
        let shortest = self.refresh_interval * 2;
        self.max_stale = self.max_stale.map(|age| age.min(FOREVER).max(shortest));
        self.linger = self.linger.min(FOREVER);
        let deadline = self.warm_up.filter(|deadline| !deadline.is_zero());
        self.warm_up = deadline.map(|deadline| deadline.min(FOREVER));
        self.ejection = self.ejection.bounded();
        let window = self.slow_start.filter(|window| !window.is_zero());
        self.slow_start = window.map(|window| window.min(FOREVER));
        self.probe_interval = self.probe_interval.map(|interval| interval.min(FOREVER));
        self.probe_timeout = self.probe_timeout.min(FOREVER);
        self.check_rise = self.check_rise.max(1);
        self.check_fall = self.check_fall.max(1);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(5),
            min_interval: Duration::from_secs(1),
            respect_ttl: None,
            empty: EmptyMode::default(),
            max_stale: None,
            linger: Duration::from_secs(30),
            warm_up: None,
            ejection: Ejection::default(),
            slow_start: None,
            probe_interval: None,
            probe_timeout: Duration::from_millis(500),
            check_rise: check::RISE,
            check_fall: check::FALL,
            on_conflict: OnConflict::default(),
            order_seed: crate::draw::process_seed(),
            jitter_seed: crate::draw::Draw::from_thread().bits(),
        }
    }
}

impl Default for EmptyMode {
    fn default() -> Self {
        Self::Confirm {
            answers: 3,
            over: Duration::from_secs(10),
        }
    }
}

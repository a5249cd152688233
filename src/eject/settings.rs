//! When to think ill of a pod, and for how long.

use std::time::Duration;

use crate::backoff::FOREVER;

/// The success rate rule takes a pod with at least so many requests in an interval (gRPC A50, Envoy).
pub(super) const RATE_REQUESTS: u32 = 100;

/// The failure percentage rule takes one with so many.
pub(super) const PERCENTAGE_REQUESTS: u32 = 50;

/// Either rule needs at least so many such pods: among fewer, nobody stands out.
pub(super) const PODS: usize = 5;

/// When requests that fail set their pod aside: passive health checks, for
/// [`Builder::eject`](crate::Builder::eject).
///
/// By default five failures in a row eject a pod for 30 s, longer each time. It keeps its connections, and comes
/// back with one request in flight at a time until one succeeds; where that is a stream, with one more each
/// [interval](Self::interval).
///
/// Whatever the rules find: a pod is ejected only while fewer than 10 % are, never if fewer than half of all pods
/// would remain, never the last of its role that is not on trial, and never the primary. Pods that refuse connections are another
/// matter: they are set aside at once, whatever stands here, and do not count in the 10 %.
///
/// A pod that answers nothing any more is seen by the callers who give up: whoever has waited for a second, and for
/// longer than requests take on average as far as that is known, has met a failure ([`Cause::GaveUp`](crate::Cause::GaveUp)).
/// Who gives up sooner has not, however often: so no pod is ejected for losing a race, in a hedge or a `select!`. This
/// goes for every policy. One that is [not about time](crate::Policy::is_timed) reads no clock, and nobody knows how long the
/// first request took that is given up; from then on requests to that pod are noted, for ten minutes and one reading of
/// the clock each. So a pod that hangs costs it one request more. The clients of `spawn_http` know the time at once.
/// A long poll that is given up looks the same: over HTTP let it say [`Outcome::Ignore`](crate::Outcome::Ignore).
///
/// A connection of HTTP/2 that is lost is one failure, however many requests shared it: a proxy's idle cut ejects
/// nobody. Requests that the pod resets one by one are one each, and so are those of a client of your own
/// (`ClientLayer`), whose connections are not known here.
///
/// With [`Adaptive`](crate::Adaptive) ejection adds little: its penalty keeps a failing pod at 0.012 % errors by
/// itself (one of 20 pods fails everything, 5 clients, in the simulation), which five in a row reach too
/// (0.015 %). The other policies need it: round robin has 4.29 % without. It does harm where pods are cold, not ill: in the simulated rolling
/// restart round robin loses 3.3 % without and 5.4 % with it, and nothing with a [slow start](crate::Builder::slow_start).
///
/// ```
/// use headless_lb::{Balancer, Ejection, Fixed, RoundRobin};
/// use std::{net::SocketAddr, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pods = Fixed::new((1..=20).map(|i| SocketAddr::from(([127, 0, 0, i], 80))));
/// let balancer = Balancer::builder(pods)
///     .policy(RoundRobin::new())
///     .eject(
///         Ejection::new()
///             .base_time(Duration::from_secs(10))
///             .failure_percentage(50.0),
///     )
///     .spawn();
/// # let _ = balancer; }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until a builder has them"]
pub struct Ejection {
    /// 0: off.
    pub(super) consecutive: u32,
    pub(super) success_rate: Option<f64>,
    pub(super) failure_percentage: Option<f64>,
    pub(super) interval: Duration,
    pub(super) base_time: Duration,
    pub(super) max_time: Duration,
    pub(super) max_percent: u32,
}

impl Ejection {
    /// The defaults: five failures in a row, and no rule that needs a volume of requests.
    pub const fn new() -> Self {
        Self {
            consecutive: 5,
            success_rate: None,
            failure_percentage: None,
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
            max_percent: 10,
        }
    }

    /// No ejection for how requests went. Pods that refuse connections are still set aside.
    pub const fn off() -> Self {
        let mut off = Self::new();
        off.consecutive = 0;
        off
    }

    /// So many failures in a row eject, at once. Default 5, as in Envoy, Finagle and ServiceTalk: fewer happen to
    /// healthy pods, more are felt. 0 turns the rule off.
    ///
    /// It is the one rule that works at any volume: a pod that fails everything costs each client five
    /// requests. One that fails half of them is found late: a row of five is one chance in 32.
    pub const fn consecutive(mut self, failures: u32) -> Self {
        self.consecutive = failures;
        self
    }

    /// Ejects, at each sweep, pods whose success rate is below the mean of all by more than so many standard
    /// deviations; 1.9 in gRPC A50 and Envoy. Default off.
    ///
    /// It counts pods with at least 100 requests in the [interval](Self::interval), and needs 5 of them: volumes
    /// that few clients have (280 requests a second over 1,000 pods are 28 per pod in 10 s). It cannot find more
    /// than every fifth pod: k bad of n are `sqrt((n - k) / k)` deviations off, above 1.9 below 21.7 %.
    pub const fn success_rate(mut self, deviations: f64) -> Self {
        self.success_rate = Some(deviations);
        self
    }

    /// Ejects, at each sweep, pods that fail more than so many percent of their requests; 85 in gRPC A50 and
    /// Envoy. Default off.
    ///
    /// It counts pods with at least 50 requests in the [interval](Self::interval), and needs 5 of them.
    pub const fn failure_percentage(mut self, percent: f64) -> Self {
        self.failure_percentage = Some(percent);
        self
    }

    /// The time from one sweep to the next. Default 10 s (A50, Envoy). Longer gathers more requests and finds
    /// later. Each sweep also forgives: a pod that is not ejected, one of its past ejections. At least 100 ms.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long the first ejection takes; the m-th takes m times as long. Default 30 s (A50, Envoy). At least
    /// 100 ms.
    pub const fn base_time(mut self, time: Duration) -> Self {
        self.base_time = time;
        self
    }

    /// The longest ejection. Default 300 s (A50, Envoy); at least the [base time](Self::base_time).
    pub const fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// A pod is ejected only while fewer percent of the pods are; one always may be. Default 10 (A50, Envoy),
    /// so one of 10 and two of 11: where many pods fail, the fault is elsewhere, and those that remain get
    /// the load of all.
    pub const fn max_percent(mut self, percent: u32) -> Self {
        self.max_percent = percent;
        self
    }

    /// The same settings, where they make sense together.
    pub(crate) fn bounded(mut self) -> Self {
        let least = Duration::from_millis(100);
        self.interval = self.interval.clamp(least, FOREVER);
        self.base_time = self.base_time.clamp(least, FOREVER);
        self.max_time = self.max_time.clamp(self.base_time, FOREVER);
        self.max_percent = self.max_percent.min(100);
        self
    }

    /// After how many failures in a row the driver is to look.
    pub(crate) fn row(&self) -> Option<u32> {
        (self.consecutive > 0).then_some(self.consecutive)
    }

    /// Whether a rule compares pods at each sweep.
    pub(crate) fn sweeps(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }

    pub(crate) fn is_off(&self) -> bool {
        self.consecutive == 0 && !self.sweeps()
    }

    pub(crate) fn sweep_interval(&self) -> Duration {
        self.interval
    }

    /// The share above which nobody is ejected.
    pub(crate) fn percent(&self) -> u32 {
        self.max_percent
    }

    /// How long an ejection takes that is the `m`-th.
    pub(super) fn time(&self, m: u32) -> Duration {
        self.base_time
            .checked_mul(m)
            .map_or(self.max_time, |time| time.min(self.max_time))
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self::new()
    }
}

//! What a service does, in numbers: through the [`metrics`](https://docs.rs/metrics) facade, to whichever
//! exporter the program installs (feature `metrics`).
//!
//! Install the recorder before the first balancer is built: a service looks its metrics up once, when it is
//! built, and a request writes to what was found then. What is built before stays silent.
//!
//! Each metric has the label `service`, the name that errors and events give the service
//! ([`service_name`](crate::Builder::service_name)), and at most one label more, whose values are fixed
//! lists. No label names a pod or an address: pods come and go, and each would leave its series behind.
//! So one service has some 70 series, however many pods it has. Two balancers of one name count
//! together, and the gauges tell of the one that spoke last: give them names of their own. The peers of a
//! [subset](crate::Subset::by_peers) are a service of their own, `checkout for catalog`, with as many series.
//!
//! | metric | type | unit | label | moves |
//! |---|---|---|---|---|
//! | `headless_lb_resolve_total` | counter | count | `result` | with each answer of the source, good or bad |
//! | `headless_lb_resolve_seconds` | histogram | seconds | - | with each answer: the time that it took |
//! | `headless_lb_set_age_seconds` | gauge | seconds | - | grows since the last whole answer with records; before the first, since the balancer was built |
//! | `headless_lb_set_hash` | gauge | count | - | when other addresses are in the set: equal in all processes that see the same; 0 for none |
//! | `headless_lb_stale` | gauge | count | - | 1 while questions fail, an empty answer waits to be confirmed, or nobody asks any more; else 0 |
//! | `headless_lb_endpoints` | gauge | count | `state` | when an endpoint comes, goes or changes its state |
//! | `headless_lb_endpoints_added_total` | counter | count | - | with each endpoint that joins the set |
//! | `headless_lb_endpoints_removed_total` | counter | count | - | with each endpoint that leaves the set |
//! | `headless_lb_primary_changes_total` | counter | count | - | when another primary, or the same in another term, follows the one before |
//! | `headless_lb_ejections_total` | counter | count | `rule` | when a rule takes an endpoint out of the picks for what its requests came to |
//! | `headless_lb_ejections_unenforced_total` | counter | count | `reason` | when a rule would have, and must not |
//! | `headless_lb_picks_total` | counter | count | `kind` | with each pick |
//! | `headless_lb_no_endpoint_total` | counter | count | `why` | when a pick finds nothing, and the request has tried nothing before: it waits or fails |
//! | `headless_lb_connects_total` | counter | count | `result` | with each connect of the HTTP client that ended |
//! | `headless_lb_disconnects_total` | counter | count | `reason` | with each connection of the HTTP client that ended |
//! | `headless_lb_retries_total` | counter | count | `kind` | when a request goes on to another pod |
//! | `headless_lb_retry_refused_total` | counter | count | - | when a request of the HTTP client may be repeated, and the retry budget is spent |
//! | `headless_lb_hedges_total` | counter | count | - | when a late request of the HTTP client goes to another pod as well |
//!
//! # Labels
//!
//! - `result` of `resolve_total`: `ok`, `truncated` (incomplete, by whatever cause), or what
//!   [`ResolveErrorKind::label`](crate::resolve::ResolveErrorKind::label) says; an answer without addresses is
//!   `nodata`.
//! - `state`: `available` (primary, replicas, and endpoints of unknown role), `ejected` (for what its
//!   requests or its health checks came to), `aside` (refuses connections), `rejected` (a primary of an older term), `warming`
//!   (waits for its first connect), `draining` (removed, and what is in flight may end).
//! - `kind` of `picks_total`: of a request of the HTTP client, `warm` if its pod had a connection free, else
//!   `cold`; `unknown` where the balancer cannot tell, which is for services of your own and where you dial;
//!   `panic`, before all these, for an endpoint that is out of the picks, because nothing else is left.
//! - `why`: `unresolved`, `no_endpoints`, `no_candidate`, `no_such_pod`, `closed` as
//!   [`PickError`](crate::PickError) has them, and `no_primary` for [`PrimaryView`](crate::PrimaryView).
//! - `result` of `connects_total`: `ok`, `refused`, `unreachable`, `reset`, `timeout`, `tls`, `not_http2`, `other`.
//! - `reason` of `disconnects_total`: `goaway` (the pod said that it takes no more: HTTP/2 `GOAWAY`, HTTP/1.1
//!   `Connection: close`, or it closed the connection between two responses), `reset` (broke, also within a response),
//!   `timeout` (a ping went unanswered, or the pod fell silent), `max_age`, `drained` (the pod left the set),
//!   `local` (closed here: idle, surplus, or a response that nobody waited for), `other`.
//! - `kind` of `retries_total`: `unsent` (no pod can have seen the request) or `sent`.
//! - `rule`: `consecutive`, `success_rate`, `failure_percentage`, `trial`, `check`, `other`.
//! - `reason` of `ejections_unenforced_total`: `cap`, `last`, `panic`, `other`.
//!
//! # When
//!
//! The driver sets the gauges at each turn of its loop: at each answer, alarm and observation, and once a
//! second at least, so `set_age_seconds` is right also where nothing happens and nobody calls. Picks are
//! counted where requests do not wait for each other, and reach the recorder at the same moments: up
//! to a second late; after the driver's end, when the last handle is dropped. All else is counted at once.
//!
//! A driver that ends before the last handle leaves the gauges as they are, and `stale` at 1: nothing moves any
//! more, also not the age. With the last handle they all become 0.
//!
//! A pick costs one addition more, to a cache line that one thread has, or from the 17th on few share: no lock, no allocation.
//! Without the feature it costs nothing.

#[cfg(all(feature = "metrics", feature = "http"))]
mod ending;
#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;
#[cfg(feature = "metrics")]
mod picks;
#[cfg(feature = "metrics")]
mod table;

#[cfg(all(feature = "metrics", feature = "http"))]
pub(crate) use ending::Ending;
#[cfg(all(not(feature = "metrics"), feature = "http"))]
pub(crate) use off::Ending;
#[cfg(not(feature = "metrics"))]
pub(crate) use off::Meter;
#[cfg(feature = "metrics")]
pub(crate) use on::Meter;
#[cfg(feature = "metrics")]
pub use table::{Kind, METRICS, Metric};

impl Meter {
    /// There is no handle any more: nothing of the service is left to tell.
    pub(crate) fn ended(&self) {
        self.changed(0, 0, 0);
        self.state(std::time::Duration::ZERO, false, States::default());
    }
}

/// How a pick went, in the order of the label's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    /// Nobody tells whether there is a connection.
    Unknown,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only HTTP pods know")
    )]
    Warm,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only HTTP pods know")
    )]
    Cold,
    /// Nothing better was left.
    Panic,
}

impl Picked {
    #[cfg(feature = "metrics")]
    pub(crate) const COUNT: usize = 4;

    #[inline]
    pub(crate) fn of(is_ejected: bool) -> Self {
        if is_ejected {
            Self::Panic
        } else {
            Self::Unknown
        }
    }

    /// The same, where it is known whether a connection was free.
    #[cfg(feature = "http")]
    pub(crate) fn over(self, is_free: bool) -> Self {
        match (self, is_free) {
            (Self::Panic, _) => Self::Panic,
            (_, true) => Self::Warm,
            (_, false) => Self::Cold,
        }
    }
}

/// How many endpoints are in each state, in the order of the label's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) available: usize,
    pub(crate) ejected: usize,
    pub(crate) aside: usize,
    pub(crate) rejected: usize,
    pub(crate) warming: usize,
    pub(crate) draining: usize,
}

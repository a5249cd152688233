//! The metrics, once: name, type, unit, label, help.

use metrics::Unit;

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution; how it is kept is the exporter's matter.
    Histogram,
}

/// One metric, as it is registered for each service: with the label `service`, and perhaps another.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// With the prefix `headless_lb_`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Seconds, or a plain count.
    pub unit: Unit,
    /// The label beside `service`.
    pub label: Option<&'static str>,
    /// All values of that label. Each is there from the start, at zero.
    pub values: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

impl Metric {
    const fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind,
            unit: Unit::Count,
            label: None,
            values: &[],
            help,
        }
    }

    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Counter, name, help)
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Gauge, name, help)
    }

    const fn by(mut self, label: &'static str, values: &'static [&'static str]) -> Self {
        self.label = Some(label);
        self.values = values;
        self
    }

    const fn in_seconds(mut self) -> Self {
        self.unit = Unit::Seconds;
        self
    }
}

/// What a value is counted as that is not in its list. The last of each list that may grow.
pub(super) const OTHER: &str = "other";

pub(super) const RESOLVE: Metric = Metric::counter(
    "headless_lb_resolve_total",
    "Answers of the source, by result",
)
.by(
    "result",
    &[
        "ok",
        "nxdomain",
        "nodata",
        "servfail",
        "refused",
        "timeout",
        "truncated",
        "busy",
        "io",
        "malformed",
        "noservers",
        "rcode",
        OTHER,
    ],
);

pub(super) const RESOLVE_SECONDS: Metric = Metric::new(
    Kind::Histogram,
    "headless_lb_resolve_seconds",
    "How long answers of the source took",
)
.in_seconds();

pub(super) const SET_AGE: Metric = Metric::gauge(
    "headless_lb_set_age_seconds",
    "Time since the last whole answer with records",
)
.in_seconds();

pub(super) const SET_HASH: Metric = Metric::gauge(
    "headless_lb_set_hash",
    "Hash of the addresses of the set: equal where the same endpoints are seen",
);

pub(super) const STALE: Metric = Metric::gauge(
    "headless_lb_stale",
    "1 while questions fail, an empty answer waits to be confirmed, or nobody asks any more",
);

pub(super) const ENDPOINTS: Metric = Metric::gauge("headless_lb_endpoints", "Endpoints, by state")
    .by(
        "state",
        &[
            "available",
            "ejected",
            "aside",
            "rejected",
            "warming",
            "draining",
        ],
    );

pub(super) const ADDED: Metric = Metric::counter(
    "headless_lb_endpoints_added_total",
    "Endpoints that joined the set",
);

pub(super) const REMOVED: Metric = Metric::counter(
    "headless_lb_endpoints_removed_total",
    "Endpoints that left the set",
);

pub(super) const PRIMARY_CHANGES: Metric = Metric::counter(
    "headless_lb_primary_changes_total",
    "Primaries, or terms of one, that followed the one before",
);

pub(super) const EJECTIONS: Metric = Metric::counter(
    "headless_lb_ejections_total",
    "Endpoints taken out of the picks for what their requests came to, by rule",
)
.by(
    "rule",
    &[
        "consecutive",
        "success_rate",
        "failure_percentage",
        "trial",
        "check",
        OTHER,
    ],
);

pub(super) const UNENFORCED: Metric = Metric::counter(
    "headless_lb_ejections_unenforced_total",
    "Ejections that were due and not made, by reason",
)
.by("reason", &["cap", "last", "panic", OTHER]);

pub(super) const PICKS: Metric = Metric::counter(
    "headless_lb_picks_total",
    "Picks, by whether the pod had a connection free",
)
.by("kind", &["unknown", "warm", "cold", "panic"]);

pub(super) const NO_ENDPOINT: Metric = Metric::counter(
    "headless_lb_no_endpoint_total",
    "Picks that found nothing, by cause",
)
.by(
    "why",
    &[
        "unresolved",
        "no_endpoints",
        "no_candidate",
        "no_such_pod",
        "no_primary",
        "closed",
        OTHER,
    ],
);

pub(super) const CONNECTS: Metric = Metric::counter(
    "headless_lb_connects_total",
    "Connects of the HTTP client, by result",
)
.by(
    "result",
    &[
        "ok",
        "refused",
        "unreachable",
        "reset",
        "timeout",
        "tls",
        "not_http2",
        OTHER,
    ],
);

pub(super) const DISCONNECTS: Metric = Metric::counter(
    "headless_lb_disconnects_total",
    "Connections of the HTTP client that ended, by reason",
)
.by(
    "reason",
    &[
        "goaway", "reset", "timeout", "max_age", "drained", "local", OTHER,
    ],
);

pub(super) const RETRIES: Metric = Metric::counter(
    "headless_lb_retries_total",
    "Requests that went on to another pod, by whether one may have seen them",
)
.by("kind", &["unsent", "sent"]);

pub(super) const RETRY_REFUSED: Metric = Metric::counter(
    "headless_lb_retry_refused_total",
    "Retries that the retry budget did not permit",
);

pub(super) const HEDGES: Metric = Metric::counter(
    "headless_lb_hedges_total",
    "Late requests that went to another pod as well",
);

/// Every metric that a service registers: to make dashboards from, or to check that nothing is missing.
///
/// ```
/// # use headless_lb::meter::METRICS;
/// assert!(METRICS.iter().any(|metric| metric.name == "headless_lb_resolve_total"));
/// ```
pub const METRICS: &[Metric] = &[
    RESOLVE,
    RESOLVE_SECONDS,
    SET_AGE,
    SET_HASH,
    STALE,
    ENDPOINTS,
    ADDED,
    REMOVED,
    PRIMARY_CHANGES,
    EJECTIONS,
    UNENFORCED,
    PICKS,
    NO_ENDPOINT,
    CONNECTS,
    DISCONNECTS,
    RETRIES,
    RETRY_REFUSED,
    HEDGES,
];

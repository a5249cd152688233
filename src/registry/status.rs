//! What is known about a name, for people and for decisions outside the request path.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::condition::Condition;
use crate::{
    age::Ago,
    primary::Report,
    resolve::{Resolution, ResolveError},
};

/// How discovery is doing: the last outcome, the last good answer, what is pending.
///
/// A copy of one moment; [`Balancer::status`](crate::Balancer::status) gives a newer one.
#[derive(Clone, Debug)]
pub struct Status {
    pub(super) service: Arc<str>,
    pub(super) last: Option<Last>,
    pub(super) last_good: Option<Instant>,
    pub(super) stale_since: Option<Instant>,
    pub(super) ttl_counts_down: bool,
    pub(super) resolved: bool,
    pub(super) closed: bool,
    pub(super) unobserved: usize,
    pub(super) primary: Option<Arc<Report>>,
    pub(super) failures: u32,
    pub(super) pending_empty: u32,
    pub(super) incomplete: bool,
    pub(super) endpoints: usize,
    pub(super) warming: usize,
    pub(super) draining: usize,
    pub(super) unhealthy: usize,
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) answers: u64,
    pub(super) ejections: u64,
    pub(super) spared: u64,
    pub(super) panics: u64,
    pub(super) is_panic: bool,
    pub(super) conditions: Arc<[Condition]>,
    pub(super) latency: Latency,
}

/// The outcome of the last question.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) at: Instant,
    pub(super) result: Result<Answer, ResolveError>,
}

/// What an answer with records said, without the records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    record: Option<&'static str>,
    ttl: Option<Duration>,
    partial: bool,
}

impl Answer {
    pub(super) fn of(resolution: &Resolution) -> Self {
        Self {
            record: resolution.record(),
            ttl: resolution.ttl(),
            partial: resolution.is_partial(),
        }
    }
}

impl Status {
    pub(super) fn new(service: Arc<str>) -> Self {
        Self {
            service,
            last: None,
            last_good: None,
            stale_since: None,
            ttl_counts_down: false,
            resolved: false,
            closed: false,
            unobserved: 0,
            primary: None,
            failures: 0,
            pending_empty: 0,
            incomplete: false,
            endpoints: 0,
            warming: 0,
            draining: 0,
            unhealthy: 0,
            added: 0,
            removed: 0,
            answers: 0,
            ejections: 0,
            spared: 0,
            panics: 0,
            is_panic: false,
            conditions: Arc::default(),
            latency: Latency::default(),
        }
    }

    /// Whether nothing happened between the two that readers could see.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let key = |status: &Self| {
            (
                status.answers,
                status.added,
                status.removed,
                status.endpoints,
                status.warming,
                status.draining,
                status.unhealthy,
                status.unobserved,
                (status.ejections, status.spared, status.is_panic),
            )
        };
        let primary = |status: &Self| status.primary.as_ref().map(Arc::as_ptr);
        key(self) == key(other)
            && primary(self) == primary(other)
            && Arc::ptr_eq(&self.conditions, &other.conditions)
    }

    /// Replaces what is known of endpoints that are not simply available, if that changed.
    pub(super) fn note_conditions(&mut self, conditions: Vec<Condition>) {
        let known = &self.conditions;
        let is_same = known.len() == conditions.len()
            && std::iter::zip(&**known, &conditions).all(|(one, other)| one.is_like(other));
        if !is_same {
            self.conditions = conditions.into();
        }
    }

    /// The endpoints that are not simply available, and why.
    pub(crate) fn conditions(&self) -> &Arc<[Condition]> {
        &self.conditions
    }

    /// The same, with nobody to change it any more.
    pub(crate) fn close(mut self) -> Self {
        self.closed = true;
        self
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// A short fixed label of the last outcome: `unasked`, `records`, `partial`, `nxdomain`,
    /// `timeout` and so on.
    pub fn outcome(&self) -> &'static str {
        match self.last.as_ref().map(|last| &last.result) {
            None => "unasked",
            Some(Ok(answer)) if answer.partial => "partial",
            Some(Ok(_)) => "records",
            Some(Err(error)) => error.kind().label(),
        }
    }

    /// The last outcome as an error, if it was one.
    pub fn error(&self) -> Option<&ResolveError> {
        self.last.as_ref()?.result.as_ref().err()
    }

    /// When the last outcome came.
    pub fn answered_at(&self) -> Option<Instant> {
        Some(self.last.as_ref()?.at)
    }

    /// The kind of record of the last outcome, if it had records.
    pub fn record(&self) -> Option<&'static str> {
        self.last.as_ref()?.result.as_ref().ok()?.record
    }

    /// The time-to-live that the last outcome carried, negative answers included.
    pub fn ttl(&self) -> Option<Duration> {
        match &self.last.as_ref()?.result {
            Ok(answer) => answer.ttl,
            Err(error) => error.negative_ttl(),
        }
    }

    /// Whether the time-to-live goes down from answer to answer, which tells of a cache on the way:
    /// changes are seen later.
    pub fn ttl_counts_down(&self) -> bool {
        self.ttl_counts_down
    }

    /// When the last whole answer with records came: the age of what is known.
    pub fn last_good(&self) -> Option<Instant> {
        self.last_good
    }

    /// Since when questions fail, or an empty answer waits to be confirmed; `None` if all is well.
    pub fn stale_since(&self) -> Option<Instant> {
        self.stale_since
    }

    /// Whether the source ever told what there is, be it nothing.
    pub fn is_resolved(&self) -> bool {
        self.resolved
    }

    /// Whether discovery has ended while handles remain: the [`Driver`](crate::Driver) was dropped, its
    /// runtime shut down, or a resolver, probe or service maker of yours panicked in it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many endpoints the probe has not been heard of yet; 0 without a probe.
    pub fn unobserved(&self) -> usize {
        self.unobserved
    }

    /// What is known of the primary, and how each endpoint stands to it; `None` without a probe, and before
    /// there are endpoints.
    pub fn primary(&self) -> Option<&Arc<Report>> {
        self.primary.as_ref()
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Independent empty answers that were counted and are not believed yet.
    pub fn pending_empty(&self) -> u32 {
        self.pending_empty
    }

    /// Whether the last answer was truncated: there may be more endpoints than are known.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// How many endpoints are in the set.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// How many new endpoints wait for their first connect before they are in the set; 0 without
    /// [`warm_up`](crate::Builder::warm_up).
    pub fn warming(&self) -> usize {
        self.warming
    }

    /// How many endpoints were removed less than [`linger`](crate::Builder::linger) ago: what is in flight on
    /// them may end.
    pub fn draining(&self) -> usize {
        self.draining
    }

    /// How many endpoints of the set fail their health checks; 0 without a [`check`](crate::Builder::check). They are
    /// set aside while others are healthy.
    pub fn unhealthy(&self) -> usize {
        self.unhealthy
    }

    /// Endpoints added so far.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Endpoints removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// How often an endpoint was ejected so far, for how requests to it went.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// How often one was not, though a rule had found it: too many were out, or it was the last.
    pub fn ejections_spared(&self) -> u64 {
        self.spared
    }

    /// Whether ejections do not count now, since too few endpoints would remain: fewer than half, or no replica.
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// How often that began.
    pub fn panics(&self) -> u64 {
        self.panics
    }

    /// Questions answered so far, be it with a failure.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How long answers took: upper bounds, each with the number of answers up to it and above the
    /// one before. The last bound is open.
    pub fn latencies(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.latency
            .0
            .iter()
            .enumerate()
            .map(|(i, &count)| (Latency::bound(i), count))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.endpoints == 1 { "" } else { "s" };
        write!(f, "{}: {} endpoint{plural}", self.service, self.endpoints)?;
        if self.warming > 0 {
            write!(f, ", {} warming", self.warming)?;
        }
        if self.unhealthy > 0 {
            write!(f, ", {} unhealthy", self.unhealthy)?;
        }
        if self.closed {
            f.write_str(", discovery has ended")?;
        }
        match &self.last {
            None => f.write_str(", not resolved yet"),
            Some(Last {
                at,
                result: Ok(answer),
            }) => {
                let kind = if answer.partial {
                    "partial answer"
                } else {
                    "answer"
                };
                write!(f, ", {kind} {} ago", Ago(*at))?;
                match (answer.record, answer.ttl) {
                    (Some(record), Some(ttl)) => write!(f, " ({record}, TTL {} s)", ttl.as_secs()),
                    (Some(record), None) => write!(f, " ({record})"),
                    (None, Some(ttl)) => write!(f, " (TTL {} s)", ttl.as_secs()),
                    (None, None) => Ok(()),
                }
            }
            Some(Last {
                at,
                result: Err(error),
            }) => {
                write!(f, ", {} ago: {error}", Ago(*at))?;
                match self.last_good {
                    Some(good) => write!(f, "; last good answer {} ago", Ago(good)),
                    None => f.write_str("; no good answer yet"),
                }
            }
        }
    }
}

/// Counts of answers by latency: 1, 2, 4 ... 8,192 ms, and above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency([u64; 15]);

impl Latency {
    pub(super) fn record(&mut self, latency: Duration) {
        let bucket = (0..self.0.len()).find(|&i| latency <= Self::bound(i));
        self.0[bucket.unwrap_or(self.0.len() - 1)] += 1;
    }

    fn bound(i: usize) -> Duration {
        if i + 1 == Self::default().0.len() {
            Duration::MAX
        } else {
            Duration::from_millis(1 << i)
        }
    }
}

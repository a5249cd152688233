//! One address, and what the writer knows of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    check::Checked,
    eject::{Connectivity, Outlier},
    endpoint::{Address, Endpoint},
    set::Position,
};

/// While answers are truncated, an endpoint that refuses connections and was not listed for this
/// long is dropped, if no `max_stale` says otherwise.
const INCOMPLETE_MAX_STALE: Duration = Duration::from_secs(600);

pub(super) struct Slot<S> {
    /// The endpoint's rank, at hand: an answer is compared with all of them.
    pub(super) rank: u64,
    /// The endpoint's too: a report names it, and is looked for among all of them.
    pub(super) id: u64,
    /// And its weight: an answer that tells the same does not look at the endpoint.
    pub(super) weight: Option<u16>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) service: S,
    pub(super) presence: Presence,
    pub(super) position: Position,
    pub(super) connectivity: Connectivity,
    pub(super) outlier: Outlier,
    /// Whether it takes requests like any other, or would but for its start.
    pub(super) serves: bool,
    /// When it began to, while it starts slowly.
    pub(super) started: Option<Instant>,
    pub(super) checked: Checked,
    /// When an answer listed it last; while the registry is settled, that is the last answer.
    pub(super) seen: Instant,
    /// Whole answers in a row that lacked it.
    pub(super) misses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// New, and not in the set yet. A connect succeeds or fails, `until` comes, or no other endpoint
    /// takes requests: Live. Lacking, as below: dropped.
    Warming { until: Instant },
    /// In the set. Lacking in enough whole answers, confirmed empty or too stale: Absent, or Held if it is
    /// the accepted primary.
    Live,
    /// In the set, for it is the primary and goes on saying so, whatever DNS says. Listed again: Live.
    /// Superseded, lost, or that long ago: Absent.
    Held,
    /// Not in the set; keeps counters and service. Listed again: Live. Linger over: dropped. A connect
    /// fails: dropped too, but for the service, which drains.
    Absent { since: Instant },
}

impl<S> Slot<S> {
    pub(super) fn new(
        now: Instant,
        rank: u64,
        endpoint: Arc<Endpoint>,
        service: S,
        presence: Presence,
    ) -> Self {
        Self {
            rank,
            id: endpoint.id(),
            weight: endpoint.weight(),
            endpoint,
            service,
            presence,
            position: Position::Unknown,
            connectivity: Connectivity::default(),
            outlier: Outlier::default(),
            serves: false,
            started: None,
            checked: Checked::default(),
            seen: now,
            misses: 0,
        }
    }

    /// Whether it is in the set.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.presence, Presence::Live | Presence::Held)
    }

    pub(super) fn is_warming(&self) -> bool {
        matches!(self.presence, Presence::Warming { .. })
    }

    /// Whether it counts as told by DNS: in the set, or waiting to be.
    pub(super) fn is_listed(&self) -> bool {
        !matches!(self.presence, Presence::Absent { .. } | Presence::Held)
    }

    /// Notes that an answer lacks the endpoint; true if that is news about what is listed.
    pub(super) fn is_missing(&mut self, whole: bool) -> bool {
        self.misses = self.misses.saturating_add(u8::from(whole));
        whole && self.is_listed()
    }

    pub(super) fn is_renamed_by(&self, address: &Address) -> bool {
        // The answer's first: without a name in it, the endpoint is not looked at.
        address.name().is_some_and(|new| {
            let old = self.endpoint.name();
            old.is_some_and(|old| old != new)
        })
    }

    /// When the endpoint is too old to be believed, if no further answer lists it.
    pub(super) fn stale_at(&self, limit: Option<Duration>, incomplete: bool) -> Option<Instant> {
        if incomplete {
            // A truncated answer leaves out what is alive: only a pod that refuses connections goes.
            let limit = limit.unwrap_or(INCOMPLETE_MAX_STALE);
            return self.connectivity.is_ejected().then(|| self.seen + limit);
        }
        Some(self.seen + limit?)
    }

    /// Whether it is thought ill of, by how requests to it or its health checks went. In a panic that does not count.
    #[inline]
    pub(super) fn is_doubted(&self) -> bool {
        self.outlier.is_ejected() || self.is_unhealthy()
    }

    /// Whether it fails its health checks.
    #[inline]
    pub(super) fn is_unhealthy(&self) -> bool {
        self.checked.unhealthy().is_some()
    }

    /// Whether it should not get its full share yet.
    pub(super) fn is_careful(&self) -> bool {
        let is_available = self.is_live() && self.position < Position::Ejected;
        is_available && (self.outlier.is_on_trial() || self.started.is_some())
    }

    /// Whether nothing is to be told of it.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let is_aside =
            self.connectivity.is_ejected() || self.is_unhealthy() || !self.outlier.is_admitted();
        !is_aside && self.started.is_none() && !self.is_warming()
    }

    /// Its place in the set, by what its role says, what its connects do and what is thought of it.
    #[inline]
    pub(super) fn position(
        &self,
        standing: Position,
        eject_replicas: bool,
        is_panic: bool,
    ) -> Position {
        let is_refusing = self.connectivity.is_ejected();
        match standing {
            // Not ejected, whatever its connects do: there is nothing to fall back to.
            Position::Primary | Position::Rejected => standing,
            Position::Replica if is_refusing && !eject_replicas => standing,
            _ if is_refusing || (self.is_doubted() && !is_panic) => Position::Ejected,
            _ => standing,
        }
    }

    /// Its service, once nobody knows the endpoint any more, and how long something may be in flight.
    pub(super) fn drained(self, now: Instant, linger: Duration) -> (Instant, S) {
        let end = match self.presence {
            Presence::Warming { .. } => now,
            Presence::Live | Presence::Held => now + linger,
            Presence::Absent { since } => since + linger,
        };
        (end, self.service)
    }
}

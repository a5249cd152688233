//! What is known of one endpoint.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{events::Told, lag::Trail, order::Claim, reason::Reason};
use crate::{
    backoff::FOREVER,
    endpoint::Endpoint,
    probe::{Lineage, Observation, ProbeError, ProbeFailure, Role},
    set::Position,
};

/// So many passing failures in a row end what a node said: one packet may be lost. It delays that a
/// primary is given up, never that another is accepted (primary R1).
pub(super) const FALL: u32 = 2;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) endpoint: Arc<Endpoint>,
    /// The last listing that had it.
    pub(super) listing: u64,
    /// Whether a probe reported anything.
    pub(super) is_heard: bool,
    pub(super) voice: Voice,
    /// Its last answer, also when that counts no more.
    said: Option<Observation>,
    /// When it answered last.
    pub(super) at: Instant,
    /// Until when that answer is fresh.
    pub(super) until: Instant,
    /// When a check of it ended.
    pub(super) checked: Option<Instant>,
    /// What it claimed last, if no answer since says that it follows: a superseded primary that falls
    /// silent has diverging data all the same.
    pub(super) claim: Option<Claim>,
    /// Whose data it has, as far as it told.
    pub(super) lineage: Option<Lineage>,
    /// The probe itself knows the node for one of another cluster.
    pub(super) is_stranger: bool,
    /// The number of the observed step from replica to primary that its claim began with; 0 without one.
    pub(super) turned: u64,
    failures: u32,
    /// The last failure, until an answer.
    pub(super) error: Option<Arc<ProbeError>>,
    /// What was told of it and still lasts.
    pub(super) told: Vec<Told>,
    pub(super) trail: Trail,
    pub(super) verdict: Verdict,
}

/// Whether a node's last answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// It said nothing yet, or does not talk to us.
    Silent,
    /// It counts.
    Answers,
    /// Failures ended it.
    Down,
}

/// How a node stands to the primary, and since when.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) position: Position,
    pub(super) role: Option<Role>,
    pub(super) reason: Option<Reason>,
    pub(super) since: Instant,
}

/// What a report changed about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It says again what it said, in time.
    Same,
    /// It says, or is, something else.
    News,
}

impl Node {
    pub(super) fn new(now: Instant, endpoint: Arc<Endpoint>, listing: u64) -> Self {
        Self {
            endpoint,
            listing,
            is_heard: false,
            voice: Voice::Silent,
            said: None,
            at: now,
            until: now,
            checked: None,
            claim: None,
            lineage: None,
            is_stranger: false,
            turned: 0,
            failures: 0,
            error: None,
            told: Vec::new(),
            trail: Trail::default(),
            verdict: Verdict {
                position: Position::Unknown,
                role: None,
                reason: Some(Reason::Unobserved),
                since: now,
            },
        }
    }

    /// Its answer, while that counts.
    pub(super) fn said(&self) -> Option<&Observation> {
        self.said.as_ref().filter(|_| self.voice == Voice::Answers)
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.said().map(Observation::role)
    }

    /// Whether it claims to be the primary.
    pub(super) fn is_claimant(&self) -> bool {
        self.role() == Some(Role::Primary)
    }

    /// Whether its last report is an answer that counts, not a failure or an answer without a role.
    pub(super) fn has_just_answered(&self) -> bool {
        self.failures == 0 && self.error.is_none()
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.until
    }

    pub(super) fn fence(&self) -> Option<&str> {
        self.said()?.fence()
    }

    /// It answered. `turn` is the number of the step to primary, if this is one.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        lease: Duration,
        observation: Observation,
        turn: u64,
    ) -> Change {
        let is_primary = observation.role() == Role::Primary;
        let said = self.said();
        let renews = said.is_some_and(|said| is_same(said, &observation));
        let steps = is_primary && said.is_some_and(|said| said.role() == Role::Replica);
        let change = if renews && self.has_just_answered() && self.is_fresh(now) {
            Change::Same
        } else {
            Change::News
        };
        if steps {
            self.turned = turn;
        } else if !is_primary {
            self.turned = 0;
        }
        match observation.role() {
            Role::Primary if change == Change::Same => {}
            Role::Primary => self.claim = Some(Claim::of(&observation).or(self.claim.take())),
            Role::Replica => self.claim = None,
            Role::Unknown => {}
        }
        if change == Change::News && observation.lineage().is_some() {
            self.lineage = observation.lineage().cloned();
        }
        self.until = now + observation.valid_for().unwrap_or(lease).min(FOREVER);
        self.at = now;
        self.said = Some(observation);
        self.voice = Voice::Answers;
        self.is_stranger = false;
        self.failures = 0;
        self.error = None;
        change
    }

    /// A probe failed, or told nothing of a role where there was one.
    pub(super) fn failed(&mut self, error: &Arc<ProbeError>) -> Change {
        let is_news = |last: &Arc<ProbeError>| last.failure() != error.failure();
        let mut change = if self.error.as_ref().is_none_or(is_news) {
            Change::News
        } else {
            Change::Same
        };
        self.error = Some(Arc::clone(error));
        self.is_stranger |= error.failure() == ProbeFailure::WrongCluster;
        let before = self.voice;
        if error.failure().is_mute() {
            // It is there: neither proof for what it said nor against it.
            if self.voice == Voice::Down {
                self.voice = Voice::Silent;
            }
        } else {
            self.failures += 1;
            if error.is_definitive() || self.failures >= FALL {
                self.end();
            }
        }
        if self.voice != before {
            change = Change::News;
        }
        change
    }

    /// It is alive and said no role, twice in a row as failures do: true if that ends its claim.
    pub(super) fn wavered(&mut self) -> bool {
        self.failures += 1;
        self.failures >= FALL
    }

    /// What it said counts no more: it failed, or did not say it again when it was asked to.
    pub(super) fn end(&mut self) {
        let is_mute = self
            .error
            .as_ref()
            .is_some_and(|error| error.failure().is_mute());
        self.voice = if is_mute { Voice::Silent } else { Voice::Down };
        self.turned = 0;
    }

    /// Notes how far its data go.
    pub(super) fn reached(&mut self, now: Instant, position: u64) {
        self.trail = Trail::at(now, position);
    }
}

/// Whether two answers say the same, but for how far the data go and how long that holds.
fn is_same(a: &Observation, b: &Observation) -> bool {
    (a.role(), a.term(), a.authority(), a.points_to())
        == (b.role(), b.term(), b.authority(), b.points_to())
        && a.fence() == b.fence()
        && a.lineage() == b.lineage()
}

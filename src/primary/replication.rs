//! Positions of primary and replicas, and the lag that follows from them.

use std::time::Duration;

use tokio::time::Instant;

use super::{Tracker, lag::Sample, node::Node};
use crate::probe::{Observation, Role};

impl Tracker {
    /// Writes to the endpoint what its last report says of its position; true if it diverged from the
    /// primary, or agrees again.
    pub(super) fn replicate(&mut self, now: Instant, id: u64) -> bool {
        let is_primary = self.is_accepted(id);
        let follows = self
            .nodes
            .get(&id)
            .is_some_and(|node| self.is_follower(node));
        let timeout = self.config.timeout;
        let until = now + self.config.lease();
        let generation = self.reign.generation;
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        let said = node.said().filter(|_| node.has_just_answered());
        let Some(position) = said.and_then(Observation::position) else {
            // Said nothing of it this time: what it lacks stays as it was, unless that is too long ago.
            let is_silent = node.error.is_some() || node.said().is_none();
            let is_old = node
                .trail
                .last
                .is_some_and(|last| last.at + self.config.lease() <= now);
            if is_silent || is_old || (!follows && !is_primary) {
                node.unknown_lag();
            }
            return false;
        };
        if is_primary {
            node.reached(now, position);
            node.endpoint
                .replicated(Some(position), Some(0), Some(Duration::ZERO));
            self.ring.push(now, position, until);
            self.shows_lag = true;
            return false;
        }
        if node.role() != Some(Role::Replica) {
            node.reached(now, position);
            node.unknown_lag();
            return false;
        }
        // A lag is as fresh as the older of the two positions.
        if node.endpoint.wants_position()
            && let Some(accepted) = &self.accepted
        {
            accepted.endpoint.want_position();
        }
        let before = node.trail.diverged;
        let primary = self.ring.latest();
        node.trail
            .follow(now, position, primary, timeout, generation);
        let behind = self.ring.behind(now, position);
        let behind = behind.filter(|_| follows && node.trail.agrees(generation));
        let (bytes, time) = (behind.map(|b| b.bytes), behind.map(|b| b.time));
        node.endpoint.replicated(Some(position), bytes, time);
        let diverges = node.trail.diverged != before;
        self.shows_lag |= behind.is_some();
        diverges
    }

    /// Whether positions of this replica compare with the primary's: the same data, and no older term.
    fn is_follower(&self, node: &Node) -> bool {
        let Some(accepted) = &self.accepted else {
            return false;
        };
        let ids = (
            node.lineage.as_ref().map(|lineage| lineage.id()),
            accepted.claim.id(),
        );
        let is_same = !matches!(ids, (Some(a), Some(b)) if a != b);
        is_same && !node.is_stranger && !self.is_in_older_term(node)
    }

    /// Whether a replica says that it follows in a term before the accepted one.
    pub(super) fn is_in_older_term(&self, node: &Node) -> bool {
        let accepted = self
            .accepted
            .as_ref()
            .and_then(|accepted| accepted.claim.term);
        let told = node.said().and_then(Observation::term);
        told.zip(accepted)
            .is_some_and(|(told, accepted)| told < accepted)
    }

    /// Nobody's lag is known: there is no primary, or its position was not seen lately.
    pub(super) fn hide_lag(&mut self) {
        if std::mem::take(&mut self.shows_lag) {
            self.nodes.values().for_each(Node::unknown_lag);
        }
    }
}

impl Node {
    fn unknown_lag(&self) {
        let position = self.trail.last.map(|Sample { position, .. }| position);
        self.endpoint.replicated(position, None, None);
    }
}

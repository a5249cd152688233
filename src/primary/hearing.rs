//! What one report of a probe says: about its node, and about the accepted primary if that is the node.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{Reason, State, Tracker, node::Change};
use crate::probe::{Observation, ProbeError, Role};

impl Tracker {
    /// The node with this id answered.
    pub(super) fn answered(&mut self, now: Instant, id: u64, observation: Observation) -> Change {
        let (lease, turn) = (self.config.lease(), self.turns + 1);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Change::Same;
        };
        let role = observation.role();
        // Alive without a role: as little proof against a claim as one lost packet.
        if role == Role::Unknown && node.is_claimant() && !node.wavered() {
            if self.is_accepted(id) {
                self.suspect(Reason::NoRole);
            }
            return Change::Same;
        }
        let points_to = observation.points_to();
        let change = node.answered(now, lease, observation, turn);
        if node.turned == turn {
            self.turns = turn;
        }
        let is_claim = node.is_claimant();
        let (address, claim) = (node.endpoint.addr(), node.claim.clone());
        if is_claim {
            self.claims.insert(id);
            // Seen again: the age of the highest term, which is no news.
            if change == Change::Same
                && let Some(term) = claim.and_then(|claim| claim.term)
                && self
                    .memory
                    .highest()
                    .is_some_and(|highest| highest.term() == term)
            {
                let endpoint = Arc::clone(&self.nodes[&id].endpoint);
                self.memory.raise(term, &endpoint, now);
            }
        } else {
            self.claims.remove(&id);
        }
        let is_worth_it = change == Change::News || self.state != State::Stable;
        let is_known = |there| {
            let accepted = self.accepted().filter(|_| self.doubt.is_none());
            accepted.is_some_and(|endpoint| endpoint.addr() == there)
        };
        if let Some(there) = points_to
            && is_worth_it
            && there != address
            && !is_known(there)
        {
            self.look_at(now, there);
        }
        change
    }

    /// The probe of the node with this id failed.
    pub(super) fn failed(&mut self, id: u64, error: &Arc<ProbeError>) -> Change {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Change::Same;
        };
        let change = node.failed(error);
        if !node.is_claimant() {
            self.claims.remove(&id);
        }
        if self.is_accepted(id) {
            let error = Arc::clone(error);
            self.suspect(Reason::Unavailable { error });
        }
        change
    }

    /// The accepted one did not confirm its claim.
    pub(super) fn suspect(&mut self, why: Reason) {
        if self.doubt.as_ref().is_none_or(|doubt| !doubt.is_like(&why)) {
            self.report.take();
            self.doubt = Some(why);
        }
    }

    /// The accepted one claimed again just now.
    pub(super) fn confirm(&mut self, now: Instant, id: u64) {
        if !self.is_accepted(id) {
            return;
        }
        let node = &self.nodes[&id];
        if node.is_claimant() && node.has_just_answered() {
            self.reign.confirmed_at = Some(now);
            if self.doubt.take().is_some() {
                self.report.take();
            }
        }
    }

    /// An address where the primary is said to be.
    pub(super) fn look_at(&mut self, now: Instant, address: SocketAddr) {
        match self.addresses.get(&address) {
            Some(&id) => self.want_probe(now, Some(id)),
            None => self.demand.refresh(),
        }
    }

    pub(super) fn want_probe(&mut self, now: Instant, id: Option<u64>) {
        match id {
            None => self.demand.all(now),
            Some(id) => {
                if let Some(node) = self.nodes.get(&id) {
                    self.demand.one(now, id, node.checked);
                }
            }
        }
    }
}

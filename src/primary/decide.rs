//! Which claim is accepted: the rules that order claims, and the wait before the first.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{
    Accepted, Event, LastPrimary, Reason, Tracker,
    node::Node,
    order::{Claim, Rank},
};
use crate::{
    endpoint::Endpoint,
    probe::{Observation, Role},
};

/// A replica became primary while the accepted one claims to be it as well: that one is asked once more (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    by: u64,
    turn: u64,
}

impl Tracker {
    /// Decides anew which claim is accepted. Goes through the claims, not through all endpoints.
    pub(super) fn decide(&mut self, now: Instant) {
        if !self.settle(now) {
            return;
        }
        let is_one_cluster = self.learn();
        let fault = self.accepted_node().and_then(|node| self.fault(node));
        let incumbent = self.accepted_id().filter(|_| fault.is_none());
        let is_open = |id: &u64| self.fault(&self.nodes[id]).is_none();
        let open: Vec<u64> = self.claims.iter().copied().filter(is_open).collect();
        let top = self.undominated(open);
        let winner = self.choose(now, incumbent, &top, is_one_cluster);
        // A claim that was not renewed in time speaks against others, and not for itself.
        let is_fresh = |id: &u64| Some(*id) == incumbent || self.nodes[id].is_fresh(now);
        let winner = match winner {
            Some(_) => winner.filter(is_fresh).or(incumbent),
            None => None,
        };
        self.enact(now, winner, fault);
        self.watch_rebuild();
    }

    /// Whether an answer of this node calls for a decision although it says nothing new.
    pub(super) fn is_pending(&self, id: u64) -> bool {
        let undecided = self
            .conflict
            .as_ref()
            .is_some_and(|conflict| !conflict.is_decided);
        !self.is_settled || (undecided && self.claims.contains(&id))
    }

    /// R5: whether all were heard of, or the first claim has waited long enough for others.
    fn settle(&mut self, now: Instant) -> bool {
        if !self.is_settled {
            if self.claims.is_empty() {
                self.first_claim = None;
                return false;
            }
            let first = *self.first_claim.get_or_insert(now);
            self.is_settled = self.unheard == 0 || first + self.config.settle <= now;
        }
        self.is_settled
    }

    /// Takes the terms of all claims of this cluster, accepted or not (R1, R12). False if the claims are
    /// of more clusters than one and nothing says which is ours.
    fn learn(&mut self) -> bool {
        // The first time, also of those that fell silent while others were waited for.
        let silent: Vec<&Node> = if self.is_learned {
            Vec::new()
        } else {
            let nodes = self.nodes.values();
            nodes.filter(|node| !node.is_claimant()).collect()
        };
        let standing = || self.claims.iter().map(|id| &self.nodes[id]);
        let claims = || standing().chain(silent.iter().copied());
        if !self.memory.knows_cluster() {
            let mut lineages = claims().filter_map(|node| node.claim.as_ref());
            let first = lineages.find(|claim| claim.lineage.is_some());
            if first.is_some_and(|first| lineages.any(|other| !other.is_related(first))) {
                return false;
            }
        }
        let known = |node: &Node| {
            let claim = node.claim.clone()?;
            let is_ours = self.memory.rank(&claim) != Rank::Foreign;
            is_ours.then(|| (Arc::clone(&node.endpoint), claim, node.at))
        };
        let known: Vec<_> = claims().filter_map(known).collect();
        for (endpoint, claim, at) in &known {
            if let Some(term) = claim.term
                && self.memory.raise(term, endpoint, *at)
            {
                self.is_unjudged = true;
            }
        }
        // A fenced claim may be all there is: its cluster is ours as well.
        let highest = known.iter().max_by_key(|(_, claim, _)| claim.term);
        if !self.memory.knows_cluster()
            && let Some((_, claim, _)) = highest.filter(|(_, claim, _)| claim.term.is_some())
            && let Some(lineage) = &claim.lineage
        {
            let lineage = lineage.clone();
            self.memory.go_on_with(&lineage);
            self.is_unjudged = true;
        }
        self.is_learned = true;
        true
    }

    /// What is to be said against a node as the primary.
    pub(super) fn fault(&self, node: &Node) -> Option<Reason> {
        if let Some(reason) = self.rejection(node) {
            return Some(reason);
        }
        match node.role() {
            None => Some(node.silence()),
            Some(Role::Primary) => {
                let by = node.fence()?.into();
                Some(Reason::Fenced { by })
            }
            Some(Role::Replica) => Some(Reason::SteppedDown),
            Some(Role::Unknown) => Some(Reason::NoRole),
        }
    }

    /// The claims that no other goes on from. Those with a term all have the highest one here.
    fn undominated(&self, open: Vec<u64>) -> Vec<u64> {
        let claim = |id: &u64| self.nodes[id].claim.as_ref();
        let before: HashSet<&str> = open
            .iter()
            .filter_map(|id| {
                claim(id)
                    .filter(|claim| claim.previous() != claim.id())?
                    .previous()
            })
            .collect();
        let is_top = |id: &u64| {
            !claim(id)
                .and_then(Claim::id)
                .is_some_and(|id| before.contains(id))
        };
        let top: Vec<u64> = open.iter().copied().filter(is_top).collect();
        // Each goes on from another, in a circle: no order at all.
        if top.is_empty() { open } else { top }
    }

    /// Of claims that are unordered, the one to accept, if any.
    fn choose(
        &mut self,
        now: Instant,
        incumbent: Option<u64>,
        top: &[u64],
        is_one_cluster: bool,
    ) -> Option<u64> {
        let asked = self.challenge.take();
        if let [] | [_] = top {
            self.is_unjudged |= self.conflict.take().is_some();
            return top.first().copied();
        }
        let incumbent = incumbent.filter(|id| top.contains(id));
        let newest = self.newest_turn(top).filter(|_| is_one_cluster);
        match (incumbent, newest) {
            (None, Some(newest)) => {
                self.is_unjudged |= self.conflict.take().is_some();
                return Some(newest);
            }
            (Some(id), Some(newest)) if newest != id => {
                let turn = self.nodes[&newest].turned;
                if turn > self.answered_turn {
                    let challenge = Challenge { by: newest, turn };
                    self.challenge = Some(challenge);
                    if asked != Some(challenge) {
                        self.want_probe(now, Some(id));
                    }
                    self.is_unjudged |= self.conflict.take().is_some();
                    return Some(id);
                }
            }
            _ => {}
        }
        self.judge_conflict(incumbent, top, is_one_cluster)
    }

    /// R4: the claim that began with the newest observed step from replica to primary, where terms do not say more.
    fn newest_turn(&self, top: &[u64]) -> Option<u64> {
        let nodes = || top.iter().map(|id| (*id, &self.nodes[id]));
        let (id, newest) = nodes().max_by_key(|(_, node)| node.turned)?;
        let claim = newest.claim.as_ref()?;
        let is_newest = newest.turned > 0
            && nodes().all(|(other, node)| {
                let rival = node.claim.as_ref();
                other == id || !rival.is_some_and(|rival| rival.has_comparable_term(claim))
            });
        is_newest.then_some(id)
    }

    /// R4: the incumbent's next report decides a challenge. Silence is no confirmation; true if it was asked.
    pub(super) fn answer_challenge(&mut self, id: u64) -> bool {
        let Some(challenge) = self.challenge.filter(|_| self.is_accepted(id)) else {
            return false;
        };
        self.challenge = None;
        let node = &self.nodes[&id];
        if node.has_just_answered() && self.fault(node).is_none() {
            self.answered_turn = challenge.turn;
        } else if node.is_claimant() {
            self.claims.remove(&id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.end();
            }
        }
        true
    }

    /// Makes `winner` the accepted one. `fault`: what speaks against the one that is.
    fn enact(&mut self, now: Instant, winner: Option<u64>, fault: Option<Reason>) {
        let Some(id) = winner else {
            if self.accepted.is_some() {
                let why = fault.or_else(|| self.rivalry(self.accepted_id()));
                self.lose(now, why.unwrap_or(Reason::Unobserved));
            }
            return;
        };
        let node = &self.nodes[&id];
        let endpoint = Arc::clone(&node.endpoint);
        let claim = node.claim.clone().unwrap_or_default();
        match self.accepted.clone() {
            Some(old) if old.endpoint.id() == id && claim.continues(&old.claim) => {
                let known = claim.or(Some(old.claim.clone()));
                if known != old.claim {
                    self.install(endpoint, known, now);
                }
                return;
            }
            Some(old) if old.endpoint.id() == id => {}
            Some(old) => self.replace(now, old.endpoint, &endpoint, fault),
            None => {}
        }
        self.crown(now, endpoint, claim);
    }

    /// Another takes the place of the accepted one.
    fn replace(
        &mut self,
        now: Instant,
        old: Arc<Endpoint>,
        new: &Arc<Endpoint>,
        fault: Option<Reason>,
    ) {
        let why = fault.filter(|why| !why.is_stale());
        self.last = Some(LastPrimary {
            endpoint: Arc::clone(&old),
            lost: now,
            why: why.clone().unwrap_or_else(|| Reason::Superseded {
                by: Arc::clone(new),
            }),
        });
        self.accepted = None;
        if self.unlisted_until.take().is_some() {
            self.forget(old.id());
        }
        let new = Arc::clone(new);
        self.events.push(match why {
            Some(why) => Event::Lost { endpoint: old, why },
            None => Event::Superseded { old, new },
        });
    }

    /// Accepts a claim. The same endpoint with the same term is the same generation (R7).
    fn crown(&mut self, now: Instant, endpoint: Arc<Endpoint>, claim: Claim) {
        let before = self.reigned.take();
        let is_same = |before: &&Accepted| {
            before.endpoint.id() == endpoint.id() && claim.continues(&before.claim)
        };
        let same = before.as_ref().filter(is_same);
        let claim = match same {
            Some(before) => claim.or(Some(before.claim.clone())),
            None => {
                self.reign.generation += 1;
                self.reign.epoch += 1;
                self.hide_lag();
                self.ring.lose();
                claim
            }
        };
        let (generation, term) = (self.reign.generation, claim.term);
        self.events.push(Event::Accepted {
            endpoint: Arc::clone(&endpoint),
            term,
            generation,
        });
        if let Some(before) = before
            && let Some(term) = term.filter(|_| is_takeover(&before, &endpoint, &claim))
        {
            let new = Arc::clone(&endpoint);
            let old = before.endpoint;
            self.events.push(Event::SameTermTakeover { old, new, term });
        }
        let node = &self.nodes[&endpoint.id()];
        let at = node.at;
        self.doubt = node
            .error
            .clone()
            .map(|error| Reason::Unavailable { error });
        self.reign.confirmed_at = Some(at);
        self.install(endpoint, claim, at);
        // A state that stays Stable through a switch is another state all the same.
        self.state_since = Some(now);
    }

    /// Notes the accepted claim as far as it is known now.
    fn install(&mut self, endpoint: Arc<Endpoint>, claim: Claim, at: Instant) {
        self.remember(&endpoint, &claim, at);
        self.reign.term = claim.term;
        let accepted = Accepted { endpoint, claim };
        self.reigned = Some(accepted.clone());
        self.accepted = Some(accepted);
        self.is_unjudged = true;
        self.report.take();
    }

    /// The claim is what others are compared with.
    pub(super) fn remember(&mut self, endpoint: &Arc<Endpoint>, claim: &Claim, at: Instant) {
        if let Some(term) = claim.term {
            self.memory.raise(term, endpoint, at);
        }
        if let Some(lineage) = &claim.lineage {
            self.memory.go_on_with(lineage);
        }
    }

    /// There is no primary now.
    pub(super) fn lose(&mut self, now: Instant, why: Reason) {
        let Some(Accepted { endpoint, .. }) = self.accepted.take() else {
            return;
        };
        self.reign.epoch += 1;
        self.doubt = None;
        self.challenge = None;
        if self.unlisted_until.take().is_some() {
            self.forget(endpoint.id());
        }
        self.last = Some(LastPrimary {
            endpoint: Arc::clone(&endpoint),
            lost: now,
            why: why.clone(),
        });
        self.events.push(Event::Lost { endpoint, why });
        self.hide_lag();
        self.ring.lose();
        self.is_unjudged = true;
        self.report.take();
    }

    /// Whether a node is out of primary and replicas, also while it is silent (R2, R11).
    pub(super) fn rejection(&self, node: &Node) -> Option<Reason> {
        let current = || self.memory.current().cloned();
        if node.is_stranger || self.memory.is_foreign(node.lineage.as_ref()) {
            return Some(Reason::WrongCluster {
                id: node.lineage.as_ref().map(|lineage| lineage.id().into()),
                expected: current(),
            });
        }
        let claim = node.claim.as_ref()?;
        match self.memory.rank(claim) {
            Rank::Open | Rank::Foreign => None,
            Rank::Outranked => Some(Reason::StaleTerm {
                term: claim.term?,
                highest: self.memory.highest()?.clone(),
            }),
            Rank::Superseded => Some(Reason::StaleLineage {
                id: claim.id()?.into(),
                current: current()?,
            }),
        }
    }
}

/// R3: whether one took over in a term that another had, and was not the same server restarted.
fn is_takeover(before: &Accepted, endpoint: &Endpoint, claim: &Claim) -> bool {
    let is_same_pod = endpoint.name().is_some() && endpoint.name() == before.endpoint.name();
    let follows = claim.previous().is_some() && claim.previous() == before.claim.id();
    let is_other = before.endpoint.id() != endpoint.id();
    is_other && !is_same_pod && !follows && claim.term == before.claim.term
}

impl Node {
    /// Why its answer does not count.
    pub(super) fn silence(&self) -> Reason {
        match &self.error {
            Some(error) => Reason::Unavailable {
                error: Arc::clone(error),
            },
            None if self.is_heard => Reason::NoRole,
            None => Reason::Unobserved,
        }
    }

    pub(super) fn authority(&self) -> Option<crate::probe::Authority> {
        self.said().map(Observation::authority)
    }
}

//! Two primaries, and nothing orders them (R3).

use std::{iter, sync::Arc};

use super::{Event, Reason, Tracker};
use crate::{endpoint::Endpoint, probe::Observation};

/// Whose claim is accepted when more than one endpoint claims to be the primary, and neither terms nor
/// lineage say which of them came later: two replicas promoted on their own, or a source without terms.
///
/// None of these is safe: two servers took writes, and no client can tell which of them will be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnConflict {
    /// The one that a leader lock, a majority or an operator names
    /// ([`Authority::Quorum`](crate::Authority::Quorum)); the incumbent if that is none or more than one.
    Authority,
    /// The one whose data went furthest when the conflict began. It is kept as long as it lasts, or else
    /// two primaries that both take writes would be accepted in turn.
    HighestPosition,
    /// None, until one of them steps down. Writes stop.
    Hold,
    /// The one that was accepted before, and none if none was. The default: a second claim that proves
    /// nothing must not move writes away.
    #[default]
    PreferIncumbent,
}

/// Who is in a conflict, and what came of it.
#[derive(Debug)]
pub(super) struct Conflict {
    /// Ascending by id.
    claimants: Vec<Arc<Endpoint>>,
    kept: Option<u64>,
    /// Whether more answers of the same claimants cannot change the outcome.
    pub(super) is_decided: bool,
}

impl Tracker {
    /// Who is accepted among unordered claims; an event for each new set of claimants.
    pub(super) fn judge_conflict(
        &mut self,
        incumbent: Option<u64>,
        top: &[u64],
        is_one_cluster: bool,
    ) -> Option<u64> {
        let last = self.conflict.take();
        let is_same = last.as_ref().is_some_and(|last| {
            let ids = last.claimants.iter().map(|endpoint| endpoint.id());
            last.claimants.len() == top.len() && iter::zip(ids, top).all(|(a, b)| a == *b)
        });
        let settled = last.as_ref().filter(|last| is_same && last.is_decided);
        let highest = match settled.and_then(|last| last.kept) {
            Some(kept) => Some(kept),
            None => self.furthest(top).filter(|_| is_one_cluster),
        };
        let (kept, is_decided) = match self.config.on_conflict {
            OnConflict::Hold => (None, true),
            OnConflict::PreferIncumbent => (incumbent, true),
            OnConflict::Authority => (self.authorized(incumbent, top), true),
            OnConflict::HighestPosition => (highest.or(incumbent), highest.is_some()),
        };
        let conflict = Conflict {
            claimants: top
                .iter()
                .map(|id| Arc::clone(&self.nodes[id].endpoint))
                .collect(),
            kept,
            is_decided: is_decided || !is_one_cluster,
        };
        if !is_same || last.is_some_and(|last| last.kept != kept) {
            self.is_unjudged = true;
            self.report.take();
        }
        if !is_same {
            let endpoint = |id: u64| Arc::clone(&self.nodes[&id].endpoint);
            self.events.push(Event::Conflict {
                claimants: conflict.claimants.clone(),
                kept: kept.map(endpoint),
            });
        }
        self.conflict = Some(conflict);
        kept
    }

    /// The one that the highest authority names, or the incumbent among those that it names.
    fn authorized(&self, incumbent: Option<u64>, top: &[u64]) -> Option<u64> {
        let authority = |id: &&u64| self.nodes[*id].authority();
        let highest = top
            .iter()
            .max_by_key(authority)
            .and_then(|id| authority(&id));
        let mut named = top.iter().copied().filter(|id| authority(&id) == highest);
        let first = named.next();
        match named.next() {
            None => first,
            Some(_) => incumbent.filter(|id| authority(&id) == highest),
        }
    }

    /// The one whose data go furthest, if all positions are known and no two are furthest.
    fn furthest(&self, top: &[u64]) -> Option<u64> {
        let position = |id: &u64| {
            let node = &self.nodes[id];
            let told = node.said().and_then(Observation::position);
            told.or_else(|| Some(node.trail.last?.position))
        };
        if top.iter().any(|id| position(id).is_none()) {
            return None;
        }
        let furthest = top.iter().copied().max_by_key(position)?;
        let ties = top.iter().filter(|id| position(id) == position(&furthest));
        (ties.count() == 1).then_some(furthest)
    }

    /// An endpoint is gone: a conflict that it was in is another now.
    pub(super) fn forget_claimant(&mut self, id: u64) {
        let is_in =
            |conflict: &mut Conflict| conflict.claimants.iter().any(|other| other.id() == id);
        self.is_unjudged |= self.conflict.take_if(is_in).is_some();
    }

    /// The conflict that an endpoint is in, by one of the others.
    pub(super) fn rivalry(&self, id: Option<u64>) -> Option<Reason> {
        let conflict = self.conflict.as_ref()?;
        let is_in = |id: u64| {
            conflict
                .claimants
                .iter()
                .any(|endpoint| endpoint.id() == id)
        };
        if id.is_some_and(|id| !is_in(id)) {
            return None;
        }
        // Rather the one that is kept than any other.
        let others = || {
            conflict
                .claimants
                .iter()
                .filter(|other| Some(other.id()) != id)
        };
        let kept = others().find(|other| Some(other.id()) == conflict.kept);
        let with = Arc::clone(kept.or_else(|| others().next())?);
        Some(Reason::Conflict { with })
    }
}

//! What the claims seen so far say about another one: that it is superseded, of another cluster, or open.
//!
//! Terms order claims if both are known; a claim that names the data of another as those before its own
//! supersedes it. The rest is unordered: there is no vote here.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::{
    endpoint::Endpoint,
    probe::{Lineage, Observation, Term},
};

/// So many identities of the data are remembered. Redis takes a new one with each promotion, and a node
/// that slept through more promotions than that is as good as a stranger (primary R11).
const REMEMBERED: usize = 16;

/// What orders a node's claim to be the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) term: Option<Term>,
    pub(super) lineage: Option<Lineage>,
}

impl Claim {
    pub(super) fn of(observation: &Observation) -> Self {
        Self {
            term: observation.term(),
            lineage: observation.lineage().cloned(),
        }
    }

    /// Takes over from an earlier claim of the same node what this one does not tell: a probe that may
    /// see less than before does not make a superseded primary a fresh one.
    pub(super) fn or(self, earlier: Option<Self>) -> Self {
        let earlier = earlier.unwrap_or_default();
        Self {
            term: self.term.or(earlier.term),
            lineage: self.lineage.or(earlier.lineage),
        }
    }

    /// Whether both may be the same reign of one node: nothing that is known tells them apart.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        let ids = (self.id(), earlier.id());
        agree(self.term, earlier.term) && agree(ids.0, ids.1)
    }

    /// Whether terms alone say all there is to say between the two.
    pub(super) fn has_comparable_term(&self, other: &Self) -> bool {
        self.term.is_some() && other.term.is_some()
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.lineage.as_ref().map(Lineage::id)
    }

    pub(super) fn previous(&self) -> Option<&str> {
        self.lineage.as_ref()?.previous()
    }

    /// Whether the two can be of one cluster: one goes on from the other, or both from a third.
    pub(super) fn is_related(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (&self.lineage, &other.lineage) else {
            return true;
        };
        let shares = |id: Option<&str>| id.is_some() && (id == Some(b.id()) || id == b.previous());
        shares(Some(a.id())) || shares(a.previous())
    }
}

/// Whether two values are equal as far as both are known.
fn agree<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The highest term that was seen, on whom and when last.
#[derive(Clone, Debug)]
pub struct HighestTerm {
    term: Term,
    endpoint: Arc<Endpoint>,
    seen: Instant,
}

impl HighestTerm {
    /// The term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Who claimed it last.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// When that claim was seen last.
    pub fn seen(&self) -> Instant {
        self.seen
    }
}

/// What is known of the cluster: it outlives the endpoints that told it (primary R10).
#[derive(Debug, Default)]
pub(super) struct Memory {
    highest: Option<HighestTerm>,
    /// Of accepted primaries' data. The last is the current one.
    ids: VecDeque<Identity>,
}

#[derive(Debug)]
struct Identity {
    id: Arc<str>,
    /// An accepted primary went on from it. One that was merely accepted later did not: two replicas that
    /// were promoted beside each other both have data that the other has not.
    is_superseded: bool,
}

/// Where a claim stands among those seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Another cluster's (R11).
    Foreign,
    /// A higher term was seen (R2).
    Outranked,
    /// Others went on from its data (R2).
    Superseded,
    /// Nothing speaks against it.
    Open,
}

impl Memory {
    pub(super) fn rank(&self, claim: &Claim) -> Rank {
        if self.is_foreign(claim.lineage.as_ref()) {
            return Rank::Foreign;
        }
        let highest = self.highest.as_ref().map(|highest| highest.term);
        match claim.term.zip(highest) {
            Some((term, highest)) if term < highest => Rank::Outranked,
            Some((term, highest)) if term > highest => Rank::Open,
            _ if claim.id().is_some_and(|id| self.is_superseded(id)) => Rank::Superseded,
            _ => Rank::Open,
        }
    }

    pub(super) fn is_foreign(&self, lineage: Option<&Lineage>) -> bool {
        let Some(lineage) = lineage.filter(|_| self.knows_cluster()) else {
            return false;
        };
        !self.knows(lineage.id()) && !lineage.previous().is_some_and(|id| self.knows(id))
    }

    pub(super) fn knows_cluster(&self) -> bool {
        !self.ids.is_empty()
    }

    pub(super) fn current(&self) -> Option<&Arc<str>> {
        self.ids.back().map(|identity| &identity.id)
    }

    pub(super) fn highest(&self) -> Option<&HighestTerm> {
        self.highest.as_ref()
    }

    /// Notes the term of a claim of this cluster, accepted or not (R1, R12); true if it is a new highest.
    pub(super) fn raise(&mut self, term: Term, endpoint: &Arc<Endpoint>, seen: Instant) -> bool {
        let before = self.highest.as_ref();
        // The same term again is news only of when it was seen.
        if before.is_some_and(|highest| (term, seen) < (highest.term, highest.seen)) {
            return false;
        }
        let rises = before.is_none_or(|highest| term > highest.term);
        self.highest = Some(HighestTerm {
            term,
            endpoint: Arc::clone(endpoint),
            seen,
        });
        rises
    }

    /// The data with this lineage are the cluster's now.
    pub(super) fn go_on_with(&mut self, lineage: &Lineage) {
        if self.current().is_some_and(|id| **id == *lineage.id()) {
            return;
        }
        if let Some(previous) = lineage.previous() {
            self.note(previous, true);
        }
        self.note(lineage.id(), false);
        while self.ids.len() > REMEMBERED {
            self.ids.pop_front();
        }
    }

    /// Puts an identity last.
    fn note(&mut self, id: &str, is_superseded: bool) {
        self.ids.retain(|known| *known.id != *id);
        let id = id.into();
        self.ids.push_back(Identity { id, is_superseded });
    }

    /// Forgets terms, and which data go on from which.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn knows(&self, id: &str) -> bool {
        self.ids.iter().any(|known| *known.id == *id)
    }

    fn is_superseded(&self, id: &str) -> bool {
        let mut ids = self.ids.iter();
        ids.any(|known| *known.id == *id && known.is_superseded)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn claim(id: &str, previous: Option<&str>) -> Claim {
        let lineage = Lineage::of(id);
        Claim {
            term: None,
            lineage: Some(match previous {
                Some(previous) => lineage.after(previous),
                None => lineage,
            }),
        }
    }

    fn accept(memory: &mut Memory, claim: &Claim) {
        memory.go_on_with(claim.lineage.as_ref().unwrap());
    }

    #[test]
    fn a_promoted_node_supersedes_the_data_it_names_and_strangers_are_foreign() {
        let mut memory = Memory::default();
        accept(&mut memory, &claim("x", None));
        let promoted = claim("y", Some("x"));
        assert_eq!(memory.rank(&promoted), Rank::Open);
        accept(&mut memory, &promoted);
        assert_eq!(memory.rank(&claim("x", None)), Rank::Superseded);
        assert_eq!(memory.rank(&claim("empty", None)), Rank::Foreign);
        // It was promoted beside y, from the same data: neither is before the other.
        let beside = claim("z", Some("x"));
        accept(&mut memory, &beside);
        for open in [&promoted, &beside] {
            assert_eq!(memory.rank(open), Rank::Open);
        }
    }

    #[test]
    fn the_data_before_the_first_accepted_ones_are_known_too() {
        let mut memory = Memory::default();
        accept(&mut memory, &claim("y", Some("x")));
        assert_eq!(memory.rank(&claim("x", None)), Rank::Superseded);
    }

    #[test]
    fn sixteen_identities_are_remembered() {
        let mut memory = Memory::default();
        for i in 0..17 {
            accept(&mut memory, &claim(&i.to_string(), None));
        }
        assert_eq!(memory.rank(&claim("0", None)), Rank::Foreign);
        assert_eq!(memory.rank(&claim("1", None)), Rank::Open);
    }

    #[test]
    fn a_higher_term_wins_over_what_lineages_say() {
        let now = Instant::now();
        let address = SocketAddr::from(([10, 0, 0, 1], 5432)).into();
        let endpoint = Arc::new(Endpoint::new(address, now));
        let mut memory = Memory::default();
        accept(&mut memory, &claim("x", None));
        accept(&mut memory, &claim("y", Some("x")));
        assert!(memory.raise(Term::new(4), &endpoint, now));
        assert!(
            !memory.raise(Term::new(4), &endpoint, now)
                && !memory.raise(Term::new(3), &endpoint, now)
        );
        let in_term = |term, claim: Claim| Claim {
            term: Some(Term::new(term)),
            ..claim
        };
        assert_eq!(memory.rank(&in_term(5, claim("x", None))), Rank::Open);
        assert_eq!(memory.rank(&in_term(4, claim("x", None))), Rank::Superseded);
        assert_eq!(memory.rank(&in_term(3, claim("y", None))), Rank::Outranked);
        assert_eq!(memory.rank(&in_term(9, claim("w", None))), Rank::Foreign);
    }
}

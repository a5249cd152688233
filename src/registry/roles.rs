//! Which endpoint is the primary: claims observed by probes, ordered by term.
//!
//! A primary is observed, never elected. A claim of a lower term than any seen is refused, whoever
//! makes it; between claims that terms do not order, the incumbent stays.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    probe::{Observation, ProbeError, Role, Term},
    set::Reign,
};

/// So many passing probe failures in a row end what was observed. One lost packet does not.
const FALL: u32 = 2;

/// What the probes say of the endpoints of a set, by endpoint id. Empty without a probe.
#[derive(Debug, Default)]
pub(super) struct Roles {
    claims: HashMap<u64, Claim>,
    /// The highest term ever seen.
    max_term: Option<Term>,
    /// The endpoint whose claim is accepted.
    primary: Option<u64>,
    reign: Reign,
    /// The claim accepted last.
    last: Option<(u64, Option<Term>)>,
}

/// What the probe last said of one endpoint.
#[derive(Clone, Debug, Default)]
struct Claim {
    /// Its last answer, while that counts.
    seen: Option<(Observation, Instant)>,
    /// When it began to claim that it is the primary.
    primary_since: Option<Instant>,
    /// The term of its last answer, if that was such a claim. Silence does not clear it: a primary that
    /// was superseded and hangs has diverging data all the same.
    claimed: Option<Term>,
    failures: u32,
}

impl Roles {
    /// Takes what a probe saw, and decides anew which claim is accepted.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        id: u64,
        result: Result<Observation, ProbeError>,
    ) {
        self.claims.entry(id).or_default().update(now, result);
        self.accept();
    }

    /// Forgets an endpoint that left the set.
    pub(super) fn forget(&mut self, id: u64) {
        if self.claims.remove(&id).is_some() {
            self.accept();
        }
    }

    /// Ends what was observed longer ago than `lease`: a probe that hangs must not leave a role standing.
    pub(super) fn expire(&mut self, now: Instant, lease: Duration) {
        for claim in self.claims.values_mut() {
            if claim
                .seen
                .as_ref()
                .is_some_and(|(_, at)| *at + lease <= now)
            {
                claim.end();
            }
        }
        self.accept();
    }

    /// When the first of them expires.
    pub(super) fn deadline(&self, lease: Duration) -> Option<Instant> {
        self.claims
            .values()
            .filter_map(|claim| Some(claim.seen.as_ref()?.1 + lease))
            .min()
    }

    /// Whether nothing was ever observed: no endpoint need be looked up.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// How many endpoints were observed, or failed to be, at least once.
    pub(super) fn observed(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn is_primary(&self, id: u64) -> bool {
        self.primary == Some(id)
    }

    /// Whether the endpoint is a primary that was superseded.
    pub(super) fn is_stale(&self, id: u64) -> bool {
        self.claims
            .get(&id)
            .is_some_and(|claim| self.is_outranked(claim))
    }

    pub(super) fn role(&self, id: u64) -> Role {
        self.claims.get(&id).map_or(Role::Unknown, Claim::role)
    }

    pub(super) fn confirmed_at(&self) -> Option<Instant> {
        let claim = self.claims.get(&self.primary?)?;
        claim.seen.as_ref().map(|(_, at)| *at)
    }

    pub(super) fn reign(&self) -> Reign {
        self.reign
    }

    fn accept(&mut self) {
        let before = self.primary;
        self.choose();
        let claimed = |id| self.claims.get(&id).and_then(|claim| claim.claimed);
        let now = self.primary.map(|id| (id, claimed(id)));
        if before.is_some() && before != self.primary {
            self.reign.epoch += 1;
        }
        if let Some((_, term)) = now.filter(|_| now != self.last) {
            self.reign.generation += 1;
            self.reign.epoch += 1;
            self.reign.term = term;
            self.last = now;
        }
    }

    fn choose(&mut self) {
        let claims = || {
            self.claims
                .iter()
                .filter(|(_, claim)| claim.role() == Role::Primary)
        };
        self.max_term = claims()
            .filter_map(|(_, claim)| claim.claimed)
            .max()
            .max(self.max_term);
        let valid = || claims().filter(|(_, claim)| !self.is_outranked(claim));
        if valid().any(|(id, _)| self.primary == Some(*id)) {
            return;
        }
        self.primary = valid()
            .min_by_key(|(id, claim)| (Reverse(claim.claimed), claim.primary_since, **id))
            .map(|(id, _)| *id);
    }

    fn is_outranked(&self, claim: &Claim) -> bool {
        claim.claimed.is_some_and(|term| Some(term) < self.max_term)
    }
}

impl Claim {
    fn update(&mut self, now: Instant, result: Result<Observation, ProbeError>) {
        match result {
            Ok(observation) => {
                let is_primary = observation.role() == Role::Primary;
                self.failures = 0;
                self.claimed = observation.term().filter(|_| is_primary);
                self.seen = Some((observation, now));
                self.primary_since = is_primary.then(|| self.primary_since.unwrap_or(now));
            }
            Err(error) => {
                self.failures += 1;
                if error.is_definitive() || self.failures >= FALL {
                    self.end();
                }
            }
        }
    }

    fn end(&mut self) {
        self.seen = None;
        self.primary_since = None;
    }

    fn role(&self) -> Role {
        self.seen
            .as_ref()
            .map_or(Role::Unknown, |(observation, _)| observation.role())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies observations in order, one a second, and tells the primary after each.
    fn primaries(seen: &[(u64, Observation)]) -> Vec<Option<u64>> {
        let (start, mut roles) = (Instant::now(), Roles::default());
        let after = |(i, (id, observation)): (u32, &(u64, Observation))| {
            roles.observe(
                start + Duration::from_secs(1) * i,
                *id,
                Ok(observation.clone()),
            );
            roles.primary
        };
        (0..).zip(seen).map(after).collect()
    }

    fn primary_in(term: u128) -> Observation {
        Observation::of(Role::Primary).in_term(Term::new(term))
    }

    #[test]
    fn a_higher_term_wins_at_once_and_a_lower_one_never() {
        let seen = [
            (1, primary_in(4)),
            (2, primary_in(5)),
            (1, primary_in(4)),
            (2, Role::Replica.into()),
        ];
        assert_eq!(primaries(&seen), [Some(1), Some(2), Some(2), None]);
    }

    #[test]
    fn between_equal_claims_the_incumbent_stays_until_it_steps_down() {
        let claim = Observation::of(Role::Primary);
        let seen = [
            (2, claim.clone()),
            (1, claim.clone()),
            (2, claim),
            (2, Role::Replica.into()),
        ];
        assert_eq!(primaries(&seen), [Some(2), Some(2), Some(2), Some(1)]);
    }

    #[test]
    fn one_passing_failure_keeps_a_claim_two_or_a_definitive_one_end_it() {
        let now = Instant::now();
        let claimed = || {
            let mut roles = Roles::default();
            roles.observe(now, 1, Ok(Role::Primary.into()));
            roles
        };
        let mut roles = claimed();
        roles.observe(now, 1, Err(ProbeError::passing("timeout")));
        assert!(roles.is_primary(1));
        roles.observe(now, 1, Err(ProbeError::passing("timeout")));
        assert!(!roles.is_primary(1));
        let mut roles = claimed();
        roles.observe(now, 1, Err(ProbeError::definitive("refused")));
        assert!(!roles.is_primary(1));
    }

    #[test]
    fn a_claim_that_is_not_renewed_expires() {
        let (now, lease) = (Instant::now(), Duration::from_secs(3));
        let mut roles = Roles::default();
        roles.observe(now, 1, Ok(Role::Primary.into()));
        assert_eq!(roles.deadline(lease), Some(now + lease));
        roles.expire(now + lease - Duration::from_millis(1), lease);
        assert!(roles.is_primary(1));
        roles.expire(now + lease, lease);
        assert!(!roles.is_primary(1));
        assert_eq!(roles.deadline(lease), None);
    }

    #[test]
    fn a_superseded_primary_stays_rejected_when_it_falls_silent_until_it_follows() {
        let (now, lease) = (Instant::now(), Duration::from_secs(3));
        let mut roles = Roles::default();
        roles.observe(now, 1, Ok(primary_in(4)));
        roles.observe(now, 2, Ok(primary_in(5)));
        assert!(roles.is_stale(1) && !roles.is_stale(2));
        roles.observe(now, 1, Err(ProbeError::definitive("refused")));
        assert!(roles.is_stale(1));
        roles.expire(now + lease, lease);
        assert!(roles.is_stale(1));
        roles.observe(now + lease, 1, Ok(Role::Replica.into()));
        assert!(!roles.is_stale(1));
    }
}

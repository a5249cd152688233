//! Which endpoint is the primary: claims observed by probes, ordered by term.
//!
//! A primary is observed, never elected. A claim of a lower term than any seen is refused, whoever
//! makes it; between claims that terms do not order, the incumbent stays.

use std::{cmp::Reverse, time::Duration};

use tokio::time::Instant;

use crate::probe::{Observation, ProbeError, Role, Term};

/// So many passing probe failures in a row end what was observed. One lost packet does not.
const FALL: u32 = 2;

/// What the probe last said of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claim {
    seen: Option<(Observation, Instant)>,
    /// When the endpoint began to claim that it is the primary.
    primary_since: Option<Instant>,
    failures: u32,
}

impl Claim {
    pub(super) fn update(&mut self, now: Instant, result: Result<Observation, ProbeError>) {
        match result {
            Ok(observation) => {
                self.failures = 0;
                self.seen = Some((observation, now));
                self.primary_since = (observation.role() == Role::Primary)
                    .then(|| self.primary_since.unwrap_or(now));
            }
            Err(error) => {
                self.failures += 1;
                if error.is_definitive() || self.failures >= FALL {
                    self.seen = None;
                    self.primary_since = None;
                }
            }
        }
    }

    /// Forgets what is older than `lease`: a probe that hangs must not leave a role standing.
    pub(super) fn expire(&mut self, now: Instant, lease: Duration) {
        if self.expires(lease).is_some_and(|end| end <= now) {
            self.seen = None;
            self.primary_since = None;
        }
    }

    #[inline]
    pub(super) fn expires(&self, lease: Duration) -> Option<Instant> {
        self.seen.map(|(_, at)| at + lease)
    }

    #[inline]
    pub(super) fn role(&self) -> Role {
        self.seen
            .map_or(Role::Unknown, |(observation, _)| observation.role())
    }

    #[inline]
    fn term(&self) -> Option<Term> {
        self.seen.and_then(|(observation, _)| observation.term())
    }
}

/// The accepted primary and the highest term ever seen.
#[derive(Debug, Default)]
pub(super) struct Roles {
    max_term: Option<Term>,
    primary: Option<u64>,
}

impl Roles {
    /// Decides anew which claim is accepted, from all claims by endpoint id.
    pub(super) fn accept<'c>(&mut self, claims: impl Iterator<Item = (u64, &'c Claim)> + Clone) {
        let mut primaries = claims
            .filter(|(_, claim)| claim.role() == Role::Primary)
            .peekable();
        if primaries.peek().is_none() {
            // One look at each claim, for all the services that have no primary.
            self.primary = None;
            return;
        }
        self.max_term = primaries
            .clone()
            .filter_map(|(_, claim)| claim.term())
            .max()
            .max(self.max_term);
        let valid = primaries.filter(|(_, claim)| !self.is_stale(claim));
        if valid.clone().any(|(id, _)| self.primary == Some(id)) {
            return;
        }
        self.primary = valid
            .min_by_key(|(_, claim)| (Reverse(claim.term()), claim.primary_since))
            .map(|(id, _)| id);
    }

    #[inline]
    pub(super) fn is_primary(&self, id: u64) -> bool {
        self.primary == Some(id)
    }

    /// Whether the claim is that of a primary that was superseded.
    #[inline]
    pub(super) fn is_stale(&self, claim: &Claim) -> bool {
        claim.role() == Role::Primary && claim.term().is_some_and(|term| Some(term) < self.max_term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies observations in order, one a second, and tells the primary after each.
    fn primaries(seen: &[(u64, Observation)]) -> Vec<Option<u64>> {
        let start = Instant::now();
        let (mut roles, mut claims) = (Roles::default(), [Claim::default(); 4]);
        let after = |(i, &(id, observation)): (u32, &(u64, Observation))| {
            claims[id as usize].update(start + Duration::from_secs(1) * i, Ok(observation));
            roles.accept((0..).zip(&claims));
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
            (2, claim),
            (1, claim),
            (2, claim),
            (2, Role::Replica.into()),
        ];
        assert_eq!(primaries(&seen), [Some(2), Some(2), Some(2), Some(1)]);
    }

    #[test]
    fn one_passing_failure_keeps_a_claim_two_or_a_definitive_one_end_it() {
        let now = Instant::now();
        let claimed = || {
            let mut claim = Claim::default();
            claim.update(now, Ok(Role::Primary.into()));
            claim
        };
        let mut claim = claimed();
        claim.update(now, Err(ProbeError::passing("timeout")));
        assert_eq!(claim.role(), Role::Primary);
        claim.update(now, Err(ProbeError::passing("timeout")));
        assert_eq!(claim.role(), Role::Unknown);
        let mut claim = claimed();
        claim.update(now, Err(ProbeError::definitive("refused")));
        assert_eq!(claim.role(), Role::Unknown);
    }

    #[test]
    fn a_claim_that_is_not_renewed_expires() {
        let (now, lease) = (Instant::now(), Duration::from_secs(3));
        let mut claim = Claim::default();
        claim.update(now, Ok(Role::Primary.into()));
        claim.expire(now + lease - Duration::from_millis(1), lease);
        assert_eq!(claim.role(), Role::Primary);
        claim.expire(now + lease, lease);
        assert_eq!(claim.role(), Role::Unknown);
    }
}

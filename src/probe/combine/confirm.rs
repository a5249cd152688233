//! One that grants the role, and one that sees whether the node has taken it.

use std::time::Duration;

use tokio::time::Instant;

use super::{ask, either, of_one_cluster};
use crate::{
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, Role},
};

/// The probe that decides who may be the primary; `.confirm(..)` adds the witness that sees whether it is.
///
/// A claim needs both. Alone, who holds a lock may be hung or still in recovery, and who takes writes may have
/// lost the lock:
///
/// | the witness sees | the authority says | together |
/// |---|---|---|
/// | a primary, or one alive without a role | primary | **primary** |
/// | a primary | anything else | fenced: it takes writes and may not. Not a replica, for its data may diverge |
/// | one alive without a role | anything else | as the authority says |
/// | a primary, or one alive without a role | nothing: it failed | that failure, which ends no claim alone: the node answers |
/// | a replica | (not asked) | replica: what is in recovery takes no write, whoever holds the lock |
/// | one that is mute: credentials, TLS, no connection left | not the primary | as the authority says |
/// | any other failure | (not asked) | that failure: the witness is the node |
///
/// Term, lineage and position are the witness's where it tells them, else the authority's: the node knows its
/// own data best. So terms of both must be of one kind. The [`Authority`](crate::Authority) of the claim is the
/// authority's. If they name different clusters the node is of another cluster.
///
/// One is asked after the other, each within its own timeout and both within the longer one, at the shorter
/// interval. A primary's lock is asked for
/// once in the authority's own interval: `authority(Patroni::new()).confirm(..)` over an open session to the
/// database notices a change there within 250 ms, and asks the primary's Patroni once a second and no replica's.
///
/// ```
/// use headless_lb::{Patroni, probe::{Tcp, authority}};
///
/// let probe = authority(Patroni::new()).confirm(Tcp::new());
/// # let _ = probe;
/// ```
pub fn authority<A: Probe>(authority: A) -> Authoritative<A> {
    Authoritative { authority }
}

/// A probe that decides and waits for one that confirms; made by [`authority`].
#[derive(Clone, Copy, Debug)]
#[must_use = "it needs a probe that confirms"]
pub struct Authoritative<A> {
    authority: A,
}

impl<A: Probe> Authoritative<A> {
    /// A claim needs this probe, too.
    pub fn confirm<B: Probe>(self, witness: B) -> Confirm<A, B> {
        Confirm {
            authority: self.authority,
            witness,
        }
    }
}

/// The probe that [`Authoritative::confirm`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Confirm<A, B> {
    authority: A,
    witness: B,
}

impl<A: Probe, B: Probe> Probe for Confirm<A, B> {
    /// The sessions, and what the authority said last and when.
    type Session = (
        Option<A::Session>,
        Option<B::Session>,
        Option<(Observation, Instant)>,
    );

    async fn open(&self, _: &Endpoint) -> Result<(Self::Session, Option<Observation>), ProbeError> {
        Ok(((None, None, None), None))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        (authority, witness, last): &mut Self::Session,
    ) -> Result<Observation, ProbeError> {
        let saw = ask(&self.witness, endpoint, witness).await;
        let is_claimed = match &saw {
            Ok(saw) if saw.role() == Role::Replica => return Ok(saw.clone()),
            Ok(saw) => saw.role() == Role::Primary,
            Err(error) if error.failure().is_mute() => false,
            Err(_) => return saw,
        };
        // Only a word for a claim is reused: one against it must not outlive the promotion.
        let granted = last.take().filter(|(said, at)| {
            let is_recent = at.elapsed() < self.authority.interval();
            is_claimed && is_recent && said.role() == Role::Primary
        });
        let said = match granted {
            Some((said, at)) => {
                let aged = said.clone().aged(at.elapsed());
                *last = Some((said, at));
                Ok(aged)
            }
            None => {
                let said = ask(&self.authority, endpoint, authority).await;
                *last = said
                    .as_ref()
                    .ok()
                    .map(|said| (said.clone(), Instant::now()));
                said
            }
        };
        together(said, saw)
    }

    async fn signalled(&self, (authority, witness, _): &mut Self::Session) {
        either(&self.authority, authority, &self.witness, witness).await;
    }

    fn interval(&self) -> Duration {
        self.authority.interval().min(self.witness.interval())
    }

    fn timeout(&self) -> Duration {
        self.authority.timeout().max(self.witness.timeout())
    }
}

/// The rows of the table of [`authority`] for which both are asked.
fn together(
    said: Result<Observation, ProbeError>,
    saw: Result<Observation, ProbeError>,
) -> Result<Observation, ProbeError> {
    let (said, saw) = match (said, saw) {
        (Ok(said), Ok(saw)) => (said, saw),
        (Ok(said), Err(_)) if said.role() != Role::Primary => return Ok(said),
        (Ok(_), Err(mute)) => return Err(mute),
        (Err(error), Ok(_)) => return Err(error.unproven()),
        (Err(error), Err(mute)) => return Err(mute.after(&error)),
    };
    of_one_cluster(&said, &saw)?;
    if saw.role() == Role::Primary && said.role() != Role::Primary {
        return Ok(saw.disowned("the authority does not call it the primary"));
    }
    let (role, by) = (said.role(), said.authority());
    // What the authority withholds from a claim that it fences, its term, is not the witness's to add.
    let saw = match said.fence() {
        Some(_) => saw.without_term(),
        None => saw,
    };
    Ok(saw.completed_by(&said).in_role(role).by_authority(by))
}

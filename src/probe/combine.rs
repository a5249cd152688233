//! Two probes as one.

use std::{future, time::Duration};

use tokio::time::timeout;

use super::{Observation, Probe, ProbeError, ProbeFailure, Role};
use crate::endpoint::Endpoint;

#[cfg(test)]
mod cases;
mod confirm;

pub use confirm::{Authoritative, Confirm, authority};

/// Two probes, of which the second is asked only when the first fails.
///
/// Where the better source may be missing: an HTTP interface that not every node has, say. A failure of any
/// kind is one; when both fail, the second one's counts and its source names both. Mind that the second can then
/// make a claim alone, with its own authority and terms: for two that must agree there is
/// [`authority(a).confirm(b)`](authority).
///
/// The first may take its own [`timeout`](Probe::timeout), then the second its own; the timeout of both is the
/// sum. The interval is the first's, for it is the one that is asked as a rule. After a failure the first is
/// opened anew with each question; when its session has ended, before the second is asked.
///
/// ```
/// use headless_lb::{probe::{HttpStatus, Tcp, first}};
///
/// let probe = first(HttpStatus::new("/primary", 8000), Tcp::new());
/// # let _ = probe;
/// ```
pub fn first<A: Probe, B: Probe>(first: A, then: B) -> FirstOf<A, B> {
    FirstOf { first, then }
}

/// The probe that [`first`] makes.
#[derive(Clone, Copy, Debug)]
pub struct FirstOf<A, B> {
    first: A,
    then: B,
}

impl<A: Probe, B: Probe> Probe for FirstOf<A, B> {
    type Session = (Option<A::Session>, Option<B::Session>);

    async fn open(&self, _: &Endpoint) -> Result<(Self::Session, Option<Observation>), ProbeError> {
        Ok(((None, None), None))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        (first, then): &mut Self::Session,
    ) -> Result<Observation, ProbeError> {
        let was_open = first.is_some();
        let asked = match ask(&self.first, endpoint, first).await {
            // The end of a session proves nothing; whether another can be opened does.
            Err(error) if was_open && error.failure() == ProbeFailure::Closed => {
                ask(&self.first, endpoint, first).await
            }
            asked => asked,
        };
        let failed = match asked {
            Ok(seen) => {
                // Its connection may cost the server something.
                *then = None;
                return Ok(seen);
            }
            Err(error) => error,
        };
        let asked = ask(&self.then, endpoint, then).await;
        asked.map_err(|error| error.after(&failed))
    }

    async fn signalled(&self, (first, then): &mut Self::Session) {
        either(&self.first, first, &self.then, then).await;
    }

    fn interval(&self) -> Duration {
        self.first.interval()
    }

    fn timeout(&self) -> Duration {
        self.first.timeout() + self.then.timeout()
    }
}

/// Two probes that must both succeed, and neither of which is above the other.
///
/// For a condition besides the role: something that must be alive, too. One that does not tell a role
/// ([`Role::Unknown`]) leaves it to the other; if one says primary and the other replica, the node is a
/// fenced primary. What the first does not tell (term, lineage, position) the second does. For
/// one that decides and one that agrees there is [`authority(a).confirm(b)`](authority).
///
/// Both are asked at once, each within its own timeout, at the shorter interval. A claim holds as long as the
/// shorter lease of the two.
///
/// ```
/// use headless_lb::{probe::{HttpStatus, Tcp, all}};
///
/// let probe = all(HttpStatus::new("/primary", 8000), Tcp::new());
/// # let _ = probe;
/// ```
pub fn all<A: Probe, B: Probe>(one: A, other: B) -> All<A, B> {
    All { one, other }
}

/// The probe that [`all`] makes.
#[derive(Clone, Copy, Debug)]
pub struct All<A, B> {
    one: A,
    other: B,
}

impl<A: Probe, B: Probe> Probe for All<A, B> {
    type Session = (Option<A::Session>, Option<B::Session>);

    async fn open(&self, _: &Endpoint) -> Result<(Self::Session, Option<Observation>), ProbeError> {
        Ok(((None, None), None))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        (one, other): &mut Self::Session,
    ) -> Result<Observation, ProbeError> {
        match tokio::join!(
            ask(&self.one, endpoint, one),
            ask(&self.other, endpoint, other)
        ) {
            (Ok(one), Ok(other)) => both(&one, &other),
            (Err(one), Err(other)) if other.is_definitive() && !one.is_definitive() => {
                Err(other.after(&one))
            }
            (Err(one), Err(other)) => Err(one.after(&other)),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    async fn signalled(&self, (one, other): &mut Self::Session) {
        either(&self.one, one, &self.other, other).await;
    }

    fn interval(&self) -> Duration {
        self.one.interval().min(self.other.interval())
    }

    fn timeout(&self) -> Duration {
        self.one.timeout().max(self.other.timeout())
    }
}

/// What two of the same rank saw.
fn both(one: &Observation, other: &Observation) -> Result<Observation, ProbeError> {
    of_one_cluster(one, other)?;
    let seen = one.clone().completed_by(other);
    Ok(match (one.role(), other.role()) {
        (role, Role::Unknown) => seen.in_role(role),
        (Role::Unknown, role) => seen.in_role(role).by_authority(other.authority()),
        (one, other) if one != other => seen.disowned("one probe calls it a replica"),
        (role, _) => seen
            .in_role(role)
            .by_authority(one.authority().max(other.authority())),
    })
}

/// Two that do not speak of the same data do not speak of the same node.
fn of_one_cluster(one: &Observation, other: &Observation) -> Result<(), ProbeError> {
    match (one.lineage(), other.lineage()) {
        (Some(one), Some(other)) if one.id() != other.id() => {
            let text = format!(
                "one probe sees cluster {}, the other {}",
                one.id(),
                other.id()
            );
            Err(ProbeError::new(ProbeFailure::WrongCluster, text))
        }
        _ => Ok(()),
    }
}

/// Asks a part, which opens its session first if it has none, in the part's own time: that of the whole may be
/// longer, for the other's sake. One that failed, or was dropped meanwhile, is not used again: it may hold half
/// a reply.
async fn ask<P: Probe>(
    probe: &P,
    endpoint: &Endpoint,
    session: &mut Option<P::Session>,
) -> Result<Observation, ProbeError> {
    let kept = session.take();
    let asking = async {
        let (mut open, seen) = match kept {
            Some(open) => (open, None),
            None => probe.open(endpoint).await?,
        };
        let seen = match seen {
            Some(seen) => seen,
            None => probe.observe(endpoint, &mut open).await?,
        };
        Ok((open, seen))
    };
    let asked = timeout(probe.timeout(), asking).await;
    let (open, seen) =
        asked.map_err(|elapsed| ProbeError::new(ProbeFailure::Timeout, elapsed))??;
    *session = Some(open);
    Ok(seen)
}

/// Completes when one of them has something to say.
async fn either<A: Probe, B: Probe>(
    one: &A,
    first: &mut Option<A::Session>,
    other: &B,
    second: &mut Option<B::Session>,
) {
    tokio::select! {
        () = signalled(one, first) => {}
        () = signalled(other, second) => {}
    }
}

async fn signalled<P: Probe>(probe: &P, session: &mut Option<P::Session>) {
    match session {
        Some(session) => probe.signalled(session).await,
        None => future::pending().await,
    }
}

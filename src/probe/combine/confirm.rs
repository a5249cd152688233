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
/// One is asked after the other, within the longer timeout, at the shorter interval. A primary's lock is asked for
/// once in the authority's own interval: `authority(Patroni::new()).confirm(..)` over an open session to the
/// database notices a change there within 250 ms, and asks the primary's Patroni once a second and no replica's.
///
/// ```
/// use headless_lb::{Patroni, Tcp, authority};
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

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        net::SocketAddr,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::{sync::Mutex, time::advance};

    use super::*;
    use crate::probe::{Authority, Lineage, ProbeFailure, Term, all, first};

    type Answer = Result<Observation, ProbeFailure>;

    /// Says these in turn, one on each question; a session is the number of times it was opened.
    struct Script {
        answers: Mutex<VecDeque<Answer>>,
        opened: AtomicUsize,
        interval: Duration,
    }

    impl Probe for &'static Script {
        type Session = usize;

        async fn open(&self, _: &Endpoint) -> Result<(usize, Option<Observation>), ProbeError> {
            Ok((self.opened.fetch_add(1, Relaxed) + 1, None))
        }

        async fn observe(&self, _: &Endpoint, _: &mut usize) -> Result<Observation, ProbeError> {
            let answer = self.answers.lock().await.pop_front();
            match answer.expect("an answer for each question") {
                // Who says nothing is silent until the time is over.
                Err(ProbeFailure::Timeout) => std::future::pending().await,
                Err(failure) => Err(ProbeError::new(failure, "scripted")),
                Ok(seen) => Ok(seen),
            }
        }

        async fn signalled(&self, session: &mut usize) {
            if *session != 2 {
                std::future::pending().await
            }
        }

        fn interval(&self) -> Duration {
            self.interval
        }
    }

    fn script(answers: impl IntoIterator<Item = Answer>, interval: u64) -> &'static Script {
        Box::leak(Box::new(Script {
            answers: Mutex::new(answers.into_iter().collect()),
            opened: AtomicUsize::new(0),
            interval: Duration::from_millis(interval),
        }))
    }

    fn of(role: Role) -> Observation {
        Observation::of(role)
    }

    fn left(script: &Script) -> usize {
        script.answers.try_lock().unwrap().len()
    }

    fn endpoint() -> Endpoint {
        Endpoint::new(
            SocketAddr::from(([10, 0, 0, 1], 5432)).into(),
            Instant::now(),
        )
    }

    /// Opens, asks once.
    async fn once(probe: &impl Probe) -> Result<Observation, ProbeError> {
        let (mut session, _) = probe.open(&endpoint()).await?;
        probe.observe(&endpoint(), &mut session).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_needs_both() {
        use Role::{Primary, Replica, Unknown};
        // Witness, authority, and what they are together; `None` for one that is not asked.
        let table = [
            (Primary, Some(Primary), Primary, false),
            (Unknown, Some(Primary), Primary, false),
            (Primary, Some(Replica), Primary, true),
            (Primary, Some(Unknown), Primary, true),
            (Unknown, Some(Replica), Replica, false),
            (Unknown, Some(Unknown), Unknown, false),
            (Replica, None, Replica, false),
        ];
        for (saw, said, role, fenced) in table {
            let by_quorum = |role| Ok(of(role).by_authority(Authority::Quorum));
            let asked = script(said.map(by_quorum), 1000);
            let probe = authority(asked).confirm(script([Ok(of(saw).in_term(Term::new(3)))], 250));
            let seen = once(&probe).await.unwrap();
            let case = format!("{saw} {said:?}: {seen:?}");
            assert_eq!(
                (seen.role(), seen.fence().is_some()),
                (role, fenced),
                "{case}"
            );
            assert_eq!(left(asked), 0, "{case}");
            assert_eq!(seen.term().is_none(), fenced, "{case}");
            if seen.role() == Primary && !fenced {
                assert_eq!(seen.authority(), Authority::Quorum, "{case}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_witness_is_the_nodes_unless_it_is_only_mute() {
        for failure in [
            ProbeFailure::Refused,
            ProbeFailure::Closed,
            ProbeFailure::Starting,
        ] {
            let asked = script([], 1000);
            let probe = authority(asked).confirm(script([Err(failure)], 250));
            assert_eq!(once(&probe).await.unwrap_err().failure(), failure);
        }
        for mute in [
            ProbeFailure::Saturated,
            ProbeFailure::Auth,
            ProbeFailure::Tls,
        ] {
            let probe = |said| authority(script([said], 1000)).confirm(script([Err(mute)], 250));
            let replica = once(&probe(Ok(of(Role::Replica)))).await.unwrap();
            assert_eq!(replica.role(), Role::Replica);
            for said in [Ok(of(Role::Primary)), Err(ProbeFailure::Refused)] {
                let error = once(&probe(said)).await.unwrap_err();
                assert_eq!((error.failure(), error.is_definitive()), (mute, false));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_authority_alone_is_not_definitive() {
        let probe = authority(script([Err(ProbeFailure::Refused)], 1000))
            .confirm(script([Ok(of(Role::Primary))], 250));
        let error = once(&probe).await.unwrap_err();
        assert_eq!(
            (error.failure(), error.is_definitive()),
            (ProbeFailure::Refused, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_nodes_own_data_come_first_and_a_fenced_claim_brings_only_the_authoritys_term() {
        let lock = of(Role::Primary)
            .in_term(Term::new(6))
            .at_position(60)
            .in_lineage(Lineage::of("x"));
        let node = of(Role::Primary).in_term(Term::new(7));
        let probe = |said: &Observation, saw: &Observation| {
            authority(script([Ok(said.clone())], 1000)).confirm(script([Ok(saw.clone())], 250))
        };
        let seen = once(&probe(&lock, &node)).await.unwrap();
        assert_eq!(
            (seen.term(), seen.position()),
            (Some(Term::new(7)), Some(60))
        );
        assert_eq!(seen.lineage().unwrap().id(), "x");

        let seen = once(&probe(&lock.clone().disowned("no leader lock"), &node))
            .await
            .unwrap();
        assert_eq!((seen.term(), seen.fence()), (None, Some("no leader lock")));

        let error = once(&probe(&lock, &node.in_lineage(Lineage::of("y"))))
            .await
            .unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::WrongCluster);
    }

    #[tokio::test(start_paused = true)]
    async fn the_lock_is_asked_for_once_in_its_interval_and_at_once_for_a_new_claim() {
        let lock = script(
            [
                Ok(of(Role::Replica)),
                Ok(of(Role::Primary)),
                Ok(of(Role::Primary)),
            ],
            1000,
        );
        let roles = [
            Role::Replica,
            Role::Primary,
            Role::Primary,
            Role::Primary,
            Role::Primary,
        ];
        let node = script(roles.map(|role| Ok(of(role).at_position(1))), 250);
        let probe = authority(lock).confirm(node);
        assert_eq!(probe.interval(), Duration::from_millis(250));
        let (mut session, _) = probe.open(&endpoint()).await.unwrap();
        let mut ask = async || probe.observe(&endpoint(), &mut session).await.unwrap();

        assert_eq!((ask().await.role(), left(lock)), (Role::Replica, 3));
        // Promoted, and the lock says no: asked again though its interval is not over.
        assert_eq!((ask().await.fence().is_some(), left(lock)), (true, 2));
        assert_eq!((ask().await.fence(), left(lock)), (None, 1));
        advance(Duration::from_millis(900)).await;
        assert_eq!((ask().await.fence(), left(lock)), (None, 1));
        advance(Duration::from_millis(100)).await;
        assert_eq!((ask().await.fence(), left(lock)), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_witness_without_roles_makes_the_authority_be_asked_each_time() {
        let said = [Role::Primary, Role::Replica].map(|role| Ok(of(role)));
        let probe = authority(script(said, 1000))
            .confirm(script([(); 2].map(|()| Ok(of(Role::Unknown))), 250));
        let (mut session, _) = probe.open(&endpoint()).await.unwrap();
        for role in [Role::Primary, Role::Replica] {
            let seen = probe.observe(&endpoint(), &mut session).await.unwrap();
            assert_eq!(seen.role(), role);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_is_asked_only_when_the_first_fails_or_is_silent() {
        let one = script(
            [
                Ok(of(Role::Replica)),
                Err(ProbeFailure::Refused),
                Ok(of(Role::Replica)),
                Err(ProbeFailure::Timeout),
                Err(ProbeFailure::Timeout),
                Ok(of(Role::Replica)),
            ],
            1000,
        );
        let other = script(
            [
                Ok(of(Role::Primary)),
                Ok(of(Role::Primary)),
                Err(ProbeFailure::Auth),
            ],
            250,
        );
        let probe = first(one, other);
        assert_eq!(probe.interval(), Duration::from_secs(1));
        assert_eq!(probe.timeout(), Duration::from_secs(1));
        let (mut session, _) = probe.open(&endpoint()).await.unwrap();
        for (role, questions) in [
            (Role::Replica, 3),
            (Role::Primary, 2),
            (Role::Replica, 2),
            (Role::Primary, 1),
        ] {
            let seen = probe.observe(&endpoint(), &mut session).await.unwrap();
            assert_eq!((seen.role(), left(other)), (role, questions));
            // Its connection is not held while it is not needed.
            assert_eq!(session.1.is_some(), role == Role::Primary);
        }
        let error = probe.observe(&endpoint(), &mut session).await.unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.failure(), ProbeFailure::Auth);
        assert!(
            text.contains("scripted; before: no answer in time"),
            "{text}"
        );
        // A session that failed is not used again.
        probe.observe(&endpoint(), &mut session).await.unwrap();
        assert_eq!(one.opened.load(Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_must_succeed_one_failure_is_enough_and_a_definitive_one_counts() {
        use Role::{Primary, Replica, Unknown};
        for (one, other, role, fenced) in [
            (Primary, Primary, Primary, false),
            (Primary, Unknown, Primary, false),
            (Unknown, Replica, Replica, false),
            (Replica, Primary, Primary, true),
            (Primary, Replica, Primary, true),
            (Unknown, Unknown, Unknown, false),
        ] {
            let seen = once(&all(
                script([Ok(of(one))], 1000),
                script([Ok(of(other))], 250),
            ))
            .await;
            let seen = seen.unwrap();
            assert_eq!(
                (seen.role(), seen.fence().is_some()),
                (role, fenced),
                "{one} {other}"
            );
        }
        for (one, other, failure) in [
            (
                Err(ProbeFailure::Closed),
                Ok(of(Primary)),
                ProbeFailure::Closed,
            ),
            (
                Ok(of(Primary)),
                Err(ProbeFailure::Closed),
                ProbeFailure::Closed,
            ),
            (
                Err(ProbeFailure::Closed),
                Err(ProbeFailure::Refused),
                ProbeFailure::Refused,
            ),
            (
                Err(ProbeFailure::Refused),
                Err(ProbeFailure::Closed),
                ProbeFailure::Refused,
            ),
        ] {
            let error = once(&all(script([one], 1000), script([other], 250)))
                .await
                .unwrap_err();
            assert_eq!(error.failure(), failure);
            assert_eq!(error.is_definitive(), failure == ProbeFailure::Refused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_of_either_part_is_one_of_the_whole() {
        // The second session of a script has something to say.
        let answers = || {
            [
                Err(ProbeFailure::Closed),
                Ok(of(Role::Primary)),
                Ok(of(Role::Primary)),
            ]
        };
        let (one, other) = (script(answers(), 1000), script(answers(), 250));
        let steady = || script([Ok(of(Role::Primary)), Ok(of(Role::Primary))], 250);
        for probe in [
            authority(one).confirm(steady()),
            authority(steady()).confirm(other),
        ] {
            let (mut session, _) = probe.open(&endpoint()).await.unwrap();
            let limit = Duration::from_secs(60);
            let silent = tokio::time::timeout(limit, probe.signalled(&mut session)).await;
            assert!(silent.is_err(), "before anything is open");
            probe.observe(&endpoint(), &mut session).await.unwrap_err();
            probe.observe(&endpoint(), &mut session).await.unwrap();
            let signal = tokio::time::timeout(limit, probe.signalled(&mut session)).await;
            assert!(signal.is_ok());
        }
    }
}

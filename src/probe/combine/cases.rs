//! Scripted probes, and what two of them are together.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, advance},
};

use super::{all, authority, first};
use crate::{
    endpoint::Endpoint,
    probe::{Authority, Lineage, Observation, Probe, ProbeError, ProbeFailure, Role, Term},
};

type Answer = Result<Observation, ProbeFailure>;

/// Says these in turn, one on each question; a session is the number of times it was opened.
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    opened: AtomicUsize,
    interval: Duration,
}

/// A script that may take its time.
struct Patient(&'static Script);

impl Probe for Patient {
    type Session = usize;

    async fn open(&self, on: &Endpoint) -> Result<(usize, Option<Observation>), ProbeError> {
        self.0.open(on).await
    }

    async fn observe(&self, on: &Endpoint, at: &mut usize) -> Result<Observation, ProbeError> {
        self.0.observe(on, at).await
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }
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
    let probe =
        authority(script(said, 1000)).confirm(script([(); 2].map(|()| Ok(of(Role::Unknown))), 250));
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

#[tokio::test(start_paused = true)]
async fn a_part_that_is_silent_is_given_up_after_its_own_time() {
    let primary = || Patient(script([Ok(of(Role::Primary))], 1000));
    let silent = || script([Err(ProbeFailure::Timeout)], 250);
    let start = Instant::now();
    let seen = once(&authority(primary()).confirm(silent())).await;
    assert_eq!(seen.unwrap_err().failure(), ProbeFailure::Timeout);
    let seen = once(&all(primary(), silent())).await;
    assert_eq!(seen.unwrap_err().failure(), ProbeFailure::Timeout);
    assert!(
        start.elapsed() < Duration::from_millis(1100),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn two_leases_hold_for_the_shorter_one() {
    let lease = |seconds| Some(Duration::from_secs(seconds));
    let primary = |lease: Option<Duration>| {
        let seen = of(Role::Primary);
        let seen = match lease {
            Some(lease) => seen.holding_for(lease),
            None => seen,
        };
        script([Ok(seen)], 1000)
    };
    for (one, other, both) in [
        (lease(3), lease(30), lease(3)),
        (lease(30), lease(3), lease(3)),
        (lease(3), None, lease(3)),
        (None, lease(3), lease(3)),
        (None, None, None),
    ] {
        let seen = once(&authority(primary(one)).confirm(primary(other))).await;
        assert_eq!(seen.unwrap().valid_for(), both, "{one:?} {other:?}");
        let seen = once(&all(primary(one), primary(other))).await;
        assert_eq!(seen.unwrap().valid_for(), both, "{one:?} {other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_the_first_that_ended_is_opened_anew_before_the_second_is_asked() {
    let one = script(
        [
            Ok(of(Role::Replica)),
            Err(ProbeFailure::Closed),
            Ok(of(Role::Replica)),
            Err(ProbeFailure::Closed),
            Err(ProbeFailure::Refused),
        ],
        250,
    );
    let probe = first(one, script([Ok(of(Role::Primary))], 250));
    let (mut session, _) = probe.open(&endpoint()).await.unwrap();
    for (role, opened) in [(Role::Replica, 1), (Role::Replica, 2), (Role::Primary, 3)] {
        let seen = probe.observe(&endpoint(), &mut session).await.unwrap();
        assert_eq!((seen.role(), one.opened.load(Relaxed)), (role, opened));
    }
}

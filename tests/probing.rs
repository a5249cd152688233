//! When the driver asks and when it opens sessions, on scripted sessions and a paused clock.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Balancer, Endpoint, Hint, Observation, Position, Probe, ProbeError, ProbeFailure, Role, Term,
    probe_fn,
};
use support::script::{Script, pod, pods};
use tokio::{sync::Notify, time::sleep};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const INTERVAL: Duration = Duration::from_secs(60);

/// Sessions that stay open. Node 1 is the primary, and its session can be made to speak up or to end.
#[derive(Clone, Debug, Default)]
struct Sessions {
    opened: Arc<AtomicU32>,
    /// By the last number of the address.
    asked: Arc<[AtomicU32; 4]>,
    signal: Arc<Notify>,
    is_noisy: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

impl Sessions {
    fn asked(&self) -> [u32; 3] {
        [1, 2, 3].map(|host| self.asked[host].load(Relaxed))
    }
}

fn host(endpoint: &Endpoint) -> usize {
    let hosts = 1..=3_u8;
    let is_it = |host: &u8| SocketAddr::from(([10, 0, 0, *host], 80)) == endpoint.addr();
    hosts.into_iter().find(is_it).expect("one of three").into()
}

fn seen(endpoint: &Endpoint) -> Observation {
    match host(endpoint) {
        1 => Observation::of(Role::Primary).in_term(Term::new(4)),
        _ => Role::Replica.into(),
    }
}

impl Probe for Sessions {
    /// The host.
    type Session = usize;

    async fn open(&self, endpoint: &Endpoint) -> Result<(usize, Option<Observation>), ProbeError> {
        self.opened.fetch_add(1, Relaxed);
        Ok((host(endpoint), Some(seen(endpoint))))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        host: &mut usize,
    ) -> Result<Observation, ProbeError> {
        let asked = self.asked[*host].fetch_add(1, Relaxed);
        assert!(asked < 1000, "the driver spins");
        if *host == 1 && self.ends.swap(false, Relaxed) {
            return Err(ProbeError::new(ProbeFailure::Closed, "as scripted"));
        }
        Ok(seen(endpoint))
    }

    async fn signalled(&self, host: &mut usize) {
        match *host {
            1 if self.is_noisy.load(Relaxed) => {}
            1 => self.signal.notified().await,
            _ => std::future::pending().await,
        }
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }
}

/// All three are known, and calm.
async fn cluster(script: &Script) -> (Sessions, Balancer) {
    let sessions = Sessions::default();
    let db = Balancer::builder(script.clone())
        .seed(support::seed())
        .probe(sessions.clone())
        .spawn();
    let writer = db.primary().wait(SECOND).await;
    assert_eq!(writer.expect("node 1 says so").addr(), pod(1));
    sleep(SECOND).await;
    assert_eq!(sessions.opened.load(Relaxed), 3);
    (sessions, db)
}

#[tokio::test(start_paused = true)]
async fn a_session_that_says_that_it_ends_is_opened_anew_at_once_and_nothing_is_lost() {
    let (sessions, db) = cluster(&Script::new(pods(1..=3))).await;
    let writer = db.primary().get().unwrap();
    sessions.ends.store(true, Relaxed);
    sessions.signal.notify_one();
    sleep(10 * MILLISECOND).await;
    assert_eq!(sessions.opened.load(Relaxed), 4);
    assert!(writer.is_current() && writer.confirmed_ago() <= 10 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_signals_without_end_is_asked_twenty_times_a_second() {
    let (sessions, db) = cluster(&Script::new(pods(1..=3))).await;
    sessions.is_noisy.store(true, Relaxed);
    sessions.signal.notify_one();
    sleep(10 * SECOND).await;
    let [asked, others @ ..] = sessions.asked();
    assert!((190..=201).contains(&asked), "{asked}");
    assert!(others.iter().all(|asked| *asked <= 1), "{others:?}");
    assert!(db.primary().get().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hint_about_one_node_makes_its_own_probe_look_and_no_other() {
    let (sessions, db) = cluster(&Script::new(pods(1..=3))).await;
    let [one, others @ ..] = sessions.asked();
    db.primary().get().unwrap().report(Hint::NotReady);
    sleep(10 * MILLISECOND).await;
    assert_eq!(sessions.asked(), [one + 1, others[0], others[1]]);
    // Whose error it was is not known.
    sleep(SECOND).await;
    db.primary().report(Hint::NotReady);
    sleep(10 * MILLISECOND).await;
    assert_eq!(sessions.asked(), [one + 2, others[0] + 1, others[1] + 1]);
}

#[tokio::test(start_paused = true)]
async fn the_first_reports_that_are_ready_together_make_one_set() {
    const NODES: u8 = 40;
    let roles = probe_fn(|endpoint: &Endpoint| {
        let role = match endpoint.addr() == pod(1) {
            true => Role::Primary,
            false => Role::Replica,
        };
        async move { Ok::<Observation, ProbeError>(role.into()) }
    });
    let db = Balancer::builder(Script::new(pods(1..=NODES)))
        .probe(roles)
        .spawn();
    let writer = db.primary().wait(SECOND).await;
    assert_eq!(writer.expect("node 1 says so").addr(), pod(1));
    sleep(SECOND).await;
    let set = db.endpoints();
    let replicas = set.positions().filter(|(at, _)| *at == Position::Replica);
    assert_eq!(replicas.count(), usize::from(NODES) - 1);
    // One for the answer of DNS, one for those of the nodes.
    assert_eq!(set.generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_left_is_not_asked_any_more() {
    let script = Script::new(pods(1..=3));
    let (sessions, db) = cluster(&script).await;
    script.say(pods([1, 2]));
    sleep(10 * SECOND).await;
    assert_eq!(db.endpoints().len(), 2);
    let before = sessions.asked();
    db.primary().report(Hint::NotPrimary);
    sleep(5 * INTERVAL).await;
    let after = sessions.asked();
    assert!(after[1] > before[1] && after[2] == before[2], "{after:?}");
}

//! Health checks: what fails them is set aside and returns, on a paused clock and against real servers.

#[cfg(all(feature = "http2", feature = "tls"))]
#[expect(unreachable_pub, reason = "nothing is reachable from outside a test")]
#[path = "support/authority.rs"]
mod authority;
#[cfg(feature = "http2")]
#[path = "checks/grpc.rs"]
mod grpc;
#[path = "checks/http.rs"]
mod http;
mod support;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Balancer, Check, Endpoint, Fixed, Observation, Position, Probe, ProbeError, ProbeFailure, Role,
    Subset, probe_fn,
};
use support::{
    log::captured,
    script::{Script, hosts, pod, pods},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep, timeout},
};

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// What each pod answers to its checks, and when it was asked. Clones share it.
#[derive(Clone, Default)]
struct Ward(Arc<[Patient; 4]>);

#[derive(Default)]
struct Patient {
    is_ill: AtomicBool,
    hangs: AtomicBool,
    asked: Mutex<Vec<Instant>>,
}

impl Patient {
    fn note(&self) {
        let asked = self.asked.lock();
        let mut asked = asked.unwrap_or_else(PoisonError::into_inner);
        asked.push(Instant::now());
    }
}

impl Ward {
    fn fall_ill(&self, host: usize) {
        self.0[host].is_ill.store(true, Relaxed);
    }

    fn recover(&self, host: usize) {
        self.0[host].is_ill.store(false, Relaxed);
        self.0[host].hangs.store(false, Relaxed);
    }

    fn hang(&self, host: usize) {
        self.0[host].hangs.store(true, Relaxed);
    }

    fn asked(&self, host: usize) -> Vec<Instant> {
        let asked = self.0[host].asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at one; the role is not what a check is about.
    fn look(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<Observation, ProbeError>> + use<> {
        let (ward, host) = (self.clone(), host(endpoint));
        async move {
            let patient = &ward.0[host];
            patient.note();
            if patient.hangs.load(Relaxed) {
                std::future::pending::<()>().await;
            }
            match patient.is_ill.load(Relaxed) {
                true => Err(ProbeError::passing("as scripted")),
                false => Ok(Role::Primary.into()),
            }
        }
    }

    fn check(&self) -> Check<impl Probe + use<>> {
        let ward = self.clone();
        Check::new(probe_fn(move |endpoint: &Endpoint| ward.look(endpoint)))
    }
}

fn host(endpoint: &Endpoint) -> usize {
    let is_it = |host: &u8| pod(*host) == endpoint.addr();
    (1..=3).find(is_it).expect("one of three").into()
}

/// The last bytes of the addresses of those that are set aside, ascending.
fn ejected(balancer: &Balancer) -> Vec<u8> {
    let set = balancer.endpoints();
    let out = set
        .positions()
        .filter(|(position, _)| *position == Position::Ejected);
    let last = |endpoint: &Endpoint| (1..=3).find(|host| pod(*host) == endpoint.addr());
    let mut out: Vec<u8> = out.filter_map(|(_, endpoint)| last(endpoint)).collect();
    out.sort_unstable();
    out
}

async fn three(ward: &Ward) -> (Script, Balancer) {
    let script = Script::new(pods(1..=3));
    let web = Balancer::builder(script.clone())
        .seed(support::seed())
        .check(ward.check())
        .spawn();
    web.resolved().await.expect("it says so at once");
    (script, web)
}

/// How long it takes until this holds, in steps of 10 ms.
async fn until(holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < 100 * SECOND, "never");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_falls_ill_is_set_aside_after_three_failures_and_back_after_two_successes() {
    let ward = Ward::default();
    let (_script, web) = three(&ward).await;
    sleep(60 * SECOND).await;
    assert!(ejected(&web).is_empty(), "{web}");

    ward.fall_ill(2);
    let before = ward.asked(2).len();
    let took = until(|| ejected(&web) == [2]).await;
    assert_eq!(ward.asked(2).len(), before + 3);
    assert!(
        2 * INTERVAL * 4 / 5 <= took && took <= 3 * INTERVAL * 6 / 5 + SECOND,
        "{took:?}"
    );
    assert_eq!(web.status().unhealthy(), 1);
    assert!(web.to_string().contains("1 unhealthy"), "{web}");
    assert!((0..50).all(|_| web.pick().is_ok_and(|pick| pick.addr() != pod(2))));

    ward.recover(2);
    let before = ward.asked(2).len();
    let took = until(|| ejected(&web).is_empty()).await;
    assert_eq!(ward.asked(2).len(), before + 2);
    assert!(
        INTERVAL * 4 / 5 <= took && took <= 2 * INTERVAL * 6 / 5 + SECOND,
        "{took:?}"
    );
    assert_eq!(web.status().unhealthy(), 0);
}

#[test]
fn results_that_are_ready_together_make_one_set_and_each_is_told() {
    const PODS: u8 = 40;
    const ILL: u8 = 16;
    let lines = captured(|| async {
        // Every pod answers when this opens.
        let (open, gate) = watch::channel(false);
        let check = Check::new(probe_fn(move |endpoint: &Endpoint| {
            let mut gate = gate.clone();
            let is_ill = (1..=ILL).any(|host| pod(host) == endpoint.addr());
            async move {
                gate.wait_for(|is_open| *is_open)
                    .await
                    .map_err(ProbeError::passing)?;
                match is_ill {
                    true => Err(ProbeError::passing("as scripted")),
                    false => Ok(Role::Unknown.into()),
                }
            }
        }));
        let web = Balancer::builder(Fixed::new((1..=PODS).map(pod)))
            .check(check.timeout(PATIENCE).fall(1))
            .spawn();
        web.resolved().await.expect("it says so at once");
        // By now all are asked.
        sleep(INTERVAL + SECOND).await;
        let before = web.endpoints().generation();
        open.send_replace(true);
        until(|| web.status().unhealthy() == usize::from(ILL)).await;
        assert_eq!(web.endpoints().generation(), before + 1);
    });
    for host in 1..=ILL {
        let (addr, what) = (pod(host).to_string(), "fails its health checks");
        let told = lines
            .iter()
            .filter(|line| line.contains(&addr) && line.contains(what));
        assert_eq!(told.count(), 1, "{addr}: {lines:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_now_and_then_stays() {
    let ward = Ward::default();
    let (_script, web) = three(&ward).await;
    for _ in 0..10 {
        ward.fall_ill(1);
        let before = ward.asked(1).len();
        until(|| ward.asked(1).len() == before + 2).await;
        ward.recover(1);
        until(|| ward.asked(1).len() == before + 3).await;
        assert!(ejected(&web).is_empty(), "{web}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_has_failed_at_its_timeout() {
    let ward = Ward::default();
    let (_script, web) = three(&ward).await;
    ward.hang(3);
    until(|| ejected(&web) == [3]).await;
    let asked = ward.asked(3);
    let pairs: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last = pairs.last().expect("it took three");
    assert!(*last >= SECOND + INTERVAL * 4 / 5, "{pairs:?}");
    ward.recover(3);
    until(|| ejected(&web).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn where_most_pods_fail_all_stay_until_half_have_recovered() {
    let ward = Ward::default();
    let (_script, web) = three(&ward).await;
    (1..=3).for_each(|host| ward.fall_ill(host));
    until(|| web.status().unhealthy() == 3).await;
    sleep(60 * SECOND).await;
    assert!(ejected(&web).is_empty(), "{web}");
    assert!(web.pick().is_ok());
    ward.recover(2);
    until(|| web.status().unhealthy() == 2).await;
    assert!(ejected(&web).is_empty() && web.status().is_panic(), "{web}");
    ward.recover(3);
    until(|| !ejected(&web).is_empty()).await;
    assert_eq!(ejected(&web), [1]);
    assert!(!web.status().is_panic());
}

#[tokio::test(start_paused = true)]
async fn pods_are_asked_at_a_random_time_first_and_then_about_every_interval() {
    let ward = Ward::default();
    let start = Instant::now();
    let (_script, _web) = three(&ward).await;
    sleep(1000 * SECOND).await;
    let mut pauses = Vec::new();
    for host in 1..=3 {
        let asked = ward.asked(host);
        assert!(asked[0] - start <= INTERVAL, "{:?}", asked[0] - start);
        pauses.extend(asked.windows(2).map(|pair| pair[1] - pair[0]));
    }
    let (low, high) = (
        INTERVAL * 4 / 5,
        INTERVAL * 6 / 5 + Duration::from_millis(2),
    );
    assert!(
        pauses.iter().all(|pause| (low..=high).contains(pause)),
        "{pauses:?}"
    );
    let spread = pauses.iter().max().zip(pauses.iter().min());
    // 600 draws from 2 s: all within half of that once in 2^590.
    assert!(
        spread.is_some_and(|(max, min)| *max - *min > SECOND),
        "{spread:?}"
    );
    let firsts: Vec<_> = (1..=3).map(|host| ward.asked(host)[0]).collect();
    assert!(
        firsts.windows(2).any(|pair| pair[0] != pair[1]),
        "all at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_left_is_asked_no_more_and_one_that_comes_is_healthy() {
    let ward = Ward::default();
    let (script, web) = three(&ward).await;
    script.say(pods([1, 2]));
    until(|| hosts(&web.endpoints()) == [1, 2]).await;
    let before = ward.asked(3).len();
    sleep(60 * SECOND).await;
    assert_eq!(ward.asked(3).len(), before);
    // Long after its linger: another endpoint, of which nothing is known.
    ward.fall_ill(3);
    script.say(pods(1..=3));
    until(|| hosts(&web.endpoints()) == [1, 2, 3]).await;
    assert!(ejected(&web).is_empty(), "until it has failed three times");
    until(|| ejected(&web) == [3]).await;
}

#[tokio::test(start_paused = true)]
async fn numbers_of_your_own_count() {
    let ward = Ward::default();
    let check = ward
        .check()
        .interval(SECOND)
        .timeout(SECOND)
        .rise(4)
        .fall(1);
    let web = Balancer::builder(Script::new(pods(1..=3)))
        .check(check)
        .spawn();
    web.resolved().await.expect("it says so at once");
    sleep(10 * SECOND).await;
    ward.fall_ill(1);
    assert!(until(|| ejected(&web) == [1]).await <= 2 * SECOND);
    let before = ward.asked(1).len();
    ward.recover(1);
    until(|| ejected(&web).is_empty()).await;
    assert_eq!(ward.asked(1).len(), before + 4);
}

#[tokio::test(start_paused = true)]
async fn a_check_is_no_probe_of_roles_and_moves_no_primary() {
    let ward = Ward::default();
    let roles = probe_fn(|endpoint: &Endpoint| {
        let role = match host(endpoint) {
            1 => Role::Primary,
            _ => Role::Replica,
        };
        async move { Ok::<Observation, ProbeError>(role.into()) }
    });
    let db = Balancer::builder(Script::new(pods(1..=3)))
        .probe(roles)
        .check(ward.check())
        .spawn();
    let writer = db.primary().wait(SECOND).await.expect("node 1 says so");
    assert_eq!(writer.addr(), pod(1));
    ward.fall_ill(1);
    ward.fall_ill(3);
    until(|| db.status().unhealthy() == 2).await;
    assert_eq!(ejected(&db), [3]);
    assert_eq!(
        db.primary().get().expect("it is still there").addr(),
        pod(1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_single_pod_stays_and_its_status_says_at_once_what_is_wrong() {
    let ward = Ward::default();
    let web = Balancer::builder(Script::new(pods([1])))
        .check(ward.check())
        .spawn();
    web.resolved().await.expect("it says so at once");
    ward.fall_ill(1);
    until(|| ward.asked(1).len() == 3).await;
    // Sooner than the next answer of the resolver, which would tell the status anew.
    sleep(Duration::from_millis(10)).await;
    assert_eq!(web.status().unhealthy(), 1);
    assert!(ejected(&web).is_empty(), "{web}");
}

#[tokio::test(start_paused = true)]
async fn only_pods_of_the_subset_are_asked_and_no_client() {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let log = Arc::clone(&asked);
    let check = Check::from_fn(move |endpoint: &Endpoint| {
        let mut asked = log.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(endpoint.addr());
        async { Ok::<_, ProbeError>(()) }
    });
    let peers = [1, 2].map(|host| SocketAddr::from(([10, 9, 0, host], 80)));
    let own = peers[0].ip();
    let subset = Subset::by_peers(Fixed::new(peers)).own(own).size(2);
    let web = Balancer::builder(Script::new(pods(1..=9)))
        .check(check)
        .subset(subset)
        .spawn();
    web.resolved().await.expect("it says so at once");
    sleep(60 * SECOND).await;
    let used: BTreeSet<_> = web.endpoints().iter().map(|pod| pod.addr()).collect();
    assert_eq!(used.len(), 2, "{web}");
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*asked, used);
}

/// A session that its server ends after each answer, as one does that closes idle connections.
#[derive(Clone, Default)]
struct Closing {
    opened: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

impl Probe for Closing {
    /// Whether it was asked before.
    type Session = bool;

    async fn open(&self, _: &Endpoint) -> Result<(bool, Option<Observation>), ProbeError> {
        self.opened.fetch_add(1, Relaxed);
        Ok((false, None))
    }

    async fn observe(&self, _: &Endpoint, was_asked: &mut bool) -> Result<Observation, ProbeError> {
        self.asked.fetch_add(1, Relaxed);
        match std::mem::replace(was_asked, true) {
            true => Err(ProbeError::new(ProbeFailure::Closed, "it was idle")),
            false => Ok(Role::Unknown.into()),
        }
    }

    async fn signalled(&self, was_asked: &mut bool) {
        assert!(*was_asked, "there is a question first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_between_two_checks_is_opened_anew_and_nothing_is_thought_of_it() {
    let probe = Closing::default();
    let web = Balancer::builder(Script::new(pods([1, 2])))
        .check(Check::new(probe.clone()).fall(1))
        .spawn();
    web.resolved().await.expect("it says so at once");
    for _ in 0..1000 {
        sleep(SECOND / 10).await;
        assert_eq!(web.status().unhealthy(), 0);
    }
    // Two pods, 100 s: the end of a session makes nobody ask before it is time.
    let opened = probe.opened.load(Relaxed);
    assert!((30..=52).contains(&opened), "{opened}");
    assert!(probe.asked.load(Relaxed) < 2 * opened);
}

#[test]
fn a_change_is_told_with_its_cause_and_once() {
    let lines = support::log::captured(async || {
        let ward = Ward::default();
        let (_script, web) = three(&ward).await;
        ward.fall_ill(2);
        until(|| ejected(&web) == [2]).await;
        sleep(60 * SECOND).await;
        ward.recover(2);
        until(|| ejected(&web).is_empty()).await;
    });
    let about: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("health checks"))
        .collect();
    let [worse, better] = &about[..] else {
        panic!("{lines:#?}");
    };
    let parts = [
        "WARN",
        "service=\"web.default\"",
        "endpoint=10.0.0.2:80",
        "cause=as scripted",
    ];
    assert!(parts.iter().all(|part| worse.contains(part)), "{worse}");
    assert!(
        better.contains("INFO") && better.contains("10.0.0.2:80"),
        "{better}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_closure_is_a_check() {
    let web = Balancer::builder(Script::new(pods(1..=3)))
        .check(Check::from_fn(|endpoint: &Endpoint| {
            let is_ill = host(endpoint) == 2;
            async move {
                if is_ill {
                    Err(io::Error::other("fever"))
                } else {
                    Ok(())
                }
            }
        }))
        .spawn();
    web.resolved().await.expect("it says so at once");
    until(|| ejected(&web) == [2]).await;
}

/// Three checks a second, for real servers.
fn quickly<P: Probe>(check: Check<P>) -> Check<P> {
    check.interval(Duration::from_millis(50)).timeout(SECOND)
}

async fn until_unhealthy(web: &Balancer, number: usize) {
    let known = timeout(PATIENCE, async {
        while web.status().unhealthy() != number {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(known.await.is_ok(), "not {number}:\n{web}");
}

fn set_aside(web: &Balancer) -> Vec<SocketAddr> {
    let set = web.endpoints();
    let out = set
        .positions()
        .filter(|(position, _)| *position == Position::Ejected);
    out.map(|(_, endpoint)| endpoint.addr()).collect()
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_fails_the_tcp_check_until_somebody_does() {
    let well = TcpListener::bind("127.0.4.1:0")
        .await
        .expect("a loopback port");
    let ill = TcpListener::bind("127.0.4.2:0")
        .await
        .expect("a loopback port");
    let [one, two] = [&well, &ill].map(|listener| listener.local_addr().expect("it is bound"));
    let web = Balancer::builder(Fixed::new([one, two]))
        .check(quickly(Check::tcp()))
        .spawn();
    web.resolved().await.expect("it is fixed");
    drop(ill);
    until_unhealthy(&web, 1).await;
    assert_eq!(set_aside(&web), [two]);
    let _back = TcpListener::bind(two).await.expect("the same port");
    until_unhealthy(&web, 0).await;
    assert!(set_aside(&web).is_empty(), "{web}");
}

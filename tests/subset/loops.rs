//! Answers, refusals and peers through a balancer, on scripted sources and a paused clock.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Balancer, Builder, Candidates, Check, Choice, Endpoint, EndpointSet, Policy, Position,
    Resolution, Role, Subset, probe_fn,
};
use tokio::time::sleep;

use super::support::script::{Script, hosts, nxdomain, pod, pods, servfail};

const SECOND: Duration = Duration::from_secs(1);
const SIZE: usize = 10;

fn clients(hosts: impl IntoIterator<Item = u8>) -> Resolution {
    Resolution::new(
        hosts
            .into_iter()
            .map(|host| SocketAddr::from(([10, 1, 0, host], 80))),
    )
}

fn among(source: &Script, peers: &Script) -> Builder {
    let subset = Subset::by_peers(peers.clone())
        .own([10, 1, 0, 1].into())
        .size(SIZE);
    Balancer::builder(source.clone())
        .seed(super::support::seed())
        .subset(subset)
}

fn generation(balancer: &Balancer) -> u64 {
    balancer.endpoints().generation()
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_known_late_move_little() {
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(servfail()));
    let balancer = among(&source, &peers).spawn();
    balancer.resolved().await.unwrap();
    sleep(30 * SECOND).await;
    let alone = hosts(&balancer.endpoints());
    assert_eq!(alone.len(), SIZE, "nobody waits for the peers");
    peers.say(Ok(clients(1..=60)));
    sleep(30 * SECOND).await;
    let shared = hosts(&balancer.endpoints());
    assert_eq!(shared.len(), SIZE);
    assert_ne!(shared, alone, "some are taken by those who are nearer");
    let kept = shared.iter().filter(|host| alone.contains(host)).count();
    assert!(kept >= SIZE / 2, "{alone:?} {shared:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_peers_is_not_a_lone_client() {
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(nxdomain()));
    let balancer = among(&source, &peers).spawn();
    sleep(60 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), SIZE);
    peers.say(Ok(clients([1])));
    sleep(60 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), 100, "really alone");
    peers.say(Ok(clients(1..=60)));
    sleep(10 * SECOND).await;
    assert_eq!(
        balancer.endpoints().len(),
        SIZE,
        "more than half leave at once"
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_peers_dns_fails_nothing_moves() {
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(Ok(clients(1..=60))));
    let balancer = among(&source, &peers).spawn();
    sleep(30 * SECOND).await;
    let (before, at) = (hosts(&balancer.endpoints()), generation(&balancer));
    for trouble in [servfail(), nxdomain(), Ok(clients([3, 4]).partial())] {
        peers.say(trouble);
        sleep(120 * SECOND).await;
        assert_eq!(hosts(&balancer.endpoints()), before);
    }
    assert_eq!(generation(&balancer), at, "nothing was published");
}

#[tokio::test(start_paused = true)]
async fn while_nothing_changes_nothing_is_published() {
    let shuffled = |at: Duration| {
        let turn = (at.as_secs() % 100) as u8;
        pods((1..=100).map(move |host| (host + turn) % 100 + 1))
    };
    let source = Script::from_fn(shuffled);
    let balancer = among(&source, &Script::new(Ok(clients(1..=60)))).spawn();
    sleep(30 * SECOND).await;
    let at = generation(&balancer);
    sleep(300 * SECOND).await;
    assert_eq!(generation(&balancer), at);
    let answers = balancer.status().answers();
    assert_eq!(
        answers as usize,
        source.asked().len(),
        "peers are no answers of the service"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_subset_that_vanishes_is_replaced() {
    let source = Script::new(pods(1..=100));
    let balancer = among(&source, &Script::new(Ok(clients(1..=60)))).spawn();
    sleep(30 * SECOND).await;
    let before = hosts(&balancer.endpoints());
    source.say(pods((1..=100).filter(|host| *host != before[0])));
    sleep(7 * SECOND).await;
    let after = hosts(&balancer.endpoints());
    assert_eq!(after.len(), SIZE);
    assert!(
        before[1..].iter().all(|host| after.contains(host)),
        "{before:?} {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_pod_that_vanishes_moves_nothing_here() {
    let source = Script::new(pods(1..=100));
    let subset = Subset::by_rendezvous("me", SIZE);
    let balancer = Balancer::builder(source.clone()).subset(subset).spawn();
    balancer.resolved().await.unwrap();
    let (before, at) = (hosts(&balancer.endpoints()), generation(&balancer));
    let other = (1..=100).find(|host| !before.contains(host)).unwrap();
    source.say(pods((1..=100).filter(|host| *host != other)));
    sleep(30 * SECOND).await;
    assert_eq!(generation(&balancer), at);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_refuses_is_made_up_for_also_while_dns_fails() {
    let source = Script::new(pods(1..=100));
    let balancer = among(&source, &Script::new(Ok(clients(1..=60)))).spawn();
    sleep(30 * SECOND).await;
    let before = hosts(&balancer.endpoints());
    let set = balancer.endpoints();
    let dead = set
        .iter()
        .find(|endpoint| endpoint.addr() == pod(before[0]))
        .unwrap();
    source.say(servfail());
    balancer.unreachable(dead);
    sleep(Duration::from_millis(10)).await;
    let set = balancer.endpoints();
    let open = set
        .positions()
        .filter(|(position, _)| *position == Position::Unknown);
    assert_eq!(open.count(), SIZE, "as many as before take connections");
    assert_eq!(set.len(), SIZE + 1, "and the one that refuses stays");
    balancer.reached(dead);
    source.say(pods(1..=100));
    sleep(15 * SECOND).await;
    assert_eq!(
        hosts(&balancer.endpoints()),
        before,
        "an answer found it well"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_lacks_most_pods_is_believed_when_it_comes_again() {
    let source = Script::new(pods(1..=100));
    let subset = Subset::by_rendezvous("me", SIZE);
    let balancer = Balancer::builder(source.clone()).subset(subset).spawn();
    sleep(30 * SECOND).await;
    let (before, at) = (hosts(&balancer.endpoints()), generation(&balancer));
    source.say_next([pods(1..=45)]);
    sleep(30 * SECOND).await;
    assert_eq!(generation(&balancer), at, "one replica lagged");
    source.say(pods(1..=45));
    sleep(30 * SECOND).await;
    let after = hosts(&balancer.endpoints());
    assert!(
        after.len() == SIZE && after.iter().all(|host| *host <= 45),
        "{before:?} {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_does_not_come_back_by_its_peers() {
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(Ok(clients(1..=60))));
    let balancer = among(&source, &peers).spawn();
    sleep(30 * SECOND).await;
    source.say(nxdomain());
    sleep(60 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
    peers.say(Ok(clients(1..=61)));
    sleep(60 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
    source.say(pods(1..=100));
    sleep(30 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), SIZE);
}

#[tokio::test(start_paused = true)]
async fn pods_that_nobody_confirmed_are_not_held_by_the_subset() {
    let source = Script::new(pods(1..=100));
    let peers = Script::new(Ok(clients(1..=60)));
    let balancer = among(&source, &peers).max_stale(60 * SECOND).spawn();
    sleep(30 * SECOND).await;
    source.say(servfail());
    sleep(40 * SECOND).await;
    peers.say(Ok(clients(1..=70)));
    sleep(40 * SECOND).await;
    assert!(
        balancer.endpoints().is_empty(),
        "to narrow confirms nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_with_a_probe_is_not_narrowed() {
    let source = Script::new(pods(1..=100));
    let probe = probe_fn(|_: &Endpoint| std::future::ready(Ok(Role::Replica.into())));
    let balancer = Balancer::builder(source.clone())
        .subset(Subset::by_rendezvous("me", SIZE))
        .probe(probe)
        .spawn();
    sleep(30 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_prepared_for_pods_and_never_for_peers() {
    struct Prepared(Arc<AtomicU32>);
    impl Policy for Prepared {
        fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
            candidates.choose(0)
        }

        fn prepare(&self, set: &EndpointSet) -> bool {
            let peers = set.iter().filter(|one| is_peer(one.addr()));
            self.0.fetch_add(peers.count() as u32, Relaxed);
            true
        }
    }
    fn is_peer(addr: SocketAddr) -> bool {
        matches!(addr, SocketAddr::V4(addr) if addr.ip().octets()[1] == 1)
    }
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(Ok(clients(1..=60))));
    let seen = Arc::<AtomicU32>::default();
    let policy = Prepared(Arc::clone(&seen));
    let balancer = among(&source, &peers).policy(policy).spawn();
    sleep(30 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), SIZE);
    assert_eq!(seen.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_peers_are_asked_no_more_when_the_last_handle_is_gone() {
    let (source, peers) = (Script::new(pods(1..=100)), Script::new(Ok(clients(1..=60))));
    let balancer = among(&source, &peers).spawn();
    sleep(30 * SECOND).await;
    drop(balancer);
    sleep(SECOND).await;
    let asked = peers.asked().len();
    sleep(60 * SECOND).await;
    assert_eq!(peers.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_ill_are_made_up_for_however_small_the_subset() {
    for size in [10, 3, 2, 1] {
        let ill = Arc::new(OnceLock::<Vec<u8>>::new());
        let fallen = Arc::clone(&ill);
        let well = move |endpoint: &Endpoint| {
            let mut fallen = fallen.get().into_iter().flatten();
            let is_ill = fallen.any(|host| pod(*host) == endpoint.addr());
            async move { if is_ill { Err("fever") } else { Ok(()) } }
        };
        let balancer = Balancer::builder(Script::new(pods(1..=100)))
            .seed(super::support::seed())
            .subset(Subset::by_rendezvous("ill", size))
            .check(Check::from_fn(well))
            .spawn();
        balancer.resolved().await.unwrap();
        let subset = ill.get_or_init(|| hosts(&balancer.endpoints()));
        sleep(300 * SECOND).await;
        let picked = balancer.pick().unwrap().addr();
        let is_ill = subset.iter().any(|host| pod(*host) == picked);
        assert!(
            !is_ill,
            "{size}: {:?} {balancer}",
            hosts(&balancer.endpoints())
        );
        assert!(!balancer.status().is_panic(), "{size}");
    }
}

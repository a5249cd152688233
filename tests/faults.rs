//! Everything that can be wrong with DNS, between the socket and the published set, one by one and in
//! random order: a set is never emptied or shrunk by doubt.

mod support;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use headless_lb::{Balancer, Dns, Family};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::dns_server::{A, AAAA, DnsServer, Rcode, Reply, Transport};
use tokio::time::sleep;

const NAME: &str = "web.shop.svc.cluster.local.";
const PODS: u8 = 5;
/// The test's own server compresses few names, so that its answers are large: more would not fit.
const PODS_IN_64_KIB: u32 = 1400;
const SECOND: Duration = Duration::from_secs(1);

/// What the name server does for a while.
#[derive(Clone, Copy, Debug)]
enum Fault {
    AnswersWrongOwner,
    BreaksOff,
    DelaysBeyondTheDeadline,
    LosesTwoDatagrams,
    OneFamilyFails,
    Refuses,
    SaysNxDomainOnce,
    SaysNoDataOnce,
    SaysServFail,
    SendsOnly0000,
    Silent,
    TruncatesAndClosesTcp,
    TruncatesEverywhere,
    TtlOf2To31,
    TtlOfZero,
}

const FAULTS: [Fault; 15] = [
    Fault::AnswersWrongOwner,
    Fault::BreaksOff,
    Fault::DelaysBeyondTheDeadline,
    Fault::LosesTwoDatagrams,
    Fault::OneFamilyFails,
    Fault::Refuses,
    Fault::SaysNxDomainOnce,
    Fault::SaysNoDataOnce,
    Fault::SaysServFail,
    Fault::SendsOnly0000,
    Fault::Silent,
    Fault::TruncatesAndClosesTcp,
    Fault::TruncatesEverywhere,
    Fault::TtlOf2To31,
    Fault::TtlOfZero,
];

fn pods(n: u8) -> impl Iterator<Item = IpAddr> {
    (1..=n).map(|i| IpAddr::from([10, 0, 0, i]))
}

fn well(server: &DnsServer) {
    server.answer(NAME, A, Reply::ips(pods(PODS)));
    server.answer(NAME, AAAA, Reply::nodata());
}

/// Makes the server misbehave; says for how long that goes on.
fn begin(server: &DnsServer, fault: Fault) -> Duration {
    let mut lasts = 20 * SECOND;
    let say = |reply| server.answer(NAME, A, reply);
    match fault {
        Fault::AnswersWrongOwner => {
            // Looks like NODATA to the resolver, so it must not go on until it is confirmed.
            lasts = 8 * SECOND;
            say(Reply::nodata().owned_by("other.shop.svc.cluster.local.", "10.0.9.9"));
        }
        // A flipped bit in an address is an answer like any other; what can be seen is a broken message.
        Fault::BreaksOff => say(Reply::raw([
            0, 0, 0x81, 0x80, 0, 1, 0, 5, 0, 0, 0, 0, 3, b'w',
        ])),
        Fault::DelaysBeyondTheDeadline => say(Reply::ips(pods(PODS)).delay(6 * SECOND)),
        Fault::LosesTwoDatagrams => say(Reply::ips(pods(PODS)).drop_first(2)),
        Fault::OneFamilyFails => server.answer(NAME, AAAA, Reply::rcode(Rcode::ServFail)),
        Fault::Refuses => say(Reply::rcode(Rcode::Refused)),
        Fault::SaysNxDomainOnce => {
            lasts = 8 * SECOND;
            say(Reply::nxdomain());
        }
        Fault::SaysNoDataOnce => {
            lasts = 8 * SECOND;
            say(Reply::nodata());
        }
        Fault::SaysServFail => say(Reply::rcode(Rcode::ServFail)),
        Fault::SendsOnly0000 => say(Reply::addresses(["0.0.0.0"])),
        Fault::Silent => say(Reply::silence()),
        Fault::TruncatesAndClosesTcp => {
            say(Reply::ips(pods(2))
                .truncated_on(Transport::Udp)
                .silent_on(Transport::Tcp));
        }
        Fault::TruncatesEverywhere => {
            let cut = Reply::ips(pods(2)).truncated_on(Transport::Udp);
            say(cut.truncated_on(Transport::Tcp));
        }
        Fault::TtlOf2To31 => say(Reply::ips(pods(PODS)).ttl(1 << 31)),
        Fault::TtlOfZero => say(Reply::ips(pods(PODS)).ttl(0)),
    }
    lasts
}

fn published(balancer: &Balancer) -> BTreeSet<IpAddr> {
    balancer
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.addr().ip())
        .collect()
}

fn balancer(server: &DnsServer, family: Family) -> Balancer {
    let dns = Dns::headless(NAME, 80)
        .expect("a valid name")
        .family(family)
        .name_servers([server.addr()]);
    Balancer::builder(dns).seed(support::seed()).spawn()
}

/// Lets the fault go on, and looks at the set all the time.
async fn endure(server: &DnsServer, balancer: &Balancer, fault: Fault) {
    let all: BTreeSet<IpAddr> = pods(PODS).collect();
    let lasts = begin(server, fault);
    let steps = lasts.as_millis() / 250;
    for step in 0..steps {
        sleep(Duration::from_millis(250)).await;
        let set = published(balancer);
        assert!(
            set.is_superset(&all),
            "{fault:?}, step {step}: {set:?}\n{balancer}"
        );
        assert!(balancer.pick().is_ok());
    }
    well(server);
}

#[tokio::test(start_paused = true)]
async fn no_single_fault_empties_or_shrinks_the_set() {
    for fault in FAULTS {
        for family in [Family::PreferV4, Family::Both] {
            let server = DnsServer::start().await;
            well(&server);
            let balancer = balancer(&server, family);
            balancer.resolved().await.expect("the server is well");
            endure(&server, &balancer, fault).await;
            sleep(20 * SECOND).await;
            assert_eq!(
                published(&balancer),
                pods(PODS).collect(),
                "{fault:?}: well again"
            );
            assert_eq!(balancer.status().outcome(), "records", "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_sequence_of_faults_empties_or_shrinks_the_set() {
    let seed = support::seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let server = DnsServer::start().await;
    well(&server);
    let balancer = balancer(&server, Family::PreferV4);
    balancer.resolved().await.expect("the server is well");
    for _ in 0..120 {
        let fault = FAULTS[rng.random_range(0..FAULTS.len())];
        endure(&server, &balancer, fault).await;
        // Empty answers in a row are believed one day, and rightly: a good one lies between.
        while balancer.status().outcome() != "records" {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_with_faults_is_seen_when_they_end() {
    let server = DnsServer::start().await;
    well(&server);
    let balancer = balancer(&server, Family::PreferV4);
    balancer.resolved().await.expect("the server is well");
    for (fault, left) in FAULTS.into_iter().zip((2..=4).cycle()) {
        begin(&server, fault);
        sleep(7 * SECOND).await;
        server.answer(NAME, AAAA, Reply::nodata());
        server.answer(NAME, A, Reply::ips(pods(left)));
        sleep(25 * SECOND).await;
        assert_eq!(
            published(&balancer),
            pods(left).collect(),
            "after {fault:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_near_64_kib_comes_whole_and_a_restart_of_the_server_does_not_shrink_it() {
    let many = || (0..PODS_IN_64_KIB).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes()));
    let server = DnsServer::start().await;
    server.answer(NAME, A, Reply::ips(many()));
    let address = server.addr();
    let dns = Dns::headless(NAME, 80)
        .expect("a valid name")
        .name_servers([address]);
    let builder = Balancer::builder(dns)
        .min_interval(SECOND / 20)
        .refresh_interval(SECOND / 10);
    let balancer = builder.spawn();
    balancer.resolved().await.expect("the server is well");
    assert_eq!(balancer.endpoints().len(), PODS_IN_64_KIB as usize);
    drop(server);
    while balancer.status().failures() == 0 {
        assert_eq!(balancer.endpoints().len(), PODS_IN_64_KIB as usize);
        sleep(SECOND / 50).await;
    }
    let server = DnsServer::start_again(address).await;
    server.answer(NAME, A, Reply::ips(many().take(1000)));
    for _ in 0..1000 {
        if balancer.endpoints().len() == 1000 {
            return;
        }
        sleep(SECOND / 50).await;
    }
    panic!("the restarted server is not heard: {}", balancer.status());
}

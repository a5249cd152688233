//! The contract of the DNS source, requirement by requirement (R1-R7, R17-R20, R23): what it asks, and what it makes of the answers.

mod support;

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::Duration,
};

use headless_lb::{Dns, Family, Resolution, Resolve, ResolveError, ResolveErrorKind as Kind};
use support::{
    ResolvConf,
    dns_server::{A, AAAA, DnsServer, Rcode, Reply, SRV, Transport},
};
use tokio::time::Instant;

const WEB: &str = "web.default.svc.cluster.local.";
const HTTP: &str = "_http._tcp.web.default.svc.cluster.local.";

fn web(server: &DnsServer) -> Dns {
    headless(WEB, [server])
}

fn http(server: &DnsServer) -> Dns {
    Dns::srv(HTTP)
        .expect("a good name")
        .name_servers([server.addr()])
}

fn headless<'s>(name: &str, servers: impl IntoIterator<Item = &'s DnsServer>) -> Dns {
    let servers = servers.into_iter().map(DnsServer::addr);
    Dns::headless(name, 8080)
        .expect("a good name")
        .name_servers(servers)
}

fn shown(resolution: &Resolution) -> Vec<String> {
    let mut shown: Vec<String> = resolution
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    shown.sort();
    shown
}

async fn found(dns: &Dns) -> Vec<String> {
    shown(&dns.resolve().await.expect("records"))
}

async fn failure(dns: &Dns) -> ResolveError {
    match dns.resolve().await {
        Ok(resolution) => panic!("answered {resolution:?}"),
        Err(error) => error,
    }
}

async fn kind(dns: &Dns) -> Kind {
    failure(dns).await.kind()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn many(count: u32) -> Reply {
    Reply::ips((0..count).map(|n| std::net::Ipv4Addr::from(0x0a00_0001 + n).into()))
}

// ===== R1: query shape =====

#[tokio::test]
async fn r01_a_cluster_name_costs_one_question_for_one_type() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    server.answer(WEB, AAAA, Reply::addresses(["fd00::1"]));
    let dns = headless("web.default.svc.cluster.local", [&server]);
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    assert_eq!(server.take_asked(), [(WEB.to_owned(), A)]);
}

#[tokio::test]
async fn r01_making_a_source_needs_no_runtime_and_asks_nobody() {
    let made = std::thread::spawn(|| Dns::headless("web", 80).unwrap().resolv_conf("/nowhere"));
    assert_eq!(made.join().unwrap().service(), "web");
}

// ===== R2: names =====

const POD_SEARCH: &str =
    "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

/// A server on port 53, and a pod's resolv.conf that names it.
async fn pod() -> (DnsServer, ResolvConf) {
    let server = DnsServer::start_on_port_53().await;
    let conf = ResolvConf::new(&format!("nameserver {}\n{POD_SEARCH}", server.addr().ip()));
    (server, conf)
}

fn in_pod(name: &str, conf: &ResolvConf) -> Dns {
    Dns::headless(name, 8080)
        .expect("a good name")
        .resolv_conf(conf.path())
}

#[tokio::test]
async fn r02_a_trailing_dot_is_verbatim() {
    let (server, conf) = pod().await;
    server.answer("web.", A, Reply::addresses(["10.0.0.1"]));
    assert_eq!(found(&in_pod("web.", &conf)).await, ["10.0.0.1:8080"]);
    assert_eq!(server.take_asked(), [("web.".to_owned(), A)]);
}

#[tokio::test]
async fn r02_short_names_become_the_exact_cluster_name_at_once() {
    let (server, conf) = pod().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    for short in [
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
    ] {
        assert_eq!(
            found(&in_pod(short, &conf)).await,
            ["10.0.0.1:8080"],
            "{short}"
        );
        assert_eq!(server.take_asked(), [(WEB.to_owned(), A)], "{short}");
    }
}

#[tokio::test]
async fn r02_an_own_cluster_domain_replaces_the_detected_one() {
    let (server, conf) = pod().await;
    server.answer("web.shop.svc.k8s.corp.", A, Reply::addresses(["10.0.0.1"]));
    let dns = in_pod("web.shop", &conf)
        .cluster_domain("k8s.corp")
        .unwrap();
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    let dns = in_pod("web.shop.svc.k8s.corp", &conf)
        .cluster_domain("k8s.corp")
        .unwrap();
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    assert_eq!(server.queries().len(), 2);
}

#[tokio::test]
async fn r02_the_walk_goes_on_after_an_absence_and_then_keeps_the_name_that_answered() {
    let (server, conf) = pod().await;
    // A pod's own name: `db-0.db` is no service, so the exact cluster name does not exist.
    server.answer("db-0.db.svc.cluster.local.", A, Reply::nodata());
    server.answer(
        "db-0.db.default.svc.cluster.local.",
        A,
        Reply::addresses(["10.0.0.1"]),
    );
    let dns = in_pod("db-0.db", &conf);
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    let asked: Vec<String> = server
        .take_asked()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        asked,
        [
            "db-0.db.svc.cluster.local.",
            "db-0.db.svc.cluster.local.",
            "db-0.db.default.svc.cluster.local."
        ],
        "A and AAAA of the first, then the second"
    );

    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    server.forget("db-0.db.default.svc.cluster.local.", A);
    assert_eq!(
        kind(&dns).await,
        Kind::NxDomain,
        "no pods is no reason to walk again"
    );
    let asked = server.take_asked();
    assert!(
        asked
            .iter()
            .all(|(name, _)| name == "db-0.db.default.svc.cluster.local."),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn r02_a_failure_ends_the_walk_and_is_never_masked_by_a_later_absence() {
    let (server, conf) = pod().await;
    server.answer(WEB, A, Reply::rcode(Rcode::ServFail));
    assert_eq!(kind(&in_pod("web", &conf)).await, Kind::ServFail);
    let asked = server.take_asked();
    assert!(asked.iter().all(|(name, _)| name == WEB), "{asked:?}");

    server.answer(WEB, A, Reply::silence());
    let dns = in_pod("web", &conf).deadline(Duration::from_millis(300));
    assert_eq!(kind(&dns).await, Kind::Timeout);
}

#[tokio::test]
async fn r02_srv_names_walk_and_are_kept_the_same_way() {
    let (server, conf) = pod().await;
    let name = "_db._tcp.db.prod.cluster.local.";
    let reply = Reply::services([(5432, DB_0)]).glue(DB_0, "10.0.0.1");
    server.answer(name, SRV, reply);
    let dns = Dns::srv("_db._tcp.db.prod")
        .unwrap()
        .resolv_conf(conf.path());
    assert_eq!(found(&dns).await, ["db-0 10.0.0.1:5432"]);
    let asked = server.take_asked();
    assert_eq!(
        asked[0],
        ("_db._tcp.db.prod.svc.cluster.local.".to_owned(), SRV)
    );
    assert_eq!(
        asked.len(),
        3,
        "the exact name, below the own namespace, below the domain"
    );
    assert_eq!(found(&dns).await, ["db-0 10.0.0.1:5432"]);
    assert_eq!(server.take_asked(), [(name.to_owned(), SRV)]);
}

#[tokio::test]
async fn r02_a_walk_without_records_tells_nodata_from_nxdomain() {
    let (server, conf) = pod().await;
    let error = failure(&in_pod("api.example.com", &conf)).await;
    assert_eq!(error.kind(), Kind::NxDomain);
    assert!(
        error.to_string().contains("more names of the search list"),
        "{error}"
    );
    assert_eq!(server.take_asked().len(), 4);

    server.answer(
        "api.example.com.cluster.local.",
        SRV,
        Reply::services([(80, "x.")]),
    );
    assert_eq!(kind(&in_pod("api.example.com", &conf)).await, Kind::NoData);
}

#[tokio::test]
async fn r02_given_name_servers_bring_no_search_list() {
    let server = DnsServer::start().await;
    assert_eq!(kind(&headless("web", [&server])).await, Kind::NxDomain);
    assert_eq!(server.take_asked(), [("web.".to_owned(), A)]);
}

#[tokio::test]
async fn r02_addresses_and_localhost_bypass_dns() {
    let server = DnsServer::start().await;
    let cases: [(&str, &[&str]); 6] = [
        ("10.1.2.3", &["10.1.2.3:8080"]),
        ("::1", &["[::1]:8080"]),
        ("[fd00::1]", &["[fd00::1]:8080"]),
        ("localhost", &["127.0.0.1:8080"]),
        ("localhost.", &["127.0.0.1:8080"]),
        ("db.LOCALHOST", &["127.0.0.1:8080"]),
    ];
    for (name, expected) in cases {
        let resolution = headless(name, [&server])
            .reject_loopback()
            .resolve()
            .await
            .unwrap();
        assert_eq!(shown(&resolution), expected, "{name}");
        assert_eq!(resolution.ttl(), None, "{name}");
    }
    let localhost = headless("localhost", [&server]);
    assert_eq!(
        found(&localhost.clone().family(Family::PreferV6)).await,
        ["[::1]:8080"]
    );
    assert_eq!(
        found(&localhost.family(Family::Both)).await,
        ["127.0.0.1:8080", "[::1]:8080"]
    );
    assert_eq!(server.queries(), []);
}

// ===== R3: options =====

#[tokio::test]
async fn r03_every_question_offers_1232_bytes_also_when_resolv_conf_does_not_say_edns0() {
    let (server, conf) = pod().await;
    server.answer(WEB, A, many(70));
    let dns = in_pod("web", &conf);
    assert_eq!(dns.resolve().await.unwrap().addresses().len(), 70);
    let queries = server.queries();
    assert_eq!(queries.len(), 1, "70 addresses fit one datagram");
    assert_eq!(
        (queries[0].transport, queries[0].edns),
        (Transport::Udp, Some(1232))
    );
}

#[tokio::test]
async fn r03_a_set_too_large_for_a_datagram_comes_whole_over_tcp() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, many(500));
    let resolution = web(&server).resolve().await.unwrap();
    assert_eq!(
        (resolution.addresses().len(), resolution.is_partial()),
        (500, false)
    );
    let transports: Vec<Transport> = server
        .queries()
        .iter()
        .map(|query| query.transport)
        .collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn r03_nothing_is_cached_neither_records_nor_absence() {
    let server = DnsServer::start().await;
    let dns = web(&server);
    assert_eq!(kind(&dns).await, Kind::NxDomain);
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]).ttl(300));
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    server.answer(WEB, A, Reply::addresses(["10.0.0.2"]).ttl(300));
    assert_eq!(found(&dns).await, ["10.0.0.2:8080"]);
}

#[tokio::test]
async fn r03_sources_of_one_resolv_conf_share_their_resolvers() {
    let (server, conf) = pod().await;
    server.answer(
        WEB,
        A,
        Reply::addresses(["10.0.0.1"]).delay(Duration::from_millis(100)),
    );
    let (one, other) = (in_pod("web", &conf), in_pod("web.default", &conf));
    // Equal questions in flight are joined, inside one resolver only.
    let (one, other) = tokio::join!(one.resolve(), other.resolve());
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(server.queries().len(), 1);
}

#[tokio::test]
async fn r03_nothing_of_a_dropped_source_stays_behind() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, many(200));
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let dns = web(&server);
    assert_eq!(dns.resolve().await.unwrap().addresses().len(), 200);
    let _ = tokio::time::timeout(Duration::from_micros(1), dns.clone().resolve()).await;
    drop(dns);
    // The server's own side of the TCP connection ends as well.
    for _ in 0..200 {
        if tasks() <= before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} tasks more than before", tasks() - before);
}

#[tokio::test]
async fn r03_the_hosts_file_is_not_read() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().filter(|line| !line.starts_with('#'));
    let names = lines.flat_map(|line| line.split_whitespace().skip(1));
    let server = DnsServer::start().await;
    server.answer_everything(Reply::addresses(["10.9.9.9"]));
    for name in names.filter(|name| !name.to_ascii_lowercase().ends_with("localhost")) {
        assert_eq!(
            found(&headless(name, [&server])).await,
            ["10.9.9.9:8080"],
            "{name}"
        );
    }
}

// ===== R4: name servers =====

/// A server that does `reply`, before one that knows `web`.
async fn broken_first(ips: [[u8; 4]; 2], reply: Reply) -> (DnsServer, DnsServer) {
    let broken = DnsServer::start_on(ips[0]).await;
    broken.answer_everything(reply);
    let healthy = DnsServer::start_on(ips[1]).await;
    healthy.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    (broken, healthy)
}

#[tokio::test(start_paused = true)]
async fn r04_the_next_server_is_asked_after_every_failure_and_remembered() {
    let failures = [
        ("servfail", Reply::rcode(Rcode::ServFail)),
        ("servfail with soa", Reply::rcode(Rcode::ServFail).soa(30)),
        ("refused", Reply::rcode(Rcode::Refused)),
        ("notimp", Reply::rcode(Rcode::NotImp)),
        ("formerr", Reply::rcode(Rcode::FormErr)),
        ("silence", Reply::silence()),
        (
            "truncated",
            many(3)
                .truncated_on(Transport::Udp)
                .truncated_on(Transport::Tcp),
        ),
        (
            "garbage",
            Reply::raw([0, 0, 0x80, 0, 0, 9, 0, 9, 0, 9, 0, 9, 1]),
        ),
    ];
    for (what, reply) in failures {
        let (broken, healthy) = broken_first([[127, 0, 4, 1], [127, 0, 4, 2]], reply).await;
        let dns = headless(WEB, [&broken, &healthy]);
        assert_eq!(found(&dns).await, ["10.0.0.1:8080"], "{what}");
        let before = broken.queries().len();
        assert_ne!(before, 0, "{what}");
        for _ in 0..3 {
            assert_eq!(found(&dns).await, ["10.0.0.1:8080"], "{what}");
        }
        assert_eq!(
            broken.queries().len(),
            before,
            "the last good server comes first: {what}"
        );
        assert_eq!(healthy.queries().len(), 4, "{what}");
    }
}

#[tokio::test]
async fn r04_a_server_that_fails_at_once_is_asked_once_among_several_and_three_times_alone() {
    let reply = Reply::rcode(Rcode::ServFail);
    let (broken, healthy) = broken_first([[127, 0, 4, 8], [127, 0, 4, 9]], reply).await;
    assert_eq!(found(&headless(WEB, [&broken, &healthy])).await.len(), 1);
    assert_eq!(broken.take_asked().len(), 1);
    assert_eq!(kind(&web(&broken)).await, Kind::ServFail);
    assert_eq!(broken.take_asked().len(), 3);
}

#[tokio::test]
async fn r04_an_absence_is_an_answer_and_asks_no_other_server() {
    for (reply, expected) in [
        (Reply::nxdomain(), Kind::NxDomain),
        (Reply::nodata(), Kind::NoData),
    ] {
        let (empty, other) = broken_first([[127, 0, 4, 3], [127, 0, 4, 4]], reply).await;
        assert_eq!(kind(&headless(WEB, [&empty, &other])).await, expected);
        assert_eq!(other.queries(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn r04_when_all_fail_the_error_tells_each_server_and_the_most_telling_cause() {
    let (silent, refusing) = broken_first([[127, 0, 4, 5], [127, 0, 4, 6]], Reply::silence()).await;
    refusing.answer_everything(Reply::rcode(Rcode::Refused));
    let error = failure(&headless(WEB, [&silent, &refusing])).await;
    assert_eq!(error.kind(), Kind::Refused);
    let text = error.to_string();
    for part in [
        format!("A {WEB} at "),
        format!("{} (timeout)", silent.addr()),
        format!("{} (refused)", refusing.addr()),
    ] {
        assert!(text.contains(&part), "{text:?} lacks {part:?}");
    }

    // Truncation is about the service, has a remedy, and would be hidden by a dead second server.
    let cut = Reply::services([(80, DB_0)]).truncated_on(Transport::Udp);
    refusing.answer_everything(cut);
    refusing.refuse_tcp();
    assert_eq!(
        kind(&headless(WEB, [&silent, &refusing])).await,
        Kind::Truncated
    );
    assert_eq!(
        kind(&headless(WEB, [&refusing, &silent])).await,
        Kind::Truncated
    );
}

#[tokio::test]
async fn r04_three_failures_in_a_row_read_resolv_conf_again() {
    let (old, conf) = pod().await;
    old.answer_everything(Reply::rcode(Rcode::ServFail));
    let dns = in_pod("web", &conf);
    assert_eq!(kind(&dns).await, Kind::ServFail);

    let new = DnsServer::start_on_port_53().await;
    new.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    conf.write(&format!("nameserver {}\n{POD_SEARCH}", new.addr().ip()));
    assert_eq!(kind(&dns).await, Kind::ServFail);
    assert_eq!(kind(&dns).await, Kind::ServFail);
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
}

#[tokio::test(start_paused = true)]
async fn r04_a_changed_resolv_conf_is_seen_within_30_s_and_unpins_the_name() {
    let (old, conf) = pod().await;
    old.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    let dns = in_pod("web", &conf);
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);

    let new = DnsServer::start_on_port_53().await;
    new.answer(
        "web.shop.svc.cluster.local.",
        A,
        Reply::addresses(["10.0.0.2"]),
    );
    // File systems have coarse clocks.
    std::thread::sleep(Duration::from_millis(20));
    conf.write(&format!(
        "nameserver {}\nsearch shop.svc.cluster.local svc.cluster.local\n",
        new.addr().ip()
    ));
    assert_eq!(
        found(&dns).await,
        ["10.0.0.1:8080"],
        "not looked at again so soon"
    );
    tokio::time::advance(secs(31)).await;
    assert_eq!(found(&dns).await, ["10.0.0.2:8080"]);
}

#[tokio::test]
async fn r04_a_missing_resolv_conf_is_an_error_that_names_it_and_heals() {
    let conf = ResolvConf::missing();
    let dns = in_pod("web", &conf);
    let error = failure(&dns).await;
    assert_eq!(error.kind(), Kind::NoServers);
    assert!(
        error.to_string().contains(conf.path().to_str().unwrap()),
        "{error}"
    );

    conf.write("# nobody\n");
    let error = failure(&dns).await;
    assert_eq!(error.kind(), Kind::NoServers);
    assert!(
        error.to_string().contains(conf.path().to_str().unwrap()),
        "{error}"
    );

    let server = DnsServer::start_on_port_53().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    conf.write(&format!("nameserver {}\n{POD_SEARCH}", server.addr().ip()));
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);

    // Once it was read, losing the file loses nothing.
    std::fs::remove_file(conf.path()).unwrap();
    server.answer(WEB, A, Reply::rcode(Rcode::ServFail));
    for _ in 0..3 {
        assert_eq!(kind(&dns).await, Kind::ServFail);
    }
    server.answer(WEB, A, Reply::addresses(["10.0.0.2"]));
    assert_eq!(found(&dns).await, ["10.0.0.2:8080"]);
}

#[tokio::test]
async fn r04_no_name_server_given_is_an_error_not_an_absence() {
    assert_eq!(kind(&headless(WEB, [])).await, Kind::NoServers);
}

#[test]
fn r04_resolvers_survive_the_end_of_a_runtime() {
    // One server is another case than several: fewer tries for each.
    for servers in [1, 2] {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let lasting = runtime();
        let server = lasting.block_on(DnsServer::start_on([127, 0, 4, 7]));
        server.answer(WEB, A, many(200));
        let dns = headless(WEB, [&server, &server].into_iter().take(servers));
        for _ in 0..2 {
            let server = std::thread::scope(|scope| {
                let resolving = scope.spawn(|| runtime().block_on(dns.resolve()));
                lasting.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
                while !resolving.is_finished() {
                    lasting.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
                }
                resolving.join().unwrap()
            });
            assert_eq!(server.unwrap().addresses().len(), 200);
        }
    }
}

// ===== R5: deadline =====

#[tokio::test(start_paused = true)]
async fn r05_a_lost_datagram_is_repeated() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]).drop_first(2));
    let start = Instant::now();
    assert_eq!(found(&web(&server)).await, ["10.0.0.1:8080"]);
    assert!(start.elapsed() < secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn r05_three_dead_servers_before_a_healthy_one_fit_the_deadline() {
    let mut servers = Vec::new();
    for last in 1..=4 {
        let server = DnsServer::start_on([127, 0, 5, last]).await;
        server.answer(
            WEB,
            A,
            if last < 4 {
                Reply::silence()
            } else {
                Reply::addresses(["10.0.0.1"])
            },
        );
        servers.push(server);
    }
    let dns = headless(WEB, &servers);
    let start = Instant::now();
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    assert!(
        start.elapsed() < Duration::from_millis(3_100),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn r05_silence_ends_as_a_timeout_before_the_deadline() {
    let server = DnsServer::start().await;
    server.answer_everything(Reply::silence());
    for (deadline, most) in [
        (secs(5), 5_000),
        (secs(1), 1_010),
        (Duration::from_millis(100), 110),
    ] {
        for dns in [
            web(&server),
            http(&server),
            web(&server).family(Family::Both),
        ] {
            let start = Instant::now();
            assert_eq!(kind(&dns.deadline(deadline)).await, Kind::Timeout);
            let elapsed = start.elapsed();
            assert!(
                elapsed <= Duration::from_millis(most),
                "{deadline:?}: {elapsed:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r05_slow_families_and_follow_ups_share_one_deadline() {
    let server = DnsServer::start().await;
    let slow = Duration::from_millis(900);
    server.answer(
        HTTP,
        SRV,
        Reply::services((0..40).map(|_| (80, "x.")).take(0)).delay(slow),
    );
    let targets: Vec<String> = (0..100).map(|n| format!("p-{n}.{WEB}")).collect();
    server.answer(
        HTTP,
        SRV,
        Reply::services(targets.iter().map(|target| (80, &**target))).delay(slow),
    );
    for target in &targets {
        server.answer(target, A, Reply::addresses(["10.0.0.1"]).delay(slow));
    }
    let start = Instant::now();
    let resolution = http(&server).resolve().await.unwrap();
    assert!(
        start.elapsed() <= Duration::from_millis(5_010),
        "{:?}",
        start.elapsed()
    );
    assert!(!resolution.addresses().is_empty());
}

#[tokio::test]
async fn r05_a_dropped_resolution_harms_no_later_one() {
    let server = DnsServer::start().await;
    server.answer(
        WEB,
        A,
        Reply::addresses(["10.0.0.1"]).delay(Duration::from_millis(50)),
    );
    let dns = web(&server);
    for _ in 0..5 {
        let _ = tokio::time::timeout(Duration::from_millis(10), dns.resolve()).await;
    }
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
}

// ===== R6: outcomes =====

#[tokio::test]
async fn r06_records_carry_their_remaining_ttl_and_type() {
    let server = DnsServer::start().await;
    for ttl in [0, 1, 30] {
        server.answer(WEB, A, Reply::addresses(["10.0.0.1"]).ttl(ttl));
        let resolution = web(&server).resolve().await.unwrap();
        assert_eq!(resolution.ttl(), Some(secs(ttl.into())));
        assert_eq!(resolution.record(), Some("A"));
        assert!(!resolution.is_partial());
    }
}

#[tokio::test]
async fn r06_absence_carries_its_negative_ttl_and_question() {
    let server = DnsServer::start().await;
    let cases = [
        (Reply::nxdomain().soa(5), Kind::NxDomain, Some(5)),
        (Reply::nxdomain().soa(0), Kind::NxDomain, Some(0)),
        (Reply::nxdomain().without_soa(), Kind::NxDomain, None),
        (Reply::nodata().soa(7), Kind::NoData, Some(7)),
        (Reply::default(), Kind::NoData, None),
    ];
    for (reply, kind, ttl) in cases {
        server.answer_everything(reply);
        let error = failure(&web(&server).family(Family::V4Only)).await;
        assert_eq!(error.kind(), kind);
        assert_eq!(error.negative_ttl(), ttl.map(secs), "{kind:?}");
        assert!(error.is_empty());
        let question = format!("A {WEB} at {}", server.addr());
        assert!(error.to_string().contains(&question), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn r06_failures_are_never_taken_for_an_absence() {
    let server = DnsServer::start().await;
    let cases = [
        (Reply::rcode(Rcode::ServFail), Kind::ServFail),
        (Reply::rcode(Rcode::ServFail).soa(30), Kind::ServFail),
        (Reply::rcode(Rcode::Refused).soa(30), Kind::Refused),
        (Reply::rcode(Rcode::NotImp).soa(30), Kind::OtherRcode),
        (Reply::rcode(Rcode::FormErr), Kind::OtherRcode),
        (Reply::rcode(Rcode::Unknown(11)), Kind::OtherRcode),
        (Reply::rcode(Rcode::Unknown(11)).soa(30), Kind::OtherRcode),
        (
            Reply::raw([0, 0, 0x80, 0, 0, 9, 0, 9, 0, 9, 0, 9, 1]),
            Kind::Malformed,
        ),
        (
            Reply::addresses(["10.0.0.1"])
                .truncated_on(Transport::Udp)
                .silent_on(Transport::Tcp),
            Kind::Timeout,
        ),
    ];
    for (reply, expected) in cases {
        let what = format!("{reply:?}");
        server.answer_everything(reply);
        let error = failure(&web(&server)).await;
        assert_eq!(error.kind(), expected, "{what}");
        assert!(!error.is_empty(), "{what}");
        assert_eq!(error.negative_ttl(), None, "{what}");
    }
}

#[tokio::test]
async fn r06_an_answer_truncated_over_tcp_is_partial_with_what_fitted() {
    let server = DnsServer::start().await;
    let reply = many(3)
        .truncated_on(Transport::Udp)
        .truncated_on(Transport::Tcp);
    server.answer(WEB, A, reply.ttl(9));
    let resolution = web(&server).resolve().await.unwrap();
    assert!(resolution.is_partial());
    assert_eq!(resolution.addresses().len(), 3);
    assert_eq!(resolution.ttl(), Some(secs(9)));
}

#[tokio::test]
async fn r06_a_set_beyond_64_kib_is_partial() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, many(5_000));
    let resolution = web(&server).resolve().await.unwrap();
    assert!(resolution.is_partial());
    assert!(
        resolution.addresses().len() > 1_000,
        "{}",
        resolution.addresses().len()
    );
}

#[tokio::test]
async fn r06_truncated_and_empty_is_a_failure_not_an_empty_set() {
    let server = DnsServer::start().await;
    server.answer(
        WEB,
        A,
        Reply::default()
            .truncated_on(Transport::Udp)
            .truncated_on(Transport::Tcp),
    );
    assert_eq!(kind(&web(&server)).await, Kind::Truncated);
    let foreign = Reply::default().owned_by("other.example.", "10.0.0.1");
    let cut = |reply: Reply| {
        reply
            .truncated_on(Transport::Udp)
            .truncated_on(Transport::Tcp)
    };
    server.answer(WEB, A, cut(foreign));
    assert_eq!(kind(&web(&server)).await, Kind::Truncated);
    server.answer(HTTP, SRV, cut(Reply::services([(80, DB_0)])));
    assert_eq!(
        kind(&http(&server)).await,
        Kind::Truncated,
        "the target has no address, the others are unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn r06_no_reply_whatever_makes_it_panic_or_overrun_the_deadline() {
    let seed = std::env::var("HEADLESS_LB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| BuildHasher::hash_one(&RandomState::new(), 1));
    println!("HEADLESS_LB_SEED={seed}");
    let server = DnsServer::start().await;
    for n in 0..100 {
        let seed = seed.wrapping_add(n);
        let glued = Reply::services([(80, DB_0), (80, DB_1)])
            .glue(DB_0, "10.0.0.1")
            .glue(DB_1, "10.0.0.2");
        server.answer(HTTP, SRV, glued.corrupt(seed));
        server.answer(
            WEB,
            A,
            Reply::addresses(["10.0.0.1", "10.0.0.2"])
                .alias("x.", "y.")
                .corrupt(seed),
        );
        for dns in [web(&server), http(&server)] {
            let start = Instant::now();
            if let Ok(resolution) = dns.resolve().await {
                assert!(!resolution.addresses().is_empty());
            }
            assert!(
                start.elapsed() <= Duration::from_millis(5_010),
                "{:?}",
                start.elapsed()
            );
        }
    }
}

// ===== R7: records =====

#[tokio::test]
async fn r07_only_records_of_the_name_or_its_alias_count() {
    let server = DnsServer::start().await;
    server.answer(
        WEB,
        A,
        Reply::addresses(["10.0.0.1"]).owned_by("other.default.svc.cluster.local.", "10.6.6.6"),
    );
    assert_eq!(found(&web(&server)).await, ["10.0.0.1:8080"]);

    server.answer(
        WEB,
        A,
        Reply::default().owned_by("other.default.svc.cluster.local.", "10.6.6.6"),
    );
    assert_eq!(
        kind(&web(&server).family(Family::V4Only)).await,
        Kind::NoData
    );

    let alias = Reply::default()
        .owned_by("Real.example.", "10.0.0.3")
        .alias(WEB, "real.EXAMPLE.");
    server.answer(WEB, A, alias);
    assert_eq!(found(&web(&server)).await, ["10.0.0.3:8080"]);
}

#[tokio::test]
async fn r07_an_alias_without_its_records_is_followed() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::default().alias(WEB, "real.example.").ttl(4));
    server.answer("real.example.", A, Reply::addresses(["10.0.0.3"]));
    let resolution = web(&server).resolve().await.unwrap();
    assert_eq!(shown(&resolution), ["10.0.0.3:8080"]);
    assert_eq!(
        resolution.ttl(),
        Some(secs(4)),
        "the chain holds no longer than its shortest link"
    );
}

#[tokio::test]
async fn r07_duplicates_and_case_of_names_make_no_endpoint() {
    let server = DnsServer::start().await;
    let reply = Reply::addresses(["10.0.0.1", "10.0.0.1"])
        .owned_by("WEB.Default.svc.cluster.LOCAL.", "10.0.0.2");
    server.answer(WEB, A, reply);
    assert_eq!(
        found(&web(&server)).await,
        ["10.0.0.1:8080", "10.0.0.2:8080"]
    );
}

#[tokio::test]
async fn r07_impossible_addresses_are_dropped_loopback_by_option() {
    let server = DnsServer::start().await;
    server.answer(
        WEB,
        A,
        Reply::addresses(["0.0.0.0", "224.0.0.251", "127.0.0.1", "10.0.0.1"]),
    );
    assert_eq!(
        found(&web(&server)).await,
        ["10.0.0.1:8080", "127.0.0.1:8080"]
    );
    assert_eq!(
        found(&web(&server).reject_loopback()).await,
        ["10.0.0.1:8080"]
    );

    // Nothing but impossible ones: a sinkhole, which must not empty the set.
    server.answer(WEB, A, Reply::addresses(["0.0.0.0"]));
    assert!(!failure(&web(&server)).await.is_empty());
}

// ===== R17: dual stack =====

#[tokio::test]
async fn r17_each_policy_takes_its_family() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    server.answer(WEB, AAAA, Reply::addresses(["fd00::1"]).ttl(7));
    let v4 = vec!["10.0.0.1:8080".to_owned()];
    let v6 = vec!["[fd00::1]:8080".to_owned()];
    let both = [v4.clone(), v6.clone()].concat();
    for (family, expected, types) in [
        (Family::V4Only, &v4, 1),
        (Family::V6Only, &v6, 1),
        (Family::PreferV4, &v4, 1),
        (Family::PreferV6, &v6, 1),
        (Family::Both, &both, 2),
    ] {
        assert_eq!(
            &found(&web(&server).family(family)).await,
            expected,
            "{family:?}"
        );
        assert_eq!(server.take_asked().len(), types, "{family:?}");
    }
    let resolution = web(&server).family(Family::Both).resolve().await.unwrap();
    assert_eq!(resolution.ttl(), Some(secs(7)));
}

#[tokio::test]
async fn r17_a_failed_first_family_is_not_masked_by_the_other() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::rcode(Rcode::ServFail));
    for other in [
        Reply::nodata(),
        Reply::nxdomain(),
        Reply::addresses(["fd00::1"]),
    ] {
        server.answer(WEB, AAAA, other);
        assert_eq!(kind(&web(&server)).await, Kind::ServFail);
        assert_eq!(server.count(WEB, AAAA), 0, "asked on NODATA only");
        assert_eq!(
            kind(&web(&server).family(Family::Both)).await,
            Kind::ServFail
        );
        server.take_asked();
    }
}

#[tokio::test]
async fn r17_nxdomain_holds_for_both_families_and_nodata_for_one() {
    let server = DnsServer::start().await;
    assert_eq!(kind(&web(&server)).await, Kind::NxDomain);
    assert_eq!(server.take_asked(), [(WEB.to_owned(), A)]);

    server.answer(WEB, AAAA, Reply::rcode(Rcode::ServFail));
    assert_eq!(
        kind(&web(&server)).await,
        Kind::ServFail,
        "A NODATA, AAAA unknown: unknown"
    );

    server.answer(WEB, AAAA, Reply::nodata());
    let error = failure(&web(&server)).await;
    assert_eq!(error.kind(), Kind::NoData);
    assert!(error.to_string().contains("A and AAAA"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn r17_only_the_family_that_answered_is_asked_until_it_turns_empty_or_5_min_passed() {
    let server = DnsServer::start().await;
    let a = || (WEB.to_owned(), A);
    let aaaa = || (WEB.to_owned(), AAAA);
    server.answer(WEB, AAAA, Reply::addresses(["fd00::1"]));
    let dns = web(&server);
    for expected in [vec![a(), aaaa()], vec![aaaa()], vec![aaaa()]] {
        assert_eq!(found(&dns).await, ["[fd00::1]:8080"]);
        assert_eq!(server.take_asked(), expected);
    }
    tokio::time::advance(secs(300)).await;
    assert_eq!(found(&dns).await, ["[fd00::1]:8080"]);
    assert_eq!(
        server.take_asked(),
        [a(), aaaa()],
        "the second look at the preferred family"
    );

    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    server.answer(WEB, AAAA, Reply::nodata());
    assert_eq!(
        found(&dns).await,
        ["10.0.0.1:8080"],
        "the other turned empty"
    );
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
    assert_eq!(server.take_asked(), [aaaa(), a(), a()]);
}

#[tokio::test(start_paused = true)]
async fn r17_a_failed_second_look_changes_nothing_and_stays_due() {
    let server = DnsServer::start().await;
    server.answer(WEB, AAAA, Reply::addresses(["fd00::1"]));
    let dns = web(&server);
    assert_eq!(found(&dns).await, ["[fd00::1]:8080"]);
    tokio::time::advance(secs(300)).await;
    server.answer(WEB, A, Reply::rcode(Rcode::ServFail));
    assert_eq!(found(&dns).await, ["[fd00::1]:8080"]);
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    assert_eq!(found(&dns).await, ["10.0.0.1:8080"]);
}

#[tokio::test]
async fn r17_replicas_that_disagree_give_a_partial_union() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    server.answer(WEB, AAAA, Reply::nxdomain());
    let resolution = web(&server).family(Family::Both).resolve().await.unwrap();
    assert!(resolution.is_partial());
    server.answer(WEB, AAAA, Reply::nodata());
    assert!(
        !web(&server)
            .family(Family::Both)
            .resolve()
            .await
            .unwrap()
            .is_partial()
    );
}

// ===== R18: SRV =====

const DB_0: &str = "db-0.web.default.svc.cluster.local.";
const DB_1: &str = "db-1.web.default.svc.cluster.local.";

#[tokio::test]
async fn r18_endpoints_carry_name_and_port_and_cost_one_question_with_glue() {
    let server = DnsServer::start().await;
    let reply = Reply::services([(8080, DB_0), (8081, DB_1)])
        .glue(DB_0, "10.0.0.1")
        .glue(DB_1, "10.0.0.2");
    server.answer(
        HTTP,
        SRV,
        reply.glue("foreign.example.", "10.6.6.6").ttl(11),
    );
    let resolution = http(&server).resolve().await.unwrap();
    assert_eq!(
        shown(&resolution),
        ["db-0 10.0.0.1:8080", "db-1 10.0.0.2:8081"]
    );
    assert_eq!(
        (resolution.record(), resolution.ttl()),
        (Some("SRV"), Some(secs(11)))
    );
    assert_eq!(server.queries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r18_targets_without_glue_are_asked_for_at_most_16_at_once() {
    let server = DnsServer::start().await;
    let targets: Vec<String> = (0..40).map(|n| format!("p-{n}.{WEB}")).collect();
    server.answer(
        HTTP,
        SRV,
        Reply::services(targets.iter().map(|target| (80, &**target))),
    );
    for (n, target) in targets.iter().enumerate() {
        let reply = Reply::addresses([&*format!("10.0.0.{n}")]).delay(Duration::from_millis(50));
        server.answer(target, A, reply.ttl(3));
    }
    let dns = http(&server);
    let peak = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        server
            .queries()
            .iter()
            .filter(|query| query.record == A)
            .count()
    };
    let (resolution, peak) = tokio::join!(dns.resolve(), peak);
    let resolution = resolution.unwrap();
    assert_eq!(peak, 16);
    assert_eq!(resolution.addresses().len(), 40);
    assert_eq!(resolution.ttl(), Some(secs(3)));
}

#[tokio::test]
async fn r18_glue_of_the_other_family_is_filtered_not_missing() {
    let server = DnsServer::start().await;
    let (v4, v6) = (
        "10-0-0-1.web.default.svc.cluster.local.",
        "fd00--1.web.default.svc.cluster.local.",
    );
    let reply = Reply::services([(80, v4), (80, v6)])
        .glue(v4, "10.0.0.1")
        .glue(v6, "fd00::1");
    server.answer(HTTP, SRV, reply);
    for (family, expected) in [
        (Family::PreferV4, vec!["10-0-0-1 10.0.0.1:80"]),
        (Family::V4Only, vec!["10-0-0-1 10.0.0.1:80"]),
        (Family::PreferV6, vec!["fd00--1 [fd00::1]:80"]),
        (Family::V6Only, vec!["fd00--1 [fd00::1]:80"]),
        (
            Family::Both,
            vec!["10-0-0-1 10.0.0.1:80", "fd00--1 [fd00::1]:80"],
        ),
    ] {
        assert_eq!(
            found(&http(&server).family(family)).await,
            expected,
            "{family:?}"
        );
    }
    assert_eq!(server.queries().len(), 5, "no follow-up");

    server.answer(HTTP, SRV, Reply::services([(80, v6)]).glue(v6, "fd00::1"));
    assert_eq!(
        found(&http(&server)).await,
        ["fd00--1 [fd00::1]:80"],
        "the only family there is"
    );
    let error = failure(&http(&server).family(Family::V4Only)).await;
    assert_eq!(error.kind(), Kind::NoData);
    assert!(error.to_string().contains("other IP family"), "{error}");
}

#[tokio::test]
async fn r18_a_failed_follow_up_keeps_that_targets_addresses() {
    let server = DnsServer::start().await;
    server.answer(
        HTTP,
        SRV,
        Reply::services([(80, DB_0), (80, DB_1)]).glue(DB_0, "10.0.0.1"),
    );
    server.answer(DB_1, A, Reply::addresses(["10.0.0.2"]));
    let dns = http(&server);
    let both = ["db-0 10.0.0.1:80", "db-1 10.0.0.2:80"];
    assert_eq!(found(&dns).await, both);

    server.answer(DB_1, A, Reply::rcode(Rcode::ServFail));
    for _ in 0..3 {
        assert_eq!(
            found(&dns).await,
            both,
            "a set is never shrunk by a failure"
        );
    }
    assert_eq!(
        found(&dns.clone()).await,
        both,
        "clones share what they learned"
    );
    assert_eq!(
        found(&http(&server)).await,
        ["db-0 10.0.0.1:80"],
        "a bad target loses only itself"
    );

    server.forget(DB_1, A);
    assert_eq!(found(&dns).await, ["db-0 10.0.0.1:80"], "the pod is gone");
}

#[tokio::test]
async fn r18_when_every_target_fails_and_none_is_known_the_resolution_fails() {
    let server = DnsServer::start().await;
    server.answer(HTTP, SRV, Reply::services([(80, DB_0), (80, DB_1)]));
    server.answer(DB_0, A, Reply::rcode(Rcode::ServFail));
    assert_eq!(
        kind(&http(&server)).await,
        Kind::ServFail,
        "one failed, one is gone"
    );
    server.answer(DB_1, A, Reply::rcode(Rcode::ServFail));
    assert_eq!(kind(&http(&server)).await, Kind::ServFail);
    server.forget(DB_0, A);
    server.forget(DB_1, A);
    assert_eq!(kind(&http(&server)).await, Kind::NoData, "all are gone");
}

#[tokio::test]
async fn r18_the_lowest_priority_alone_and_the_root_target_is_no_endpoint() {
    let server = DnsServer::start().await;
    let reply = Reply::default().service(10, 80, DB_1).service(0, 80, DB_0);
    server.answer(
        HTTP,
        SRV,
        reply.glue(DB_0, "10.0.0.1").glue(DB_1, "10.0.0.2"),
    );
    assert_eq!(found(&http(&server)).await, ["db-0 10.0.0.1:80"]);

    server.answer(HTTP, SRV, Reply::services([(0, ".")]));
    let error = failure(&http(&server)).await;
    assert_eq!(error.kind(), Kind::NoData);
    assert_eq!(server.count(".", A), 0);
}

#[tokio::test]
async fn r18_nodata_is_told_as_a_service_without_ports() {
    let server = DnsServer::start().await;
    server.answer(HTTP, SRV, Reply::nodata());
    let error = failure(&http(&server)).await;
    assert_eq!(error.kind(), Kind::NoData);
    assert!(error.to_string().contains("has no ports"), "{error}");
}

#[tokio::test]
async fn r18_an_unknown_port_name_is_found_out_with_one_question() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    let dns = http(&server);
    for _ in 0..3 {
        let error = failure(&dns).await;
        assert_eq!(error.kind(), Kind::NxDomain);
        assert!(
            error.to_string().contains("unknown port name or protocol"),
            "{error}"
        );
    }
    assert_eq!(server.count(WEB, A), 1);

    server.forget(WEB, A);
    let dns = http(&server);
    server.answer(WEB, A, Reply::rcode(Rcode::ServFail));
    let text = failure(&dns).await.to_string();
    assert!(!text.contains("unknown port"), "nobody knows: {text}");
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    let text = failure(&dns).await.to_string();
    assert!(
        text.contains("unknown port"),
        "a failure leaves the question open: {text}"
    );
    server.forget(WEB, A);

    let dns = http(&server);
    let text = failure(&dns).await.to_string();
    assert!(!text.contains("unknown port"), "no pods at all: {text}");
    let asked = server.count(WEB, A);
    failure(&dns).await;
    assert_eq!(server.count(WEB, A), asked, "asked once");
}

#[tokio::test]
async fn r18_after_srv_records_were_seen_nxdomain_means_no_pods() {
    let server = DnsServer::start().await;
    server.answer(
        HTTP,
        SRV,
        Reply::services([(80, DB_0)]).glue(DB_0, "10.0.0.1"),
    );
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    for dns in [http(&server), http(&server).or_port(9090).unwrap()] {
        server.answer(
            HTTP,
            SRV,
            Reply::services([(80, DB_0)]).glue(DB_0, "10.0.0.1"),
        );
        assert_eq!(found(&dns).await, ["db-0 10.0.0.1:80"]);
        server.forget(HTTP, SRV);
        let error = failure(&dns).await;
        assert_eq!(error.kind(), Kind::NxDomain);
        assert!(!error.to_string().contains("unknown port"), "{error}");
    }
    assert_eq!(server.count(WEB, A), 0);
}

#[tokio::test(start_paused = true)]
async fn r18_or_port_falls_back_to_addresses() {
    let server = DnsServer::start().await;
    server.answer(WEB, A, Reply::addresses(["10.0.0.1"]));
    let truncated = Reply::services([(80, DB_0)]).truncated_on(Transport::Udp);
    for (what, reply, sticks) in [
        ("nxdomain at start", Reply::nxdomain(), true),
        (
            "truncated",
            truncated.clone().truncated_on(Transport::Tcp),
            true,
        ),
        ("servfail", Reply::rcode(Rcode::ServFail), false),
    ] {
        server.answer(HTTP, SRV, reply);
        let dns = http(&server).or_port(9090).unwrap();
        let resolution = dns.resolve().await.unwrap();
        assert_eq!(shown(&resolution), ["10.0.0.1:9090"], "{what}");
        assert!(!resolution.is_partial(), "{what}");
        server.take_asked();
        assert_eq!(found(&dns).await, ["10.0.0.1:9090"], "{what}");
        assert_eq!(server.count(HTTP, SRV) == 0, sticks, "{what}");

        server.answer(
            HTTP,
            SRV,
            Reply::services([(80, DB_0)]).glue(DB_0, "10.0.0.1"),
        );
        tokio::time::advance(secs(300)).await;
        assert_eq!(
            found(&dns).await,
            ["db-0 10.0.0.1:80"],
            "SRV is tried again: {what}"
        );
    }
}

#[tokio::test]
async fn r18_a_fall_back_that_fails_too_leaves_the_failure() {
    let server = DnsServer::start().await;
    server.answer(HTTP, SRV, Reply::rcode(Rcode::ServFail));
    let dns = http(&server).or_port(9090).unwrap();
    assert_eq!(
        kind(&dns).await,
        Kind::ServFail,
        "A says NXDOMAIN, SRV cannot say: unknown"
    );
    server.forget(HTTP, SRV);
    assert_eq!(kind(&dns).await, Kind::NxDomain);
    server.answer(WEB, A, Reply::rcode(Rcode::Refused));
    assert_eq!(kind(&dns).await, Kind::Refused);
}

#[tokio::test]
async fn r18_truncated_srv_is_partial_and_asks_for_the_targets() {
    let server = DnsServer::start().await;
    let reply = Reply::services([(80, DB_0), (80, DB_1)]).glue(DB_0, "10.0.0.1");
    server.answer(
        HTTP,
        SRV,
        reply
            .truncated_on(Transport::Udp)
            .truncated_on(Transport::Tcp),
    );
    server.answer(DB_1, A, Reply::addresses(["10.0.0.2"]));
    let resolution = http(&server).resolve().await.unwrap();
    assert!(resolution.is_partial());
    assert_eq!(shown(&resolution), ["db-0 10.0.0.1:80", "db-1 10.0.0.2:80"]);
}

#[tokio::test]
async fn r18_a_partial_answer_forgets_no_target() {
    let server = DnsServer::start().await;
    let both = || Reply::services([(80, DB_0), (80, DB_1)]).glue(DB_0, "10.0.0.1");
    server.answer(HTTP, SRV, both());
    server.answer(DB_1, A, Reply::addresses(["10.0.0.2"]));
    let dns = http(&server);
    assert_eq!(found(&dns).await.len(), 2);

    let cut = Reply::services([(80, DB_0)]).glue(DB_0, "10.0.0.1");
    server.answer(
        HTTP,
        SRV,
        cut.truncated_on(Transport::Udp)
            .truncated_on(Transport::Tcp),
    );
    assert_eq!(found(&dns).await.len(), 1);

    server.answer(HTTP, SRV, both());
    server.answer(DB_1, A, Reply::rcode(Rcode::ServFail));
    assert_eq!(found(&dns).await, ["db-0 10.0.0.1:80", "db-1 10.0.0.2:80"]);
}

#[tokio::test]
async fn r18_srv_behind_an_alias_is_a_failure_not_an_absence() {
    // The resolver goes on with the target's name and reports that there are no SRV records.
    let server = DnsServer::start().await;
    let reply = Reply::default().alias(HTTP, "_http._tcp.real.example.");
    server.answer(
        HTTP,
        SRV,
        reply.service_of("_http._tcp.real.example.", 80, DB_0),
    );
    assert_eq!(kind(&http(&server)).await, Kind::Malformed);
}

// ===== R19: a port is needed =====

#[test]
fn r19_addresses_need_a_port_and_the_error_says_which() {
    let error = Dns::headless("web", 0).unwrap_err();
    assert_eq!(error.kind(), headless_lb::NameErrorKind::PortMissing);
    assert!(error.to_string().contains("targetPort"), "{error}");
    assert!(Dns::srv(HTTP).unwrap().or_port(0).is_err());
}

// ===== R20: limits =====

#[tokio::test]
async fn r20_a_truncated_error_names_the_limit_and_for_srv_the_way_out() {
    let server = DnsServer::start().await;
    server.refuse_tcp();
    server.answer(WEB, A, many(200));
    let text = failure(&web(&server)).await.to_string();
    assert!(
        text.contains("truncated") && text.contains("4,090") && text.contains("TCP port 53"),
        "{text}"
    );

    server.answer(
        HTTP,
        SRV,
        Reply::services([(80, DB_0)]).truncated_on(Transport::Udp),
    );
    let text = failure(&http(&server)).await.to_string();
    assert!(
        text.contains("truncated") && text.contains("440") && text.contains("or_port"),
        "{text}"
    );
    server.answer(HTTP, SRV, Reply::rcode(Rcode::ServFail));
    let text = failure(&http(&server)).await.to_string();
    assert!(text.contains("440") && text.contains("or_port"), "{text}");
}

#[test]
fn r20_the_limits_are_documented() {
    let docs = include_str!("../src/resolve/dns.rs");
    for limit in [
        "| 29 |",
        "| 73 |",
        "| 4,090 |",
        "| 2,337 |",
        "570-740",
        "446",
        "TCP port 53 must be open",
        "max-records-per-type",
        "1,232",
    ] {
        assert!(docs.contains(limit), "{limit} is not documented");
    }
}

// ===== R23: the dependency =====

#[test]
fn r23_hickory_is_pinned_to_the_measured_minor_version() {
    let manifest = include_str!("../Cargo.toml");
    let lines: Vec<&str> = manifest
        .lines()
        .filter(|line| line.starts_with("hickory-resolver"))
        .collect();
    assert_eq!(lines.len(), 2, "the library's and the tests'");
    for line in lines {
        for part in [
            r#"version = ">=0.26.3, <0.27""#,
            "default-features = false",
            r#"features = ["tokio", "system-config"]"#,
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
    assert!(manifest.contains(r#"rust-version = "1.88""#));
}

#[test]
fn r23_no_type_of_hickory_is_in_the_public_interface() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.join("resolve")];
    let mut files = vec![root.join("lib.rs"), root.join("resolve.rs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    assert!(files.len() > 8);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let imported = imported_from_hickory(&text);
        for line in text.lines() {
            // `pub(super)` and `pub(crate)` are not public.
            let Some(item) = line.trim_start().strip_prefix("pub ") else {
                continue;
            };
            assert!(!item.contains("hickory"), "{}: {line}", file.display());
            let mut words = item.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let leaked = words.find(|word| imported.iter().any(|name| name == word));
            assert_eq!(leaked, None, "{}: {line}", file.display());
        }
        assert!(
            !text.contains("for NetError") && !text.contains("From<NetError>"),
            "{}",
            file.display()
        );
    }
}

/// The names inside `use hickory_resolver::{ ... };`, types only.
fn imported_from_hickory(text: &str) -> Vec<String> {
    let Some((_, uses)) = text.split_once("use hickory_resolver") else {
        return Vec::new();
    };
    let (uses, _) = uses.split_once(';').expect("the end of the use");
    let words = uses.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with(char::is_uppercase))
        .map(str::to_owned)
        .collect()
}

#[test]
fn sources_are_send_sync_clone_and_debug() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
    let dns = Dns::srv(HTTP)
        .unwrap()
        .name_servers([SocketAddr::from(([10, 96, 0, 10], 53))]);
    check(&dns);
    assert_eq!(dns.service(), HTTP);
    let _ = format!("{dns:?}");
}

//! What a real cluster DNS said, served from a real socket and resolved.
//!
//! The expectation is read off the bytes by a second, independent parser, and by hand where a number matters.
#![expect(
    unreachable_pub,
    reason = "nothing is reachable from outside a test; `pub` says what a module offers"
)]

#[path = "support/replay.rs"]
mod replay;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use headless_lb::{Dns, Resolution, Resolve, ResolveError, ResolveErrorKind, resolve::dns::Family};
use replay::Replay;
use wire::{A, AAAA, Data, Message, NOERROR, NXDOMAIN, Question, SERVFAIL, SRV, TXT, Transport};

const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(60);

/// One entry of the index.
#[derive(Debug)]
struct Case {
    file: String,
    question: Question,
    transport: Transport,
    bytes: Vec<u8>,
}

impl Case {
    fn message(&self) -> Message {
        Message::parse(&self.bytes).unwrap_or_else(|| panic!("{}: not a DNS message", self.file))
    }

    /// The same question over TCP, which a client asks after a truncated answer.
    fn over_tcp(&self) -> Self {
        let stem = self
            .file
            .split("-udp")
            .next()
            .expect("a split has a first part");
        case(&format!("{stem}-tcp.bin"))
    }

    /// Serves this answer as its server did: a message that came over TCP was truncated over UDP before.
    async fn serve(&self) -> Replay {
        let message = self.message();
        let question = self.question.clone();
        let (udp, tcp) = match self.transport {
            Transport::Tcp => (wire::truncated(&question), self.bytes.clone()),
            Transport::Udp if message.truncated => (self.bytes.clone(), self.over_tcp().bytes),
            Transport::Udp => (self.bytes.clone(), self.bytes.clone()),
        };
        Replay::start(move |asked, transport| {
            if *asked != question {
                return Some(rest_of_the_cluster(asked));
            }
            Some(match transport {
                Transport::Tcp => tcp.clone(),
                Transport::Udp => udp.clone(),
            })
        })
        .await
    }
}

/// What the cluster says to other questions: pods without a hostname have a name of their own, nothing else exists.
fn rest_of_the_cluster(asked: &Question) -> Vec<u8> {
    match (pod_address(&asked.name), asked.kind) {
        (Some(IpAddr::V4(ip)), A) => wire::answer(asked, NOERROR, 30, &[ip]),
        (Some(_), _) => wire::answer(asked, NOERROR, 30, &[]),
        (None, _) => wire::answer(asked, NXDOMAIN, 30, &[]),
    }
}

/// The address in a name such as `10-244-1-7.web.default.svc.cluster.local.`
fn pod_address(name: &str) -> Option<IpAddr> {
    let label = name.split('.').next()?;
    label
        .replace('-', ".")
        .parse()
        .or_else(|_| label.replace('-', ":").parse())
        .ok()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/coredns")
}

fn cases() -> Vec<Case> {
    let index = fs::read(folder().join("index.json")).expect("the index is there");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("the index is JSON");
    let cases = index["cases"].as_array().expect("the index has cases");
    cases.iter().map(read).collect()
}

fn case(file: &str) -> Case {
    let found = cases().into_iter().find(|case| case.file == file);
    found.unwrap_or_else(|| panic!("{file} is not in the index"))
}

/// Reads an entry and its file, and holds one against the other.
fn read(entry: &serde_json::Value) -> Case {
    let text = |key: &str| entry[key].as_str().expect("a text").to_owned();
    let file = text("file");
    let case = Case {
        bytes: fs::read(folder().join(&file)).expect("a file of the index is there"),
        question: Question {
            name: text("query"),
            kind: match entry["type"].as_str() {
                Some("A") => A,
                Some("AAAA") => AAAA,
                Some("SRV") => SRV,
                Some("TXT") => TXT,
                other => panic!("{file}: no such type: {other:?}"),
            },
        },
        transport: if entry["transport"] == "tcp" {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        file,
    };
    let message = case.message();
    assert_eq!(message.question, case.question, "{}", case.file);
    assert_eq!(entry["rcode"], message.rcode, "{}", case.file);
    assert_eq!(entry["tc"], message.truncated, "{}", case.file);
    assert_eq!(entry["answers"], message.answers.len(), "{}", case.file);
    assert_eq!(
        entry["authorities"],
        message.authorities.len(),
        "{}",
        case.file
    );
    assert_eq!(
        entry["additionals"],
        message.additionals.len(),
        "{}",
        case.file
    );
    case
}

/// The source that asks the question of `case`.
fn source(case: &Case, server: SocketAddr) -> Dns {
    let name = &case.question.name;
    let dns = match case.question.kind {
        SRV => Dns::srv(name),
        _ => Dns::headless(name, PORT),
    };
    let family = match case.question.kind {
        A => Family::V4Only,
        AAAA => Family::V6Only,
        _ => Family::PreferV4,
    };
    let dns = dns.unwrap_or_else(|error| panic!("{}: {error}", case.file));
    // A thousand follow-up questions take a second; on a busy machine, longer than the default deadline.
    dns.name_servers([server]).family(family).deadline(PATIENCE)
}

async fn resolve(case: &Case) -> Result<Resolution, ResolveError> {
    let server = case.serve().await;
    source(case, server.address()).resolve().await
}

/// An address, and the pod's name if it is known.
type Pod = (SocketAddr, Option<String>);

fn pods(resolution: &Resolution) -> BTreeSet<Pod> {
    let addresses = resolution.addresses().iter();
    addresses
        .map(|address| (address.socket(), address.name().map(ToOwned::to_owned)))
        .collect()
}

fn ips(resolution: &Resolution) -> BTreeSet<String> {
    resolution
        .addresses()
        .iter()
        .map(|address| address.socket().ip().to_string())
        .collect()
}

/// What requirements R1-R23 make of a message, told by its records alone.
fn expected(message: &Message) -> Result<BTreeSet<Pod>, (ResolveErrorKind, Option<Duration>)> {
    if message.answers.is_empty() {
        let kind = match message.rcode {
            NXDOMAIN => ResolveErrorKind::NxDomain,
            _ => ResolveErrorKind::NoData,
        };
        let holds = message
            .authorities
            .iter()
            .find_map(|record| match record.data {
                Data::Soa { minimum } => Some(minimum.min(record.ttl)),
                _ => None,
            });
        return Err((kind, holds.map(|ttl| Duration::from_secs(ttl.into()))));
    }
    if message.question.kind != SRV {
        let addresses = message.addresses().into_iter();
        return Ok(addresses
            .map(|ip| (SocketAddr::new(ip, PORT), None))
            .collect());
    }
    let glue = message.glue();
    let mut pods = BTreeSet::new();
    for record in &message.answers {
        let Data::Srv { port, target } = &record.data else {
            continue;
        };
        let owned = glue
            .iter()
            .filter(|(owner, _)| owner == target)
            .map(|(_, ip)| *ip);
        let ips: Vec<IpAddr> = owned.chain(pod_address(target)).collect();
        // PreferV4, the default, filters what has IPv6 only.
        for ip in ips.into_iter().filter(IpAddr::is_ipv4) {
            let name = target.split('.').next().map(ToOwned::to_owned);
            pods.insert((SocketAddr::new(ip, *port), name));
        }
    }
    Ok(pods)
}

#[test]
fn no_recorded_answer_is_left_out() {
    let entries = fs::read_dir(folder()).expect("the folder is there");
    let files: io::Result<BTreeSet<String>> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.as_ref().is_ok_and(|name| name.ends_with(".bin")))
        .collect();
    let indexed: BTreeSet<String> = cases().into_iter().map(|case| case.file).collect();
    assert_eq!(files.expect("the folder can be read"), indexed);
    assert_eq!(indexed.len(), 49);
}

#[tokio::test]
async fn the_replay_serves_the_recorded_bytes() {
    for case in cases() {
        let server = case.serve().await;
        let Question { name, kind } = &case.question;
        let bytes = wire::ask_bytes(server.address(), name, *kind, case.transport).await;
        assert_eq!(bytes.expect("an answer"), case.bytes, "{}", case.file);
    }
}

#[tokio::test]
async fn every_recorded_answer_gives_the_pods_that_it_names() {
    for case in cases() {
        if case.question.kind == TXT {
            continue; // below: nobody asks for it
        }
        let file = &case.file;
        let believed = match case.message() {
            message if message.truncated && case.transport == Transport::Udp => {
                case.over_tcp().message()
            }
            message => message,
        };
        match (resolve(&case).await, expected(&believed)) {
            (Ok(resolution), Ok(expected)) => {
                assert_eq!(resolution.is_partial(), believed.truncated, "{file}");
                let ttl = believed.ttl().map(|ttl| Duration::from_secs(ttl.into()));
                assert_eq!(resolution.ttl(), ttl, "{file}");
                assert_eq!(resolution.addresses().len(), expected.len(), "{file}");
                assert!(
                    pods(&resolution) == expected,
                    "{file}: other pods than in the message"
                );
            }
            (Err(error), Err((kind, negative_ttl))) => {
                assert_eq!(error.kind(), kind, "{file}: {error}");
                assert_eq!(error.negative_ttl(), negative_ttl, "{file}");
            }
            (found, expected) => panic!("{file}: {found:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn zero_pods_a_missing_service_and_an_unknown_port_are_nxdomain_for_30_seconds() {
    for file in [
        "zero-a.bin",
        "zero-aaaa.bin",
        "zero-srv.bin",
        "missing-service-a.bin",
        "one-srv-unknown-port.bin",
        "stateful-pod-missing-a.bin",
    ] {
        let error = resolve(&case(file)).await.expect_err(file);
        assert_eq!(error.kind(), ResolveErrorKind::NxDomain, "{file}");
        assert_eq!(
            error.negative_ttl(),
            Some(Duration::from_secs(30)),
            "{file}"
        );
    }
}

#[tokio::test]
async fn an_unknown_port_of_a_service_with_pods_is_called_by_its_name() {
    let (srv, a) = (case("one-srv-unknown-port.bin"), case("one-a.bin"));
    let question = srv.question.clone();
    let bytes = srv.bytes.clone();
    let server = Replay::start(move |asked, _| {
        Some(match asked {
            asked if *asked == question => bytes.clone(),
            asked if *asked == a.question => a.bytes.clone(),
            asked => rest_of_the_cluster(asked),
        })
    })
    .await;
    let error = source(&srv, server.address())
        .resolve()
        .await
        .expect_err("no such port");
    assert!(error.is_empty(), "{error}");
    assert!(error.to_string().contains("port"), "{error}");
}

#[tokio::test]
async fn the_family_that_a_service_lacks_is_nodata_and_the_other_one_is_asked() {
    let (v4, v6) = (case("one-a.bin"), case("one-aaaa.bin"));
    let error = resolve(&v6).await.expect_err("IPv4 only");
    assert_eq!(error.kind(), ResolveErrorKind::NoData);

    let name = v4.question.name.clone();
    let server = Replay::start(move |asked, _| match asked.kind {
        A => Some(v4.bytes.clone()),
        AAAA => Some(v6.bytes.clone()),
        _ => None,
    })
    .await;
    let dns = Dns::headless(&name, PORT)
        .expect("a name")
        .name_servers([server.address()]);
    for family in [Family::PreferV4, Family::PreferV6, Family::Both] {
        let found = dns.clone().family(family).resolve().await.expect("one pod");
        assert_eq!(found.addresses().len(), 1, "{family:?}");
    }
}

#[tokio::test]
async fn shuffled_answers_are_the_same_three_pods() {
    let mut sets = HashSet::new();
    for file in [
        "three-a-0.bin",
        "three-a-1.bin",
        "three-a-2.bin",
        "three-a-3.bin",
    ] {
        let found = resolve(&case(file)).await.expect(file);
        assert_eq!(found.addresses().len(), 3, "{file}");
        assert_eq!(found.ttl(), Some(Duration::from_secs(30)), "{file}");
        sets.insert(pods(&found));
    }
    assert_eq!(sets.len(), 1);
}

#[tokio::test]
async fn the_ttl_is_what_the_server_said_and_zero_stays_zero() {
    let mut ttls = Vec::new();
    for file in ["plain", "ttl0", "cached-0", "cached-1", "cached-2"] {
        let found = resolve(&case(&format!("three-a-{file}.bin")))
            .await
            .expect(file);
        ttls.push(found.ttl().expect("DNS tells a TTL").as_secs());
    }
    assert_eq!(ttls, [5, 0, 30, 28, 26]);
}

#[tokio::test]
async fn truncated_answers_come_whole_over_tcp() {
    for count in [74, 500, 800, 2000] {
        let found = resolve(&case(&format!("big-{count}-a-udp.bin")))
            .await
            .expect("pods");
        assert_eq!(found.addresses().len(), count);
        assert!(!found.is_partial());
    }
    let found = resolve(&case("big-30-a-udp-noedns.bin"))
        .await
        .expect("pods");
    assert_eq!(found.addresses().len(), 30);
}

#[tokio::test]
async fn glue_that_was_cut_is_asked_for_and_the_answer_stays_partial() {
    let case = case("big-800-srv-tcp.bin");
    assert_eq!(case.message().glue().len(), 615);
    let found = resolve(&case).await.expect("pods");
    assert_eq!(found.addresses().len(), 800);
    assert!(found.is_partial());
}

#[tokio::test]
async fn cut_answers_are_partial_and_together_know_more_pods() {
    let mut known = BTreeSet::new();
    let mut sizes = Vec::new();
    for file in ["", "-0", "-1", "-2"] {
        let found = resolve(&case(&format!("big-2000-srv-tcp{file}.bin")))
            .await
            .expect("pods");
        assert!(found.is_partial(), "{file}");
        assert!(found.addresses().len() <= 1047, "{file}");
        known.extend(ips(&found));
        sizes.push(known.len());
    }
    assert_eq!(sizes, [1046, 1834, 2000, 2000]); // three looks know them all
}

#[tokio::test]
async fn pods_of_a_stateful_set_keep_their_names() {
    let found = resolve(&case("stateful-srv.bin")).await.expect("pods");
    let names: BTreeSet<&str> = found
        .addresses()
        .iter()
        .filter_map(|pod| pod.name())
        .collect();
    assert_eq!(names, BTreeSet::from(["pg-0", "pg-1", "pg-2"]));
    let whole = resolve(&case("stateful-a.bin")).await.expect("pods");
    assert_eq!(ips(&whole), ips(&found));
    let one = resolve(&case("stateful-pod-a.bin")).await.expect("a pod");
    assert_eq!(one.addresses().len(), 1);
}

#[tokio::test]
async fn two_srv_records_a_pod_are_one_pod_unless_both_families_are_wanted() {
    let case = case("dual-srv.bin");
    let server = case.serve().await;
    let dns = source(&case, server.address());
    for (family, v4, v6) in [
        (Family::PreferV4, 2, 0),
        (Family::PreferV6, 0, 2),
        (Family::V4Only, 2, 0),
        (Family::V6Only, 0, 2),
        (Family::Both, 2, 2),
    ] {
        let found = dns.clone().family(family).resolve().await.expect("pods");
        let is_v4 = found
            .addresses()
            .iter()
            .filter(|pod| pod.socket().is_ipv4())
            .count();
        assert_eq!(
            (is_v4, found.addresses().len() - is_v4),
            (v4, v6),
            "{family:?}"
        );
    }
}

/// Cluster DNS has no TXT records and nobody asks for them. As an answer to a question for A, the message is another question's.
#[tokio::test]
async fn an_answer_to_another_question_tells_nothing_about_pods() {
    let case = case("three-txt.bin");
    let bytes = case.bytes.clone();
    let server = Replay::start(move |_, _| Some(bytes.clone())).await;
    let error = source(&case, server.address())
        .deadline(Duration::from_secs(1))
        .resolve()
        .await
        .expect_err("not our answer");
    assert!(!error.is_empty(), "{error}");
}

/// A pod whose address could not be learned is missing, and nobody has said that it is gone.
#[tokio::test]
async fn a_target_whose_address_could_not_be_had_leaves_the_answer_partial() {
    let case = case("three-srv.bin");
    let question = case.question.clone();
    let mut without_glue = case.bytes.clone();
    without_glue[10..12].fill(0); // no additional records
    let server = Replay::start(move |asked, _| {
        Some(match asked {
            asked if *asked == question => without_glue.clone(),
            asked if asked.name.starts_with("10-244-1-1.") => wire::answer(asked, SERVFAIL, 0, &[]),
            asked => rest_of_the_cluster(asked),
        })
    })
    .await;
    let found = source(&case, server.address())
        .resolve()
        .await
        .expect("two of three pods");
    assert_eq!(found.addresses().len(), 2);
    assert!(found.is_partial());
}

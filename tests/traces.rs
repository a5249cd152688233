//! What a real cluster's DNS said while pods changed, replayed on a paused clock: the set must be right
//! at every moment. The recordings are described in `tests/fixtures/coredns/README.md`.

#![expect(
    clippy::unwrap_used,
    reason = "a recording that cannot be read fails its test"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use headless_lb::{Balancer, Resolution, ResolveError, ResolveErrorKind};
use serde_json::Value;
use support::script::{Answer, Script};
use tokio::time::sleep;

const STEP: Duration = Duration::from_millis(50);
/// Jitter moves the questions against the recording: every phase must hold.
const PHASES: u64 = 25;

type Pods = BTreeSet<IpAddr>;

/// Each answer with the moment from which on the cluster gave it.
struct Trace(Vec<(Duration, Pods, Option<u64>)>);

impl Trace {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/coredns")
            .join(name);
        let trace: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let change = |change: &Value| {
            let pods = change["addresses"].as_array().unwrap().iter();
            let pods = pods
                .map(|pod| pod.as_str().unwrap().parse().unwrap())
                .collect();
            let at = Duration::from_millis(change["at_ms"].as_u64().unwrap());
            (at, pods, change["ttl"].as_u64())
        };
        Self(
            trace["changes"]
                .as_array()
                .unwrap()
                .iter()
                .map(change)
                .collect(),
        )
    }

    fn pods(&self, at: Duration) -> &Pods {
        let index = self.0.partition_point(|(from, ..)| *from <= at).max(1) - 1;
        &self.0[index].1
    }

    fn answer(&self, at: Duration) -> Answer {
        let pods = self.pods(at);
        if pods.is_empty() {
            return Err(ResolveError::of(ResolveErrorKind::NxDomain));
        }
        let ttl = Duration::from_secs(30);
        Ok(Resolution::new(pods.iter().map(|&ip| SocketAddr::new(ip, 80))).valid_for(ttl))
    }

    fn end(&self) -> Duration {
        self.0.last().unwrap().0
    }
}

/// Replays a trace and hands each moment to `check`: the time, when the last two questions were
/// asked, the set, and the ids of its endpoints.
async fn replay(
    name: &str,
    phase: u64,
    rest: Duration,
    mut check: impl FnMut(&Trace, Duration, &[Duration], &BTreeMap<IpAddr, u64>),
) {
    let trace = Arc::new(Trace::load(name));
    let said = Arc::clone(&trace);
    let script = Script::from_fn(move |at| said.answer(at));
    let balancer = Balancer::builder(script.clone()).seed(phase).spawn();
    let mut at = Duration::ZERO;
    while at < trace.end() + rest {
        sleep(STEP).await;
        at += STEP;
        let set = balancer.endpoints();
        let ids = set
            .iter()
            .map(|endpoint| (endpoint.addr().ip(), endpoint.id()))
            .collect();
        check(&trace, at, &script.asked(), &ids);
    }
}

/// The set holds all of the last answer, and beyond it only what the one before still had.
fn follows(trace: &Trace, at: Duration, asked: &[Duration], ids: &BTreeMap<IpAddr, u64>) {
    let set: Pods = ids.keys().copied().collect();
    let Some((last, earlier)) = asked.split_last() else {
        return;
    };
    let (now, before) = (trace.pods(*last), earlier.last().map(|&at| trace.pods(at)));
    assert!(
        now.is_subset(&set),
        "{at:?}: {now:?} was answered, {set:?} published"
    );
    let beyond: Pods = set.difference(now).copied().collect();
    assert!(
        beyond.is_empty() || before.is_some_and(|before| beyond.is_subset(before)),
        "{at:?}: {beyond:?}"
    );
    if before == Some(now) {
        assert_eq!(&set, now, "{at:?}: two answers agreed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_is_followed_and_the_set_is_never_short() {
    for phase in 0..PHASES {
        replay(
            "trace-rolling-10.json",
            phase,
            Duration::from_secs(8),
            |trace, at, asked, ids| {
                follows(trace, at, asked, ids);
                assert!(ids.len() >= 10, "{at:?}: {} of 10 pods", ids.len());
                // Two intervals after the last change all is told.
                if at > trace.end() + Duration::from_secs(7) {
                    assert!(ids.keys().eq(trace.pods(at)), "{at:?}");
                }
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_to_200_pods_is_in_use_within_seconds_and_its_end_is_confirmed() {
    for phase in 0..PHASES {
        let mut in_use_after = None;
        let mut empty_since = None;
        replay(
            "trace-burst-0-200-0.json",
            phase,
            Duration::from_secs(40),
            |trace, at, asked, ids| {
                if trace.pods(*asked.last().unwrap()).is_empty() {
                    // No pods any more: the last set stays until that is confirmed.
                    let nxdomains = asked
                        .iter()
                        .rev()
                        .take_while(|&&at| trace.pods(at).is_empty())
                        .count();
                    if asked.len() > nxdomains {
                        empty_since = empty_since.or_else(|| ids.is_empty().then_some(at));
                        assert!(
                            nxdomains >= 3 || !ids.is_empty(),
                            "{at:?}: emptied by {nxdomains} answers"
                        );
                    }
                    return;
                }
                follows(trace, at, asked, ids);
                if ids.len() == 200 {
                    in_use_after = in_use_after.or(Some(at));
                }
            },
        )
        .await;
        // The cluster had all 200 in DNS 5 s after the scale-up at 1 s.
        let all = Trace::load("trace-burst-0-200-0.json")
            .0
            .iter()
            .find(|(_, pods, _)| pods.len() == 200)
            .unwrap()
            .0;
        let lag = in_use_after.expect("200 pods") - all;
        assert!(
            lag <= Duration::from_millis(1100),
            "phase {phase}: {lag:?} behind DNS"
        );
        let emptied = empty_since.expect("empty at last").as_secs_f64() - 14.961;
        assert!(
            (10.0..=24.0).contains(&emptied),
            "phase {phase}: emptied after {emptied} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_flapping_pod_keeps_its_identity() {
    for phase in 0..PHASES {
        let mut known: BTreeMap<IpAddr, u64> = BTreeMap::new();
        replay(
            "trace-flap-3.json",
            phase,
            Duration::from_secs(8),
            |trace, at, asked, ids| {
                follows(trace, at, asked, ids);
                assert!(ids.len() >= 2);
                for (pod, id) in ids {
                    assert_eq!(
                        known.entry(*pod).or_insert(*id),
                        id,
                        "{at:?}: {pod} lost its history"
                    );
                }
            },
        )
        .await;
        assert_eq!(known.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_cache_of_30_s_pods_are_found_when_it_ends_and_their_end_is_confirmed() {
    for phase in 0..PHASES {
        replay(
            "trace-cached-0-2-0.json",
            phase,
            Duration::from_secs(30),
            |trace, at, _, ids| {
                let seconds = at.as_secs_f64();
                let (there, gone) = (trace.0[1].0.as_secs_f64(), trace.0[2].0.as_secs_f64());
                match seconds {
                    s if s < there => assert!(ids.is_empty()),
                    s if (there + 5.8..gone + 10.0).contains(&s) => {
                        assert_eq!(ids.len(), 2, "{at:?}")
                    }
                    s if s > gone + 24.0 => assert!(ids.is_empty(), "{at:?}"),
                    _ => {}
                }
            },
        )
        .await;
    }
}

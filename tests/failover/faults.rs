//! Every fault, with a program that writes 100 rows a second.

use std::time::Duration;

use crate::{
    support::postgres::Network,
    trials::{fault::Fault, trial::Trial},
};

/// Of a first write after a connection broke, and after one fell silent. The goals are 150 and 300 ms.
const BROKEN: Duration = Duration::from_millis(1500);
const SILENT: Duration = Duration::from_millis(2500);

/// Writes to a server that was deposed without a fault, at 100 a second. The goal is an interval: 30.
const STALE: usize = 100;

/// Runs a trial and checks what holds for all.
async fn trial(fault: Fault) -> Trial {
    let network = Network::claim().expect("a free network");
    let trial = Trial::run(fault, network, false).await;
    let trial = trial.expect("the fault happens as planned");
    println!(
        "{}: first write {:?}, gap {:?}, {} stale, {} switches, failures {:?}",
        fault.name(),
        trial.first_write(&trial.log),
        trial.gap(&trial.log),
        trial.stale_writes(&trial.log),
        trial.switches(),
        trial.log.failures()
    );
    assert_eq!(trial.switches(), fault.switches(), "{:?}", trial.said);
    let failures = trial.log.failures();
    let refused = failures.keys().any(|what| what.contains("checkout"));
    assert!(!refused, "{failures:?}");
    let last = trial.said.last().and_then(|(_, said)| *said);
    assert!(last.is_some(), "{:?}", trial.said);
    trial
}

/// The writes go on at another server within a time, and the old one got none meanwhile.
async fn moves(fault: Fault, within: Duration) -> Trial {
    let trial = trial(fault).await;
    let first = trial.first_write(&trial.log);
    assert!(first.is_some_and(|first| first <= within), "{first:?}");
    assert_eq!(trial.stale_writes(&trial.log), 0);
    trial
}

/// The same where the old server says nothing more: it is the library that ends what is in flight there, not the
/// program's own deadline of 2 s.
async fn leaves(fault: Fault) {
    let trial = moves(fault, SILENT).await;
    let gave_up = trial.log.failures().contains_key("no answer");
    assert!(!gave_up, "{:?}", trial.log.failures());
}

/// The program notices nothing.
async fn goes_unnoticed(fault: Fault) {
    let trial = trial(fault).await;
    assert!(
        trial.log.failures().is_empty(),
        "{:?}",
        trial.log.failures()
    );
    assert!(
        trial.gap(&trial.log) < Duration::from_secs(1),
        "{:?}",
        trial.gap(&trial.log)
    );
    assert_eq!(trial.log.connects.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_moves_the_writes() {
    moves(Fault::Crash, BROKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pmkill_moves_the_writes() {
    moves(Fault::Pmkill, BROKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_moves_the_writes() {
    leaves(Fault::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blackhole_moves_the_writes() {
    leaves(Fault::Blackhole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_moves_the_writes_within_an_interval() {
    let trial = trial(Fault::Split).await;
    assert!(
        trial
            .first_write(&trial.log)
            .is_some_and(|first| first <= BROKEN)
    );
    assert!(
        trial.stale_writes(&trial.log) <= STALE,
        "{}",
        trial.stale_writes(&trial.log)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zombie_gets_no_write_when_it_wakes() {
    leaves(Fault::Zombie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switch_moves_the_writes_and_no_checkout_meets_the_standby() {
    let trial = moves(Fault::Switch, BROKEN).await;
    let refused = trial
        .log
        .failures()
        .get("25006")
        .copied()
        .unwrap_or_default();
    assert!(refused <= 1, "{refused} in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fenced_stops_the_writes_until_it_is_lifted() {
    let trial = moves(Fault::Fenced, BROKEN).await;
    let refused = trial
        .log
        .failures()
        .get("25006")
        .copied()
        .unwrap_or_default();
    assert!(refused <= 1, "{refused} in flight");
    assert!(
        trial.gap(&trial.log) > Duration::from_millis(1500),
        "{:?}",
        trial.gap(&trial.log)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashloop_is_no_switch() {
    moves(Fault::Crashloop, SILENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn double_writes_to_one_of_the_two() {
    moves(Fault::Double, BROKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturate_goes_unnoticed() {
    goes_unnoticed(Fault::Saturate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probekill_goes_unnoticed() {
    goes_unnoticed(Fault::Probekill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_that_lies_stops_nothing_and_a_new_address_is_followed() {
    let trial = moves(Fault::Dns, Duration::from_secs(8)).await;
    // Only the restart shows.
    let failed = trial.log.failures().values().sum::<usize>();
    assert!(failed < 100, "{:?}", trial.log.failures());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagstop_goes_unnoticed() {
    goes_unnoticed(Fault::Lagstop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diverge_moves_the_writes() {
    moves(Fault::Diverge, BROKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuild_is_followed_to_the_new_cluster() {
    moves(Fault::Rebuild, SILENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starve_is_no_switch() {
    let trial = trial(Fault::Starve).await;
    let gap = trial.gap(&trial.log);
    assert!(
        gap > Duration::from_secs(4) && gap < Duration::from_secs(8),
        "{gap:?}"
    );
}

//! The source of a pick, and of the question who the primary is, names no lock and awaits nothing.
//!
//! This reads text, so it is not a proof: what lies beneath may lock too. `arc_swap` promises that its
//! `load` does not, `Arc` and atomics do not, and the rest of a pick is in these files.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ON_THE_WAY: [&str; 13] = [
    "balancer/pick.rs",
    "draw.rs",
    "endpoint.rs",
    "endpoint/baseline.rs",
    "endpoint/caution.rs",
    "endpoint/in_flight.rs",
    "endpoint/load.rs",
    "endpoint/stamped.rs",
    "lanes.rs",
    "policy.rs",
    "set.rs",
    "set/asking.rs",
    "set/candidates.rs",
];
const BLOCKING: [&str; 6] = ["Mutex", "RwLock", "Condvar", "Barrier", ".lock()", ".await"];

#[test]
fn no_file_that_a_pick_runs_through_names_a_lock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let policies = fs::read_dir(source.join("policy")).unwrap();
    let files: Vec<PathBuf> = policies
        .map(|entry| entry.unwrap().path())
        .chain(ON_THE_WAY.map(|file| source.join(file)))
        .collect();
    assert!(files.len() >= 10, "the policies are elsewhere: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            let blocking = BLOCKING.iter().find(|word| line.contains(**word));
            assert_eq!(blocking, None, "{}: {line}", file.display());
        }
    }
}

/// The handle's file also has what waits for a set: only its picks are read.
#[test]
fn the_picks_of_the_handle_load_one_snapshot_and_await_nothing() {
    let text = include_str!("../src/balancer.rs");
    let start = text.find("impl<S: Clone> Balancer<S> {").unwrap();
    let picks = &text[start..];
    let picks = &picks[..picks.find("\n}\n").unwrap()];
    assert!(picks.contains("fn pick_with"), "the picks are elsewhere");
    // One load finds an endpoint; only a pick that found none loads again, out of line.
    let loads = |text: &str| text.matches("snapshot.load()").count();
    for name in [
        "pub(crate) fn pick_with",
        "fn in_newest<T>",
        "fn in_newer<T>",
    ] {
        assert_eq!(loads(function(picks, name)), 1, "{name}");
    }
    assert_eq!(loads(picks), 3, "no other loads");
    let again = picks.split("fn in_newer<T>").next().unwrap();
    assert!(again.ends_with("#[cold]\n    #[inline(never)]\n    "));
    for function in picks.split("    pub") {
        assert!(
            BLOCKING.iter().all(|word| !function.contains(word)),
            "{function}"
        );
    }
}

/// The view also has what waits: only what answers at once is read.
#[test]
fn the_view_of_the_primary_loads_one_snapshot_and_awaits_nothing() {
    let view = function(include_str!("../src/balancer/primary.rs"), "pub fn get");
    assert!(view.contains("Writer::of"), "the load is elsewhere: {view}");
    let writer = include_str!("../src/balancer/primary/writer.rs");
    let load = function(writer, "fn of");
    assert_eq!(load.matches("snapshot.load()").count(), 1, "{load}");
    let current = function(writer, "pub fn is_current");
    assert!(
        current.contains("is_after"),
        "the load is elsewhere: {current}"
    );
    let epochs = include_str!("../src/balancer/primary/epochs.rs");
    let after = function(epochs, "fn is_after");
    assert_eq!(after.matches(".load(Relaxed)").count(), 1, "{after}");
    for function in [view, load, current, after] {
        assert!(
            BLOCKING.iter().all(|word| !function.contains(word)),
            "{function}"
        );
    }
}

/// The first function of an `impl` whose text begins so.
fn function<'a>(text: &'a str, begin: &str) -> &'a str {
    let start = text
        .find(&format!("    {begin}("))
        .or_else(|| text.find(&format!("    pub(super) {begin}(")))
        .unwrap_or_else(|| panic!("{begin} is elsewhere"));
    let function = &text[start..];
    let end = function.find("\n    }\n").expect("a function has an end");
    &function[..end]
}

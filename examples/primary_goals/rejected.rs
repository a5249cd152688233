//! G12: each state in which a server is refused says why, in the error and in the snapshot.

use std::time::Duration;

use headless_lb::{Balancer, Lineage, NoPrimary, Observation, Role, Term};
use tokio::time::{Instant, sleep};

use crate::{goal::Goal, scripted::Nodes, support::Result};

/// Between two questions to a node.
const EVERY: Duration = Duration::from_millis(50);

/// More than any state takes to settle at that pace.
const PATIENCE: Duration = Duration::from_secs(3);

/// A state, and what must be said of the node that is refused: in the error if there is no primary, and where
/// the balancer is printed.
struct State {
    name: &'static str,
    /// What the nodes say first, until there is a primary, if there is to be one.
    first: Option<[Option<Observation>; 3]>,
    /// And then.
    then: [Option<Observation>; 3],
    /// The node that is refused, and the words by which its reason is known.
    node: usize,
    words: &'static [&'static str],
}

pub(crate) async fn measure() -> Result<Goal> {
    let (mut said, mut missing) = (0, Vec::new());
    for state in states() {
        match unsaid(&state).await? {
            None => said += 1,
            Some(where_) => missing.push(format!("{} ({where_})", state.name)),
        }
    }
    Ok(Goal {
        number: 12,
        what: "refused states that name their reason, in error and snapshot",
        target: "5 of 5",
        is_met: missing.is_empty(),
        measured: match missing.is_empty() {
            true => format!("{said} of 5"),
            false => format!("{said} of 5, not: {}", missing.join(", ")),
        },
    })
}

fn states() -> [State; 5] {
    let replica = || Some(Observation::of(Role::Replica));
    let primary = |term| Observation::of(Role::Primary).in_term(Term::new(term));
    [
        State {
            name: "stale term",
            first: Some([Some(primary(1)), replica(), replica()]),
            then: [Some(primary(1)), Some(primary(2)), replica()],
            node: 0,
            words: &["term 1", "term 2", "n-1"],
        },
        State {
            name: "wrong cluster",
            first: Some([
                Some(primary(1).in_lineage(Lineage::of("this"))),
                replica(),
                replica(),
            ]),
            then: [
                Some(primary(1).in_lineage(Lineage::of("this"))),
                Some(primary(5).in_lineage(Lineage::of("other"))),
                replica(),
            ],
            node: 1,
            words: &["other", "this"],
        },
        State {
            name: "fenced",
            first: None,
            then: [
                Some(primary(1).fenced_by("default_transaction_read_only is on")),
                replica(),
                replica(),
            ],
            node: 0,
            words: &["fenced", "default_transaction_read_only is on"],
        },
        State {
            name: "conflict",
            first: None,
            then: [Some(primary(2)), Some(primary(2)), replica()],
            node: 0,
            words: &["conflict", "n-1"],
        },
        State {
            name: "diverged",
            first: Some([
                Some(primary(1).at_position(1000)),
                replica(),
                Some(Observation::of(Role::Replica).at_position(900)),
            ]),
            then: [
                Some(primary(1).at_position(1000)),
                replica(),
                Some(Observation::of(Role::Replica).at_position(2000)),
            ],
            node: 2,
            words: &["diverged"],
        },
    ]
}

/// Where the reason is not said.
async fn unsaid(state: &State) -> Result<Option<&'static str>> {
    let nodes = Nodes::saying(state.first.clone().unwrap_or_else(|| state.then.clone()));
    let db = nodes.balancer(EVERY);
    if state.first.is_some() {
        db.primary().wait(PATIENCE).await?;
        nodes.say_all(state.then.clone());
    }
    let snapshot = || line_of(&db.to_string(), "\n", state.node);
    if !says(&db, state, |_| snapshot()).await {
        return Ok(Some("snapshot"));
    }
    // Now those that are not refused are gone, so that there is an error to ask.
    for node in (0..3).filter(|node| *node != state.node) {
        // In a conflict both have to be there.
        if state.name != "conflict" {
            nodes.fail(node);
        }
    }
    let error = |error: Option<&NoPrimary>| {
        error.map_or_else(String::new, |error| {
            line_of(&error.to_string(), "; ", state.node)
        })
    };
    Ok((!says(&db, state, error).await).then_some("error"))
}

/// Whether it is said in time.
async fn says(db: &Balancer, state: &State, text: impl Fn(Option<&NoPrimary>) -> String) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let error = db.primary().get().err();
        let text = text(error.as_ref());
        if state.words.iter().all(|word| text.contains(word)) {
            return true;
        }
        sleep(EVERY).await;
    }
    false
}

/// What is said of one node.
fn line_of(text: &str, between: &str, node: usize) -> String {
    let name = format!("n-{node} ");
    let mut lines = text.split(between);
    lines
        .find(|line| line.trim_start().starts_with(&name))
        .unwrap_or_default()
        .to_owned()
}

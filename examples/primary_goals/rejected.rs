//! G12: each state in which a server is refused says why, in the error and in the snapshot.

use std::time::Duration;

use headless_lb::{Endpoint, Lineage, Observation, Role, Term};
use tokio::time::{Instant, sleep};

use crate::{goal::Goal, scripted::Nodes, support::Result};

/// Between two questions to a node.
const EVERY: Duration = Duration::from_millis(50);

/// More than any state takes to settle at that pace.
const PATIENCE: Duration = Duration::from_secs(3);

/// A state, and what must be said of the node that is refused.
struct State {
    name: &'static str,
    /// What the nodes say first, until there is a primary, if there is to be one.
    first: Option<[Option<Observation>; 3]>,
    /// And then.
    then: [Option<Observation>; 3],
    /// The node that is refused, the type of its reason, and words that tell people.
    node: usize,
    reason: &'static str,
    words: &'static [&'static str],
}

pub(crate) async fn measure() -> Result<Goal> {
    let (mut said, mut missing) = (0, Vec::new());
    for state in states() {
        match untold(&state).await? {
            None => said += 1,
            Some(place) => missing.push(format!("{} ({place})", state.name)),
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
            reason: "StaleTerm",
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
            reason: "WrongCluster",
            words: &["other", "not this"],
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
            reason: "Fenced",
            words: &["default_transaction_read_only is on"],
        },
        State {
            name: "conflict",
            first: None,
            then: [Some(primary(2)), Some(primary(2)), replica()],
            node: 0,
            reason: "Conflict",
            words: &["n-1"],
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
            reason: "Diverged",
            words: &["data that the primary has not"],
        },
    ]
}

/// Where the reason is not told.
async fn untold(state: &State) -> Result<Option<&'static str>> {
    let nodes = Nodes::saying(state.first.clone().unwrap_or_else(|| state.then.clone()));
    let db = nodes.balancer(EVERY);
    let primary = db.primary();
    if state.first.is_some() {
        primary.wait(PATIENCE).await?;
        nodes.say_all(state.then.clone());
    }
    let in_snapshot = || {
        let report = primary.status()?;
        let node = report
            .endpoints()
            .iter()
            .find(|node| state.is_of(node.endpoint()))?;
        let reason = node.reason()?;
        Some(state.is_told(&format!("{reason:?}"), &reason.to_string()))
    };
    if !in_time(in_snapshot).await {
        return Ok(Some("snapshot"));
    }
    // No claim is left but the refused one, so that there is an error to ask. Of a conflict, both are needed.
    for node in (0..3).filter(|node| *node != state.node) {
        if state.reason != "Conflict" {
            nodes.fail(node);
        }
    }
    let in_error = || {
        let error = primary.get().err()?;
        let report = error.status().primary()?;
        let node = report
            .endpoints()
            .iter()
            .find(|node| state.is_of(node.endpoint()))?;
        Some(state.is_told(&format!("{:?}", node.reason()?), &error.to_string()))
    };
    Ok((!in_time(in_error).await).then_some("error"))
}

impl State {
    fn is_of(&self, endpoint: &Endpoint) -> bool {
        endpoint
            .ordinal()
            .and_then(|node| usize::try_from(node).ok())
            == Some(self.node)
    }

    fn is_told(&self, reason: &str, text: &str) -> bool {
        reason.starts_with(self.reason) && self.words.iter().all(|word| text.contains(word))
    }
}

async fn in_time(is_told: impl Fn() -> Option<bool>) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_told() == Some(true) {
            return true;
        }
        sleep(EVERY).await;
    }
    false
}

//! G7: what it costs to ask who the primary is, and whether it still is.

use std::{hint::black_box, time::Duration};

use headless_lb::{Observation, Role, Term};

use crate::{goal::Goal, scripted::Nodes, support::Result, timing::alone};

const PATIENCE: Duration = Duration::from_secs(10);

/// Of a machine that is busy, nothing may come but preempted batches: then again.
const TRIES: u32 = 5;

pub(crate) async fn measure() -> Result<Goal> {
    let primary = Observation::of(Role::Primary).in_term(Term::new(1));
    let nodes = Nodes::saying([
        Some(primary),
        Some(Role::Replica.into()),
        Some(Role::Replica.into()),
    ]);
    let db = nodes.balancer(Duration::from_millis(250));
    let view = db.primary();
    let writer = view.wait(PATIENCE).await?;
    let get = best(|| drop(black_box(view.get())));
    let current = best(|| {
        black_box(black_box(&writer).is_current());
    });
    Ok(Goal {
        number: 7,
        what: "get(); is_current()",
        target: "50 ns; 5 ns",
        is_met: get.is_some_and(|get| get <= 50.0) && current.is_some_and(|current| current <= 5.0),
        measured: format!("{}; {}", shown(get), shown(current)),
    })
}

fn best(question: impl Fn()) -> Option<f64> {
    (0..TRIES)
        .filter_map(|_| alone(&question).median)
        .min_by(f64::total_cmp)
}

fn shown(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or_else(
        || "not measured".to_owned(),
        |nanoseconds| format!("{nanoseconds:.1} ns"),
    )
}

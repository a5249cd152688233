//! What must hold, and whether it does.

use super::{report::percent, runner::Outcome, support::term, tally::Figures};

/// A bound on one figure of one contestant in one round, for the median of its seeds.
#[derive(Clone)]
pub(crate) struct Goal {
    /// Its number, as in G1.
    pub(crate) id: &'static str,
    pub(crate) contestant: &'static str,
    pub(crate) what: What,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    P99,
    P999,
    /// The share of requests that failed.
    Errors,
    /// The number of requests that failed.
    Failed,
    /// What odd pods got, in fair shares.
    Odd,
    OddAtOnce,
    OddAfter,
    Connections,
    /// The most failures that a client saw in the first 10 s.
    Lessons,
    /// Requests for which there was no endpoint at all.
    TurnedAway,
    /// The most clients of a pod, relative to the mean.
    Spread,
    /// The least share of its set that a client had available.
    Fewest,
    /// How often clients left the pod that they hold on to.
    Changes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal and what came out.
pub(crate) struct Verdict {
    pub(crate) id: &'static str,
    scenario: String,
    contestant: &'static str,
    what: What,
    bound: Bound,
    value: f64,
    seeds: usize,
    pub(crate) holds: bool,
}

/// Judges the goals of a round.
pub(crate) fn judge(outcome: &Outcome<'_>) -> Vec<Verdict> {
    let judge = |goal: &Goal| {
        let entries = outcome.round.entries.iter();
        let at = entries
            .map(|(contestant, _)| contestant.name)
            .position(|name| name == goal.contestant)?;
        let seeds = &outcome.figures[at];
        let value = median(seeds.iter().map(|figures| goal.what.of(figures)).collect());
        let holds = match goal.bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        };
        Some(Verdict {
            id: goal.id,
            scenario: outcome.round.scenario.name.clone(),
            contestant: goal.contestant,
            what: goal.what,
            bound: goal.bound,
            value,
            seeds: seeds.len(),
            holds,
        })
    };
    outcome.round.goals.iter().filter_map(judge).collect()
}

impl What {
    fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::P99 => figures.p99,
            Self::P999 => figures.p999,
            Self::Errors => figures.errors,
            Self::Failed => figures.failed as f64,
            Self::Odd => figures.odd.unwrap_or(f64::NAN),
            Self::OddAtOnce => figures.odd_at_once.unwrap_or(f64::NAN),
            Self::OddAfter => figures.odd_after.unwrap_or(f64::NAN),
            Self::Connections => figures.connections as f64,
            Self::Lessons => figures.lessons.into(),
            Self::TurnedAway => figures.turned_away as f64,
            Self::Spread => figures.spread,
            Self::Fewest => figures.fewest,
            Self::Changes => figures.changes as f64,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::P99 | Self::P999 => format!("{value:.1} ms"),
            Self::Errors => percent(value),
            Self::Failed | Self::Connections | Self::Lessons | Self::TurnedAway | Self::Changes => {
                format!("{value:.0}")
            }
            Self::Odd | Self::OddAtOnce | Self::OddAfter | Self::Spread | Self::Fewest => {
                format!("{value:.2}")
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Errors => "errors",
            Self::Failed => "failed requests",
            Self::Odd => "share of the odd pod, fair = 1",
            Self::OddAtOnce => "the same, after 1 s",
            Self::OddAfter => "the same, 2 to 10 s after it recovered",
            Self::Connections => "connections",
            Self::Lessons => "failures that one client saw in 10 s",
            Self::TurnedAway => "requests without an endpoint",
            Self::Spread => "clients of the most taken pod / mean",
            Self::Fewest => "available pods / all, at the least",
            Self::Changes => "changes of the pod that clients hold",
        }
    }
}

/// One verdict of many rounds for each figure of each contestant: the worst.
pub(crate) fn worst(scenario: &str, verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Verdict> {
    let mut worst: Vec<Verdict> = Vec::new();
    for verdict in verdicts {
        let same = |one: &&mut Verdict| {
            (one.id, one.contestant, one.what) == (verdict.id, verdict.contestant, verdict.what)
        };
        match worst.iter_mut().find(same) {
            None => worst.push(Verdict {
                scenario: scenario.into(),
                ..verdict
            }),
            Some(known) => {
                known.holds &= verdict.holds;
                known.value = match known.bound {
                    Bound::AtMost(_) => known.value.max(verdict.value),
                    Bound::AtLeast(_) => known.value.min(verdict.value),
                };
            }
        }
    }
    worst
}

/// All of them as a table.
pub(crate) fn report(verdicts: &[Verdict]) {
    let rows: Vec<[String; 7]> = verdicts
        .iter()
        .map(|verdict| {
            let (sign, bound) = match verdict.bound {
                Bound::AtMost(bound) => ("<=", bound),
                Bound::AtLeast(bound) => (">=", bound),
            };
            [
                verdict.id.into(),
                verdict.scenario.clone(),
                verdict.contestant.into(),
                verdict.what.name().into(),
                verdict.what.show(verdict.value),
                format!("{sign} {}", verdict.what.show(bound)),
                match (verdict.holds, verdict.seeds) {
                    (true, 1) => "holds".into(),
                    (true, seeds) => format!("holds, median of {seeds}"),
                    (false, seeds) => format!("DOES NOT HOLD, median of {seeds}"),
                },
            ]
        })
        .collect();
    term::table(
        ["goal", "scenario", "policy", "figure", "is", "bound", ""],
        &rows,
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

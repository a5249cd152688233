//! The scenarios, who goes through them, and what must come out.

use super::{
    contestants::*,
    engine::{MILLI, Nanos, SECOND},
    goals::{Bound, Goal, What},
    incident::{Ending, Incident},
    pod::Mode,
    runner::Round,
    scenario::Scenario,
    subsets::Subset,
    traffic::{Rates, Work},
};

mod comparisons;
mod failures;
mod restarts;
mod speeds;

pub(crate) use failures::FLOOR;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// Under a minute: shorter runs, fewer seeds, and the largest scenarios left out.
    Quick,
    Full,
}

impl Form {
    /// How many seeds the goals' contestants run.
    fn seeds(self) -> u64 {
        match self {
            Self::Quick => 3,
            Self::Full => 8,
        }
    }

    /// Seconds of warm-up and run of the full form, and what this one makes of them.
    fn lasts(self, scenario: Scenario, warm: u64, run: u64) -> Scenario {
        match self {
            Self::Quick => scenario.lasts(warm.min(6), (run / 3).max(8).min(run)),
            Self::Full => scenario.lasts(warm, run),
        }
    }

    /// How many of a list.
    fn most(self, quick: usize, full: usize) -> usize {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    /// Who runs where some of them ran through the same with another size.
    fn sized(self, (_, _, subset): (u32, u32, Option<u32>)) -> &'static [Contestant] {
        match (self, subset) {
            (Self::Quick, Some(_)) => &FEW,
            _ => &ALL,
        }
    }

    /// Who runs.
    fn all<'a>(self, quick: &'a [Contestant], full: &'a [Contestant]) -> &'a [Contestant] {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    fn is_full(self) -> bool {
        self == Self::Full
    }
}

/// What `--quick` does not do.
pub(crate) const LEFT_OUT: &str = "\
left out of --quick: S1 at load 0.7; S2 log-normal; S3 and S7 at 5 x 50; S4 with recovery, S5 and S5c at 100 x 100, S5b at all but 5 x 20;
TTL 30 of S6; S8 below 1.74 and connected to all; S9; S10 equal pods; S11; 100 clients of 10 pods; 11 of the mix; at s20, in S10 and with 10 pods
some of the policies. Runs are a third as long after at most 6 s of warm-up (S10: 2 + 2 s), S6 restarts 20 pods instead of 50, and medians are of
3 seeds instead of 8. The bounds are the same.";

/// All rounds of this form.
pub(crate) fn rounds(form: Form) -> Vec<Round> {
    [
        speeds::equal_pods(form),
        speeds::unequal_work(form),
        speeds::half_speed(form),
        speeds::slow_pod(form),
        failures::one_pod(form),
        failures::low_volume(form),
        failures::floor(form),
        restarts::rolling(form),
        restarts::cold_pods(form),
        restarts::firsts(form),
        speeds::antagonists(form),
        speeds::ramp(form),
        speeds::thousands(form),
        comparisons::few_pods(form),
        comparisons::mix(form),
    ]
    .concat()
}

/// The scenarios of the summary.
pub(crate) const QUOTED: [&str; 7] = [
    "S1 equal pods, load 0.9, 100 x 100",
    "S3 a fifth at half speed 100 x 100",
    "S4 one pod 10x slower 100 x 100 s20",
    "S5 one pod fails fast 5 x 20",
    "S6 rolling restart, refused, TTL 5 20 x 20",
    "S6 rolling restart, refused, TTL 5 50 x 50",
    "S7 antagonists 100 x 100",
];

/// Sizes: clients x pods, and connected to how many.
const SIZES: [(u32, u32, Option<u32>); 3] = [(5, 50, None), (100, 100, None), (100, 100, Some(20))];

fn sized(name: &str, (clients, pods, subset): (u32, u32, Option<u32>)) -> Scenario {
    let name = match subset {
        None => format!("{name} {clients} x {pods}"),
        Some(k) => format!("{name} {clients} x {pods} s{k}"),
    };
    let scenario = Scenario::new(name, clients, pods);
    match subset {
        None => scenario,
        Some(k) => scenario.subset(Subset::Nearest(k)),
    }
}

fn at_most(id: &'static str, contestant: Contestant, what: What, bound: f64) -> Goal {
    Goal {
        id,
        contestant: contestant.name,
        what,
        bound: Bound::AtMost(bound),
    }
}

fn at_least(id: &'static str, contestant: Contestant, what: What, bound: f64) -> Goal {
    Goal {
        bound: Bound::AtLeast(bound),
        ..at_most(id, contestant, what, bound)
    }
}

/// Contestants that a goal is about run with all seeds, the others with the first.
fn round(form: Form, scenario: Scenario, contestants: &[Contestant], goals: Vec<Goal>) -> Round {
    let seeds = |one: &Contestant| match goals.iter().any(|goal| goal.contestant == one.name) {
        true => form.seeds(),
        false => 1,
    };
    Round {
        entries: contestants.iter().map(|one| (*one, seeds(one))).collect(),
        scenario,
        goals,
    }
}

/// So long after the warm-up something happens.
const ONSET: Nanos = 5 * SECOND;

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
TTL 30 of S6; S8 below 1.74 and connected to all; S9; S10 equal pods, and three of its policies; S11; 11 of the mix. Runs are a third as long after at most
6 s of warm-up (S10: 2 + 3 s), S6 restarts 20 pods instead of 50, and medians are of 3 seeds instead of 8. The bounds are the same.";

/// All rounds of this form.
pub(crate) fn rounds(form: Form) -> Vec<Round> {
    [
        equal_pods(form),
        unequal_work(form),
        half_speed(form),
        slow_pod(form),
        failing_pod(form),
        rolling(form),
        antagonists(form),
        ramp(form),
        thousands(form),
        few_pods(form),
        mix(form),
    ]
    .concat()
}

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

fn equal_pods(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for (size, p99) in std::iter::zip(SIZES, [48.0, 54.0, 53.0]) {
        let scenario = |load| sized(&format!("S1 equal pods, load {load},"), size).load(load);
        if form.is_full() {
            let relaxed = form.lasts(scenario(0.7), 12, 30);
            rounds.push(round(form, relaxed, &ALL, Vec::new()));
        }
        let dense = form.lasts(scenario(0.9), 12, 30);
        let goal = at_most("G3", ADAPTIVE, What::P99, p99);
        rounds.push(round(form, dense, &ALL, vec![goal]));
    }
    rounds
}

fn unequal_work(form: Form) -> Vec<Round> {
    let one = |&work: &Work| {
        let scenario = sized(&format!("S2 {work:?} work"), SIZES[2]).work(work, 10 * MILLI);
        round(form, form.lasts(scenario, 12, 30), &ALL, Vec::new())
    };
    let works = [Work::Bimodal, Work::LogNormal];
    works[..form.most(1, 2)].iter().map(one).collect()
}

fn half_speed(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for size in &SIZES[if form.is_full() { 0 } else { 1 }..] {
        let scenario = sized("S3 a fifth at half speed", *size)
            .load(0.75)
            .suffers(Incident::HalfSpeed);
        let goals = match size.2 {
            Some(_) => vec![
                at_most("G4", ADAPTIVE, What::Failed, 0.0),
                at_most("G4", ADAPTIVE, What::P99, 54.0),
            ],
            None => Vec::new(),
        };
        rounds.push(round(form, form.lasts(scenario, 20, 30), &ALL, goals));
    }
    rounds
}

/// So long after the warm-up something happens.
const ONSET: Nanos = 5 * SECOND;

fn slow_pod(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for size in [(5, 20, None), SIZES[2]] {
        let scenario = form.lasts(sized("S4 one pod 10x slower", size).load(0.6), 15, 35);
        let from = scenario.warm + ONSET;
        let slow = |until| Incident::Slow { from, until };
        let stays = scenario.clone().suffers(slow(Nanos::MAX / 2));
        rounds.push(round(form, stays, &ALL, Vec::new()));
        if !form.is_full() && size.2.is_some() {
            continue;
        }
        // It needs 10 s after its recovery to be judged, in either form.
        let mut returns = sized("S4 with recovery", size).load(0.6).lasts(0, 30);
        returns.warm = from - ONSET;
        let until = from + 15 * SECOND;
        let goals = vec![
            at_most("G10", ADAPTIVE, What::OddAtOnce, 0.1),
            at_least("G10", ADAPTIVE, What::OddAfter, 0.6),
        ];
        rounds.push(round(form, returns.suffers(slow(until)), &ALL, goals));
    }
    rounds
}

fn odd(name: &str, size: (u32, u32, Option<u32>), mode: Mode, form: Form) -> Scenario {
    let scenario = form.lasts(sized(name, size).load(0.6), 15, 35);
    let from = scenario.warm + ONSET;
    scenario.suffers(Incident::Odd {
        mode,
        pods: 1,
        from,
        until: Nanos::MAX / 2,
    })
}

fn failing_pod(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    let sizes = [(5, 20, None), SIZES[2], SIZES[1]];
    for size in sizes.into_iter().take(form.most(2, 3)) {
        let fails = odd("S5 one pod fails fast", size, Mode::Fails(1.0), form);
        let goals = vec![
            at_most("G5", ADAPTIVE, What::Errors, 0.0002),
            at_most("G5", ADAPTIVE_RETRY, What::Failed, 0.0),
        ];
        rounds.push(round(form, fails, &FAILURES, goals));
        if form.is_full() || size == sizes[0] {
            let half = odd("S5b one pod fails half", size, Mode::Fails(0.5), form);
            rounds.push(round(form, half, &FAILURES, Vec::new()));
        }
        let lies = odd("S5c one pod lies", size, Mode::Lies, form);
        let pull = if size == SIZES[1] { 10.0 } else { 6.0 };
        let goals = vec![at_most("G5", ADAPTIVE, What::Odd, pull)];
        rounds.push(round(form, lies, &FAILURES, goals));
    }
    let hung = odd("one pod hangs", (20, 20, None), Mode::Hangs, form);
    rounds.push(round(form, hung, &FAILURES, Vec::new()));
    rounds.extend(low_volume(form));
    rounds
}

/// 5 requests a second of each client, on 5 pods.
fn low_volume(form: Form) -> Vec<Round> {
    let scenario = |name, mode, pods, lasts| {
        let mut scenario = Scenario::new(name, 20, 5).load(0.05).lasts(10, 40);
        let from = scenario.warm + ONSET;
        scenario.incident = Incident::Odd {
            mode,
            pods,
            from,
            until: from + lasts,
        };
        scenario
    };
    let forever = Nanos::MAX / 4;
    let fails = scenario("low volume, one pod fails", Mode::Fails(1.0), 1, forever);
    let half = scenario(
        "low volume, one pod fails half",
        Mode::Fails(0.5),
        1,
        forever,
    );
    let all = scenario(
        "low volume, all fail for 10 s",
        Mode::Fails(1.0),
        5,
        10 * SECOND,
    );
    vec![
        round(
            form,
            fails,
            &FAILURES,
            vec![at_most("G13", ADAPTIVE, What::Lessons, 5.0)],
        ),
        round(
            form,
            half,
            &FAILURES,
            vec![at_most("G13", ADAPTIVE, What::Odd, 0.5)],
        ),
        round(
            form,
            all,
            &FAILURES,
            vec![at_most("G13", ADAPTIVE, What::TurnedAway, 0.0)],
        ),
    ]
}

fn rolling(form: Form) -> Vec<Round> {
    let size = if form.is_full() { 50 } else { 20 };
    let one = |name: &str, ttl: u64, drain: u64, ending, goals: Vec<Goal>| {
        let name = format!("S6 rolling restart, {name}, TTL {ttl}");
        let warm = if form.is_full() { 15 } else { 6 };
        let mut scenario = sized(&name, (size, size, None))
            .load(0.6)
            .lasts(warm, u64::from(size) + 10);
        scenario.ttl = Some(ttl * SECOND);
        let from = scenario.warm;
        let incident = Incident::Rolling {
            from,
            drain: drain * SECOND,
            ending,
        };
        round(form, scenario.suffers(incident), &ROLLING, goals)
    };
    let retried = |bound| at_most("G6", ADAPTIVE_RETRY, What::Errors, bound);
    let drained = || vec![at_most("G6", ADAPTIVE, What::Failed, 0.0)];
    let mut rounds = vec![
        one("refused", 5, 0, Ending::Refuses, vec![retried(0.00006)]),
        one("silent", 5, 0, Ending::FallsSilent, Vec::new()),
        one("10 s of drain", 5, 10, Ending::Refuses, drained()),
    ];
    if form.is_full() {
        rounds.push(one("refused", 30, 0, Ending::Refuses, Vec::new()));
    }
    let mut cold = form.lasts(sized("cold pods join", (20, 20, None)).load(0.7), 12, 30);
    cold.ttl = Some(SECOND);
    let from = cold.warm + ONSET;
    let joins = cold.suffers(Incident::ColdJoins { from });
    rounds.push(round(form, joins, &ALL, Vec::new()));
    rounds
}

const ANTAGONISTS: Incident = Incident::Antagonists {
    slow: SECOND,
    every: 4 * SECOND,
};

fn antagonists(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for size in &SIZES[if form.is_full() { 0 } else { 1 }..] {
        let scenario = sized("S7 antagonists", *size)
            .load(0.65)
            .suffers(ANTAGONISTS);
        let goals = match *size {
            (_, _, Some(_)) => vec![at_most("G2", ADAPTIVE, What::P99, 66.0)],
            (5, ..) => Vec::new(),
            _ => vec![
                at_most("G1", ADAPTIVE, What::Failed, 0.0),
                at_most("G1", ADAPTIVE, What::P99, 72.0),
            ],
        };
        rounds.push(round(form, form.lasts(scenario, 12, 30), &ALL, goals));
    }
    rounds
}

fn ramp(form: Form) -> Vec<Round> {
    let one = |load: f64, size, goals| {
        let scenario = sized(&format!("S8 unequal pods, ramp at {load},"), size)
            .work(Work::CutNormal, 10 * MILLI)
            .load(load)
            .suffers(Incident::Unequal);
        let mut scenario = form.lasts(scenario, 15, 15);
        scenario.deadline = 5 * SECOND;
        round(form, scenario, &ALL, goals)
    };
    let goals = || {
        vec![
            at_most("G7", ADAPTIVE, What::Failed, 0.0),
            at_most("G7", ADAPTIVE, What::P999, 30.0),
        ]
    };
    let loads = [1.74, 0.75, 1.14, 1.41].into_iter().take(form.most(1, 4));
    let mut rounds: Vec<Round> = loads.map(|load| one(load, SIZES[2], goals())).collect();
    if form.is_full() {
        rounds.extend([1.14, 1.74].map(|load| one(load, SIZES[1], Vec::new())));
        let mut zipf = sized("S9 clients by Zipf", SIZES[2]).load(0.6);
        zipf.rates = Rates::Zipf;
        rounds.push(round(form, form.lasts(zipf, 12, 30), &ALL, Vec::new()));
    }
    rounds
}

fn thousands(form: Form) -> Vec<Round> {
    let size = (1_000, 1_000, Some(20));
    let lasts = |scenario: Scenario, warm, run| match form {
        Form::Quick => scenario.lasts(2, 3),
        Form::Full => scenario.lasts(warm, run),
    };
    let goals = vec![
        at_most("G8", ADAPTIVE, What::Failed, 0.0),
        at_most("G8", ADAPTIVE, What::P99, 62.0),
        at_most("G8", ADAPTIVE, What::Connections, 20_000.0),
    ];
    let slowed = lasts(
        sized("S10 antagonists", size)
            .load(0.65)
            .suffers(ANTAGONISTS),
        8,
        12,
    );
    let matched = sized("S10 equal pods, matched,", (1_000, 1_000, None));
    let matched = lasts(matched.subset(Subset::Matched(20)), 8, 12);
    let even = vec![at_most("G9", ADAPTIVE, What::Spread, 1.05)];
    let mut rounds = vec![
        round(form, slowed, form.all(&FEW_THOUSANDS, &THOUSANDS), goals),
        round(form, matched, form.all(&[ADAPTIVE], &THOUSANDS), even),
    ];
    if form.is_full() {
        let equal = sized("S10 equal pods", size).lasts(8, 12);
        rounds.push(round(form, equal, &THOUSANDS, Vec::new()));
        let size = (10_000, 1_000, Some(20));
        let equal = sized("S11 equal pods", size).load(0.7).lasts(6, 8);
        rounds.push(round(form, equal, &TEN_THOUSAND, Vec::new()));
        let slowed = sized("S11 antagonists", size)
            .load(0.6)
            .suffers(ANTAGONISTS);
        rounds.push(round(form, slowed.lasts(6, 8), &TEN_THOUSAND, Vec::new()));
    }
    rounds
}

/// 10 pods with one worker and 5 ms of work: what one, ten and a hundred clients see of them.
fn few_pods(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for (clients, p99) in [(1, 44.0), (10, 61.6), (100, f64::INFINITY)] {
        let scenario = |name: &str, incident| {
            let scenario = sized(name, (clients, 10, None))
                .workers(1)
                .work(Work::Exponential, 5 * MILLI)
                .load(0.7)
                .suffers(incident);
            // The table that this is compared with (benches of peers) has no network.
            let mut scenario = form.lasts(scenario, 20, 120);
            scenario.hop = 0;
            scenario
        };
        let slow = Incident::Slow {
            from: 0,
            until: Nanos::MAX / 2,
        };
        let fails = Incident::Odd {
            mode: Mode::Fails(1.0),
            pods: 1,
            from: 0,
            until: Nanos::MAX / 2,
        };
        let bound = |what, bound| match clients {
            100 => Vec::new(),
            _ => vec![at_most("peak", PEAK, what, bound)],
        };
        rounds.push(round(
            form,
            scenario("10 pods", Incident::Nothing),
            &ALL,
            Vec::new(),
        ));
        rounds.push(round(
            form,
            scenario("10 pods, one 10x slower", slow),
            &ALL,
            bound(What::P99, p99),
        ));
        rounds.push(round(
            form,
            scenario("10 pods, one fails fast", fails),
            &ALL,
            bound(What::Odd, 1.0),
        ));
    }
    rounds
}

/// 16 more, of which only the p99 is compared.
fn mix(form: Form) -> Vec<Round> {
    let base = |name: &str| sized(&format!("mix: {name}"), (20, 50, None)).lasts(6, 12);
    let s7 = |name: &str| {
        base(&format!("{name}, antagonists"))
            .load(0.65)
            .suffers(ANTAGONISTS)
    };
    let slowed = |name: &str, size, slow: Nanos| {
        sized(&format!("mix: {name}"), size)
            .lasts(6, 12)
            .load(0.65)
            .suffers(Incident::Antagonists {
                slow,
                every: 4 * slow,
            })
    };
    let mut zipf = base("Zipf");
    zipf.rates = Rates::Zipf;
    let mut zones = base("3 zones, 1 ms");
    zones.zone_hop = MILLI / 2;
    let all = [
        base("fixed work").work(Work::Fixed, 10 * MILLI),
        base("1 worker").workers(1),
        s7("1 ms of work").work(Work::Exponential, MILLI),
        slowed("slow for 0.2 s", SIZES[0], SECOND / 5),
        zones,
        base("log-normal work").work(Work::LogNormal, 10 * MILLI),
        base("16 workers").workers(16),
        s7("1 worker").workers(1),
        s7("16 workers").workers(16),
        base("1 ms of work").work(Work::Exponential, MILLI),
        base("100 ms of work").work(Work::Exponential, 100 * MILLI),
        s7("100 ms of work").work(Work::Exponential, 100 * MILLI),
        slowed("slow for 0.2 s", SIZES[2], SECOND / 5),
        slowed("slow for 10 s", SIZES[0], 10 * SECOND),
        slowed("slow for 10 s", SIZES[2], 10 * SECOND),
        zipf,
    ];
    let some = if form.is_full() { all.len() } else { 5 };
    let rounds = all.into_iter().take(some);
    rounds
        .map(|scenario| round(form, scenario, &ALL, Vec::new()))
        .collect()
}

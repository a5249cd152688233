//! Pods that differ in speed, and how many clients know little of each.

use super::*;

pub(super) fn equal_pods(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for (size, p99) in std::iter::zip(SIZES, [48.0, 54.0, 53.0]) {
        let scenario = |load| sized(&format!("S1 equal pods, load {load},"), size).load(load);
        if form.is_full() {
            let relaxed = form.lasts(scenario(0.7), 12, 30);
            rounds.push(round(form, relaxed, &ALL, Vec::new()));
        }
        let dense = form.lasts(scenario(0.9), 12, 30);
        let goal = at_most("G3", ADAPTIVE, What::P99, p99);
        rounds.push(round(form, dense, form.sized(size), vec![goal]));
    }
    rounds
}

pub(super) fn unequal_work(form: Form) -> Vec<Round> {
    let one = |&work: &Work| {
        let scenario = sized(&format!("S2 {work:?} work"), SIZES[2]).work(work, 10 * MILLI);
        let scenario = form.lasts(scenario, 12, 30);
        round(form, scenario, form.sized(SIZES[2]), Vec::new())
    };
    let works = [Work::Bimodal, Work::LogNormal];
    works[..form.most(1, 2)].iter().map(one).collect()
}

pub(super) fn half_speed(form: Form) -> Vec<Round> {
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
        let scenario = form.lasts(scenario, 20, 30);
        rounds.push(round(form, scenario, form.sized(*size), goals));
    }
    rounds
}

pub(super) fn slow_pod(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    for size in [(5, 20, None), SIZES[2]] {
        let scenario = form.lasts(sized("S4 one pod 10x slower", size).load(0.6), 15, 35);
        let from = scenario.warm + ONSET;
        let slow = |until| Incident::Slow { from, until };
        let stays = scenario.clone().suffers(slow(Nanos::MAX / 2));
        rounds.push(round(form, stays, form.sized(size), Vec::new()));
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
        let returns = returns.suffers(slow(until));
        rounds.push(round(form, returns, form.all(&FEW, &ALL), goals));
    }
    rounds
}

pub(super) const ANTAGONISTS: Incident = Incident::Antagonists {
    slow: SECOND,
    every: 4 * SECOND,
};

pub(super) fn antagonists(form: Form) -> Vec<Round> {
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
        let scenario = form.lasts(scenario, 12, 30);
        rounds.push(round(form, scenario, form.sized(*size), goals));
    }
    rounds
}

pub(super) fn ramp(form: Form) -> Vec<Round> {
    let one = |load: f64, size, goals| {
        let scenario = sized(&format!("S8 unequal pods, ramp at {load},"), size)
            .work(Work::CutNormal, 10 * MILLI)
            .load(load)
            .suffers(Incident::Unequal);
        let mut scenario = form.lasts(scenario, 15, 15);
        scenario.deadline = 5 * SECOND;
        round(form, scenario, form.sized(size), goals)
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

pub(super) fn thousands(form: Form) -> Vec<Round> {
    let size = (1_000, 1_000, Some(20));
    let lasts = |scenario: Scenario, warm, run| match form {
        // Ten times as many requests as elsewhere, and none of the memory at hand: the dearest seconds of all.
        Form::Quick => scenario.lasts(2, 2),
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
    let mut matched = lasts(matched.subset(Subset::Matched(20)), 8, 12);
    if !form.is_full() {
        // Who is matched with whom shows at once.
        matched = matched.lasts(1, 1);
    }
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

//! Pods that are replaced, and pods that join.

use super::*;

pub(super) fn rolling(form: Form) -> Vec<Round> {
    let size = if form.is_full() { 50 } else { 20 };
    let one =
        |name: &str, ttl: u64, drain: u64, ending, contestants: &[Contestant], goals: Vec<Goal>| {
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
            round(form, scenario.suffers(incident), contestants, goals)
        };
    let retried = |bound| at_most("G6", ADAPTIVE_RETRY, What::Errors, bound);
    let drained = || vec![at_most("G6", ADAPTIVE, What::Failed, 0.0)];
    let mut rounds = vec![
        one(
            "refused",
            5,
            0,
            Ending::Refuses,
            &ROLLING,
            vec![retried(0.00006)],
        ),
        one("silent", 5, 0, Ending::FallsSilent, &UNREFUSED, Vec::new()),
        one(
            "10 s of drain",
            5,
            10,
            Ending::Refuses,
            &UNREFUSED,
            drained(),
        ),
    ];
    if form.is_full() {
        let stale = one("refused", 30, 0, Ending::Refuses, &ROLLING, Vec::new());
        rounds.push(stale);
    }
    rounds
}

/// Four pods join a running set, three times slower for 5 s.
pub(super) fn cold_pods(form: Form) -> Vec<Round> {
    let mut cold = form.lasts(sized("cold pods join", (20, 20, None)).load(0.7), 12, 30);
    cold.ttl = Some(SECOND);
    let from = cold.warm + ONSET;
    let joins = cold.suffers(Incident::ColdJoins { from });
    vec![round(form, joins, &JOINING, Vec::new())]
}

/// Clients that all want the same pod: how long they disagree when pods are replaced, and whether a pod
/// that fails now and then makes them change. One pod carries them all, so there are few requests.
pub(super) fn firsts(form: Form) -> Vec<Round> {
    let scenario = |name: &str| sized(name, (20, 20, None)).load(0.02).lasts(6, 30);
    let restart = |ttl: u64| {
        let mut scenario = scenario(&format!("first: rolling restart, TTL {ttl},"));
        scenario.ttl = Some(ttl * SECOND);
        let incident = Incident::Rolling {
            from: scenario.warm,
            drain: 0,
            ending: Ending::Refuses,
        };
        round(form, scenario.suffers(incident), &FIRSTS, Vec::new())
    };
    let flaky = scenario("first: its pod fails 10 %").suffers(Incident::Odd {
        mode: Mode::Fails(0.1),
        pods: 1,
        from: 0,
        until: Nanos::MAX / 2,
    });
    let goals = FIRSTS.map(|first| at_most("first", first, What::Changes, 0.0));
    vec![
        restart(5),
        restart(30),
        round(form, flaky, &FIRSTS, goals.into()),
    ]
}

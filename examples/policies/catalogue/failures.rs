//! Pods that fail, lie or hang.

use super::*;

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

pub(super) fn one_pod(form: Form) -> Vec<Round> {
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
        rounds.push(round(form, lies, &LIES, goals));
    }
    let hung = odd("one pod hangs", (20, 20, None), Mode::Hangs, form);
    rounds.push(round(form, hung, &FAILURES, Vec::new()));
    rounds
}

/// 5 requests a second of each client, on 5 pods.
pub(super) fn low_volume(form: Form) -> Vec<Round> {
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

/// What the names of the rounds of [`floor`] begin with: one table tells them all.
pub(crate) const FLOOR: &str = "floor";

/// k of n pods fail everything, for each k: whatever ejection finds, somebody is left to ask.
pub(super) fn floor(form: Form) -> Vec<Round> {
    let one = |n: u32, k: u32| {
        let incident = Incident::Odd {
            mode: Mode::Fails(1.0),
            pods: k,
            from: SECOND,
            until: Nanos::MAX / 2,
        };
        // Longer than an ejection, so that pods come back on trial and fail it.
        let scenario = Scenario::new(format!("{FLOOR}: {k} of {n}"), 5, n)
            .load(0.1)
            .lasts(1, 45)
            .suffers(incident);
        let goals = FLOORED.iter().flat_map(|&contestant| {
            [
                at_most("G13", contestant, What::TurnedAway, 0.0),
                at_least("G13", contestant, What::Fewest, 0.5),
            ]
        });
        round(form, scenario, &FLOORED, goals.collect())
    };
    [1, 2, 3, 5, 10]
        .into_iter()
        .flat_map(|n| (1..=n).map(move |k| one(n, k)))
        .collect()
}

//! What the simulation must do for its figures to mean anything.

use rand::RngExt;

use super::{
    catalogue::{Form, QUOTED, rounds},
    contestants::*,
    engine::{MILLI, Nanos, Queue, SECOND},
    goals,
    incident::Incident,
    pod::{Job, Mode, Pod, Ticket},
    runner::{Outcome, Round, run_all},
    scenario::Scenario,
    subsets::Subset,
    tally::Figures,
    traffic::{Rates, Source, Traffic, Work, seed_of, stream},
    world,
};

/// A second or two of few clients and few pods.
fn small(incident: Incident) -> Scenario {
    Scenario::new("small", 4, 10)
        .load(0.6)
        .lasts(1, 2)
        .suffers(incident)
}

fn odd(mode: Mode) -> Incident {
    Incident::Odd {
        mode,
        pods: 1,
        from: 0,
        until: 60 * SECOND,
    }
}

fn figures(rounds: &[Round], seed: u64, threads: usize) -> String {
    let mut text = String::new();
    let tell = |outcome: Outcome<'_>| text += &format!("{:?}\n", outcome.figures);
    run_all(rounds, seed, threads, |_, _, _| {}, tell);
    text
}

#[test]
fn the_same_seed_gives_the_same_figures_on_any_number_of_threads() {
    let round = |scenario: Scenario, contestants: &[Contestant]| Round {
        scenario,
        entries: contestants.iter().map(|one| (*one, 1)).collect(),
        goals: Vec::new(),
    };
    let antagonists = Incident::Antagonists {
        slow: SECOND / 5,
        every: SECOND,
    };
    let rolling = Incident::Rolling {
        from: 0,
        drain: 0,
        ending: super::incident::Ending::Refuses,
    };
    let mut restarted = small(rolling);
    restarted.ttl = Some(SECOND);
    let rounds = [
        round(small(antagonists).subset(Subset::Nearest(5)), &ALL),
        round(small(odd(Mode::Fails(0.5))), &FAILURES),
        round(restarted.clone(), &ROLLING),
        round(restarted, &FIRSTS),
    ];
    let first = figures(&rounds, 7, 1);
    assert_eq!(first, figures(&rounds, 7, 3), "again, on three threads");
    assert_ne!(first, figures(&rounds, 8, 2), "another seed");
}

#[test]
fn policies_meet_the_same_traffic() {
    let work = |contestant| world::run(&small(Incident::Nothing), &contestant, 3).work;
    let first = work(ROUND_ROBIN);
    assert!(first > 0.0);
    for contestant in ALL {
        assert_eq!(work(contestant), first, "{}", contestant.name);
    }
}

#[test]
fn every_request_ends_in_one_way() {
    for mode in [Mode::Fails(1.0), Mode::Lies, Mode::Hangs, Mode::Refuses] {
        let run = world::run(&small(odd(mode)), &ROUND_ROBIN, 1);
        // 2 s of 4 workers on 10 pods at load 0.6, 10 ms each.
        assert!(
            (4_500..5_100).contains(&run.requests),
            "{mode:?} {}",
            run.requests
        );
        let share = if mode == Mode::Lies { 0.0 } else { 0.1 };
        assert!(
            (run.errors - share).abs() < 0.002,
            "{mode:?} {}",
            run.errors
        );
    }
}

#[test]
fn one_retry_elsewhere_saves_what_a_pod_fails() {
    let run = |contestant| world::run(&small(odd(Mode::Fails(1.0))), &contestant, 1);
    assert!(run(ROUND_ROBIN).failed > 400);
    let retried = run(ROUND_ROBIN_RETRY);
    assert_eq!(retried.failed, 0);
    assert!(retried.retries > 400, "{}", retried.retries);
}

#[test]
fn a_pod_that_fails_fast_draws_requests_only_where_a_failure_is_no_slow_answer() {
    let odd = |contestant: Contestant| -> f64 {
        let run: Figures = world::run(&small(odd(Mode::Fails(1.0))), &contestant, 1);
        run.odd.expect("there is an odd pod")
    };
    assert!(odd(RAW_PEAK) > 1.5);
    assert!(odd(PREQUAL) > 2.0);
    assert!(odd(PEAK) < 0.1);
    assert!(odd(ADAPTIVE) < 0.1);
}

#[test]
fn refused_connects_set_a_pod_aside_and_cost_no_request() {
    let run = |contestant| world::run(&small(odd(Mode::Refuses)), &contestant, 1);
    assert!(run(ROUND_ROBIN).failed > 400);
    let aside = run(ROUND_ROBIN_ASIDE);
    assert_eq!(aside.failed, 0);
    assert!(
        aside.odd.expect("there is an odd pod") < 0.2,
        "{:?}",
        aside.odd
    );
}

#[test]
fn events_come_in_order_of_time_and_equal_times_in_order_of_insertion() {
    let mut draws = stream(5, Source::Phases, 0);
    let mut queue = Queue::new(&[3, 10]);
    let (mut seen, mut inserted): (Vec<(Nanos, u32)>, u32) = (Vec::new(), 0);
    while seen.len() < 5_000 {
        for _ in 0..draws.random_range(1..3) {
            let delay = [3, 10, 0, 1, 2, 3, 7][draws.random_range(0..7)];
            queue.after(delay, (queue.now() + delay, inserted));
            inserted += 1;
        }
        let event = queue.next().expect("one was inserted");
        assert_eq!(event.0, queue.now());
        seen.push(event);
    }
    assert!(seen.is_sorted());
}

#[test]
fn all_kinds_of_work_have_the_same_mean() {
    for work in [
        Work::Exponential,
        Work::Fixed,
        Work::LogNormal,
        Work::Bimodal,
        Work::CutNormal,
    ] {
        let mut traffic = Traffic::new(1, 100.0, 10, Rates::Equal, work, 10 * MILLI);
        let count = 200_000;
        let sum: Nanos = (0..count).map(|_| traffic.arrival().work).sum();
        let mean = sum as f64 / f64::from(count) / MILLI as f64;
        assert!((mean - 10.0).abs() < 0.25, "{work:?}: {mean}");
    }
}

#[test]
fn by_zipf_the_first_client_asks_twice_as_often_as_the_second() {
    let mut traffic = Traffic::new(1, 100.0, 10, Rates::Zipf, Work::Fixed, MILLI);
    let mut counts = [0_u32; 10];
    (0..50_000).for_each(|_| counts[traffic.arrival().client as usize] += 1);
    let ratio = f64::from(counts[0]) / f64::from(counts[1]);
    assert!((1.9..2.1).contains(&ratio), "{counts:?}");
}

#[test]
fn a_pod_serves_as_many_as_it_has_workers_and_the_rest_in_turn() {
    let job = |number| Job {
        ticket: Ticket {
            slot: 0,
            number,
            pod: 0,
            attempt: 0,
        },
        work: 10 * MILLI,
        coin: 0,
    };
    let mut pod = Pod::new(2, 0.5);
    assert_eq!(
        pod.accept(0, job(0)),
        Some((0, 20 * MILLI)),
        "half the speed"
    );
    assert_eq!(pod.accept(0, job(1)), Some((1, 20 * MILLI)));
    assert_eq!(pod.accept(0, job(2)), None);
    assert_eq!(pod.in_flight(), 3);
    let (answer, begun) = pod.finish(20 * MILLI, 1);
    assert_eq!(answer.map(|(ticket, _)| ticket.number), Some(1));
    assert_eq!(begun, Some((1, 20 * MILLI)));
    assert_eq!(pod.in_flight(), 2);
}

#[test]
fn streams_of_one_seed_differ() {
    let seeds: std::collections::BTreeSet<u64> = (0..1_000)
        .flat_map(|index| {
            [Source::Policies, Source::Order, Source::Traffic]
                .map(|source| seed_of(1, source, index))
        })
        .collect();
    assert_eq!(seeds.len(), 3_000);
}

#[test]
fn every_goal_is_judged() {
    let nothing = world::run(&small(Incident::Nothing), &ROUND_ROBIN, 1);
    for form in [Form::Quick, Form::Full] {
        for round in rounds(form) {
            let figures = round
                .entries
                .iter()
                .map(|_| vec![nothing.clone()])
                .collect();
            let outcome = Outcome {
                round: &round,
                figures,
            };
            assert_eq!(
                goals::judge(&outcome).len(),
                round.goals.len(),
                "{}",
                round.scenario.name
            );
        }
    }
}

#[test]
fn names_of_scenarios_are_unique() {
    let names: Vec<String> = rounds(Form::Full)
        .into_iter()
        .map(|round| round.scenario.name)
        .collect();
    let unique: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn the_summary_quotes_scenarios_that_there_are() {
    let names = |form| rounds(form).into_iter().map(|round| round.scenario.name);
    let known: Vec<String> = names(Form::Quick).chain(names(Form::Full)).collect();
    for quoted in QUOTED {
        assert!(known.iter().any(|name| name == quoted), "{quoted}");
    }
}

#[test]
fn five_failures_in_a_row_set_a_pod_aside() {
    let run = |contestant| world::run(&small(odd(Mode::Fails(1.0))), &contestant, 1);
    let ejected = run(ROUND_ROBIN_EJECTION);
    assert_eq!(ejected.fewest, 0.9, "one of ten, and no other");
    assert!(ejected.odd.expect("there is an odd pod") < 0.1);
    assert_eq!(run(ROUND_ROBIN).fewest, 1.0, "nobody thinks ill of it");
}

#[test]
fn half_of_the_pods_stay_available_while_all_fail() {
    for contestant in FLOORED {
        let mut scenario = small(odd(Mode::Fails(1.0)));
        scenario.incident = Incident::Odd {
            mode: Mode::Fails(1.0),
            pods: 10,
            from: 0,
            until: 60 * SECOND,
        };
        let run = world::run(&scenario, &contestant, 1);
        assert_eq!((run.turned_away, run.errors), (0, 1.0));
        assert!((0.5..1.0).contains(&run.fewest), "{}", run.fewest);
    }
}

#[test]
fn slow_start_gives_a_new_pod_less_at_first() {
    let mut scenario = Scenario::new("joins", 4, 10).load(0.5).lasts(1, 3);
    scenario.incident = Incident::ColdJoins { from: SECOND };
    scenario.ttl = Some(SECOND / 5);
    let odd = |contestant| world::run(&scenario, &contestant, 1).odd;
    let (at_once, slowly) = (odd(JOINING[0]), odd(JOINING[1]));
    assert!(
        slowly < at_once.map(|share| share / 2.0),
        "{slowly:?} {at_once:?}"
    );
    assert!(slowly > Some(0.0));
}

#[test]
fn clients_of_the_first_pod_disagree_while_one_of_them_knows_more() {
    let mut scenario = Scenario::new("restart", 4, 5).load(0.02).lasts(1, 6);
    scenario.incident = Incident::Rolling {
        from: SECOND,
        drain: 0,
        ending: super::incident::Ending::Refuses,
    };
    scenario.ttl = Some(2 * SECOND);
    let run = world::run(&scenario, &FIRSTS[0], 1);
    let disagree = run.disagree.expect("the policy holds on to one");
    assert!((0.1..0.99).contains(&disagree), "{disagree}");
    assert!(run.changes > 4, "{}", run.changes);
    scenario.incident = Incident::Nothing;
    let calm = world::run(&scenario, &FIRSTS[0], 1);
    assert_eq!((calm.disagree, calm.changes), (Some(0.0), 0));
    assert_eq!(world::run(&scenario, &ROUND_ROBIN, 1).disagree, None);
}

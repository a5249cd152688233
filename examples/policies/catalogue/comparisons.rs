//! What others published, and a mix in which no policy can be tuned to all.

use super::{speeds::ANTAGONISTS, *};

/// 10 pods with one worker and 5 ms of work: what one, ten and a hundred clients see of them.
pub(super) fn few_pods(form: Form) -> Vec<Round> {
    let mut rounds = Vec::new();
    let clients = [(1, 44.0), (10, 61.6), (100, f64::INFINITY)];
    for (clients, p99) in clients.into_iter().take(form.most(2, 3)) {
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
            form.all(&FEW, &ALL),
            Vec::new(),
        ));
        rounds.push(round(
            form,
            scenario("10 pods, one 10x slower", slow),
            form.all(&FEW, &ALL),
            bound(What::P99, p99),
        ));
        rounds.push(round(
            form,
            scenario("10 pods, one fails fast", fails),
            form.all(&FEW, &ALL),
            bound(What::Odd, 1.0),
        ));
    }
    rounds
}

/// 16 more, of which only the p99 is compared.
pub(super) fn mix(form: Form) -> Vec<Round> {
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

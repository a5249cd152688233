//! What a probe costs: `cargo test --release --all-features --test postgres_probe -- --ignored --nocapture cost`.

use super::*;

/// Rounds of each kind.
const ROUNDS: usize = 4000;

#[tokio::test]
#[ignore = "a measurement, for an idle machine"]
async fn cost_of_a_question() {
    let cluster = Cluster::start().await.unwrap();
    for number in [0, 1] {
        let server = cluster.server(number);
        let (probe, endpoint) = (probe(), endpoint(server).await);
        let (mut session, _) = probe.open(&endpoint).await.unwrap();
        // Every fourth asks for a row: told apart by the position.
        let (mut empty, mut rows) = (Vec::new(), Vec::new());
        for _ in 0..4 * ROUNDS {
            let start = Instant::now();
            let seen = probe.observe(&endpoint, &mut session).await.unwrap();
            let kind = if seen.position().is_some() {
                &mut rows
            } else {
                &mut empty
            };
            kind.push(start.elapsed());
        }
        let mut opens = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            probe.open(&endpoint).await.unwrap();
            opens.push(start.elapsed());
        }
        let name = server.name();
        report(name, "empty round", &mut empty);
        report(name, "row", &mut rows);
        report(name, "open (SCRAM)", &mut opens);
    }
}

fn report(server: &str, what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "{server} {what:14} p50 {p50:>10.1?} p99 {p99:>10.1?} ({} rounds)",
        times.len()
    );
}

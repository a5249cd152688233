//! What a probe costs: `cargo test --release --all-features --test postgres_probe -- --ignored --nocapture cost`.

use std::fs;

use super::*;

const ROUNDS: usize = 20_000;

#[tokio::test]
#[ignore = "a measurement, for an idle machine"]
async fn cost_of_a_question() {
    let cluster = Cluster::start().await.unwrap();
    println!("server  question       round trip                       the server's processor time");
    for number in [0, 1] {
        let server = cluster.server(number);
        let (probe, endpoint) = (probe(), endpoint(server).await);
        let (mut session, _) = probe.open(&endpoint).await.unwrap();
        let backend = backend(server).await;
        // Every fourth asks for a row, and then, as somebody wants it, each.
        for what in ["1 row in 4", "a row each"] {
            let mut times = Vec::with_capacity(ROUNDS);
            let before = backend.processor_time();
            for _ in 0..ROUNDS {
                let start = Instant::now();
                probe.observe(&endpoint, &mut session).await.unwrap();
                times.push(start.elapsed());
            }
            let spent = (backend.processor_time() - before) / ROUNDS as u32;
            report(server.name(), what, &mut times, Some(spent));
            endpoint.lag_bytes();
        }
        let mut times = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            probe.open(&endpoint).await.unwrap();
            times.push(start.elapsed());
        }
        report(server.name(), "open (SCRAM)", &mut times, None);
    }
}

/// The process that serves the probe.
struct Backend(String);

async fn backend(server: &Server) -> Backend {
    let control = server.session().await.expect("the measured server answers");
    let query = "SELECT pid FROM pg_stat_activity WHERE usename = 'probe'";
    Backend(
        control
            .text(query)
            .await
            .expect("the measured server answers"),
    )
}

impl Backend {
    /// How long it has run, as Linux counts it: the first of `schedstat`, in nanoseconds.
    fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0))
            .expect("the measured server answers");
        Duration::from_nanos(
            text.split(' ')
                .next()
                .expect("the measured server answers")
                .parse()
                .expect("the measured server answers"),
        )
    }
}

fn report(server: &str, what: &str, times: &mut [Duration], spent: Option<Duration>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let spent = spent.map_or(String::new(), |spent| format!("{spent:>8.1?} each"));
    println!("{server:7} {what:14} p50 {p50:>8.1?} p99 {p99:>8.1?} {spent}");
}

//! A switchover under a program that writes, and what it looked like.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Display},
    iter,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    Result,
    postgres::Cluster,
    term::{Live, aside, heading, say},
};

/// One row, and who took it.
pub(crate) const WRITE: &str = "INSERT INTO writes (id) VALUES ((random() * 1e15)::bigint) \
     RETURNING host(inet_server_addr())";

/// Between two writes.
const EVERY: Duration = Duration::from_millis(20);

/// One character of the strips.
const CELL: Duration = Duration::from_millis(50);

/// Before and after all that happens.
const CALM: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    writes: usize,
    longest_gap: Duration,
    errors: BTreeMap<String, usize>,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writes, gap) = (self.writes, self.longest_gap.as_millis());
        let errors: usize = self.errors.values().sum();
        write!(
            f,
            "writes={writes} longest_gap_ms={gap} errors={errors} refused_as_read_only=0"
        )
    }
}

/// pg-0 is stopped, pg-1 promoted, and pg-0 comes back as a standby at its address, while `write` is called
/// 50 times a second.
///
/// # Errors
///
/// If a server refused a write as read-only, or the writes did not go to pg-1 in the end.
pub(crate) async fn switchover(
    cluster: &mut Cluster,
    write: impl AsyncFn() -> Result<String>,
) -> Result<Outcome> {
    heading("pg-0 stops, pg-1 is promoted, pg-0 comes back as a standby");
    let places: Vec<String> = cluster
        .servers()
        .iter()
        .map(|server| server.addr().ip().to_string())
        .collect();
    write().await?;
    let start = Instant::now();
    let mut marks = Vec::new();
    let story = async {
        sleep(CALM).await;
        marks.push((start.elapsed(), 's'));
        cluster.server_mut(0).stop().await?;
        marks.push((start.elapsed(), 'p'));
        cluster.server(1).promote().await?;
        cluster.rejoin(0, 1).await?;
        marks.push((start.elapsed(), 'r'));
        sleep(CALM).await;
        Result::<()>::Ok(())
    };
    let mut log = Vec::new();
    let program = async {
        let live = Live::default();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let written = write().await.map_err(|error| in_full(&*error));
            match &written {
                Ok(place) => live.show(format_args!("written on {place}")),
                Err(error) => live.show(format_args!("{error}")),
            }
            log.push((start.elapsed(), written));
        }
    };
    tokio::select! {
        told = story => told?,
        () = program => {}
    }
    strips(&places, &marks, &log);
    judge(&places, &log)
}

/// The error and its causes: drivers say "db error", and beneath it which.
fn in_full(error: &(dyn Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |error| (*error).source());
    let texts: Vec<String> = chain.map(ToString::to_string).collect();
    texts.join(": ")
}

fn strips(
    places: &[String],
    marks: &[(Duration, char)],
    log: &[(Duration, Result<String, String>)],
) {
    let cell = |at: Duration| (at.as_millis() / CELL.as_millis()) as usize;
    let width = log.last().map_or(0, |(at, _)| cell(*at) + 1);
    let strip = |cells: &mut dyn Iterator<Item = (Duration, char)>| {
        let mut strip = vec![' '; width];
        for (at, mark) in cells {
            if let Some(place) = strip.get_mut(cell(at)) {
                *place = mark;
            }
        }
        String::from_iter(strip)
    };
    for (number, address) in places.iter().enumerate() {
        let here = log.iter().filter(|(_, end)| end.as_ref() == Ok(address));
        let strip = strip(&mut here.map(|(at, _)| (*at, '#')));
        say(format!("pg-{number}   |{strip}|"));
    }
    let errors = log.iter().filter(|(_, end)| end.is_err());
    let errors = strip(&mut errors.map(|(at, _)| (*at, 'x')));
    say(format!("errors |{errors}|"));
    aside(format!("        {}", strip(&mut marks.iter().copied())));
    aside(format!(
        "        # written   x failed   s pg-0 stops   p pg-1 is promoted   r pg-0 is back   {} ms each",
        CELL.as_millis()
    ));
}

fn judge(places: &[String], log: &[(Duration, Result<String, String>)]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut last = None;
    for (at, end) in log {
        match end {
            Ok(_) => {
                let gap = at.saturating_sub(last.unwrap_or(*at));
                outcome.longest_gap = outcome.longest_gap.max(gap);
                outcome.writes += 1;
                last = Some(*at);
            }
            Err(error) => *outcome.errors.entry(error.clone()).or_default() += 1,
        }
    }
    for (error, count) in &outcome.errors {
        say(format!("{count} x {error}"));
    }
    if outcome
        .errors
        .keys()
        .any(|error| error.contains("read-only"))
    {
        return Err("a write went to a standby".into());
    }
    match log.last() {
        Some((_, Ok(place))) if *place == places[1] => Ok(outcome),
        last => Err(format!("the last write was not pg-1's: {last:?}").into()),
    }
}

//! Watches a balancer's set change by itself, and keeps the sizes that it had.
#![expect(
    clippy::disallowed_methods,
    reason = "it observes beside the story, so that no change waits to be looked at"
)]

use std::{fmt::Display, time::Duration};

use headless_lb::{Balancer, Change};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, timeout_at},
};

use super::{Result, client::Counts, term};

/// More than any change takes here, confirmations of an empty set included.
const PATIENCE: Duration = Duration::from_secs(15);

/// The sizes of a set from now on.
pub(crate) struct Observer {
    sizes: Vec<usize>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

struct Seen {
    change: Change,
    at: Instant,
}

impl Observer {
    /// Begins with the set as it is: the first change adds all that are there.
    pub(crate) async fn of<S: Send + Sync + 'static>(balancer: &Balancer<S>) -> Result<Self> {
        let (sender, seen) = mpsc::unbounded_channel();
        let mut changes = balancer.subscribe();
        let first = changes.next().await.ok_or("the balancer ended")?;
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                let at = Instant::now();
                if sender.send(Seen { change, at }).is_err() {
                    break;
                }
            }
        });
        let sizes = vec![first.set().len()];
        Ok(Self { sizes, seen })
    }

    /// Prints each change until the set has the size, and tells how long after `cause` that was.
    pub(crate) async fn until(
        &mut self,
        size: usize,
        cause: Instant,
        counts: &Counts,
    ) -> Result<Duration> {
        let deadline = Instant::now() + PATIENCE;
        let mut redraw = interval(Duration::from_millis(100));
        loop {
            let live = term::Live::default();
            let seen = loop {
                tokio::select! {
                    seen = timeout_at(deadline, self.seen.recv()) => break seen,
                    _ = redraw.tick() => {
                        let waited = cause.elapsed().as_secs_f32();
                        live.show(format_args!("{waited:.1} s, waiting for {size} endpoints .. {counts}"));
                    }
                }
            };
            drop(live);
            let Ok(Some(seen)) = seen else {
                return Err(
                    format!("no set of {size} endpoints within {} s", PATIENCE.as_secs()).into(),
                );
            };
            let took = seen.at.duration_since(cause);
            let added = list("+", seen.change.added());
            let removed = list("-", seen.change.removed());
            let (now, seconds) = (seen.change.set().len(), took.as_secs_f32());
            self.sizes.push(now);
            let plural = if now == 1 { "" } else { "s" };
            term::say(format!(
                "{added}{removed}= {now} endpoint{plural}, {seconds:.2} s after DNS changed"
            ));
            if now == size {
                return Ok(took);
            }
        }
    }

    /// All sizes so far, in order.
    pub(crate) fn sizes(&mut self) -> &[usize] {
        while let Ok(seen) = self.seen.try_recv() {
            self.sizes.push(seen.change.set().len());
        }
        &self.sizes
    }
}

fn list(sign: &str, endpoints: &[impl Display]) -> String {
    endpoints
        .iter()
        .map(|endpoint| format!("{sign} {endpoint}  "))
        .collect()
}

/// `1>3>2`
pub(crate) fn sequence(sizes: &[usize]) -> String {
    sizes
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(">")
}

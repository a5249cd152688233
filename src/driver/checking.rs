//! The health check of one endpoint: by its interval alone, whatever else happens.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, rngs::SmallRng};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    BoxFuture,
    probing::{FLOOR, Prober, Report, Rhythm, too_late},
};
use crate::{
    backoff::spread,
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, ProbeFailure},
};

/// A [`Probe`] that is asked whether the endpoint is well.
///
/// Unlike one that looks for the primary it is never asked out of turn: every client has one for every pod, and
/// nobody waits for what it finds.
pub(crate) struct Checker<P> {
    pub(crate) probe: P,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl<P: Probe> Prober for Checker<P> {
    fn follow(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        _: Arc<Rhythm>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut rng: SmallRng = rand::make_rng();
            let mut session = None;
            // All pods of a large set, and all clients that start together, would be one burst.
            sleep(self.interval().mul_f64(rng.random())).await;
            loop {
                let seen = self.ask(&endpoint, &mut session).await;
                if reports.send((endpoint.id(), seen)).is_err() {
                    return;
                }
                let pause = spread(self.interval(), 0.8, 1.2, rng.random());
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.listen(&mut session) => {}
                }
            }
        })
    }

    fn interval(&self) -> Duration {
        self.interval.max(FLOOR)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl<P: Probe> Checker<P> {
    /// One question, on the session that is open or else on a new one. An error ends the session.
    async fn ask(
        &self,
        endpoint: &Endpoint,
        session: &mut Option<P::Session>,
    ) -> Result<Observation, ProbeError> {
        let Self { probe, .. } = self;
        let asked = async {
            if let Some(mut open) = session.take() {
                match probe.observe(endpoint, &mut open).await {
                    // A server may end a session when it likes; whether it opens another tells.
                    Err(error) if error.failure() == ProbeFailure::Closed => {}
                    seen => return seen.map(|seen| (open, seen)),
                }
            }
            let (mut open, seen) = probe.open(endpoint).await?;
            let seen = match seen {
                Some(seen) => seen,
                None => probe.observe(endpoint, &mut open).await?,
            };
            Ok((open, seen))
        };
        let (open, seen) = timeout(self.timeout, asked).await.map_err(too_late)??;
        *session = Some(open);
        Ok(seen)
    }

    /// Hears what the session says between two questions, and never completes: its end is no reason to ask.
    async fn listen(&self, session: &mut Option<P::Session>) {
        if let Some(session) = session {
            self.probe.signalled(session).await;
        }
        std::future::pending().await
    }
}

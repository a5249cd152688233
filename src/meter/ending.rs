//! Why a connection of the HTTP client ended: what its socket saw, and what the pool wanted.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use tokio::time::Instant;

use super::Meter;

/// One connection's, from its first byte to its end.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Since it can take requests: where to tell, and when it is too old. Before that it is a connect that fails.
    established: OnceLock<(Meter, Option<Instant>)>,
    /// The strongest [`Evidence`] so far.
    evidence: AtomicU8,
    /// Its pod has left the set.
    is_draining: AtomicBool,
}

/// What points at the pod, the weakest first.
#[derive(Clone, Copy)]
enum Evidence {
    /// It was set aside as silent when this connection was there.
    Silent = 1,
    /// It closed the connection, or said that it would.
    Closed,
    /// The connection broke.
    Broke,
    /// It did not answer.
    Unanswered,
}

impl Ending {
    /// The connection can take requests, until it is too old.
    pub(crate) fn established(&self, meter: &Meter, expires: Option<Instant>) {
        // Once: a connection is handed to the pool by one dial.
        let _ = self.established.set((meter.clone(), expires));
    }

    pub(crate) fn closed_by_pod(&self) {
        self.saw(Evidence::Closed);
    }

    /// Reading or writing failed.
    #[cold]
    pub(crate) fn failed(&self, error: &io::Error) {
        self.saw(match error.kind() {
            io::ErrorKind::TimedOut => Evidence::Unanswered,
            // TLS that ends without saying so first is how many servers close.
            io::ErrorKind::UnexpectedEof => Evidence::Closed,
            _ => Evidence::Broke,
        });
    }

    /// A response was cut off.
    pub(crate) fn broke(&self) {
        self.saw(Evidence::Broke);
    }

    /// A ping got no answer.
    #[cfg(feature = "http2")]
    pub(crate) fn unanswered(&self) {
        self.saw(Evidence::Unanswered);
    }

    /// Its pod fell silent.
    pub(crate) fn silent(&self) {
        self.saw(Evidence::Silent);
    }

    /// Its pod has left the set, or is in it again.
    pub(crate) fn draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Relaxed);
    }

    fn saw(&self, evidence: Evidence) {
        self.evidence.fetch_max(evidence as u8, Relaxed);
    }

    /// The socket is closed: counts it, if it ever was a connection.
    pub(crate) fn over(&self) {
        let Some((meter, expires)) = self.established.get() else {
            return;
        };
        let is_old = expires.is_some_and(|expires| expires <= Instant::now());
        let evidence = self.evidence.load(Relaxed);
        meter.disconnected(reason(evidence, self.is_draining.load(Relaxed), is_old));
    }
}

/// What broke tells more than that it was about to end; and a pod that closes what it drains does as it should.
fn reason(evidence: u8, is_draining: bool, is_old: bool) -> &'static str {
    const SILENT: u8 = Evidence::Silent as u8;
    const CLOSED: u8 = Evidence::Closed as u8;
    const BROKE: u8 = Evidence::Broke as u8;
    const UNANSWERED: u8 = Evidence::Unanswered as u8;
    match evidence {
        UNANSWERED => "timeout",
        BROKE => "reset",
        _ if is_draining => "drained",
        CLOSED => "goaway",
        SILENT => "timeout",
        _ if is_old => "max_age",
        _ => "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_did_outweighs_what_was_wanted() {
        let why = |evidence: Option<Evidence>, is_draining, is_old| {
            reason(
                evidence.map_or(0, |evidence| evidence as u8),
                is_draining,
                is_old,
            )
        };
        assert_eq!(why(None, false, false), "local");
        assert_eq!(why(None, false, true), "max_age");
        assert_eq!(why(None, true, true), "drained");
        assert_eq!(why(Some(Evidence::Closed), false, true), "goaway");
        assert_eq!(why(Some(Evidence::Closed), true, false), "drained");
        assert_eq!(why(Some(Evidence::Broke), true, true), "reset");
        assert_eq!(why(Some(Evidence::Unanswered), true, true), "timeout");
        assert_eq!(why(Some(Evidence::Silent), false, true), "timeout");
        assert_eq!(why(Some(Evidence::Silent), true, false), "drained");
    }

    #[test]
    fn the_strongest_evidence_stays() {
        let ending = Ending::default();
        ending.broke();
        ending.closed_by_pod();
        assert_eq!(ending.evidence.load(Relaxed), Evidence::Broke as u8);
        ending.failed(&io::ErrorKind::TimedOut.into());
        assert_eq!(ending.evidence.load(Relaxed), Evidence::Unanswered as u8);
    }
}

//! Why a connection of the HTTP client ended: what its socket saw, what became of its request, and what the pool
//! wanted.
//!
//! Its socket is gone before all is known of it: hyper tells the request, or our driver, how it went. So a
//! connection that is in use is counted when both are through with it.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicU8,
            Ordering::{AcqRel, Relaxed},
        },
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
    /// [`IN_USE`], [`CLOSED`], [`LET_GO`], [`CUT`], [`COUNTED`].
    stage: AtomicU8,
    /// Its pod has left the set.
    is_draining: AtomicBool,
}

/// Somebody will yet say how it went.
const IN_USE: u8 = 1;
/// The socket is gone.
const CLOSED: u8 = 2;
/// The pool wants it no more: that its pod closes it then is only polite.
const LET_GO: u8 = 4;
/// We ended it, so what is seen from then on is our own doing.
const CUT: u8 = 8;
/// Once: a request may still come upon a socket that has just gone.
const COUNTED: u8 = 16;

/// What points at the pod, the weakest first.
#[derive(Clone, Copy)]
enum Evidence {
    /// Something went wrong that is not known to be the pod's doing.
    Other = 1,
    /// It was set aside as silent when this connection was there.
    Silent,
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

    /// A request goes out over it, or a driver keeps it.
    #[inline]
    pub(crate) fn begin(&self) {
        self.stage.fetch_or(IN_USE, Relaxed);
    }

    /// That is over.
    #[inline]
    pub(crate) fn end(&self) {
        if self.stage.fetch_and(!IN_USE, AcqRel) & (IN_USE | CLOSED) == IN_USE | CLOSED {
            self.count();
        }
    }

    /// The socket is gone.
    pub(crate) fn closed(&self) {
        if self.stage.fetch_or(CLOSED, AcqRel) & IN_USE == 0 {
            self.count();
        }
    }

    /// The pool wants it no more.
    #[cfg(feature = "http2")]
    pub(crate) fn let_go(&self) {
        self.stage.fetch_or(LET_GO, Relaxed);
    }

    /// The time that its pod had to drain is over.
    pub(crate) fn cut(&self) {
        self.draining(true);
        self.stage.fetch_or(CUT, Relaxed);
    }

    pub(crate) fn closed_by_pod(&self) {
        if self.stage.load(Relaxed) & LET_GO == 0 {
            self.saw(Evidence::Closed);
        }
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

    /// It cannot go on, for whatever reason.
    pub(crate) fn went_wrong(&self) {
        self.saw(Evidence::Other);
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
        if self.stage.load(Relaxed) & CUT == 0 {
            self.evidence.fetch_max(evidence as u8, Relaxed);
        }
    }

    /// Counts it, if it ever was a connection.
    fn count(&self) {
        let Some((meter, expires)) = self.established.get() else {
            return;
        };
        if self.stage.fetch_or(COUNTED, Relaxed) & COUNTED != 0 {
            return;
        }
        let is_old = expires.is_some_and(|expires| expires <= Instant::now());
        let evidence = self.evidence.load(Relaxed);
        meter.disconnected(reason(evidence, self.is_draining.load(Relaxed), is_old));
    }
}

/// What broke tells more than that it was about to end; and a pod that closes what it drains does as it should.
fn reason(evidence: u8, is_draining: bool, is_old: bool) -> &'static str {
    const OTHER: u8 = Evidence::Other as u8;
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
        OTHER => "other",
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
        assert_eq!(why(Some(Evidence::Other), false, true), "other");
    }

    #[test]
    fn a_request_that_comes_when_the_socket_is_gone_is_no_second_end() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let meter = metrics::with_local_recorder(&recorder, || Meter::new("web"));
        let ending = Ending::default();
        ending.established(&meter, None);
        ending.closed_by_pod();
        ending.closed();
        ending.begin();
        ending.end();
        let page = recorder.handle().render();
        let line = r#"headless_lb_disconnects_total{service="web",reason="goaway"} 1"#;
        assert!(page.lines().any(|other| other == line), "{page}");
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

//! A request whose answer has begun: what its end may still say of the pod.

use http::{HeaderMap, Response};
use http_body::Frame;
use tokio::time::Instant;

use super::classify::Classify;
use crate::{endpoint::InFlight, outcome::Outcome};

/// A request in flight from the head of its answer to its end.
///
/// An answer is told by its head, when latency ends as well, and counts at once: its body may take as long as it
/// likes. What comes later can only make it worse. A body that breaks off is a failure beside the success that its
/// head was.
///
/// The head of a gRPC response mostly says nothing: its status comes with the trailers, and is awaited. A response of several
/// frames is taken for a stream, which may last for hours, and counts as a success from there on; if it ends with a
/// status that is a failure, that counts too.
#[derive(Debug)]
pub(crate) enum Answering {
    /// Its outcome is known.
    Told(InFlight),
    /// The status of a gRPC response is to come.
    Awaited(Box<Awaited>),
}

#[derive(Debug)]
pub(crate) struct Awaited {
    in_flight: InFlight,
    classify: Classify,
    /// When the head came.
    at: Option<Instant>,
    has_message: bool,
    is_over: bool,
}

impl Answering {
    /// The head of the answer came, at `at` if the request is timed.
    #[inline]
    pub(crate) fn new<B>(
        mut in_flight: InFlight,
        at: Option<Instant>,
        response: &Response<B>,
        classify: &Classify,
    ) -> Self {
        match classify.head(response) {
            Some(outcome) => {
                record(&mut in_flight, at, outcome);
                Self::Told(in_flight)
            }
            None => {
                // It has answered: whoever gives up now has heard enough.
                in_flight.unwatch();
                Self::Awaited(Box::new(Awaited {
                    in_flight,
                    classify: classify.clone(),
                    at,
                    has_message: false,
                    is_over: false,
                }))
            }
        }
    }

    /// A part of the body has come.
    #[inline]
    pub(crate) fn frame<D>(&mut self, frame: &Frame<D>) {
        if let Self::Awaited(awaited) = self {
            match frame.trailers_ref() {
                None => awaited.message(),
                trailers => awaited.end(trailers),
            }
        }
    }

    /// The body has ended.
    #[inline]
    pub(crate) fn end(&mut self) {
        if let Self::Awaited(awaited) = self {
            awaited.end(None);
        }
    }

    /// Whether its end may still say something.
    pub(crate) fn may_tell(&self) -> bool {
        match self {
            Self::Told(in_flight) => !in_flight.is_over(),
            Self::Awaited(awaited) => !awaited.in_flight.is_over(),
        }
    }

    /// The body has broken off.
    #[cold]
    pub(crate) fn break_off(&mut self, outcome: Outcome) {
        let in_flight = match self {
            Self::Told(in_flight) => in_flight,
            Self::Awaited(awaited) => {
                awaited.is_over = true;
                &mut awaited.in_flight
            }
        };
        if let Outcome::Failure(failure) = outcome {
            in_flight.fail_late(failure);
        }
    }
}

impl Awaited {
    fn message(&mut self) {
        // After a single message its status may follow.
        if std::mem::replace(&mut self.has_message, true) {
            record(&mut self.in_flight, self.at, Outcome::Success);
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        match self.classify.end(trailers) {
            Outcome::Failure(failure) => self.in_flight.fail_late(failure),
            outcome => record(&mut self.in_flight, self.at, outcome),
        }
    }
}

impl Drop for Awaited {
    /// The caller has enough of it. Where messages have come, the pod has served it; where none have, that tells
    /// nothing: some streams are silent for long.
    fn drop(&mut self) {
        if self.has_message && !self.is_over {
            record(&mut self.in_flight, self.at, Outcome::Success);
        }
    }
}

/// At the moment of the head, where latency ends, if that is known. It is where the request is timed.
#[inline]
fn record(in_flight: &mut InFlight, at: Option<Instant>, outcome: Outcome) {
    match at {
        Some(at) => in_flight.record_at(at, outcome),
        None => in_flight.record(outcome),
    }
}

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
pub(crate) struct Answering {
    in_flight: InFlight,
    /// Until the status of a gRPC response is known.
    awaited: Option<Box<Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    classify: Classify,
    /// When the head came.
    at: Option<Instant>,
    has_message: bool,
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
        let awaited = match classify.head(response) {
            Some(outcome) => {
                record(&mut in_flight, at, outcome);
                None
            }
            None => {
                // It has answered: whoever gives up now has heard enough.
                in_flight.watch(false);
                Some(Box::new(Awaited {
                    classify: classify.clone(),
                    at,
                    has_message: false,
                }))
            }
        };
        Self { in_flight, awaited }
    }

    /// A part of the body has come.
    #[inline]
    pub(crate) fn frame<D>(&mut self, frame: &Frame<D>) {
        if self.awaited.is_some() {
            self.awaited_frame(frame);
        }
    }

    /// The body has ended.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.awaited.is_some() {
            self.end_awaited(None);
        }
    }

    /// The body has broken off.
    #[cold]
    pub(crate) fn break_off(&mut self, outcome: Outcome) {
        self.awaited = None;
        if let Outcome::Failure(failure) = outcome {
            self.in_flight.fail_late(failure);
        }
    }

    fn awaited_frame<D>(&mut self, frame: &Frame<D>) {
        let Some(awaited) = &mut self.awaited else {
            return;
        };
        if let Some(trailers) = frame.trailers_ref() {
            self.end_awaited(Some(trailers));
        } else if !std::mem::replace(&mut awaited.has_message, true) {
            // A single message, perhaps: its status is about to follow.
        } else {
            record(&mut self.in_flight, awaited.at, Outcome::Success);
        }
    }

    fn end_awaited(&mut self, trailers: Option<&HeaderMap>) {
        let Some(awaited) = self.awaited.take() else {
            return;
        };
        match awaited.classify.end(trailers) {
            Outcome::Failure(failure) => self.in_flight.fail_late(failure),
            outcome => record(&mut self.in_flight, awaited.at, outcome),
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

impl Drop for Answering {
    /// The caller has enough of a gRPC response. Where messages have come, the pod has served it; where none have,
    /// that tells nothing: some streams are silent for long.
    fn drop(&mut self) {
        if let Some(awaited) = self.awaited.take().filter(|awaited| awaited.has_message) {
            record(&mut self.in_flight, awaited.at, Outcome::Success);
        }
    }
}

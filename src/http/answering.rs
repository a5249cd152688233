//! A request whose answer has begun: what its end may still say of the pod.

use http::Response;
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
    awaited: Option<Awaited>,
}

#[derive(Debug)]
struct Awaited {
    classify: Classify,
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
        let awaited = match (classify.head(response), at) {
            (Some(outcome), Some(at)) => {
                in_flight.record_at(at, outcome);
                None
            }
            (Some(outcome), None) => {
                in_flight.record(outcome);
                None
            }
            (None, at) => {
                in_flight.answered_at(at);
                // It has answered: whoever gives up now has heard enough.
                in_flight.watch(false);
                Some(Awaited {
                    classify: classify.clone(),
                    has_message: false,
                })
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
        if let Some(awaited) = self.awaited.take() {
            self.tell(awaited.classify.end(None));
        }
    }

    /// The body has broken off.
    #[cold]
    pub(crate) fn break_off(&mut self, outcome: Outcome) {
        self.awaited = None;
        self.tell(outcome);
    }

    fn awaited_frame<D>(&mut self, frame: &Frame<D>) {
        let Some(awaited) = &mut self.awaited else {
            return;
        };
        if let Some(trailers) = frame.trailers_ref() {
            let outcome = awaited.classify.end(Some(trailers));
            self.awaited = None;
            self.tell(outcome);
        } else if !std::mem::replace(&mut awaited.has_message, true) {
            // A single message, perhaps: its status is about to follow.
        } else {
            self.in_flight.record(Outcome::Success);
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Failure(failure) => self.in_flight.fail_late(failure),
            outcome => self.in_flight.record(outcome),
        }
    }
}

impl Drop for Answering {
    /// The caller has enough of a gRPC response. Where messages have come, the pod has served it; where none have,
    /// that tells nothing: some streams are silent for long.
    fn drop(&mut self) {
        if self
            .awaited
            .as_ref()
            .is_some_and(|awaited| awaited.has_message)
        {
            self.in_flight.record(Outcome::Success);
        }
    }
}

//! A response body whose request is in flight until it ends.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::endpoint::InFlight;

pin_project! {
    /// The body of a response through a [`ClientLayer`](crate::ClientLayer). The request counts as in
    /// flight until the body has ended or is dropped, so read it to the end, or drop it.
    ///
    /// The response to an upgrade has no body, so an upgraded connection does not count.
    #[derive(Debug, Default)]
    #[must_use = "the request stays in flight until the body is read or dropped"]
    pub struct Counted<B> {
        #[pin]
        body: B,
        // Until the body ends.
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Counted<B> {
    /// Counts no request yet.
    pub(super) fn new(body: B) -> Self {
        let in_flight = None;
        Self { body, in_flight }
    }

    /// Counts the request until the end, which may be now.
    pub(super) fn count(&mut self, in_flight: InFlight) {
        if !self.body.is_end_stream() {
            self.in_flight = Some(in_flight);
        }
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        // Readers that know the length do not ask for what is behind it.
        let goes_on = matches!(frame, Some(Ok(_))) && !this.body.is_end_stream();
        if !goes_on {
            *this.in_flight = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

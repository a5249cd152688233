//! A response body whose request is in flight until it ends.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{
    endpoint::InFlight,
    http::{Answering, Classify},
    outcome::{Cause, Outcome},
};

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
        answering: Option<Answering>,
        classify: Classify,
    }
}

impl<B: Body> Counted<B> {
    /// Counts no request yet.
    pub(super) fn new(body: B, classify: &Classify) -> Self {
        Self {
            body,
            answering: None,
            classify: classify.clone(),
        }
    }

    /// Counts the request until the end, which may be now.
    pub(super) fn count(mut response: Response<Self>, mut in_flight: InFlight) -> Response<Self> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            in_flight.record(Outcome::Ignore);
            return response;
        }
        let at = in_flight.is_timed().then(Instant::now);
        let classify = std::mem::take(&mut response.body_mut().classify);
        let mut answering = Answering::new(in_flight, at, &response, &classify);
        let body = response.body_mut();
        match body.body.is_end_stream() {
            true => answering.end(),
            false => body.answering = Some(answering),
        }
        response
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
        let Some(answering) = this.answering else {
            return Poll::Ready(frame);
        };
        match &frame {
            Some(Ok(frame)) => answering.frame(frame),
            Some(Err(_)) => answering.break_off(Cause::Reset.into()),
            None => {}
        }
        // Readers that know the length do not ask for what is behind it.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            answering.end();
            *this.answering = None;
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

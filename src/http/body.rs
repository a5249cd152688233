//! The body of a response.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};

use super::{HttpError, answering::Answering, connection::Connection};
use crate::outcome::Outcome;

/// The body of a response from a pod. The request counts as in flight until the body has ended or is
/// dropped, so read it to the end, or drop it.
///
/// At its end the connection serves the next request. A body that is dropped half read costs its
/// connection over HTTP/1.1, and its stream over HTTP/2. So does an upgrade (`101`, or `200` to a `CONNECT`): the connection is the
/// caller's from then on, and no longer counts.
///
/// The default is an empty body, for layers that answer in a pod's place.
#[derive(Default)]
#[must_use = "the request stays in flight until the body is read or dropped"]
pub struct HttpBody {
    /// None: empty, or read to its end.
    incoming: Option<Incoming>,
    /// Until the body ends: its connection, if that can serve another request.
    lease: Option<Connection>,
    /// Until the body ends: its request, if a balancer counts it.
    answering: Option<Answering>,
}

impl HttpBody {
    pub(super) fn of(
        response: Response<Incoming>,
        connection: Connection,
        is_upgrade: bool,
    ) -> Response<Self> {
        response.map(|incoming| {
            let mut body = Self {
                incoming: Some(incoming),
                lease: None,
                answering: None,
            };
            match is_upgrade {
                true => connection.hand_over(),
                false => body.lease = Some(connection),
            }
            // No body at all: none will be polled.
            body.end_if_over();
            body
        })
    }

    /// Counts the request until the end.
    pub(super) fn count(&mut self, mut answering: Answering) {
        match self.lease {
            Some(_) => self.answering = Some(answering),
            None => answering.end(),
        }
    }

    fn end_if_over(&mut self) {
        if self.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        // Nothing more comes: who asks again is told so here, and hyper is not asked.
        self.incoming = None;
        if let Some(mut answering) = self.answering.take() {
            answering.end();
        }
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }
}

impl Body for HttpBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(answering) = &mut self.answering {
                    answering.frame(&frame);
                }
                // Readers that know the length do not ask for what is behind it.
                self.end_if_over();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let answering = self.answering.take().filter(Answering::may_tell);
                let mut is_news = true;
                if let Some(lease) = self.lease.take() {
                    lease.broke(&error);
                    is_news = answering.is_none() || lease.is_news(&error);
                }
                let error = HttpError::Body(error);
                if let Some(mut answering) = answering {
                    answering.break_off(match is_news {
                        true => error.outcome(),
                        false => Outcome::Ignore,
                    });
                }
                Some(Err(error))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for HttpBody {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.abandon();
        }
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody")
            .field("incoming", &self.incoming)
            .field("answering", &self.answering)
            .finish_non_exhaustive()
    }
}

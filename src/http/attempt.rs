//! One try of a request, at one pod.

use std::task::{Context, Poll, ready};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    HttpBody, HttpError,
    connection::{Connection, Sending},
    health::Late,
    outgoing::Outgoing,
    pod::HttpPod,
};
use crate::outcome::Cause;

/// A pod, and how far the request has come there.
pub(super) struct Attempt {
    pub(super) pod: HttpPod,
    phase: Phase,
    /// The connection was closed by the time the request came: the next one is new, and decides.
    is_renewed: bool,
    /// It was reported as late.
    is_late: bool,
    /// How long it takes says nothing.
    is_ignored: bool,
    /// No balancer hears what it came to.
    is_uncounted: bool,
}

enum Phase {
    /// For a connection. Sent: Answer.
    Connect,
    /// For the head of the response. It comes: Over. Not sent after all, over a connection that had been idle: Connect.
    Answer(Sent),
    /// The head came at this moment. If it is an upgrade, the connection is the caller's.
    Over { at: Instant, is_upgrade: bool },
}

struct Sent {
    connection: Connection,
    sending: Sending,
    at: Instant,
    is_doubted: bool,
    is_connect: bool,
}

/// Why a try came to nothing.
pub(super) struct Failed {
    pub(super) error: HttpError,
    /// The pod cannot have processed it.
    pub(super) is_unsent: bool,
    /// It had been sent before that was known.
    pub(super) is_back: bool,
    /// Another request has told of it: they shared the connection.
    pub(super) is_told: bool,
    /// The pod is there, and may take the request if no other can.
    pub(super) is_pod_alive: bool,
    /// It came back.
    pub(super) request: Option<Box<Request<Outgoing>>>,
}

impl Failed {
    /// Before the pod had it.
    pub(super) fn to_send(error: HttpError, is_pod_alive: bool) -> Self {
        Self {
            error,
            is_unsent: true,
            is_back: false,
            is_told: false,
            is_pod_alive,
            request: None,
        }
    }

    /// After the pod may have had it. If it is the only one, it may be asked again.
    pub(super) fn sent(error: HttpError) -> Self {
        Self {
            error,
            is_unsent: false,
            is_back: false,
            is_told: false,
            is_pod_alive: true,
            request: None,
        }
    }
}

/// What a try came to.
#[cfg_attr(
    feature = "http2",
    expect(
        clippy::large_enum_variant,
        reason = "the answer is what most tries come to, and moves on at once"
    )
)]
pub(super) enum Event {
    /// A connection is at hand: [`Attempt::send`].
    Ready,
    /// The connection turned out to be closed: the request is back, and the same pod is dialled again.
    Back(Box<Request<Outgoing>>),
    Answer(Response<HttpBody>),
}

impl Attempt {
    pub(super) fn new(pod: HttpPod, is_ignored: bool) -> Self {
        Self {
            pod,
            phase: Phase::Connect,
            is_renewed: false,
            is_late: false,
            is_ignored,
            is_uncounted: false,
        }
    }

    /// What it comes to is not counted: another request has to tell what both have met.
    pub(super) fn uncounted(mut self) -> Self {
        self.is_uncounted = true;
        self
    }

    /// When the request was sent, if it was.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Connect | Phase::Over { .. } => None,
            Phase::Answer(sent) => Some(sent.at),
        }
    }

    /// The request is out and late. True if its pod has fallen silent, which is reported.
    pub(super) fn late(&mut self, now: Instant) -> bool {
        let Phase::Answer(sent) = &self.phase else {
            return false;
        };
        if self.is_ignored {
            return false;
        }
        let late = Late {
            sent: sent.at,
            is_doubted: sent.is_doubted,
            is_first: !std::mem::replace(&mut self.is_late, true),
        };
        let is_silent = self.pod.pool.late(&late, now);
        if is_silent {
            // It tells no more, and may last.
            self.pod.end_trial();
        }
        is_silent
    }

    /// The time that it was given is over.
    pub(super) fn time_out(&self) {
        if !self.is_ignored {
            self.pod.pool.silent();
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failed>> {
        let Phase::Answer(sent) = &mut self.phase else {
            let ready = ready!(self.pod.poll_checkout(cx));
            return Poll::Ready(match ready {
                Ok(()) => Ok(Event::Ready),
                Err(error) => Err(Failed::to_send(error, false)),
            });
        };
        // Taken apart at once: the whole of it need not be moved.
        Poll::Ready(match sent.sending.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(response)) => {
                let sent = self.take_sent();
                Ok(Event::Answer(self.answered(sent, response)))
            }
            Poll::Ready(Err(mut error)) => {
                let (sent, request) = (self.take_sent(), error.take_message());
                self.failed(&sent.connection, error.into_error(), request)
            }
        })
    }

    fn take_sent(&mut self) -> Sent {
        match std::mem::replace(&mut self.phase, Phase::Connect) {
            Phase::Answer(sent) => sent,
            _ => unreachable!("it was this phase that was polled"),
        }
    }

    /// Sends the request over the connection that is at hand.
    pub(super) fn send(&mut self, mut request: Request<Outgoing>) -> Result<(), Failed> {
        let Some((mut connection, taken)) = self.pod.take() else {
            unreachable!("a checkout that is ready has left a connection");
        };
        if let Err(error) = connection.adapt(&mut request, self.pod.pool.client.form.is_tls) {
            connection.give_back();
            return Err(Failed::to_send(error, true));
        }
        let is_connect = request.method() == Method::CONNECT;
        // One look at the clock for both, where they follow each other.
        let at = taken.unwrap_or_else(Instant::now);
        let sending = connection.send(request);
        self.phase = Phase::Answer(Sent {
            connection,
            sending,
            at,
            is_doubted: self.pod.pool.is_doubted(),
            is_connect,
        });
        Ok(())
    }

    /// When the head of the response came, and whether it is an upgrade.
    pub(super) fn answered_at(&self) -> Option<(Instant, bool)> {
        match self.phase {
            Phase::Over { at, is_upgrade } => Some((at, is_upgrade)),
            _ => None,
        }
    }

    fn answered(&mut self, sent: Sent, response: Response<Incoming>) -> Response<HttpBody> {
        let at = self.pod.pool.answered(sent.at, self.is_ignored);
        self.pod.end_trial();
        let status = response.status();
        let is_upgrade =
            status == StatusCode::SWITCHING_PROTOCOLS || (sent.is_connect && status.is_success());
        self.phase = Phase::Over { at, is_upgrade };
        HttpBody::of(response, sent.connection, is_upgrade)
    }

    fn failed(
        &mut self,
        connection: &Connection,
        error: hyper::Error,
        request: Option<Request<Outgoing>>,
    ) -> Result<Event, Failed> {
        if let Some(refusal) = connection.refusal() {
            // Another connection would be turned down as well.
            self.pod.pool.closed_at_once(Cause::Unreachable);
            return Err(Failed {
                is_back: true,
                request: request.map(Box::new),
                ..Failed::to_send(HttpError::Tls(refusal), false)
            });
        }
        if !connection.is_exclusive() {
            // Others may go on there, or the pod is about to leave: another pod is the better guess.
            return Err(match request.is_some() || is_refused(&error) {
                true => Failed {
                    is_back: true,
                    ..Failed::to_send(HttpError::Unsent(error), true)
                },
                false => Failed {
                    is_told: self.is_ignored || self.is_uncounted || !connection.is_news(&error),
                    ..Failed::sent(HttpError::Request(error))
                },
            });
        }
        let Some(request) = request else {
            connection.broke(&error);
            return Err(Failed::sent(HttpError::Request(error)));
        };
        // An idle connection may end at any time, and its pod be well: one that is not idle decides.
        if !self.is_renewed {
            self.is_renewed = true;
            self.pod.renew();
            return Ok(Event::Back(Box::new(request)));
        }
        self.pod.pool.closed_at_once(Cause::Reset);
        Err(Failed {
            is_back: true,
            request: Some(Box::new(request)),
            ..Failed::to_send(HttpError::Unsent(error), false)
        })
    }
}

impl Drop for Attempt {
    /// Another pod was quicker, or the caller waits no more.
    fn drop(&mut self) {
        if let (Some(sent), true) = (self.sent_at(), self.is_late) {
            self.pod.pool.gave_up(sent);
        }
    }
}

/// Whether the pod says that it has not processed the request: it refused the stream, or said goodbye and
/// that this one came too late (RFC 9113, 8.7).
///
/// hyper reports so only of what was not written or came too late, as long as nothing happens to the connection
/// while a stream is opened: see `driving`.
fn is_refused(error: &hyper::Error) -> bool {
    #[cfg(feature = "http2")]
    {
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return error.is_remote()
                    && (error.is_go_away()
                        || (error.is_reset()
                            && error.reason() == Some(h2::Reason::REFUSED_STREAM)));
            }
            cause = error.source();
        }
    }
    let _ = error;
    false
}

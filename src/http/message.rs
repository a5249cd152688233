//! A request, and how often it may be sent.

use std::{mem, sync::Arc};

use http::{
    Request,
    header::{HOST, UPGRADE},
    request::Parts,
};
use http_body::Body;

use super::{
    HttpError,
    outgoing::{self, BoxError, Outgoing, Source, Tape},
    request::check,
};
use crate::outcome::Outcome;

/// Marks a request as one that may be repeated after a pod may have seen it, or as one that must not:
/// an extension of the request. Without it the method decides ([`http::Method::is_idempotent`]; RFC 9110, 9.2.2).
///
/// ```
/// use headless_lb::Idempotent;
/// use http_body_util::Full;
/// use hyper::{Request, body::Bytes};
///
/// let search = Request::post("http://catalog.shop/search")
///     .extension(Idempotent::Yes) // asks only, however it is spelled
///     .body(Full::<Bytes>::from("{\"name\": \"lamp\"}"))?;
/// # let _ = search;
/// # Ok::<_, hyper::http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idempotent {
    /// Once or twice is the same.
    Yes,
    /// To be received at most once.
    No,
}

/// A request on its way.
pub(super) struct Message {
    /// Stays while the request may be sent again; else it leaves with it.
    head: Parts,
    body: State,
    may_repeat: bool,
    /// Its caller says that it tells nothing of its pod.
    is_ignored: bool,
}

enum State {
    /// As the caller wrote it. Prepared: Once, or Kept.
    New(Option<Source>),
    /// Can be sent once. Taken: Gone.
    Once(Outgoing),
    /// Can be sent again, as long as its body is kept.
    Kept(Option<Arc<Tape>>),
    /// With a pod. Come back unseen: Once.
    Gone,
}

/// What a client does with requests, as far as their form depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Requests that may be repeated are kept for that.
    pub(super) repeats: bool,
    /// A pod may turn a request down after it was written: it is not given back, so all are kept.
    pub(super) keeps: bool,
    pub(super) is_tls: bool,
}

impl Message {
    pub(super) fn new<B>(request: Request<B>) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let body = (!body.is_end_stream()).then(|| outgoing::source(body));
        Self {
            may_repeat: may_repeat(&head),
            is_ignored: head.extensions.get() == Some(&Outcome::Ignore),
            body: State::New(body),
            head,
        }
    }

    /// Whether its outcome is of no interest.
    pub(super) fn is_ignored(&self) -> bool {
        self.is_ignored
    }

    /// Whether it says for whom it is.
    pub(super) fn has_host(&self) -> bool {
        self.head.uri.authority().is_some() || self.head.headers.contains_key(HOST)
    }

    /// Gives it the form that the client's pods want. Does nothing the second time.
    pub(super) fn prepare(&mut self, form: Form) -> Result<(), HttpError> {
        let State::New(body) = &mut self.body else {
            return Ok(());
        };
        let body = body.take();
        check(&self.head, form.is_tls)?;
        self.may_repeat &= form.repeats;
        self.body = if self.may_repeat || form.keeps {
            State::Kept(body.map(Tape::of))
        } else {
            State::Once(body.map_or(Outgoing::EMPTY, Outgoing::once))
        };
        Ok(())
    }

    /// The request, or one like it if it can be sent again. Whether that is wise is for the caller to know.
    pub(super) fn take(&mut self) -> Option<Request<Outgoing>> {
        if let State::Kept(tape) = &self.body {
            let body = match tape {
                None => Outgoing::EMPTY,
                Some(tape) => Outgoing::taped(tape.read()?),
            };
            return Some(Request::from_parts(self.head.clone(), body));
        }
        match mem::replace(&mut self.body, State::Gone) {
            State::Once(body) => {
                let (none, ()) = Request::new(()).into_parts();
                let head = mem::replace(&mut self.head, none);
                Some(Request::from_parts(head, body))
            }
            _ => None,
        }
    }

    /// No pod has seen this one.
    pub(super) fn put_back(&mut self, request: Request<Outgoing>) {
        if matches!(self.body, State::Gone) {
            let (head, body) = request.into_parts();
            self.head = head;
            self.body = State::Once(body);
        }
    }

    /// Whether there is one to send: a body that was too large to be kept is gone with its first pod.
    pub(super) fn can_be_sent(&self) -> bool {
        match &self.body {
            State::New(_) | State::Once(_) => true,
            State::Kept(tape) => tape.as_ref().is_none_or(|tape| !tape.is_lost()),
            State::Gone => false,
        }
    }

    /// Whether receiving it twice would do no harm.
    pub(super) fn is_repeatable(&self) -> bool {
        self.may_repeat
    }

    /// Whether a pod may get it that another may have seen.
    pub(super) fn may_repeat(&self) -> bool {
        self.may_repeat && self.can_be_sent()
    }

    /// Whether it may be with two pods at once: if none of them need wait for the rest of its body, and it is not
    /// meant to take long.
    pub(super) fn may_double(&self) -> bool {
        let State::Kept(tape) = &self.body else {
            return false;
        };
        let may_repeat = self.may_repeat && !self.is_ignored;
        may_repeat && tape.as_ref().is_none_or(|tape| tape.is_complete())
    }
}

/// An upgrade is not one request, but the start of a conversation.
fn may_repeat(head: &Parts) -> bool {
    match head.extensions.get::<Idempotent>() {
        Some(mark) => *mark == Idempotent::Yes,
        None => head.method.is_idempotent() && !head.headers.contains_key(UPGRADE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};
    use hyper::body::Bytes;

    const FORM: Form = Form {
        repeats: true,
        keeps: false,
        is_tls: false,
    };

    fn message(request: http::request::Builder, form: Form) -> Message {
        let request = request
            .uri("http://shop/")
            .body(Full::<Bytes>::from("lamp"));
        let mut message = Message::new(request.unwrap());
        message.prepare(form).unwrap();
        message
    }

    #[test]
    fn what_the_method_or_the_caller_allows_can_be_taken_again() {
        let get = Request::get("http://shop/");
        let post = Request::post("http://shop/");
        let marked = Request::post("http://shop/").extension(Idempotent::Yes);
        let forbidden = Request::put("http://shop/").extension(Idempotent::No);
        let upgrade = Request::get("http://shop/").header(UPGRADE, "websocket");
        for (request, often) in [
            (get, true),
            (post, false),
            (marked, true),
            (forbidden, false),
            (upgrade, false),
        ] {
            let mut message = message(request, FORM);
            assert_eq!(message.may_repeat(), often);
            assert!(message.take().is_some());
            assert_eq!(message.take().is_some(), often);
        }
    }

    #[test]
    fn what_comes_back_can_be_taken_again() {
        let mut message = message(Request::post("http://shop/"), FORM);
        let request = message.take().unwrap();
        assert!(!message.can_be_sent());
        message.put_back(request);
        assert!(message.can_be_sent());
        assert!(!message.may_repeat());
        assert!(message.take().is_some());
    }

    #[test]
    fn where_pods_refuse_what_was_written_every_request_is_kept_and_still_not_repeated() {
        let keeping = Form {
            keeps: true,
            ..FORM
        };
        let mut message = message(Request::post("http://shop/"), keeping);
        assert!(message.take().is_some() && message.take().is_some());
        assert!(!message.may_repeat() && !message.may_double());
    }

    #[test]
    fn two_pods_at_once_need_all_of_the_body() {
        let whole = Message::new(
            Request::get("http://shop/")
                .body(Empty::<Bytes>::new())
                .unwrap(),
        );
        let (mut whole, mut partly) = (whole, message(Request::put("http://shop/"), FORM));
        whole.prepare(FORM).unwrap();
        assert!(whole.may_double());
        let request = partly.take().unwrap();
        assert!(
            partly.may_repeat() && !partly.may_double(),
            "nothing is read yet"
        );
        drop(request);
    }
}

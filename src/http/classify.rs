//! What an answer says of its pod.

use std::{fmt, io, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use crate::outcome::{Cause, Failure, Outcome};

/// What a pod has answered: what [`Http::classify`](crate::Http::classify) looks at.
///
/// Over HTTP that is the head. Over gRPC it is the status, which comes with the head or after the last message.
/// A response is taken for gRPC by what it says it is: HTTP/2, status 200, content type `application/grpc`.
pub struct HttpAnswer<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    grpc: Option<u8>,
}

/// No grpc-status, or none that is a number, is this one (grpc/doc/PROTOCOL-HTTP2.md, http-grpc-status-mapping.md).
const UNKNOWN: u8 = 2;

impl HttpAnswer<'_> {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers; the trailers, if the gRPC status came with them.
    pub fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// The gRPC status code, if the response is of gRPC. None of that becomes 2 (`UNKNOWN`).
    pub fn grpc_status(&self) -> Option<u8> {
        self.grpc
    }

    /// What it means unless somebody says otherwise.
    ///
    /// Failures are:
    /// - HTTP 429 and 5xx but for 501 and 505, which tell of the request: another pod of the same service knows the
    ///   method and the version as little;
    /// - of gRPC `UNKNOWN`, `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`. Not `DEADLINE_EXCEEDED`: the
    ///   deadline is the caller's, and whether the pod was slow shows in the time that it took.
    ///
    /// With 429 and 503 counts what `Retry-After` says in seconds. As a date it is not read: that would compare the
    /// clocks of two machines.
    pub fn outcome(&self) -> Outcome {
        match self.grpc {
            Some(code @ (UNKNOWN | 8 | 13 | 14 | 15)) => Cause::Grpc(code).into(),
            Some(_) => Outcome::Success,
            None if is_failure(self.status) => self.failure(),
            None => Outcome::Success,
        }
    }

    #[cold]
    fn failure(&self) -> Outcome {
        let failure = Failure::of(Cause::Status(self.status.as_u16()));
        let asks = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let pause = self.headers.get(RETRY_AFTER).filter(|_| asks);
        match pause.and_then(seconds) {
            Some(pause) => failure.retry_after(pause).into(),
            None => failure.into(),
        }
    }
}

impl fmt::Debug for HttpAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("grpc_status", &self.grpc)
            .finish_non_exhaustive()
    }
}

#[inline]
fn is_failure(status: StatusCode) -> bool {
    (status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED)
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// `delay-seconds` (RFC 9110, 10.2.3). More than fit are as good as the most that fit.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

type Say = dyn Fn(&HttpAnswer<'_>) -> Outcome + Send + Sync;

/// Who says what answers mean: the user, or nobody in particular.
#[derive(Clone, Default)]
pub(crate) struct Classify(Option<Arc<Say>>);

impl Classify {
    /// [`HttpAnswer::outcome`] decides.
    pub(crate) const fn usual() -> Self {
        Self(None)
    }

    pub(crate) fn by(say: impl Fn(&HttpAnswer<'_>) -> Outcome + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(say)))
    }

    /// What the head says; `None` if that comes with the trailers.
    #[inline]
    pub(crate) fn head<B>(&self, response: &Response<B>) -> Option<Outcome> {
        // Over HTTP/1.1, which gRPC is not spoken over, not even a header is looked for.
        let mut grpc = None;
        if response.version() == Version::HTTP_2 && is_grpc(response) {
            grpc = grpc_status(response.headers());
            if grpc.is_none() && response.status() == StatusCode::OK {
                return None;
            }
        }
        Some(self.say(&HttpAnswer {
            status: response.status(),
            headers: response.headers(),
            grpc,
        }))
    }

    /// What the end of a gRPC response says, with its trailers if there were any.
    pub(crate) fn end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        let none = HeaderMap::new();
        let trailers = trailers.unwrap_or(&none);
        self.say(&HttpAnswer {
            status: StatusCode::OK,
            headers: trailers,
            grpc: Some(grpc_status(trailers).unwrap_or(UNKNOWN)),
        })
    }

    #[inline]
    fn say(&self, answer: &HttpAnswer<'_>) -> Outcome {
        match &self.0 {
            None => answer.outcome(),
            Some(say) => say(answer),
        }
    }
}

impl fmt::Debug for Classify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "by status",
            Some(_) => "by the user",
        })
    }
}

/// `application/grpc`, with a `+proto` or a parameter behind it (grpc/doc/PROTOCOL-HTTP2.md, Content-Type). Not
/// `application/grpc-web`, whose trailers are within the body.
fn is_grpc<B>(response: &Response<B>) -> bool {
    let Some(kind) = response.headers().get(CONTENT_TYPE) else {
        return false;
    };
    let rest = kind.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let status = headers.get("grpc-status")?.to_str().ok();
    Some(status.and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN))
}

/// What a request comes to whose connection failed after it was sent.
pub(crate) fn lost(error: &hyper::Error) -> Outcome {
    if is_callers(error) {
        return Outcome::Ignore;
    }
    let cause = if error.is_timeout() {
        Cause::TimedOut
    } else if error.is_parse() {
        Cause::Other
    } else {
        Cause::Reset
    };
    cause.into()
}

/// Whether a request was lost with its connection, which is one event for all that share it. A stream that the pod resets is
/// lost by itself.
#[cfg(feature = "http2")]
pub(crate) fn is_of_connection(error: &hyper::Error) -> bool {
    if error.is_user() {
        return false;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_io() || error.is_go_away();
        }
        cause = error.source();
    }
    // The task of the connection ended, or its socket failed: hyper unpacks errors of the socket.
    true
}

/// Whether it is the request that broke off: the caller's body failed.
fn is_callers(error: &hyper::Error) -> bool {
    if error.is_user() {
        return true;
    }
    #[cfg(feature = "http2")]
    {
        // hyper resets the stream of such a request, which is neither the pod's doing nor that of h2 itself.
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return error.is_reset() && !error.is_remote() && !error.is_library();
            }
            cause = error.source();
        }
    }
    false
}

/// Why no connection was made, by the kind of the error.
pub(crate) fn cause_of_connect(kind: io::ErrorKind) -> Cause {
    match kind {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => Cause::TimedOut,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Cause::Reset,
        _ => Cause::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(version: Version, status: u16, headers: &[(&str, &str)]) -> Response<()> {
        let mut response = Response::builder().version(version).status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    fn http(status: u16, headers: &[(&str, &str)]) -> Option<Outcome> {
        Classify::usual().head(&response(Version::HTTP_11, status, headers))
    }

    fn grpc(headers: &[(&str, &str)]) -> Option<Outcome> {
        Classify::usual().head(&response(Version::HTTP_2, 200, headers))
    }

    fn failed(cause: Cause) -> Option<Outcome> {
        Some(cause.into())
    }

    #[test]
    fn a_status_is_a_failure_if_another_pod_might_have_done_better() {
        for status in [200, 204, 304, 400, 401, 404, 408, 425, 499, 501, 505] {
            assert_eq!(http(status, &[]), Some(Outcome::Success), "{status}");
        }
        for status in [429, 500, 502, 503, 504, 507, 508, 511, 599] {
            assert_eq!(http(status, &[]), failed(Cause::Status(status)), "{status}");
        }
    }

    #[test]
    fn a_pod_that_is_overloaded_may_say_for_how_long() {
        let pause = |status, value| match http(status, &[("retry-after", value)]) {
            Some(Outcome::Failure(failure)) => failure.pause().map(|pause| pause.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(503, "2"), Some(2));
        assert_eq!(pause(429, " 120 "), Some(120));
        assert_eq!(pause(503, "99999999999999999999"), Some(u64::MAX));
        for no_number in [
            "",
            "-1",
            "+1",
            "1.5",
            "soon",
            "Sun, 22 Nov 2026 13:00:00 GMT",
        ] {
            assert_eq!(pause(503, no_number), None, "{no_number}");
        }
        assert_eq!(pause(500, "2"), None, "it is for 429 and 503");
    }

    #[test]
    fn a_status_of_grpc_counts_where_grpc_is_spoken() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            let of = |code: &str| grpc(&[("content-type", kind), ("grpc-status", code)]);
            for code in [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 16, 17] {
                assert_eq!(
                    of(&code.to_string()),
                    Some(Outcome::Success),
                    "{kind} {code}"
                );
            }
            for code in [2, 8, 13, 14, 15] {
                assert_eq!(
                    of(&code.to_string()),
                    failed(Cause::Grpc(code)),
                    "{kind} {code}"
                );
            }
            assert_eq!(of("many"), failed(Cause::Grpc(2)));
            assert_eq!(grpc(&[("content-type", kind)]), None, "it is to come");
        }
        let elsewhere = [("content-type", "application/json"), ("grpc-status", "14")];
        assert_eq!(grpc(&elsewhere), Some(Outcome::Success));
        let web = [
            ("content-type", "application/grpc-web"),
            ("grpc-status", "14"),
        ];
        assert_eq!(grpc(&web), Some(Outcome::Success));
        let over_http1 = [("content-type", "application/grpc"), ("grpc-status", "14")];
        assert_eq!(http(200, &over_http1), Some(Outcome::Success));
    }

    #[test]
    fn a_grpc_response_that_does_not_begin_as_one_is_told_by_its_http_status() {
        let kind = [("content-type", "application/grpc")];
        let head = Classify::usual().head(&response(Version::HTTP_2, 503, &kind));
        assert_eq!(head, failed(Cause::Status(503)));
    }

    #[test]
    fn the_end_of_a_grpc_response_tells_its_status_or_that_there_is_none() {
        let mut trailers = HeaderMap::new();
        let usual = Classify::usual();
        assert_eq!(usual.end(None), Cause::Grpc(2).into());
        assert_eq!(usual.end(Some(&trailers)), Cause::Grpc(2).into());
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        assert_eq!(usual.end(Some(&trailers)), Cause::Grpc(14).into());
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(usual.end(Some(&trailers)), Outcome::Success);
    }

    #[test]
    fn the_user_may_say_otherwise() {
        let classify = Classify::by(|answer| match (answer.grpc_status(), answer.status()) {
            (Some(4), _) => Cause::Grpc(4).into(),
            (None, StatusCode::NOT_FOUND) => Outcome::Ignore,
            _ => answer.outcome(),
        });
        let head = |status| classify.head(&response(Version::HTTP_11, status, &[]));
        assert_eq!(head(404), Some(Outcome::Ignore));
        assert_eq!(head(500), failed(Cause::Status(500)));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("4"));
        assert_eq!(classify.end(Some(&trailers)), Cause::Grpc(4).into());
    }
}

//! What can be set, and why nothing need be.

use std::time::Duration;

use super::{
    classify::{Classify, HttpAnswer},
    message::Form,
};
use crate::outcome::Outcome;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// Settings of a balanced HTTP client, for [`Builder::spawn_http_with`](crate::Builder::spawn_http_with).
/// The defaults need no change in a cluster.
///
/// ```
/// use headless_lb::{Balancer, Fixed, Http};
/// use std::{net::SocketAddr, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
/// let settings = Http::new().max_connections(20).max_age(Duration::from_secs(600));
/// let catalog = Balancer::builder(pods).spawn_http_with(settings);
/// # let _ = catalog;
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until a client is built with them"]
pub struct Http {
    pub(super) protocol: Protocol,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_age: Option<Duration>,
    #[cfg(feature = "http2")]
    pub(super) ping: Option<Duration>,
    #[cfg(feature = "http2")]
    pub(super) max_streams: usize,
    pub(super) retries: bool,
    pub(super) hedging: bool,
    pub(super) try_timeout: Option<Duration>,
    pub(super) classify: Classify,
}

/// The least of a time that would mean nothing if it were none.
const LEAST: Duration = Duration::from_millis(1);

/// What is spoken on new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 in the open; over TLS what ALPN decides, HTTP/2 first.
    Usual,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 always: in the open by prior knowledge.
    #[cfg(feature = "http2")]
    Http2,
}

impl Http {
    /// The defaults: see each setting.
    pub const fn new() -> Self {
        Self {
            protocol: Protocol::Usual,
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_millis(1500),
            idle_timeout: Duration::from_secs(55),
            max_connections: usize::MAX,
            max_age: None,
            #[cfg(feature = "http2")]
            ping: None,
            #[cfg(feature = "http2")]
            max_streams: 100,
            retries: true,
            hedging: true,
            try_timeout: None,
            classify: Classify::usual(),
        }
    }

    /// HTTP/1.1 only. Default: in the open as well; over TLS the pod chooses (ALPN), HTTP/2 first if the
    /// feature `http2` is on.
    ///
    /// Set it for WebSockets over TLS: HTTP/2 knows no `Upgrade` header.
    pub fn http1(mut self) -> Self {
        self.protocol = Protocol::Http1;
        self
    }

    /// HTTP/2 only: in the open by prior knowledge, over TLS the only protocol that ALPN offers. For gRPC. A pod
    /// that does not speak it fails to connect ([`HttpError::NotHttp2`](crate::HttpError::NotHttp2)), and is
    /// set aside.
    ///
    /// A connection carries many requests, so there are few of them, and HTTP/2 gains most where requests
    /// share one: with many pods, clients and few requests, HTTP/1.1 can be cheaper.
    #[cfg(feature = "http2")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
    pub fn http2(mut self) -> Self {
        self.protocol = Protocol::Http2;
        self
    }

    /// TLS to the pods. Default: none. URIs are then `https`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The most that one connect may take, to the one address: TCP, TLS and the settings of HTTP/2
    /// together. Default 1.5 s.
    ///
    /// Within a cluster an answer takes less than a millisecond; but a lost SYN is sent again after 1 s
    /// (RFC 6298, 2), and its answer must win. The second repetition, after 3 s, is not waited for. A request
    /// does not wait that long anyway: after 250 ms it is offered to another pod as well.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection may stay unused. Default 55 s: servers and what stands before them close idle
    /// connections, and a request written at that moment is lost, so we close first. nginx does after 75 s, many
    /// a load balancer after 60 s. Where a server is quicker (Node.js: 5 s) its close is mostly seen in
    /// time; else set this below the server's.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Connections to one pod, at most; requests beyond wait for one to become free, and after
    /// 250 ms may go elsewhere. Default: no limit, for a queue in the client helps a pod only if the
    /// pod cannot refuse by itself. At least 1. One that only ends what it has, because the pod said goodbye
    /// (`GOAWAY`) or it is too old, makes room for another.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How old a connection may become. Each ends within 10 % of this, so that those made together do not
    /// end together (as gRFC A9 has it), after its last request and when its successor is made. Default:
    /// no limit; set it where pods stay behind one address that moves, or where certificates are short-lived.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Pings a pod over HTTP/2 while requests wait for it, and closes the connection if it does not answer
    /// within 10 s or the interval, whichever is shorter. Default off, as in gRPC (gRFC A8): its servers end connections that are
    /// pinged more often than every 5 min while no data flows. Pods that fall silent are found by their
    /// answers; pings find them where one answer takes minutes.
    #[cfg(feature = "http2")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
    pub fn ping(mut self, interval: Duration) -> Self {
        self.ping = Some(interval);
        self
    }

    /// Requests at once on one HTTP/2 connection, if the pod permits as many; another connection is made
    /// for more (gRFC A105). Default 100, the least that RFC 9113, 6.5.2 recommends to servers: all share
    /// the one connection's window and losses.
    #[cfg(feature = "http2")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams.max(1);
        self
    }

    /// Whether a request that a pod may have seen is sent to another when its connection fails or the pod falls silent: only
    /// if it may be repeated ([`Idempotent`](crate::Idempotent)) and its body is at most 64 kB, at most
    /// twice, and at most for 20 % of the requests, though 3 at once are always allowed (Envoy's retry
    /// budget). Default on.
    ///
    /// A request that no pod can have seen goes on to another pod in any case.
    pub fn retries(mut self, on: bool) -> Self {
        self.retries = on;
        self
    }

    /// Whether a request that is late is sent to another pod as well, and the first answer wins. Late is
    /// three times what 99 of 100 recent requests took, and 20 ms at least; requests are the same as with
    /// [`retries`](Self::retries), and at most 5 % of all, and one. Default on.
    ///
    /// This is what a pod that hangs is survived by. A fixed limit would cut slow but healthy answers.
    pub fn hedging(mut self, on: bool) -> Self {
        self.hedging = on;
        self
    }

    /// Ends a try that has no answer after this long, and sets the pod aside; the request is retried if
    /// that is allowed. It is for balanced requests; one to a pod of your choice
    /// ([`HttpPod::into_service`](crate::HttpPod::into_service)) has the limit that you put around it. Default: none, see [`hedging`](Self::hedging). Set it if you know how long an answer can take.
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.try_timeout = Some(timeout);
        self
    }

    /// What an answer says of its pod: policies that go by latency and health learn from it, and ejection. Default:
    /// [`HttpAnswer::outcome`], by the status of HTTP or of gRPC. It changes nothing for the caller: an answer is an
    /// answer, and is not asked for again.
    ///
    /// Called once for each answer: with its head, or for gRPC with its status. What is no answer needs no saying:
    /// a connection that ends after the request was sent, a [`try_timeout`](Self::try_timeout) that is over and a body that
    /// breaks off are failures; a request that its pod did not get, an upgrade (`101`, or `2xx` to a `CONNECT`) and
    /// a caller's own body that fails say nothing. A request that is meant to take long carries an
    /// [`Outcome::Ignore`] as an extension, and says nothing whatever becomes of it: however late it is, it goes to no
    /// other pod as well, and its pod does not pass for silent.
    ///
    /// ```
    /// use headless_lb::{Cause, Http, Outcome};
    /// use http_body_util::Empty;
    /// use hyper::{Request, body::Bytes};
    ///
    /// // This service answers 404 from pods whose cache is empty yet, and 500 where a request is wrong.
    /// let settings = Http::new().classify(|answer| match answer.status().as_u16() {
    ///     404 => Cause::Status(404).into(),
    ///     500 => Outcome::Success,
    ///     _ => answer.outcome(),
    /// });
    /// # let _ = settings;
    ///
    /// let news = Request::get("http://catalog.shop/changes?wait=30s")
    ///     .extension(Outcome::Ignore)
    ///     .body(Empty::<Bytes>::new())?;
    /// # let _ = news;
    /// # Ok::<_, hyper::http::Error>(())
    /// ```
    pub fn classify(
        mut self,
        say: impl Fn(&HttpAnswer<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.classify = Classify::by(say);
        self
    }

    /// As it is used: ALPN offers what the protocol is to be.
    pub(super) fn ready(mut self) -> Self {
        self.connect_timeout = self.connect_timeout.max(LEAST);
        self.idle_timeout = self.idle_timeout.max(LEAST);
        self.max_age = self.max_age.map(|age| age.max(LEAST));
        #[cfg(feature = "http2")]
        {
            self.ping = self.ping.map(|ping| ping.max(LEAST));
        }
        #[cfg(feature = "tls")]
        {
            self.tls = self.tls.map(|tls| tls.offering(self.protocol));
        }
        #[cfg(not(feature = "tls"))]
        let _ = &mut self;
        self
    }

    pub(super) fn form(&self) -> Form {
        Form {
            repeats: self.retries || self.hedging,
            // HTTP/2 refuses streams, and TLS 1.3 certificates.
            keeps: self.may_speak_http2() || self.is_tls(),
            is_tls: self.is_tls(),
        }
    }

    pub(super) const fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// How many requests a connection is expected to carry at once, before one is made.
    pub(super) fn expected_streams(&self) -> usize {
        #[cfg(feature = "http2")]
        if self.may_speak_http2() {
            return self.max_streams;
        }
        1
    }

    /// Whether connections may turn out to carry several requests at once.
    pub(super) fn may_speak_http2(&self) -> bool {
        #[cfg(feature = "http2")]
        return match self.protocol {
            Protocol::Usual => self.is_tls(),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
        };
        #[cfg(not(feature = "http2"))]
        return false;
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

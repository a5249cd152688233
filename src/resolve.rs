//! Discovery: one question, one answer.
//!
//! [`Resolve`] answers *once*. When to ask again, what to do with a failure, how long to believe an
//! empty answer: all that is written once, in the [registry](crate::registry), for every source.

use std::{borrow::Cow, error::Error, fmt, future::Future, sync::Arc, time::Duration};

use crate::endpoint::Address;

mod fixed;
mod source;
mod system;

#[cfg(feature = "dns")]
pub mod dns;

pub use fixed::Fixed;
pub(crate) use source::Source;
pub use system::System;

/// A source of endpoints: answers with the **whole** set, as it is now.
///
/// A source of your own needs to know nothing of time-to-live, truncation or kinds of failure;
/// addresses alone are enough:
///
/// ```
/// use headless_lb::{Resolution, Resolve, ResolveError};
/// use std::net::SocketAddr;
///
/// /// One `ip:port` a line.
/// struct File(std::path::PathBuf);
///
/// impl Resolve for File {
///     async fn resolve(&self) -> Result<Resolution, ResolveError> {
///         let text = std::fs::read_to_string(&self.0).map_err(ResolveError::failed)?;
///         text.lines().map(|line| line.parse::<SocketAddr>().map_err(ResolveError::failed)).collect()
///     }
/// }
/// ```
///
/// # Cancel safety
///
/// The driver drops the future when the last handle is gone, and after 30 s, which counts as a timeout:
/// a source that hangs must not end discovery. Hold nothing half-done across an await.
pub trait Resolve: Send + Sync + 'static {
    /// Asks once.
    ///
    /// # Errors
    ///
    /// [`ResolveError::empty`] when the source says that there is no endpoint (`Ok` without addresses
    /// means the same), [`ResolveError::failed`] when it cannot say. The first empties the set once
    /// it is confirmed; the second never changes it.
    fn resolve(&self) -> impl Future<Output = Result<Resolution, ResolveError>> + Send;

    /// The name that errors and events give the service.
    fn service(&self) -> Cow<'_, str> {
        Cow::Borrowed("endpoints")
    }
}

impl<R: Resolve> Resolve for Arc<R> {
    fn resolve(&self) -> impl Future<Output = Result<Resolution, ResolveError>> + Send {
        R::resolve(self)
    }

    fn service(&self) -> Cow<'_, str> {
        R::service(self)
    }
}

/// What a source answered: addresses, how long they hold, and whether that is all of them.
///
/// Order and duplicates mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    addresses: Vec<Address>,
    valid_for: Option<Duration>,
    partial: bool,
    record: Option<&'static str>,
}

impl Resolution {
    /// A whole answer without a time-to-live: it is asked for again after the refresh interval.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<Address>>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// How much longer the answer holds: the remaining time-to-live of its records.
    #[must_use]
    pub fn valid_for(mut self, ttl: Duration) -> Self {
        self.valid_for = Some(ttl);
        self
    }

    /// Marks the answer as incomplete (truncated, for example): it may add endpoints, and removes none.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// The kind of record that answered, for people: `A`, `AAAA`, `SRV`.
    #[must_use]
    pub fn of_record(mut self, record: &'static str) -> Self {
        self.record = Some(record);
        self
    }

    /// The same answer about these addresses alone.
    pub(crate) fn only(mut self, addresses: Vec<Address>) -> Self {
        self.addresses = addresses;
        self
    }

    /// The addresses, as answered.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The remaining time-to-live, if the source has one.
    pub fn ttl(&self) -> Option<Duration> {
        self.valid_for
    }

    /// Whether endpoints may be missing from this answer.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// The kind of record that answered.
    pub fn record(&self) -> Option<&'static str> {
        self.record
    }
}

impl<A: Into<Address>> FromIterator<A> for Resolution {
    fn from_iter<I: IntoIterator<Item = A>>(addresses: I) -> Self {
        Self::new(addresses)
    }
}

/// Why a source gave no addresses.
///
/// [`is_empty`](Self::is_empty) parts the two kinds: a source that *says* there is no endpoint, and
/// one that could not say. Cheap to clone: it is kept as the reason in errors and in the status.
#[derive(Clone, Debug)]
pub struct ResolveError {
    kind: ResolveErrorKind,
    negative_ttl: Option<Duration>,
    detail: Option<Arc<str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of [`ResolveError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResolveErrorKind {
    /// The resolver had no room for another query.
    Busy,
    /// The socket failed.
    Io,
    /// The answer could not be read.
    Malformed,
    /// The name exists, without records of the type asked for.
    NoData,
    /// No name server is configured.
    NoServers,
    /// The name does not exist. Cluster DNS says the same for zero ready pods, a missing service and
    /// a wrong name.
    NxDomain,
    /// Any other cause, of a source that is not DNS.
    Other,
    /// The server answered with another error code.
    OtherRcode,
    /// The server refused.
    Refused,
    /// The server failed, or is not in sync with the cluster yet.
    ServFail,
    /// No answer in time.
    Timeout,
    /// The answer does not fit, even over TCP.
    Truncated,
}

impl ResolveErrorKind {
    /// Whether the source said that there are no endpoints.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::NoData | Self::NxDomain)
    }

    /// A short fixed label, for metrics: `nxdomain`, `timeout`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Io => "io",
            Self::Malformed => "malformed",
            Self::NoData => "nodata",
            Self::NoServers => "noservers",
            Self::NxDomain => "nxdomain",
            Self::Other => "other",
            Self::OtherRcode => "rcode",
            Self::Refused => "refused",
            Self::ServFail => "servfail",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
        }
    }
}

impl fmt::Display for ResolveErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the resolver is busy",
            Self::Io => "input/output error",
            Self::Malformed => "malformed answer",
            Self::NoData => "no records of this type (NODATA)",
            Self::NoServers => "no name server is configured",
            Self::NxDomain => "no such name (NXDOMAIN)",
            Self::Other => "resolution failed",
            Self::OtherRcode => "the name server answered with an error",
            Self::Refused => "the name server refused (REFUSED)",
            Self::ServFail => "the name server failed (SERVFAIL)",
            Self::Timeout => "no answer in time",
            Self::Truncated => "the answer is truncated",
        })
    }
}

impl ResolveError {
    /// The source says that there is no endpoint.
    pub fn empty() -> Self {
        Self::of(ResolveErrorKind::NoData)
    }

    /// The source could not say.
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into().into()),
            ..Self::of(ResolveErrorKind::Other)
        }
    }

    /// An error of the given kind.
    pub fn of(kind: ResolveErrorKind) -> Self {
        Self {
            kind,
            negative_ttl: None,
            detail: None,
            source: None,
        }
    }

    /// How long the negative answer holds: the smaller of the SOA record's TTL and MINIMUM (RFC 2308).
    #[must_use]
    pub fn holds_for(mut self, negative_ttl: Duration) -> Self {
        self.negative_ttl = Some(negative_ttl);
        self
    }

    /// Adds what was asked, of whom, or what to do about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Arc<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the error beneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// What kind of error.
    pub fn kind(&self) -> ResolveErrorKind {
        self.kind
    }

    /// Whether the source said that there are no endpoints, rather than failing to say.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// How long the negative answer holds, if the source told.
    pub fn negative_ttl(&self) -> Option<Duration> {
        self.negative_ttl
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(detail) = &self.detail {
            write!(f, "{detail}: ")?;
        }
        match (self.kind, &self.source) {
            // Only the source knows what happened.
            (ResolveErrorKind::Other, Some(source)) => source.fmt(f),
            (kind, _) => kind.fmt(f),
        }
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        // An error that stands in the text is not told twice.
        if self.kind == ResolveErrorKind::Other {
            source.source()
        } else {
            Some(source)
        }
    }
}

//! What can be wrong with a name, and what to write instead.

use std::{error::Error, fmt};

/// A name or port that [`Dns`](super::Dns) cannot ask for.
///
/// Found when the source is made, never while it runs. The text says what to write instead.
///
/// ```
/// use headless_lb::{Dns, NameErrorKind};
///
/// let error = Dns::headless("http://web.shop", 8080).unwrap_err();
/// assert_eq!(error.kind(), NameErrorKind::Scheme);
/// assert_eq!(error.to_string(), r#""http://web.shop" is a URL: write the host name alone, without a scheme"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    kind: NameErrorKind,
    /// As written, but shortened and escaped: it goes to logs.
    name: Box<str>,
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameErrorKind {
    /// An IP address or `localhost` where SRV records are asked for, or four numbers that are no IP address.
    Address,
    /// A character that no host name has.
    Character,
    /// Nothing at all.
    Empty,
    /// Two dots in a row, or a dot at the start.
    EmptyLabel,
    /// Letters outside ASCII.
    International,
    /// More than 63 characters between two dots.
    LabelTooLong,
    /// A port inside the name.
    Port,
    /// Port 0, or no port.
    PortMissing,
    /// A URL.
    Scheme,
    /// An SRV name that does not start with `_port._protocol.`.
    SrvPrefix,
    /// More than 253 characters.
    TooLong,
}

impl NameError {
    pub(super) fn new(kind: NameErrorKind, name: &str) -> Self {
        Self {
            kind,
            name: shortened(name),
        }
    }

    /// What is wrong.
    pub fn kind(&self) -> NameErrorKind {
        self.kind
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" ", self.name)?;
        f.write_str(match self.kind {
            NameErrorKind::Address => {
                "is not a name that DNS serves records for: give an IP address or localhost to Dns::headless, with a port"
            }
            NameErrorKind::Character => {
                "is not a host name: use letters, digits, '-' and '_', with dots between, as in web.shop.svc.cluster.local"
            }
            NameErrorKind::Empty => {
                "is an empty name: write the service's, as in web.shop.svc.cluster.local"
            }
            NameErrorKind::EmptyLabel => "has an empty part: write one dot between two parts, and none at the start",
            NameErrorKind::International => "has letters outside ASCII: write its ASCII form (xn--...)",
            NameErrorKind::LabelTooLong => "has a part of more than 63 characters, the limit of DNS",
            NameErrorKind::Port => {
                "has a port inside: give the port as the second argument of Dns::headless (SRV records bring their own)"
            }
            NameErrorKind::PortMissing => {
                "needs a port: the container's (targetPort), since a headless service maps none"
            }
            NameErrorKind::Scheme => "is a URL: write the host name alone, without a scheme",
            NameErrorKind::SrvPrefix => {
                "does not start with the name of a port and a protocol: write _http._tcp.web.shop.svc.cluster.local, or use Dns::headless"
            }
            NameErrorKind::TooLong => "has more than 253 characters, the limit of DNS",
        })
    }
}

impl Error for NameError {}

/// Readable in a log line: escaped, at most 60 characters.
fn shortened(name: &str) -> Box<str> {
    const KEPT: usize = 60;
    let mut text: String = name
        .chars()
        .take(KEPT)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(KEPT).is_some() {
        text.push_str("...");
    }
    text.into()
}

//! Where a pod is, and what it is called.

use std::{
    fmt, iter,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{draw::mix, key::hash_of};

/// An address that a resolver found, with the name it was found under.
///
/// The address is the identity; the name is a label. It comes from the target of an SRV record (`db-0` for a StatefulSet pod) and is absent in
/// plain A and AAAA answers. A resolver of one's own may add a label, such as the zone, and a weight.
///
/// ```
/// use headless_lb::Address;
///
/// let pod: Address = "10.244.1.7:5432".parse::<std::net::SocketAddr>()?.into();
/// assert_eq!(pod.named("db-0").to_string(), "db-0 10.244.1.7:5432");
/// # Ok::<_, std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub(super) socket: SocketAddr,
    pub(super) name: Option<Arc<str>>,
    pub(super) label: Option<Arc<str>>,
    /// 0 if there is none.
    pub(super) weight: u16,
}

impl Address {
    /// The same address under the name `name`.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same address with a label, such as the zone it is in: what [`Prefer`](crate::Prefer) goes by.
    ///
    /// ```
    /// # use headless_lb::Address;
    /// let pod: Address = "10.244.1.7:5432".parse::<std::net::SocketAddr>()?.into();
    /// assert_eq!(pod.labelled("eu-1a").label(), Some("eu-1a"));
    /// # Ok::<_, std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn labelled(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same address with a weight, as SRV records give one: 0 is none.
    #[must_use]
    pub fn weighted(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// The socket address to dial.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// The pod's name, where DNS told one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The label, if the resolver gave one.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The weight, if the resolver gave one that is not 0.
    pub fn weight(&self) -> Option<u16> {
        Some(self.weight).filter(|&weight| weight > 0)
    }
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self {
            socket,
            name: None,
            label: None,
            weight: 0,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labelled(f, self.name(), self.socket)
    }
}

/// The order of an address inside its group: pseudo-random, but the same in every answer of one
/// process. Also its share of an answer's fingerprint, hence one mix for the common case.
#[inline]
pub(crate) fn rank(socket: SocketAddr, seed: u64) -> u64 {
    let port = u64::from(socket.port());
    match socket.ip() {
        IpAddr::V4(ip) => mix((u64::from(u32::from(ip)) << 16 | port) ^ seed),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            mix(mix((bits >> 64) as u64 ^ seed) ^ bits as u64 ^ (port << 48))
        }
    }
}

/// Who an endpoint is for those that go by keys. The port belongs to it: two ports of a pod are two endpoints.
pub(super) fn identity(socket: SocketAddr, name: Option<&str>) -> u64 {
    match name.filter(|name| !is_dashed_ip(name)) {
        Some(name) => hash_of((name, socket.port())),
        // An IPv4 address that is mapped into IPv6 is what it is.
        None => match socket.ip().to_canonical() {
            IpAddr::V4(ip) => hash_of((u32::from(ip), socket.port())),
            IpAddr::V6(ip) => hash_of((u128::from(ip), socket.port())),
        },
    }
}

/// Kubernetes names a pod without a hostname after its address, with dashes for dots or colons.
///
/// Written into a buffer: picks of a pod by its ordinal come here, and must not allocate.
pub(super) fn is_dashed_ip(name: &str) -> bool {
    if !name.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        return false;
    }
    let mut buffer = [0; LONGEST_IP];
    let Some(text) = buffer.get_mut(..name.len()) else {
        return false;
    };
    let mut is_ip_with = |separator| {
        for (to, from) in iter::zip(text.iter_mut(), name.bytes()) {
            *to = if from == b'-' { separator } else { from };
        }
        std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
    };
    is_ip_with(b'.') || is_ip_with(b':')
}

/// Eight groups of four digits with colons between.
const LONGEST_IP: usize = 39;

/// As one string, so that width and alignment apply to the whole.
pub(super) fn write_labelled(
    f: &mut fmt::Formatter<'_>,
    name: Option<&str>,
    socket: SocketAddr,
) -> fmt::Result {
    match name {
        Some(name) => f.pad(&format!("{name} {socket}")),
        None => f.pad(&socket.to_string()),
    }
}

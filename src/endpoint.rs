//! One pod: its address, its name if DNS told one, and its live counters.

use std::{
    fmt, iter,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{draw::mix, eject::Connects};

/// An address that a resolver found, with the name it was found under.
///
/// The address is the identity; the name is a label. It comes from the target of an SRV record (`db-0` for a StatefulSet pod) and is absent in
/// plain A and AAAA answers.
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
    socket: SocketAddr,
    name: Option<Arc<str>>,
}

impl Address {
    /// The same address under the name `name`.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
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
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self { socket, name: None }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labelled(f, self.name(), self.socket)
    }
}

/// One address of a service and what is known about it while it lives.
///
/// An `Endpoint` outlives the answers that list it: its counters survive every swap of the set, and a short absence (`linger`). An address that
/// returns under another pod name is another endpoint.
///
/// It takes 384 bytes, reference counts included: what requests write, what they count references with
/// and what they read are on cache line pairs of their own.
pub struct Endpoint {
    id: u64,
    socket: SocketAddr,
    since: Instant,
    /// Written once, by the driver: a name that DNS tells later than the address.
    name: OnceLock<Arc<str>>,
    replication: Replication,
    counters: Counters,
}

/// How far a database's data go on this pod. Written by the driver alone; read by policies with a bound.
#[derive(Debug)]
struct Replication {
    /// The last position that was observed, in bytes; `UNKNOWN` if none was.
    position: AtomicU64,
    /// How many bytes the primary was ahead; `UNKNOWN` if that cannot be told.
    bytes: AtomicU64,
    /// For how many milliseconds it has been ahead; `UNKNOWN` if that cannot be told.
    millis: AtomicU64,
    /// Whether anybody asks. Set by readers, once.
    wanted: AtomicBool,
}

const UNKNOWN: u64 = u64::MAX;

impl Default for Replication {
    fn default() -> Self {
        Self {
            position: AtomicU64::new(UNKNOWN),
            bytes: AtomicU64::new(UNKNOWN),
            millis: AtomicU64::new(UNKNOWN),
            wanted: AtomicBool::new(false),
        }
    }
}

/// The cells that requests write, on a cache line pair of their own: readers of the address must not wait for them.
#[repr(align(128))]
#[derive(Default)]
struct Counters {
    /// Requests in flight. Written by [`InFlight`]; read by policies.
    pending: AtomicU32,
    /// Connect failures in a row. Written on the request path; read by the driver, which alone decides
    /// what follows.
    refusals: AtomicU32,
    /// How often a success ended such a row. The same writers and reader.
    recoveries: AtomicU32,
    /// Whether the driver waits for a connect that succeeds. Set by the driver before anybody dials;
    /// cleared by that connect, or by the driver that waits no longer.
    warming: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(address: Address, since: Instant) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            socket: address.socket,
            since,
            name: address.name.map_or_else(OnceLock::new, OnceLock::from),
            replication: Replication::default(),
            counters: Counters::default(),
        }
    }

    /// The socket address to dial: a pod's IP and the container's port.
    #[inline]
    pub fn addr(&self) -> SocketAddr {
        self.socket
    }

    /// The pod's name (`db-0`, or `10-244-1-7` for a pod without a hostname), where SRV records told one.
    #[inline]
    pub fn name(&self) -> Option<&str> {
        self.name.get().map(AsRef::as_ref)
    }

    /// The StatefulSet ordinal at the end of the name: 2 for `db-2`; none for a dashed IP address.
    pub fn ordinal(&self) -> Option<u32> {
        let name = self.name()?;
        if is_dashed_ip(name) {
            return None;
        }
        name.rsplit_once('-')?.1.parse().ok()
    }

    /// A number that no other endpoint of this process has or had.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When this endpoint was first seen.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Requests in flight: picks that were not dropped yet.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.counters.pending.load(Relaxed)
    }

    /// Counts one request until the guard is dropped.
    ///
    /// A [`Pick`](crate::Pick) does this by itself; call it for work that goes on after the pick, such as a response body.
    #[inline]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.counters.pending.fetch_add(1, Relaxed);
        InFlight {
            endpoint: Arc::clone(self),
        }
    }

    /// How far this pod's data go, in bytes, as its probe last saw; `None` if no probe tells.
    pub fn position(&self) -> Option<u64> {
        known(&self.replication.position)
    }

    /// How many bytes of the primary's data this replica lacked when its probe last asked; `None` if that
    /// is not known: no probe tells positions, or no primary was seen lately.
    ///
    /// Who asks makes the probe look at the position each time ([`wants_position`](Self::wants_position)).
    pub fn lag_bytes(&self) -> Option<u64> {
        self.want_position();
        known(&self.replication.bytes)
    }

    /// For how long this replica had lacked data of the primary when its probe last asked: zero if it
    /// lacked none, however long the primary wrote nothing; `None` as in [`lag_bytes`](Self::lag_bytes).
    pub fn lag(&self) -> Option<Duration> {
        self.want_position();
        known(&self.replication.millis).map(Duration::from_millis)
    }

    /// Whether this pod was seen to have its data up to this position.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.want_position();
        // With an unknown lag it may follow another primary, whose positions mean something else.
        known(&self.replication.bytes).is_some()
            && known(&self.replication.position).is_some_and(|seen| seen >= position)
    }

    /// Whether somebody goes by this endpoint's lag: a probe to which a position costs something may look
    /// at it less often otherwise.
    pub fn wants_position(&self) -> bool {
        self.replication.wanted.load(Relaxed)
    }

    /// Reads before it writes: the line stays shared.
    pub(crate) fn want_position(&self) {
        if !self.wants_position() {
            self.replication.wanted.store(true, Relaxed);
        }
    }

    /// Notes what a probe saw: the position, and what the replica lacks. Called by the driver alone.
    pub(crate) fn replicated(
        &self,
        position: Option<u64>,
        lag_bytes: Option<u64>,
        lag: Option<Duration>,
    ) {
        let millis = lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(UNKNOWN - 1));
        let cells = &self.replication;
        cells.position.store(position.unwrap_or(UNKNOWN), Relaxed);
        cells.bytes.store(lag_bytes.unwrap_or(UNKNOWN), Relaxed);
        cells.millis.store(millis.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Labels an endpoint that was found without a name. A second name does not replace the first.
    pub(crate) fn label(&self, name: &str) {
        self.name.get_or_init(|| name.into());
    }

    /// Counts a failed connect.
    pub(crate) fn refused(&self) {
        self.counters.refusals.fetch_add(1, Relaxed);
    }

    /// A connect succeeded; true if that is news for the driver: it ends a row of failures, or is what
    /// a warming endpoint waits for. Reads before it writes, so that healthy endpoints share the line.
    pub(crate) fn connected(&self) -> bool {
        let ends = self.counters.refusals.load(Relaxed) != 0
            && self.counters.refusals.swap(0, Relaxed) != 0;
        if ends {
            self.counters.recoveries.fetch_add(1, Relaxed);
        }
        let warms = self.is_warming() && self.counters.warming.swap(false, Relaxed);
        ends || warms
    }

    /// Whether the driver waits for a connect that succeeds.
    pub(crate) fn is_warming(&self) -> bool {
        self.counters.warming.load(Relaxed)
    }

    pub(crate) fn set_warming(&self, warming: bool) {
        self.counters.warming.store(warming, Relaxed);
    }

    #[inline]
    pub(crate) fn connects(&self) -> Connects {
        let failures = self.counters.refusals.load(Relaxed);
        Connects {
            failures,
            recoveries: self.counters.recoveries.load(Relaxed),
        }
    }
}

fn known(cell: &AtomicU64) -> Option<u64> {
    Some(cell.load(Relaxed)).filter(|&value| value != UNKNOWN)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("addr", &self.socket)
            .field("name", &self.name())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labelled(f, self.name(), self.socket)
    }
}

/// One request in flight on an endpoint; dropping it ends the request.
#[must_use = "the request counts as ended when this is dropped"]
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    /// The endpoint that serves the request.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        self.endpoint.counters.pending.fetch_sub(1, Relaxed);
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

/// Kubernetes names a pod without a hostname after its address, with dashes for dots or colons.
///
/// Written into a buffer: picks of a pod by its ordinal come here, and must not allocate.
fn is_dashed_ip(name: &str) -> bool {
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
fn write_labelled(
    f: &mut fmt::Formatter<'_>,
    name: Option<&str>,
    socket: SocketAddr,
) -> fmt::Result {
    match name {
        Some(name) => f.pad(&format!("{name} {socket}")),
        None => f.pad(&socket.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> Arc<Endpoint> {
        let address = Address::from(SocketAddr::from(([10, 244, 1, 7], 5432))).named(name);
        Arc::new(Endpoint::new(address, Instant::now()))
    }

    #[test]
    fn the_ordinal_is_read_from_a_stateful_name_only() {
        assert_eq!(endpoint("db-2").ordinal(), Some(2));
        assert_eq!(endpoint("my-db-11").ordinal(), Some(11));
        assert_eq!(endpoint("10-244-1-7").ordinal(), None);
        assert_eq!(endpoint("fd00-10-244--6-1").ordinal(), None);
        assert_eq!(endpoint("db").ordinal(), None);
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let endpoint = endpoint("db-0");
        let (one, two) = (endpoint.begin(), endpoint.begin());
        assert_eq!(endpoint.pending(), 2);
        drop(one);
        assert_eq!(endpoint.pending(), 1);
        drop(two);
        assert_eq!(endpoint.pending(), 0);
    }

    #[test]
    fn an_endpoint_takes_as_much_memory_as_its_documentation_says() {
        // `Arc` puts its two counts in front, padded to the alignment.
        assert_eq!(size_of::<Endpoint>() + align_of::<Endpoint>(), 384);
    }

    #[test]
    fn a_connect_is_news_only_if_it_ends_a_row_of_failures_or_somebody_waits_for_it() {
        let endpoint = endpoint("db-0");
        assert!(!endpoint.connected());
        endpoint.refused();
        assert!(endpoint.connected() && !endpoint.connected());
        endpoint.set_warming(true);
        assert!(endpoint.connected() && !endpoint.connected());
        let recoveries = endpoint.connects().recoveries;
        assert_eq!(recoveries, 1, "a first connect ends no row");
    }

    #[test]
    fn the_first_name_stays() {
        let endpoint = Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 80)).into(), Instant::now());
        assert_eq!(endpoint.name(), None);
        endpoint.label("db-0");
        endpoint.label("db-1");
        assert_eq!(endpoint.name(), Some("db-0"));
    }
}

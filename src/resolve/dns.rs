//! DNS: the names of headless services, as cluster DNS really answers them.
//!
//! # What one answer can hold
//!
//! A DNS message has a size limit, and a service above it does not come whole, whatever the client does:
//!
//! | transport | A | AAAA | SRV with IPv4 addresses | SRV with IPv6 addresses |
//! |---|---|---|---|---|
//! | UDP without EDNS, 512 bytes | 29 | 15 | 5 | 3 |
//! | UDP as asked here, 1,232 bytes | 73 | 40 | 10-16 | 8-11 |
//! | TCP, 65,535 bytes | 4,090 | 2,337 | 570-740 | 446-569 |
//!
//! Half of the SRV numbers for a dual-stack service without hostnames, which has two records a pod. Above the UDP limit the question is
//! repeated over TCP, so **TCP port 53 must be open** in every network policy between client and name server. BIND in between refuses
//! sets of more than 100 records by default (`max-records-per-type`). Above the TCP limit the answer is
//! [partial](crate::Resolution::is_partial): it adds endpoints and removes none. Beyond that split the service, use zonal names, or
//! implement [`Resolve`] over EndpointSlices.
//!
//! A larger EDNS size is not on offer: datagrams above 1,232 bytes are fragmented, fragments are lost, and CoreDNS was seen to answer
//! 4,200 endpoints with nothing at all.

use std::{
    borrow::Cow,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use crate::resolve::{Resolution, Resolve, ResolveError};

mod answer;
mod family;
mod guarded;
mod lookup;
mod name;
mod name_error;
mod resolv_conf;
mod servers;
mod srv;
mod truncated;

pub use family::Family;
pub use name_error::{NameError, NameErrorKind};

use family::Question;
use lookup::Memory;
use name::{Host, HostName};
use resolv_conf::Servers;

/// The endpoints of a headless service, from A and AAAA or from SRV records.
///
/// ```
/// use headless_lb::Dns;
///
/// // The pods of service `web` in namespace `shop`, and the port their containers listen on.
/// let web = Dns::headless("web.shop.svc.cluster.local", 8080)?;
/// // The same from SRV records, which bring the port and the pods' names.
/// let db = Dns::srv("_postgres._tcp.db.prod.svc.cluster.local")?;
/// # Ok::<_, headless_lb::NameError>(())
/// ```
///
/// # Names
///
/// | written | asked for |
/// |---|---|
/// | `web.shop.svc.cluster.local` | that name, once: `.svc.` and the cluster's domain make it absolute |
/// | `web.shop` | `web.shop.svc.<domain>`, then the search list |
/// | `web` | `web.<own namespace>.svc.<domain>`, then the search list |
/// | `api.example.com.` | that name, once: a dot at the end makes any name absolute |
/// | `api.example.com` | through the search list, then the name itself |
/// | `10.0.0.1`, `::1`, `[::1]` | nothing: one endpoint |
/// | `localhost`, `db.localhost` | nothing: the loopback address |
///
/// The first name with records is kept from then on (until `resolv.conf` changes), so a walk through the search list happens at the start
/// only. It goes on after NXDOMAIN and NODATA and ends at any failure: a name server that fails for the right name must not make the wrong
/// one the answer. Names in other alphabets are refused; write their ASCII form (`xn--...`).
///
/// # Answers
///
/// Nothing is cached, no `hosts` file is read and no failure passes for an empty set: a resolution ends with all addresses, with "none"
/// (NXDOMAIN, NODATA) or with an error. With several name servers the next one is asked after a failure. A question may be dropped at any
/// await.
///
/// Clones share what they learned and their name servers; sources that read the same `resolv.conf` share the resolvers. Resolving needs a
/// tokio runtime with I/O and time.
#[derive(Clone, Debug)]
pub struct Dns {
    written: Arc<str>,
    asked: Asked,
    family: Family,
    deadline: Duration,
    keep_loopback: bool,
    cluster: Option<Name>,
    servers: Arc<Servers>,
    memory: Arc<Memory>,
}

#[derive(Clone, Debug)]
enum Asked {
    Ip(SocketAddr),
    Localhost(u16),
    Records(Records),
}

/// What only a name server can answer.
#[derive(Clone, Debug)]
enum Records {
    Host {
        name: HostName,
        port: u16,
    },
    Srv {
        name: HostName,
        or_port: Option<u16>,
    },
}

/// Where every Unix and every pod has it.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// All servers, families and follow-up questions together. Two lost datagrams, or three dead servers, still fit; a service that answers
/// later than that is better served by the set it has.
const DEADLINE: Duration = Duration::from_secs(5);

impl Dns {
    /// The A (or AAAA) records of `name`, and `port` there.
    ///
    /// `port` is the **container's** port, the `targetPort` of the service: a headless service has no proxy, so nothing maps the service's
    /// own port. [`srv`](Self::srv) learns it from DNS.
    ///
    /// Does no I/O and needs no runtime.
    ///
    /// # Errors
    ///
    /// When `name` is no name that DNS can carry, has a port or scheme, or `port` is 0.
    pub fn headless(name: &str, port: u16) -> Result<Self, NameError> {
        let host = name::host(name)?;
        let port = name::port(port, name)?;
        let asked = match host {
            Host::Ip(ip) => Asked::Ip(SocketAddr::new(ip, port)),
            Host::Localhost => Asked::Localhost(port),
            Host::Name(name) => Asked::Records(Records::Host { name, port }),
        };
        Ok(Self::new(name, asked))
    }

    /// The SRV records of `name`: `_port._protocol.service`, with the name of the port in the service's definition.
    ///
    /// Endpoints carry the pod's name (`db-0`) and the pod's own port. A port without a name has no SRV records. Priorities are obeyed
    /// (the lowest only), weights are not: CoreDNS sets them all equal.
    ///
    /// Does no I/O and needs no runtime.
    ///
    /// # Errors
    ///
    /// When `name` does not start with `_port._protocol.`, or the rest is no name that DNS can carry.
    pub fn srv(name: &str) -> Result<Self, NameError> {
        let records = Records::Srv {
            name: name::srv(name)?,
            or_port: None,
        };
        Ok(Self::new(name, Asked::Records(records)))
    }

    fn new(name: &str, asked: Asked) -> Self {
        Self {
            written: name.into(),
            asked,
            family: Family::default(),
            deadline: DEADLINE,
            keep_loopback: true,
            cluster: None,
            servers: Servers::of_file(Path::new(RESOLV_CONF)),
            memory: Arc::default(),
        }
    }

    /// For SRV: the A or AAAA records of the service with `port`, where its SRV records cannot be had.
    ///
    /// That is when they do not exist at the start (a port without a name), do not fit one message (above about 440 endpoints), or the
    /// server fails on them (Knot does, for the same reason). Endpoints then have no pod name. SRV is tried again every 5 minutes. After
    /// SRV records were seen, their absence means that there is no pod, and `port` is not used.
    ///
    /// For [`headless`](Self::headless) it replaces the port.
    ///
    /// # Errors
    ///
    /// When `port` is 0.
    pub fn or_port(self, port: u16) -> Result<Self, NameError> {
        let port = name::port(port, &self.written)?;
        let asked = match &self.asked {
            Asked::Ip(socket) => Asked::Ip(SocketAddr::new(socket.ip(), port)),
            Asked::Localhost(_) => Asked::Localhost(port),
            Asked::Records(Records::Host { name, .. }) => Asked::Records(Records::Host {
                name: name.clone(),
                port,
            }),
            Asked::Records(Records::Srv { name, .. }) => Asked::Records(Records::Srv {
                name: name.clone(),
                or_port: Some(port),
            }),
        };
        Ok(Self { asked, ..self }.anew())
    }

    /// Which IP family to use. Default: [`Family::PreferV4`].
    ///
    /// With one of the `Prefer` families only the family that answered is asked from then on; the preferred one is looked at again when the
    /// other turns empty, and every 5 minutes. An IP address as name is used whatever the family.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }.anew()
    }

    /// Asks these name servers, instead of those of `resolv.conf`.
    ///
    /// There is no search list then: names are absolute. Only with a [`cluster_domain`](Self::cluster_domain) `web.shop` is first looked
    /// for as a service of the cluster.
    ///
    /// ```
    /// # use headless_lb::Dns;
    /// let web = Dns::headless("web.shop.svc.cluster.local", 8080)?.name_servers(["10.96.0.10:53".parse()?]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name_servers(self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let servers = Servers::given(servers.into_iter().collect());
        Self { servers, ..self }.anew()
    }

    /// Reads this file for name servers and the search list. Default: `/etc/resolv.conf`.
    ///
    /// It is read by the first resolution, when it changed (looked at every 30 s), and when three resolutions in a row failed. A file that
    /// cannot be read fails the resolution and is tried again by the next one. Its `options` are not used.
    #[must_use]
    pub fn resolv_conf(self, path: impl Into<PathBuf>) -> Self {
        let servers = Servers::of_file(&path.into());
        Self { servers, ..self }.anew()
    }

    /// The cluster's domain. Default: the one behind `svc.` in the search list, which is right in every pod with `dnsPolicy: ClusterFirst`.
    ///
    /// # Errors
    ///
    /// When `domain` is no name that DNS can carry.
    pub fn cluster_domain(self, domain: &str) -> Result<Self, NameError> {
        let cluster = Some(name::domain(domain)?);
        Ok(Self { cluster, ..self }.anew())
    }

    /// How long one resolution may take, with all its questions. Default: 5 s, clamped to 10 ms - 30 s.
    ///
    /// Lower, and a lost datagram (repeated after 333 ms) or a dead server fails the resolution; higher, and nothing is gained with fewer
    /// than five name servers.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let deadline = deadline.clamp(Duration::from_millis(10), Duration::from_secs(30));
        Self { deadline, ..self }
    }

    /// Drops loopback addresses from answers, besides the unspecified and multicast ones that are always dropped.
    ///
    /// A cluster never has one for a pod. Kept by default, for development on one machine. `localhost` and an IP address as name are not
    /// affected.
    #[must_use]
    pub fn reject_loopback(self) -> Self {
        let keep_loopback = false;
        Self {
            keep_loopback,
            ..self
        }
        .anew()
    }

    /// Another question: what a clone learned does not hold for it.
    fn anew(self) -> Self {
        Self {
            memory: Arc::default(),
            ..self
        }
    }
}

impl Resolve for Dns {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        let records = match &self.asked {
            Asked::Ip(socket) => return Ok(Resolution::new([*socket])),
            Asked::Localhost(port) => {
                let loopback = self.family.loopback().into_iter();
                return Ok(loopback.map(|ip| SocketAddr::new(ip, *port)).collect());
            }
            Asked::Records(records) => records,
        };
        let servers = self.servers.current()?;
        let question = Question {
            servers: &servers,
            until: Instant::now() + self.deadline,
            keep_loopback: self.keep_loopback,
        };
        let outcome = match records {
            Records::Host { name, port } => self.ask_host(&question, name, *port).await,
            Records::Srv {
                name,
                or_port: None,
            } => self.ask_srv_alone(&question, name).await,
            Records::Srv {
                name,
                or_port: Some(port),
            } => self.ask_srv_or_host(&question, name, *port).await,
        };
        self.servers
            .ended(outcome.as_ref().is_err_and(|error| !error.is_empty()));
        self.tell_partial(&outcome);
        outcome
    }

    fn service(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.written)
    }
}

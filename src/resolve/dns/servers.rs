//! Name servers: one resolver each, asked in turn.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Message,
        rr::{Name, RecordType},
    },
};
use tokio::time::{Instant, timeout};

use super::{answer, truncated};
use crate::resolve::{ResolveError, ResolveErrorKind};

/// One reading of the configuration.
pub(super) struct NameServers {
    /// Grows when the configuration changes; what was learned under another one is void.
    pub(super) generation: u64,
    pub(super) search: Vec<Name>,
    servers: Vec<Server>,
    /// Written by whichever question succeeded last; a stale read costs one fail-over.
    last_good: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
}

/// What a server answered.
pub(super) struct Reply {
    pub(super) message: Message,
    /// Cut even over TCP.
    pub(super) partial: bool,
    pub(super) server: SocketAddr,
}

/// For one server while others remain: three dead servers before a healthy one fit the deadline of 5 s. Within it the resolver repeats a
/// lost datagram twice, after 333 ms each (later for a server that said NXDOMAIN many times, which it takes for slowness).
const SHARE: Duration = Duration::from_secs(1);

impl NameServers {
    pub(super) fn new(
        servers: Vec<NameServerConfig>,
        search: Vec<Name>,
        generation: u64,
    ) -> Result<Self, NetError> {
        let options = options(servers.len());
        let servers = servers
            .into_iter()
            .map(|config| Server::new(config, &options));
        Ok(Self {
            generation,
            search,
            servers: servers.collect::<Result<_, _>>()?,
            last_good: AtomicUsize::new(0),
        })
    }

    /// Asks one question: the last good server first, the next one after any failure.
    ///
    /// The resolver's own pool does not fail over on SERVFAIL and REFUSED, hence one resolver a server and this loop. Records, NXDOMAIN and
    /// NODATA are answers, and end it.
    pub(super) async fn ask(
        &self,
        name: &Name,
        record: RecordType,
        until: Instant,
    ) -> Result<Reply, ResolveError> {
        let first = self.last_good.load(Relaxed);
        let count = self.servers.len();
        let mut failures: Vec<(SocketAddr, ResolveError)> = Vec::new();
        for step in 0..count {
            let index = (first + step) % count;
            let Server { address, resolver } = &self.servers[index];
            let remaining = until.saturating_duration_since(Instant::now());
            let share = share(remaining, count - step);
            let lookup = timeout(share, resolver.lookup(name.clone(), record)).await;
            let error = match lookup {
                Ok(Ok(lookup)) => {
                    self.last_good.store(index, Relaxed);
                    return Ok(Reply {
                        message: lookup.into(),
                        partial: false,
                        server: *address,
                    });
                }
                Ok(Err(error)) if is_about_another(&error, name, record) => {
                    ResolveError::of(ResolveErrorKind::Malformed).caused_by(error)
                }
                Ok(Err(error)) => answer::error(&error),
                Err(_) => ResolveError::of(ResolveErrorKind::Timeout),
            };
            if error.is_empty() {
                self.last_good.store(index, Relaxed);
                let mut detail = format!("{record} {name} at {address}");
                // Every name below a service without ports exists, and none has SRV records.
                if record == RecordType::SRV && error.kind() == ResolveErrorKind::NoData {
                    detail.push_str(": the service exists, but has no ports");
                }
                return Err(error.detail(detail));
            }
            failures.push((*address, error));
        }
        let cut = failures
            .iter()
            .find(|(_, error)| error.kind() == ResolveErrorKind::Truncated);
        if let Some((server, _)) = cut
            && let Some(message) = truncated::ask(*server, name, record, until).await
        {
            return Ok(Reply {
                partial: message.metadata.truncation,
                message,
                server: *server,
            });
        }
        Err(worst(failures, name, record))
    }
}

impl Reply {
    /// The error for an answer without usable records: what was cut off may have some.
    pub(super) fn nothing(&self, detail: String) -> ResolveError {
        ResolveError::of(if self.partial {
            ResolveErrorKind::Truncated
        } else {
            ResolveErrorKind::NoData
        })
        .detail(detail)
    }
}

impl Server {
    fn new(config: NameServerConfig, options: &ResolverOpts) -> Result<Self, NetError> {
        let port = config
            .connections
            .first()
            .map_or(53, |connection| connection.port);
        let address = SocketAddr::new(config.ip, port);
        let only = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
        let mut builder = Resolver::builder_with_config(only, TokioRuntimeProvider::default());
        *builder.options_mut() = options.clone();
        Ok(Self {
            address,
            resolver: builder.build()?,
        })
    }
}

/// What is not named here keeps its default. Nothing is taken from the `options` of resolv.conf.
fn options(servers: usize) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Without EDNS (the default when options come from resolv.conf) 30 endpoints already need TCP.
    options.edns0 = true;
    // Larger ones are fragmented and lost; CoreDNS then answers 4,200 endpoints with nothing at all.
    options.edns_payload_len = 1232;
    // The caller decides how long answers hold. A cached NXDOMAIN hid a recovery for seconds.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // `attempts` counts retries: a dead server costs 3 s when it is the only one, and a failing one 3 datagrams. Among several servers the
    // next one is the better retry. (A lost datagram is repeated within each try, whatever this says.)
    options.timeout = Duration::from_secs(1);
    options.attempts = if servers == 1 { 2 } else { 0 };
    options
}

/// Whether a negative answer is not about the SRV name asked for.
///
/// Where the name is an alias (CNAME), the resolver goes on with the *target* of the SRV record behind it, asks for SRV there, and reports
/// that there are none. The service has pods all the same.
fn is_about_another(error: &NetError, name: &Name, record: RecordType) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if record == RecordType::SRV => {
            let asked = none.query.name();
            asked != name && !asked.is_root()
        }
        _ => false,
    }
}

/// The time for one server when `servers` are left to ask, this one included.
fn share(remaining: Duration, servers: usize) -> Duration {
    if servers <= 1 {
        return remaining;
    }
    // An own deadline may be shorter than 5 s; then everyone gets an equal part.
    let servers = u32::try_from(servers).unwrap_or(u32::MAX);
    SHARE.min(remaining / servers)
}

/// The failure that says most, with what each server did.
fn worst(
    failures: Vec<(SocketAddr, ResolveError)>,
    name: &Name,
    record: RecordType,
) -> ResolveError {
    use ResolveErrorKind as Kind;
    // Truncated is about the service and has a remedy; a server's own word says more than silence.
    let rank = |kind| match kind {
        Kind::Truncated => 0,
        Kind::ServFail | Kind::Refused | Kind::OtherRcode | Kind::Malformed => 1,
        Kind::Io | Kind::Busy | Kind::NoServers | Kind::Other => 2,
        _ => 3,
    };
    let servers: Vec<String> = match &failures[..] {
        [(server, _)] => vec![server.to_string()],
        several => several
            .iter()
            .map(|(server, error)| format!("{server} ({})", error.kind().label()))
            .collect(),
    };
    let detail = format!("{record} {name} at {}", servers.join(", "));
    let worst = failures
        .into_iter()
        .map(|(_, error)| error)
        .min_by_key(|error| rank(error.kind()))
        .unwrap_or_else(|| ResolveError::of(Kind::NoServers));
    let detail = match worst.kind() {
        // Knot answers SERVFAIL where CoreDNS truncates.
        Kind::ServFail | Kind::Truncated if record == RecordType::SRV => {
            format!("{detail} ({})", truncated::LIMIT_SRV)
        }
        Kind::Truncated => format!("{detail} ({})", truncated::LIMIT_A),
        _ => detail,
    };
    worst.detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_dead_servers_before_a_healthy_one_fit_the_default_deadline() {
        let mut remaining = Duration::from_secs(5);
        for left in [4, 3, 2] {
            remaining -= share(remaining, left);
        }
        assert!(share(remaining, 1) >= Duration::from_secs(1));
    }

    #[test]
    fn a_short_deadline_is_parted_equally() {
        let ms = Duration::from_millis;
        assert_eq!(share(ms(900), 3), ms(300));
        assert_eq!(share(ms(600), 2), ms(300));
        assert_eq!(share(ms(300), 1), ms(300));
    }
}

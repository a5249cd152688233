//! Name servers: which ones, in what order, and when to read resolv.conf again.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Message,
        rr::{Name, RecordType},
    },
    system_conf::parse_resolv_conf,
};
use tokio::time::{Instant, timeout};

use super::{answer, guarded::Guarded, truncated};
use crate::resolve::{ResolveError, ResolveErrorKind};

/// Where the name servers are written, and the set that was read last.
///
/// Shared by every source that reads the same file: a hundred services cost one set of resolvers and sockets (R3).
#[derive(Debug)]
pub(super) struct Servers {
    origin: Origin,
    state: Guarded<State>,
}

#[derive(Debug)]
enum Origin {
    File(PathBuf),
    Given(Vec<SocketAddr>),
}

#[derive(Default)]
struct State {
    current: Option<Arc<NameServers>>,
    content: Vec<u8>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
    failed_in_a_row: u32,
}

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

/// After this many failures in a row the configuration is read again and the resolvers are built anew: the server may have moved.
const REREAD_AFTER: u32 = 3;
/// How often the file's modification time is looked at. Kubelet writes the file once; agents and VPNs rewrite it on a desktop.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// For one server while others remain. The resolver repeats a lost datagram twice within it (after 333 ms each), and three dead servers
/// before a healthy one still fit the deadline of 5 s.
const SHARE: Duration = Duration::from_secs(1);

static OF_FILE: Guarded<BTreeMap<PathBuf, Weak<Servers>>> = Guarded::new(BTreeMap::new());

impl Servers {
    /// The set of all sources that read `path`.
    pub(super) fn of_file(path: &Path) -> Arc<Self> {
        OF_FILE.with(|known| {
            if let Some(servers) = known.get(path).and_then(Weak::upgrade) {
                return servers;
            }
            known.retain(|_, servers| servers.strong_count() > 0);
            let servers = Arc::new(Self::new(Origin::File(path.to_owned())));
            known.insert(path.to_owned(), Arc::downgrade(&servers));
            servers
        })
    }

    /// Servers without a file, for one source and its clones.
    pub(super) fn given(servers: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self::new(Origin::Given(servers)))
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            state: Guarded::default(),
        }
    }

    /// The set to ask now.
    ///
    /// Reads the file when it was never read, may have changed, or its servers keep failing. A file that cannot be read is an error only
    /// while there is no set yet, and is tried again by the next call.
    pub(super) fn current(&self) -> Result<Arc<NameServers>, ResolveError> {
        let now = Instant::now();
        self.state.with(|state| {
            let rebuild = state.failed_in_a_row >= REREAD_AFTER;
            if let Some(current) = &state.current {
                let unchecked = state.checked.is_none_or(|at| now - at >= CHECK_EVERY);
                if unchecked {
                    state.checked = Some(now);
                }
                let changed = unchecked && self.modified() != state.modified;
                if !rebuild && !changed {
                    return Ok(Arc::clone(current));
                }
            }
            state.failed_in_a_row = 0;
            state.checked = Some(now);
            // A few hundred bytes from the page cache: less than a hop to a blocking thread.
            match self.read() {
                Ok((content, modified)) => {
                    state.replace(&self.origin, content, modified, rebuild)?
                }
                Err(error) if state.current.is_none() => return Err(error),
                Err(_) => {}
            }
            state
                .current
                .clone()
                .ok_or_else(|| self.none("nothing was read"))
        })
    }

    /// Tells how a whole resolution ended.
    pub(super) fn ended(&self, failed: bool) {
        self.state.with(|state| {
            state.failed_in_a_row = if failed { state.failed_in_a_row + 1 } else { 0 };
        });
    }

    fn read(&self) -> Result<(Vec<u8>, Option<SystemTime>), ResolveError> {
        match &self.origin {
            Origin::File(path) => {
                // The time first: a change in between is then seen by the next check.
                let modified = self.modified();
                let content = fs::read(path).map_err(|error| self.none("").caused_by(error))?;
                Ok((content, modified))
            }
            Origin::Given(_) => Ok((Vec::new(), None)),
        }
    }

    fn modified(&self) -> Option<SystemTime> {
        match &self.origin {
            Origin::File(path) => fs::metadata(path).and_then(|meta| meta.modified()).ok(),
            Origin::Given(_) => None,
        }
    }

    fn none(&self, why: &str) -> ResolveError {
        self.origin.none(why)
    }
}

impl State {
    fn replace(
        &mut self,
        origin: &Origin,
        content: Vec<u8>,
        modified: Option<SystemTime>,
        rebuild: bool,
    ) -> Result<(), ResolveError> {
        self.modified = modified;
        let same = self.content == content;
        let generation = match &self.current {
            Some(_) if same && !rebuild => return Ok(()),
            Some(current) if same => current.generation,
            Some(current) => current.generation + 1,
            None => 0,
        };
        match NameServers::build(origin, &content, generation) {
            Ok(servers) => {
                self.content = content;
                self.current = Some(Arc::new(servers));
                Ok(())
            }
            // Half-written, perhaps. The set that worked stays.
            Err(_) if self.current.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Origin {
    fn none(&self, why: &str) -> ResolveError {
        let detail = match self {
            Self::File(path) if why.is_empty() => path.display().to_string(),
            Self::File(path) => format!("{}: {why}", path.display()),
            Self::Given(_) => "Dns::name_servers was given none".to_owned(),
        };
        ResolveError::of(ResolveErrorKind::NoServers).detail(detail)
    }
}

impl NameServers {
    fn build(origin: &Origin, content: &[u8], generation: u64) -> Result<Self, ResolveError> {
        let broken = |error: NetError| origin.none("").caused_by(error);
        let (configs, search) = match origin {
            Origin::File(_) => {
                let (config, _) = parse_resolv_conf(content).map_err(broken)?;
                let mut search = config.search().to_vec();
                for entry in &mut search {
                    entry.set_fqdn(true);
                }
                (config.name_servers().to_vec(), search)
            }
            Origin::Given(servers) => (servers.iter().copied().map(config).collect(), Vec::new()),
        };
        if configs.is_empty() {
            return Err(origin.none("no nameserver line"));
        }
        let options = options(configs.len());
        let servers = configs
            .into_iter()
            .map(|config| Server::build(config, &options))
            .collect::<Result<_, _>>()
            .map_err(broken)?;
        Ok(Self {
            generation,
            search,
            servers,
            last_good: AtomicUsize::new(0),
        })
    }

    /// Asks one question: the last good server first, the next one after any failure (R4).
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
            let share = share(
                until.saturating_duration_since(Instant::now()),
                count - step,
            );
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
            let error_kind = error.kind();
            if error.is_empty() {
                self.last_good.store(index, Relaxed);
                let detail = format!("{record} {name} at {address}");
                return Err(error.detail(match error_kind {
                    // Every name below the service exists then, with or without SRV records.
                    ResolveErrorKind::NoData if record == RecordType::SRV => {
                        format!("{detail}: the service exists, but has no ports")
                    }
                    _ => detail,
                }));
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

impl Server {
    fn build(config: NameServerConfig, options: &ResolverOpts) -> Result<Self, NetError> {
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

fn config(server: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

/// Table 2.2 of the resolver's behaviour; what is not named here keeps its default.
fn options(servers: usize) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Without EDNS (the default when options come from resolv.conf) 30 endpoints already need TCP.
    options.edns0 = true;
    // Larger ones are fragmented and lost; CoreDNS then answers 4,200 endpoints with nothing at all.
    options.edns_payload_len = 1232;
    // The caller decides how long answers hold. A cached NXDOMAIN hid a recovery for seconds.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // A dead server costs `timeout` times one more than `attempts`, which counts retries: 3 s when it is the only one. Among several the
    // next server is the better retry; the one retry left replaces a connection of a runtime that ended.
    options.timeout = Duration::from_secs(1);
    options.attempts = if servers == 1 { 2 } else { 1 };
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

    #[test]
    fn sources_of_one_file_share_and_forget() {
        let path = Path::new("/nowhere/resolv.conf");
        let one = Servers::of_file(path);
        assert!(Arc::ptr_eq(&one, &Servers::of_file(path)));
        let weak = Arc::downgrade(&one);
        drop(one);
        assert!(weak.upgrade().is_none());
    }
}

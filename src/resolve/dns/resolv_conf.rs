//! Where the name servers are written, and when to read that again.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use hickory_resolver::{config::NameServerConfig, proto::rr::Name, system_conf::parse_resolv_conf};
use tokio::time::Instant;

use super::{guarded::Guarded, servers::NameServers};
use crate::resolve::{ResolveError, ResolveErrorKind};

/// Where the name servers are written, and the set that was read last.
///
/// Shared by every source that reads the same file: a hundred services cost one set of resolvers and sockets.
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

struct State {
    current: Option<Arc<NameServers>>,
    content: Vec<u8>,
    modified: Option<SystemTime>,
    checked: Instant,
    failed_in_a_row: u32,
}

/// After this many failures in a row the configuration is read again and the resolvers are built anew: the server may have moved.
const REREAD_AFTER: u32 = 3;
/// How often the file's modification time is looked at. Kubelet writes the file once; agents and VPNs rewrite it on a desktop.
const CHECK_EVERY: Duration = Duration::from_secs(30);
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
            state: Guarded::new(State {
                current: None,
                content: Vec::new(),
                modified: None,
                checked: Instant::now(),
                failed_in_a_row: 0,
            }),
        }
    }

    /// The set to ask now.
    ///
    /// Reads the file when it was never read, may have changed, or its servers keep failing. A file that cannot be used is an error only
    /// while there is no set yet, and is tried again by the next call.
    pub(super) fn current(&self) -> Result<Arc<NameServers>, ResolveError> {
        let now = Instant::now();
        self.state.with(|state| {
            let keeps_failing = state.failed_in_a_row >= REREAD_AFTER;
            if let Some(current) = &state.current
                && !keeps_failing
            {
                let current = Arc::clone(current);
                if now - state.checked < CHECK_EVERY {
                    return Ok(current);
                }
                state.checked = now;
                if self.origin.modified() == state.modified {
                    return Ok(current);
                }
            }
            state.failed_in_a_row = 0;
            state.checked = now;
            // A few hundred bytes from the page cache: less than a hop to a blocking thread.
            self.read_into(state, keeps_failing)
                .or_else(|error| state.current.clone().ok_or(error))
        })
    }

    /// Tells how a whole resolution ended.
    pub(super) fn ended(&self, failed: bool) {
        self.state.with(|state| {
            state.failed_in_a_row = if failed { state.failed_in_a_row + 1 } else { 0 };
        });
    }

    fn read_into(
        &self,
        state: &mut State,
        rebuild: bool,
    ) -> Result<Arc<NameServers>, ResolveError> {
        // The time first: a change in between is then seen by the next check.
        let modified = self.origin.modified();
        let content = self.origin.content()?;
        let same = content == state.content;
        let generation = match &state.current {
            Some(current) if same && !rebuild => {
                state.modified = modified;
                return Ok(Arc::clone(current));
            }
            Some(current) if same => current.generation,
            Some(current) => current.generation + 1,
            None => 0,
        };
        let (servers, search) = self.origin.parse(&content)?;
        let servers = NameServers::new(servers, search, generation)
            .map_err(|error| self.origin.unusable().caused_by(error))?;
        let servers = Arc::new(servers);
        state.current = Some(Arc::clone(&servers));
        state.content = content;
        state.modified = modified;
        Ok(servers)
    }
}

impl Origin {
    fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::File(path) => fs::metadata(path).and_then(|meta| meta.modified()).ok(),
            Self::Given(_) => None,
        }
    }

    fn content(&self) -> Result<Vec<u8>, ResolveError> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| self.unusable().caused_by(error)),
            Self::Given(_) => Ok(Vec::new()),
        }
    }

    /// Servers and search list.
    fn parse(&self, content: &[u8]) -> Result<(Vec<NameServerConfig>, Vec<Name>), ResolveError> {
        let (servers, search) = match self {
            Self::File(_) => {
                let (config, _) =
                    parse_resolv_conf(content).map_err(|error| self.unusable().caused_by(error))?;
                let mut search = config.search().to_vec();
                for entry in &mut search {
                    entry.set_fqdn(true);
                }
                (config.name_servers().to_vec(), search)
            }
            Self::Given(servers) => (servers.iter().map(server).collect(), Vec::new()),
        };
        if servers.is_empty() {
            return Err(self.unusable());
        }
        Ok((servers, search))
    }

    fn unusable(&self) -> ResolveError {
        ResolveError::of(ResolveErrorKind::NoServers).detail(match self {
            Self::File(path) => path.display().to_string(),
            Self::Given(_) => "Dns::name_servers was given none".to_owned(),
        })
    }
}

fn server(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! One resolution: which names, which records, and what earlier answers taught about them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::{
    Dns,
    answer::Addresses,
    family::{Question, RECHECK, Secondary},
    guarded::Guarded,
    name::HostName,
    servers::NameServers,
    srv::Targets,
    truncated,
};
use crate::resolve::{Resolution, ResolveError, ResolveErrorKind};

/// What earlier answers taught. Written by `resolve` alone; every part is a hint that costs a question when it is lost.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The name of the search walk that has records.
    host: Pin,
    /// The same for SRV.
    srv: Pin,
    secondary: Secondary,
    targets: Guarded<Targets>,
    /// SRV records were there once: NXDOMAIN then means no pods, not a wrong name.
    srv_seen: AtomicBool,
    /// Since when A records stand in for SRV.
    fell_back: Guarded<Option<Instant>>,
    /// Whether the host has addresses though its SRV name does not exist, and when that was asked.
    unknown_port: Guarded<Option<(Instant, bool)>>,
    /// The last answer was partial; a warning is due when that begins.
    partial: AtomicBool,
}

/// A name, and the generation of the configuration it was found under.
type Pin = Guarded<Option<(u64, Name)>>;

/// For a question about the existence of addresses, which nobody dials.
const ANY_PORT: u16 = 1;

impl Dns {
    pub(super) async fn ask_host(
        &self,
        question: &Question<'_>,
        host: &HostName,
        port: u16,
    ) -> Result<Resolution, ResolveError> {
        let names = self.names(question.servers, host, &self.memory.host);
        let mut walk = Walk::default();
        for name in names {
            match question
                .addresses(&name, self.family, &self.memory.secondary)
                .await
            {
                Ok(found) => {
                    pin(&self.memory.host, question.servers, name);
                    return Ok(with_port(found, port));
                }
                Err(error) => walk.goes_on_after(name, error)?,
            }
        }
        Err(walk.found_nothing())
    }

    async fn ask_srv(
        &self,
        question: &Question<'_>,
        host: &HostName,
    ) -> Result<Resolution, ResolveError> {
        let names = self.names(question.servers, host, &self.memory.srv);
        let mut walk = Walk::default();
        for name in names {
            match question
                .services(&name, self.family, &self.memory.targets)
                .await
            {
                Ok(found) => {
                    pin(&self.memory.srv, question.servers, name);
                    self.memory.srv_seen.store(true, Relaxed);
                    return Ok(found);
                }
                Err(error) => walk.goes_on_after(name, error)?,
            }
        }
        Err(walk.found_nothing())
    }

    /// SRV without a fall-back. NXDOMAIN from the start is looked into once, since a wrong port name looks like a service without pods.
    pub(super) async fn ask_srv_alone(
        &self,
        question: &Question<'_>,
        name: &HostName,
    ) -> Result<Resolution, ResolveError> {
        let error = match self.ask_srv(question, name).await {
            Err(error) if error.kind() == ResolveErrorKind::NxDomain => error,
            answer => return answer,
        };
        if self.memory.srv_seen.load(Relaxed) {
            return Err(error);
        }
        let known = self.memory.unknown_port.with(|known| *known);
        let unknown_port = match known {
            Some((asked, unknown)) if asked.elapsed() < RECHECK => unknown,
            _ => {
                let host = self
                    .ask_host(question, &name.without_prefix(), ANY_PORT)
                    .await;
                let unknown = host.is_ok();
                // A failure says nothing, and leaves the question open.
                if host.map_or_else(|error| error.is_empty(), |_| true) {
                    let now = Some((Instant::now(), unknown));
                    self.memory.unknown_port.with(|known| *known = now);
                }
                unknown
            }
        };
        Err(if unknown_port {
            error.detail(format!(
                "SRV {}: unknown port name or protocol (the service itself has addresses; only named ports have SRV records)",
                self.written
            ))
        } else {
            error
        })
    }

    /// SRV, or A where SRV cannot be had.
    pub(super) async fn ask_srv_or_host(
        &self,
        question: &Question<'_>,
        name: &HostName,
        port: u16,
    ) -> Result<Resolution, ResolveError> {
        use ResolveErrorKind as Kind;
        let host = name.without_prefix();
        let fell_back = self.memory.fell_back.with(|since| *since);
        if fell_back.is_some_and(|since| since.elapsed() < RECHECK) {
            return self.ask_host(question, &host, port).await;
        }
        let srv = self.ask_srv(question, name).await;
        let kind = match &srv {
            Ok(found) if found.is_partial() => Kind::Truncated,
            Ok(_) => {
                self.memory.fell_back.with(|since| *since = None);
                return srv;
            }
            Err(error) => error.kind(),
        };
        let at_start = !self.memory.srv_seen.load(Relaxed);
        match kind {
            Kind::NxDomain if at_start => {
                let found = self.ask_host(question, &host, port).await;
                if found.is_ok() {
                    self.fall_back();
                }
                found
            }
            Kind::Truncated => match self.ask_host(question, &host, port).await {
                Ok(found) => {
                    self.fall_back();
                    Ok(found)
                }
                Err(_) => srv,
            },
            // Perhaps a hiccup: SRV is asked again next time. What A says of an absence does not count against the failure.
            Kind::ServFail => self.ask_host(question, &host, port).await.or(srv),
            _ => srv,
        }
    }

    fn fall_back(&self) {
        self.memory
            .fell_back
            .with(|since| *since = Some(Instant::now()));
    }

    /// What to ask for: the pinned name, or the whole walk.
    fn names(&self, servers: &NameServers, host: &HostName, pin: &Pin) -> Vec<Name> {
        let pinned = pin.with(|pin| pin.clone());
        match pinned {
            Some((generation, name)) if generation == servers.generation => vec![name],
            _ => host.candidates(&servers.search, self.cluster.as_ref()),
        }
    }

    pub(super) fn tell_partial(&self, outcome: &Result<Resolution, ResolveError>) {
        let Ok(resolution) = outcome else { return };
        let before = self.memory.partial.swap(resolution.is_partial(), Relaxed);
        if resolution.is_partial() && !before {
            let limit = match resolution.record() {
                Some("SRV") => truncated::LIMIT_SRV,
                _ => truncated::LIMIT_A,
            };
            tracing::warn!(service = %self.written, "the answer is incomplete: {limit}");
        }
    }
}

/// A walk along the candidates of a name, so far without records.
#[derive(Default)]
struct Walk {
    first: Option<(Name, ResolveError)>,
    more: usize,
}

impl Walk {
    /// Notes an empty answer. A failure ends the walk: it may stand where the records are.
    fn goes_on_after(&mut self, name: Name, error: ResolveError) -> Result<(), ResolveError> {
        if !error.is_empty() {
            return Err(error);
        }
        match &mut self.first {
            None => self.first = Some((name, error)),
            Some((first, kept)) => {
                self.more += 1;
                // NODATA says more: that name exists.
                if kept.kind() == ResolveErrorKind::NxDomain
                    && error.kind() == ResolveErrorKind::NoData
                {
                    (*first, *kept) = (name, error);
                }
            }
        }
        Ok(())
    }

    fn found_nothing(self) -> ResolveError {
        match self.first {
            Some((_, error)) if self.more == 0 => error,
            Some((name, error)) => error.detail(format!(
                "{name} and {} more names of the search list",
                self.more
            )),
            None => ResolveError::of(ResolveErrorKind::NxDomain),
        }
    }
}

fn pin(pin: &Pin, servers: &NameServers, name: Name) {
    pin.with(|pin| *pin = Some((servers.generation, name)));
}

fn with_port(found: Addresses, port: u16) -> Resolution {
    let any_v4 = found.ips.iter().any(|ip| ip.is_ipv4());
    let any_v6 = found.ips.iter().any(|ip| ip.is_ipv6());
    let record = match (any_v4, any_v6) {
        (true, true) => "A+AAAA",
        (false, true) => "AAAA",
        _ => "A",
    };
    let resolution = Resolution::new(found.ips.into_iter().map(|ip| SocketAddr::new(ip, port)))
        .of_record(record)
        .valid_for(found.ttl.unwrap_or(Duration::ZERO));
    if found.partial {
        resolution.partial()
    } else {
        resolution
    }
}

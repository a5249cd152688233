//! IPv4 and IPv6: asked and judged apart, then put together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{Duration, Instant};

use super::{
    answer::{self, Addresses},
    guarded::Guarded,
    servers::NameServers,
};
use crate::resolve::{ResolveError, ResolveErrorKind};

/// Which addresses of a dual-stack service are endpoints.
///
/// DNS does not tell which IPv4 and which IPv6 address belong to one pod, so a union counts every pod twice: twice the connections, twice
/// the share of a pod that has both. Hence one family by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Both. Every dual-stack pod is two endpoints.
    Both,
    /// IPv4; IPv6 when the service has no IPv4 address. The default: cluster networks are IPv4 or have it.
    #[default]
    PreferV4,
    /// IPv6; IPv4 when the service has no IPv6 address.
    PreferV6,
    /// IPv4 alone; IPv6 is never asked for.
    V4Only,
    /// IPv6 alone; IPv4 is never asked for.
    V6Only,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// When the preferred family was last seen to be empty, while the other one answers.
pub(super) type Secondary = Guarded<Option<Instant>>;

/// Some servers to ask, until when, and what to keep.
pub(super) struct Question<'a> {
    pub(super) servers: &'a NameServers,
    pub(super) until: Instant,
    pub(super) keep_loopback: bool,
}

/// How often a state that DNS settled (the other family, a fall-back) is looked at again. Services change their families by hand, rarely.
pub(super) const RECHECK: Duration = Duration::from_secs(300);

impl Question<'_> {
    /// The addresses of `name` under the policy `family`.
    ///
    /// A failure that could change the result is the result: never half a set. (The resolver's own `lookup_ip` answers "no records" to A SERVFAIL beside AAAA NODATA,
    /// which is every IPv4 cluster in trouble.)
    pub(super) async fn addresses(
        &self,
        name: &Name,
        family: Family,
        secondary: &Secondary,
    ) -> Result<Addresses, ResolveError> {
        match family {
            Family::Both => self.both(name).await,
            Family::PreferV4 => self.prefer(name, Version::V4, secondary).await,
            Family::PreferV6 => self.prefer(name, Version::V6, secondary).await,
            Family::V4Only => self.one(name, Version::V4).await,
            Family::V6Only => self.one(name, Version::V6).await,
        }
    }

    async fn prefer(
        &self,
        name: &Name,
        primary: Version,
        secondary: &Secondary,
    ) -> Result<Addresses, ResolveError> {
        let other = primary.other();
        let settled = secondary.with(|at| *at);
        if let Some(checked) = settled
            && checked.elapsed() < RECHECK
        {
            match self.one(name, other).await {
                Err(error) if error.kind() == ResolveErrorKind::NoData => {
                    let found = self
                        .one(name, primary)
                        .await
                        .map_err(|error| neither(error, name))?;
                    secondary.with(|at| *at = None);
                    return Ok(found);
                }
                answer => return answer,
            }
        }
        match self.one(name, primary).await {
            Ok(found) => {
                secondary.with(|at| *at = None);
                Ok(found)
            }
            // NODATA is about this family alone. NXDOMAIN holds for every type, and a failure is no reason to look elsewhere: the answer
            // of the other family would replace a set that may be whole.
            Err(error) if error.kind() == ResolveErrorKind::NoData => {
                let found = self
                    .one(name, other)
                    .await
                    .map_err(|error| neither(error, name))?;
                secondary.with(|at| *at = Some(Instant::now()));
                Ok(found)
            }
            // Only the periodic second look failed. What is in use comes from the other family and is refreshed; the look stays due.
            Err(error) if settled.is_some() && !error.is_empty() => self.one(name, other).await,
            Err(error) => Err(error),
        }
    }

    async fn both(&self, name: &Name) -> Result<Addresses, ResolveError> {
        let (v4, v6) = tokio::join!(self.one(name, Version::V4), self.one(name, Version::V6));
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.merge(v6);
                Ok(v4)
            }
            (Ok(found), Err(empty)) | (Err(empty), Ok(found)) if empty.is_empty() => {
                Ok(Addresses {
                    // NXDOMAIN beside records: two replicas of the server with different views. Not a whole answer.
                    partial: found.partial || empty.kind() == ResolveErrorKind::NxDomain,
                    ..found
                })
            }
            (Err(v4), Err(v6)) if v4.is_empty() && v6.is_empty() => {
                Err(if v4.kind() == ResolveErrorKind::NxDomain {
                    v6
                } else {
                    v4
                })
            }
            (Err(error), _) if !error.is_empty() => Err(error),
            (_, Err(error)) | (Err(error), _) => Err(error),
        }
    }

    async fn one(&self, name: &Name, version: Version) -> Result<Addresses, ResolveError> {
        let record = version.record();
        let reply = self.servers.ask(name, record, self.until).await?;
        let found = answer::addresses(name, record, &reply.message.answers, self.keep_loopback)?;
        let Some(found) = found else {
            return Err(reply.nothing(format!("{record} {name} at {}", reply.server)));
        };
        Ok(Addresses {
            partial: reply.partial,
            ..found
        })
    }
}

/// NODATA of both families, told as such.
fn neither(error: ResolveError, name: &Name) -> ResolveError {
    if error.kind() == ResolveErrorKind::NoData {
        return error.detail(format!("A and AAAA {name}"));
    }
    error
}

impl Family {
    /// The loopback addresses of `localhost`.
    pub(super) fn loopback(self) -> Vec<IpAddr> {
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        match self {
            Self::Both => vec![v4, v6],
            Self::PreferV4 | Self::V4Only => vec![v4],
            Self::PreferV6 | Self::V6Only => vec![v6],
        }
    }

    /// Whether an address stays, in a set that has IPv4 and IPv6 addresses as told. The set decides, not the pod: without hostnames each
    /// SRV target has one family only, and every dual-stack pod has two targets.
    pub(super) fn keeps(self, ip: IpAddr, any_v4: bool, any_v6: bool) -> bool {
        match self {
            Self::Both => true,
            Self::PreferV4 => ip.is_ipv4() || !any_v4,
            Self::PreferV6 => ip.is_ipv6() || !any_v6,
            Self::V4Only => ip.is_ipv4(),
            Self::V6Only => ip.is_ipv6(),
        }
    }
}

impl Version {
    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    fn record(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

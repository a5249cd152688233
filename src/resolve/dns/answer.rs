//! From what a name server said to addresses or an error. Pure functions of the message.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType, rdata::SRV},
    },
};

use crate::resolve::{ResolveError, ResolveErrorKind};

/// The addresses that one name has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Sorted, each once.
    pub(super) ips: Vec<IpAddr>,
    /// The smallest of the records used. The resolver's cache is off, so it is also what remains.
    pub(super) ttl: Option<Duration>,
    /// The answer was cut: there may be more.
    pub(super) partial: bool,
}

impl Addresses {
    pub(super) fn merge(&mut self, other: Self) {
        self.ips.extend(other.ips);
        self.ips.sort_unstable();
        self.ips.dedup();
        self.ttl = shorter(self.ttl, other.ttl);
        self.partial |= other.partial;
    }
}

/// One SRV record that names a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) target: Name,
    pub(super) port: u16,
    pub(super) weight: u16,
}

/// The A or AAAA records of `name` among `records`, by owner: the resolver does not filter.
///
/// None when there are none. An error when there are some and none can be a pod's.
pub(super) fn addresses(
    name: &Name,
    record: RecordType,
    records: &[Record],
    keep_loopback: bool,
) -> Result<Option<Addresses>, ResolveError> {
    let (owners, mut ttl) = owners(name, records);
    let mut ips = Vec::new();
    let mut refused = None;
    for found in records {
        let ip = match (&found.data, record) {
            (RData::A(ip), RecordType::A) => IpAddr::V4(ip.0),
            (RData::AAAA(ip), RecordType::AAAA) => IpAddr::V6(ip.0),
            _ => continue,
        };
        if !owners.contains(&&found.name) {
            continue;
        }
        if is_dialable(ip, keep_loopback) {
            ips.push(ip);
            ttl = shorter(ttl, Some(seconds(found.ttl)));
        } else {
            refused = Some(ip);
        }
    }
    if ips.is_empty() {
        return match refused {
            // A sinkhole or a broken server. Not "no pods": the set must not be emptied by it.
            Some(ip) => Err(
                ResolveError::of(ResolveErrorKind::Malformed).detail(format!(
                    "{record} {name} answered {ip}, which no pod can have"
                )),
            ),
            None => Ok(None),
        };
    }
    ips.sort_unstable();
    ips.dedup();
    Ok(Some(Addresses {
        ips,
        ttl,
        partial: false,
    }))
}

/// The SRV records of `name` with the lowest priority; the higher ones are spares by definition (RFC 2782).
///
/// None when there are none at all; empty when the target is `.`, "decidedly not available".
pub(super) fn services(
    name: &Name,
    records: &[Record],
) -> Option<(Vec<Service>, Option<Duration>)> {
    let (owners, mut ttl) = owners(name, records);
    let mut found: Vec<(&Record, &SRV)> = Vec::new();
    for record in records {
        if let RData::SRV(srv) = &record.data
            && owners.contains(&&record.name)
        {
            found.push((record, srv));
        }
    }
    let lowest = found.iter().map(|(_, srv)| srv.priority).min()?;
    let mut services: Vec<Service> = Vec::new();
    for (record, srv) in found {
        if srv.priority != lowest {
            continue;
        }
        ttl = shorter(ttl, Some(seconds(record.ttl)));
        if srv.target.is_root() || srv.port == 0 {
            continue;
        }
        services.push(Service {
            target: srv.target.to_lowercase(),
            port: srv.port,
            weight: srv.weight,
        });
    }
    services
        .sort_unstable_by(|a, b| (&a.target, a.port, a.weight).cmp(&(&b.target, b.port, b.weight)));
    services.dedup_by(|a, b| (&a.target, a.port) == (&b.target, b.port));
    Some((services, ttl))
}

/// The name and what its CNAME chain leads to, with the chain's TTL. Names compare without regard to case.
fn owners<'a>(name: &'a Name, records: &'a [Record]) -> (Vec<&'a Name>, Option<Duration>) {
    let mut owners = vec![name];
    let mut ttl = None;
    // Each round follows at least one link or ends the chain. The order of records means nothing.
    loop {
        let link = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias)
                if owners.contains(&&record.name) && !owners.contains(&&alias.0) =>
            {
                Some((record, &alias.0))
            }
            _ => None,
        });
        let Some((record, target)) = link else {
            return (owners, ttl);
        };
        ttl = shorter(ttl, Some(seconds(record.ttl)));
        owners.push(target);
    }
}

/// What the resolver's error means. No arm looks for an SOA record: CoreDNS sends one with SERVFAIL too, while it is not in sync.
pub(super) fn error(error: &NetError) -> ResolveError {
    use ResolveErrorKind as Kind;
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        let kind = match none.response_code {
            ResponseCode::NXDomain => Kind::NxDomain,
            ResponseCode::NoError => Kind::NoData,
            // An unassigned code ends here too: the resolver takes it for an answer without records.
            code => rcode(code),
        };
        let empty = ResolveError::of(kind);
        return match none.negative_ttl {
            Some(ttl) if kind.is_empty() => empty.holds_for(seconds(ttl)),
            _ => empty,
        };
    }
    let kind = match error {
        NetError::Busy => Kind::Busy,
        NetError::Dns(DnsError::ResponseCode(code)) => rcode(*code),
        NetError::ForeignClassRecord { .. } | NetError::Proto(_) | NetError::QueryCaseMismatch => {
            Kind::Malformed
        }
        NetError::Io(_) => Kind::Io,
        NetError::NoConnections => Kind::NoServers,
        NetError::Timeout => Kind::Timeout,
        NetError::Truncated => Kind::Truncated,
        _ => Kind::Other,
    };
    ResolveError::of(kind).caused_by(error.clone())
}

fn rcode(code: ResponseCode) -> ResolveErrorKind {
    match code {
        ResponseCode::Refused => ResolveErrorKind::Refused,
        ResponseCode::ServFail => ResolveErrorKind::ServFail,
        _ => ResolveErrorKind::OtherRcode,
    }
}

/// The API server accepts no such address for a pod, so one in an answer is never right.
pub(super) fn is_dialable(ip: IpAddr, keep_loopback: bool) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && (keep_loopback || !ip.is_loopback())
}

pub(super) fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use hickory_resolver::{
        net::NoRecords,
        proto::{
            op::Query,
            rr::rdata::{A, AAAA, CNAME},
        },
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, ip: [u8; 4]) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(ip.into())))
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn srv(owner: &str, priority: u16, port: u16, target: &str) -> Record {
        Record::from_rdata(
            name(owner),
            9,
            RData::SRV(SRV::new(priority, 1, port, name(target))),
        )
    }

    fn v4(records: &[Record], keep_loopback: bool) -> Result<Option<Addresses>, ResolveError> {
        addresses(&name("web.x."), RecordType::A, records, keep_loopback)
    }

    #[test]
    fn only_the_owner_counts_whatever_its_case() {
        let records = [
            a("WEB.x.", 30, [10, 0, 0, 2]),
            a("web.x.", 20, [10, 0, 0, 1]),
            a("web.x.", 20, [10, 0, 0, 1]),
            a("other.x.", 1, [10, 0, 0, 9]),
        ];
        let found = v4(&records, true).unwrap().unwrap();
        assert_eq!(
            found.ips,
            ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(found.ttl, Some(Duration::from_secs(20)));
        assert_eq!(v4(&records[3..], true).unwrap(), None);
    }

    #[test]
    fn a_chain_of_aliases_is_followed_in_any_order_and_bounds_the_ttl() {
        let records = [
            a("c.x.", 30, [10, 0, 0, 1]),
            cname("b.x.", 30, "c.x."),
            cname("web.x.", 4, "b.x."),
            cname("c.x.", 30, "web.x."), // a loop ends
        ];
        let found = v4(&records, true).unwrap().unwrap();
        assert_eq!(found.ips.len(), 1);
        assert_eq!(found.ttl, Some(Duration::from_secs(4)));
    }

    #[test]
    fn impossible_addresses_are_dropped_and_alone_are_no_empty_answer() {
        let records = [
            a("web.x.", 30, [0, 0, 0, 0]),
            a("web.x.", 30, [224, 0, 0, 1]),
            a("web.x.", 30, [127, 0, 0, 1]),
        ];
        assert_eq!(v4(&records, true).unwrap().unwrap().ips.len(), 1);
        assert_eq!(
            v4(&records, false).unwrap_err().kind(),
            ResolveErrorKind::Malformed
        );
        let mapped = Record::from_rdata(
            name("web.x."),
            30,
            RData::AAAA(AAAA("::ffff:127.0.0.1".parse().unwrap())),
        );
        assert!(addresses(&name("web.x."), RecordType::AAAA, &[mapped], false).is_err());
    }

    #[test]
    fn the_lowest_priority_alone_serves() {
        let records = [
            srv("s.x.", 1, 8080, "DB-0.x."),
            srv("s.x.", 1, 8080, "db-0.x."),
            srv("s.x.", 2, 8080, "db-1.x."),
            srv("foreign.x.", 0, 8080, "db-2.x."),
        ];
        let (services, ttl) = super::services(&name("s.x."), &records).unwrap();
        let db_0 = Service {
            target: name("db-0.x."),
            port: 8080,
            weight: 1,
        };
        assert_eq!(services, [db_0]);
        assert_eq!(ttl, Some(Duration::from_secs(9)));
        let (none, _) = super::services(&name("s.x."), &[srv("s.x.", 0, 0, ".")]).unwrap();
        assert_eq!(none, []);
    }

    #[test]
    fn every_error_has_its_kind() {
        use ResolveErrorKind as Kind;
        let empty = |code| {
            let mut none = NoRecords::new(Query::new(), code);
            none.negative_ttl = Some(5);
            error(&none.into())
        };
        let cases = [
            (empty(ResponseCode::NXDomain), Kind::NxDomain),
            (empty(ResponseCode::NoError), Kind::NoData),
            (empty(ResponseCode::Unknown(11)), Kind::OtherRcode),
            (empty(ResponseCode::ServFail), Kind::ServFail),
            (
                error(&DnsError::ResponseCode(ResponseCode::Refused).into()),
                Kind::Refused,
            ),
            (
                error(&DnsError::ResponseCode(ResponseCode::ServFail).into()),
                Kind::ServFail,
            ),
            (
                error(&DnsError::ResponseCode(ResponseCode::NotImp).into()),
                Kind::OtherRcode,
            ),
            (
                error(&DnsError::ResponseCode(ResponseCode::FormErr).into()),
                Kind::OtherRcode,
            ),
            (error(&NetError::Busy), Kind::Busy),
            (error(&NetError::Timeout), Kind::Timeout),
            (error(&NetError::Truncated), Kind::Truncated),
            (error(&NetError::NoConnections), Kind::NoServers),
            (
                error(&NetError::Io(Arc::new(io::Error::other("x")))),
                Kind::Io,
            ),
            (error(&NetError::QueryCaseMismatch), Kind::Malformed),
            (error(&NetError::Message("x")), Kind::Other),
        ];
        for (error, kind) in cases {
            assert_eq!(error.kind(), kind);
            assert_eq!(error.negative_ttl().is_some(), kind.is_empty(), "{kind:?}");
        }
    }
}

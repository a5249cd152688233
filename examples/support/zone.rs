//! What CoreDNS knows about headless services, and what it answers: no sockets, no clock.
//!
//! The shapes are those measured with CoreDNS 1.14: NXDOMAIN for a service without a ready pod
//! *and* for one that does not exist, an SOA whose TTL and MINIMUM are the plugin's `ttl`, dashed
//! IP addresses as SRV targets of pods without a hostname.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr},
};

use headless_lb::Address;
use hickory_server::proto::{
    ProtoError,
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SOA, SRV},
    },
};

const ORIGIN: &str = "cluster.local.";

/// The named ports of the services here, as `ports: [{name: http}]` declares them.
const PORT_NAMES: [&str; 2] = ["_http", "_postgres"];

/// The ready pods of every service, by `service.namespace`.
pub(crate) struct Zone {
    pub(crate) ttl: u32,
    pub(crate) ready: HashMap<String, Vec<Address>>,
}

/// One answer, ready to be sent.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) soa: Option<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Zone {
    /// Answers one question, as the authority.
    pub(crate) fn answer(&self, name: &Name, kind: RecordType) -> Result<Answer, ProtoError> {
        let asked = name.to_lowercase().to_utf8();
        if !asked.ends_with(ORIGIN) {
            return Ok(Answer {
                code: ResponseCode::Refused,
                ..Answer::default()
            });
        }
        let labels: Vec<&str> = asked
            .strip_suffix(".svc.cluster.local.")
            .map(|service| service.split('.').collect())
            .unwrap_or_default();
        match labels[..] {
            [port, proto, service, namespace] if port.starts_with('_') => {
                if !PORT_NAMES.contains(&port) || proto != "_tcp" {
                    return self.negative(ResponseCode::NXDomain);
                }
                let pods = self.pods(service, namespace);
                self.positive(&pods, kind, || self.srv(name, &pods))
            }
            [hostname, service, namespace] => {
                let mut pods = self.pods(service, namespace);
                pods.retain(|pod| hostname_of(pod) == hostname);
                self.positive(&pods, kind, || Ok(self.a(name, &pods)))
            }
            [service, namespace] => {
                let pods = self.pods(service, namespace);
                self.positive(&pods, kind, || Ok(self.a(name, &pods)))
            }
            _ => self.negative(ResponseCode::NXDomain),
        }
    }

    /// The ready pods in a new random order each time, as CoreDNS's `loadbalance` gives them: order
    /// means nothing.
    fn pods(&self, service: &str, namespace: &str) -> Vec<Address> {
        let key = format!("{service}.{namespace}");
        let mut pods = self.ready.get(&key).cloned().unwrap_or_default();
        let order = RandomState::new();
        pods.sort_by_cached_key(|pod| order.hash_one(pod));
        pods
    }

    /// Records if there are some of this type; NODATA if the name has others; NXDOMAIN if it has no
    /// pod, whatever the type.
    fn positive(
        &self,
        pods: &[Address],
        kind: RecordType,
        records: impl FnOnce() -> Result<Answer, ProtoError>,
    ) -> Result<Answer, ProtoError> {
        if pods.is_empty() {
            return self.negative(ResponseCode::NXDomain);
        }
        let answer = records()?;
        match answer.answers.first() {
            Some(record) if record.record_type() == kind => Ok(answer),
            _ => self.negative(ResponseCode::NoError),
        }
    }

    fn a(&self, name: &Name, pods: &[Address]) -> Answer {
        let record = |ip: Ipv4Addr| Record::from_rdata(name.clone(), self.ttl, RData::A(ip.into()));
        Answer {
            answers: pods.iter().filter_map(ipv4).map(record).collect(),
            ..Answer::default()
        }
    }

    /// One SRV record a pod, with its own port and a target; the targets' addresses travel along as
    /// glue.
    fn srv(&self, name: &Name, pods: &[Address]) -> Result<Answer, ProtoError> {
        let weight = (100 / pods.len().max(1)).max(1) as u16;
        let service = name.trim_to(name.num_labels() as usize - 2);
        let mut answer = Answer::default();
        for pod in pods {
            let Some(ip) = ipv4(pod) else { continue };
            let target = Name::from_ascii(hostname_of(pod))?.append_domain(&service)?;
            let srv = SRV::new(0, weight, pod.socket().port(), target.clone());
            let record = Record::from_rdata(name.clone(), self.ttl, RData::SRV(srv));
            let glue = Record::from_rdata(target, self.ttl, RData::A(ip.into()));
            answer.answers.push(record);
            answer.additionals.push(glue);
        }
        Ok(answer)
    }

    fn negative(&self, code: ResponseCode) -> Result<Answer, ProtoError> {
        let soa = SOA::new(
            Name::from_ascii("ns.dns.cluster.local.")?,
            Name::from_ascii("hostmaster.cluster.local.")?,
            1,
            7200,
            1800,
            86400,
            self.ttl,
        );
        let record = Record::from_rdata(Name::from_ascii(ORIGIN)?, self.ttl, RData::SOA(soa));
        Ok(Answer {
            code,
            soa: Some(record),
            ..Answer::default()
        })
    }
}

/// The hostname of a StatefulSet's pod; the address with dashes for any other.
fn hostname_of(pod: &Address) -> String {
    match pod.name() {
        Some(name) => name.to_owned(),
        None => pod.socket().ip().to_string().replace('.', "-"),
    }
}

fn ipv4(pod: &Address) -> Option<Ipv4Addr> {
    match pod.socket().ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

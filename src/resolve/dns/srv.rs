//! SRV: a port and a name for each pod, and the addresses behind the names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{
    answer::{self, Addresses, Service},
    family::{Family, Question, Secondary},
    guarded::Guarded,
};
use crate::{
    endpoint::Address,
    resolve::{Resolution, ResolveError},
};

/// The addresses each target had when it last had any, so that a failed question about one target loses nothing.
pub(super) type Targets = BTreeMap<Name, Vec<IpAddr>>;

/// Questions about targets at once. CoreDNS answers in a millisecond; more would only queue there, and each holds a socket here.
const PARALLEL: usize = 16;

impl Question<'_> {
    /// The endpoints of the SRV records of `name`.
    pub(super) async fn services(
        &self,
        name: &Name,
        family: Family,
        remembered: &Guarded<Targets>,
    ) -> Result<Resolution, ResolveError> {
        let reply = self.servers.ask(name, RecordType::SRV, self.until).await?;
        let nothing = |why| reply.nothing(format!("SRV {name} at {}: {why}", reply.server));
        let Some((services, mut ttl)) = answer::services(name, &reply.message.answers) else {
            return Err(nothing("the records of the answer have another owner"));
        };
        if services.is_empty() {
            return Err(nothing(
                "the target is \".\", so the service is declared unavailable",
            ));
        }

        let mut glue = glue(&reply.message.additionals, self.keep_loopback);
        let targets: BTreeSet<&Name> = services.iter().map(|service| &service.target).collect();
        let (with_glue, mut without): (Vec<&Name>, Vec<&Name>) = targets
            .into_iter()
            .partition(|target| glue.contains_key(*target));
        // Should the deadline cut the questions short, it is not the same targets each time that stay unknown.
        remembered.with(|known| without.sort_by_key(|target| known.contains_key(*target)));

        let mut found = Targets::new();
        for target in with_glue {
            // Glue of the other family alone is a target that the policy filters, not one that is missing: no question.
            let Addresses { ips, ttl: its, .. } = glue.remove(target).unwrap_or_default();
            ttl = answer::shorter(ttl, its);
            found.insert(target.clone(), ips);
        }
        let mut failure = None;
        for (target, answer) in self.follow_up(&without, family).await {
            match answer {
                Ok(addresses) => {
                    ttl = answer::shorter(ttl, addresses.ttl);
                    found.insert(target.clone(), addresses.ips);
                }
                // The pod left between the two answers.
                Err(error) if error.is_empty() => {}
                Err(error) => match remembered.with(|known| known.get(target).cloned()) {
                    Some(ips) => {
                        found.insert(target.clone(), ips);
                    }
                    None => failure = failure.or(Some(error)),
                },
            }
        }

        let addresses = endpoints(&services, &found, family);
        if addresses.is_empty() {
            return Err(match failure {
                Some(error) => ResolveError::of(error.kind())
                    .detail(format!(
                        "SRV {name} at {}: no target has a known address",
                        reply.server
                    ))
                    .caused_by(error),
                None if found.is_empty() => nothing("no target has an address"),
                None => nothing("the targets have addresses of the other IP family only"),
            });
        }
        remembered.with(|known| {
            if !reply.partial {
                known.clear();
            }
            known.append(&mut found);
        });
        let resolution = Resolution::new(addresses)
            .of_record("SRV")
            .valid_for(ttl.unwrap_or(Duration::ZERO));
        // A target that could not be asked for is missing here, and nobody has said that it is gone.
        Ok(if reply.partial || failure.is_some() {
            resolution.partial()
        } else {
            resolution
        })
    }

    /// Asks for the targets that came without glue: BIND sends none above 100 records, unbound strips all.
    async fn follow_up<'n>(
        &self,
        targets: &[&'n Name],
        family: Family,
    ) -> Vec<(&'n Name, Result<Addresses, ResolveError>)> {
        let mut questions = Vec::with_capacity(targets.len());
        for &target in targets {
            questions.push(async move {
                (
                    target,
                    self.addresses(target, family, &Secondary::default()).await,
                )
            });
        }
        stream::iter(questions)
            .buffer_unordered(PARALLEL)
            .collect()
            .await
    }
}

/// A and AAAA records by owner. They say what a question about the owner would.
fn glue(additionals: &[Record], keep_loopback: bool) -> BTreeMap<Name, Addresses> {
    let mut glue = BTreeMap::<Name, Addresses>::new();
    for record in additionals {
        let ip = match &record.data {
            RData::A(ip) => IpAddr::V4(ip.0),
            RData::AAAA(ip) => IpAddr::V6(ip.0),
            _ => continue,
        };
        if answer::is_dialable(ip, keep_loopback) {
            glue.entry(record.name.to_lowercase())
                .or_default()
                .merge(Addresses {
                    ips: vec![ip],
                    ttl: Some(Duration::from_secs(record.ttl.into())),
                    partial: false,
                });
        }
    }
    glue
}

/// Every address of a target with every port of it, under the pod's name: sorted, each socket once.
fn endpoints(services: &[Service], found: &Targets, family: Family) -> Vec<Address> {
    let mut all = found.values().flatten();
    let any_v4 = all.clone().any(IpAddr::is_ipv4);
    let any_v6 = all.any(IpAddr::is_ipv6);
    let mut addresses = Vec::with_capacity(services.len());
    for Service {
        target,
        port,
        weight,
    } in services
    {
        let name = pod_name(target);
        for &ip in found.get(target).into_iter().flatten() {
            if family.keeps(ip, any_v4, any_v6) {
                let address = Address::from(SocketAddr::new(ip, *port)).weighted(*weight);
                addresses.push(match &name {
                    Some(name) => address.named(Arc::clone(name)),
                    None => address,
                });
            }
        }
    }
    addresses.sort_unstable();
    // Two targets may share an address. The first name stays, the same one in every answer.
    addresses.dedup_by_key(|address| address.socket());
    addresses
}

/// `db-0` of `db-0.db.prod.svc.cluster.local.`; `10-244-1-7` for a pod without a hostname.
fn pod_name(target: &Name) -> Option<Arc<str>> {
    let label = target.iter().next()?;
    Some(String::from_utf8_lossy(label).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(label: &str) -> Name {
        Name::from_ascii(format!("{label}.db.prod.svc.cluster.local.")).unwrap()
    }

    fn service(label: &str, port: u16) -> Service {
        Service {
            target: target(label),
            port,
            weight: 100,
        }
    }

    fn shown(services: &[Service], found: &[(&str, &[&str])], family: Family) -> Vec<String> {
        let found = found
            .iter()
            .map(|(label, ips)| {
                (
                    target(label),
                    ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                )
            })
            .collect();
        endpoints(services, &found, family)
            .iter()
            .map(Address::to_string)
            .collect()
    }

    #[test]
    fn endpoints_carry_the_pods_name_and_each_port() {
        let services = [
            service("db-0", 5432),
            service("db-0", 9187),
            service("db-1", 5433),
        ];
        assert_eq!(
            shown(
                &services,
                &[("db-0", &["10.0.0.1"]), ("db-1", &["10.0.0.2"])],
                Family::PreferV4
            ),
            [
                "db-0 10.0.0.1:5432",
                "db-0 10.0.0.1:9187",
                "db-1 10.0.0.2:5433"
            ]
        );
    }

    #[test]
    fn the_set_decides_on_the_family_when_each_pod_has_two_targets() {
        let services = [service("10-0-0-1", 80), service("fd00--1", 80)];
        let found: [(&str, &[&str]); 2] = [("10-0-0-1", &["10.0.0.1"]), ("fd00--1", &["fd00::1"])];
        assert_eq!(
            shown(&services, &found, Family::PreferV4),
            ["10-0-0-1 10.0.0.1:80"]
        );
        assert_eq!(
            shown(&services, &found, Family::PreferV6),
            ["fd00--1 [fd00::1]:80"]
        );
        assert_eq!(shown(&services, &found, Family::Both).len(), 2);
        assert_eq!(shown(&services, &found[1..], Family::PreferV4).len(), 1);
        assert_eq!(shown(&services, &found[1..], Family::V4Only).len(), 0);
    }

    #[test]
    fn endpoints_carry_the_weight_of_their_record() {
        let services = [service("db-0", 5432)];
        let found = Targets::from([(target("db-0"), vec![[10, 0, 0, 1].into()])]);
        let weights = endpoints(&services, &found, Family::PreferV4);
        let weights: Vec<_> = weights.iter().map(Address::weight).collect();
        assert_eq!(weights, [Some(100)]);
    }

    #[test]
    fn a_socket_under_two_names_is_one_endpoint() {
        let services = [service("b", 80), service("a", 80)];
        assert_eq!(
            shown(
                &services,
                &[("a", &["10.0.0.1"]), ("b", &["10.0.0.1"])],
                Family::PreferV4
            ),
            ["a 10.0.0.1:80"]
        );
    }
}

//! All roles from one Patroni.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::{PORT, authority, in_timeline, not_running};
use crate::{
    endpoint::Endpoint,
    probe::{
        Authority, Observation, Probe, ProbeError, Role,
        http::{Page, unexpected},
        json::Value,
    },
};

/// Asks one Patroni for the whole cluster (`GET /cluster`): the roles of all endpoints for one request a second.
///
/// Where Patroni runs on some nodes only, or asking each costs too much. The Patroni of one endpoint is
/// asked as long as it answers; when it does not, that of another takes its place after 2 s.
///
/// Less than [`Patroni`](crate::Patroni) gives: there is no position, no system identifier, and a role is what
/// the member itself last wrote into the store, up to Patroni's `loop_wait` (10 s as it comes) ago. Patroni
/// up to 4.0 calls the holder of the lock `leader` before its promotion ends. And it waits for the store. So
/// let the node [confirm](crate::probe::authority) it.
///
/// A member is an endpoint if host and port are its address, or if its name, or its host's first label, is the
/// endpoint's name. An endpoint that is no member is [`Role::Unknown`].
///
/// ```
/// use headless_lb::probe::PatroniCluster;
///
/// let probe = PatroniCluster::new().port(8008);
/// # let _ = probe;
/// ```
#[derive(Debug)]
pub struct PatroniCluster {
    page: Page,
    last: ArcSwapOption<Topology>,
}

/// What a Patroni said.
#[derive(Debug)]
struct Topology {
    /// The endpoint whose Patroni it was.
    from: u64,
    at: Instant,
    members: Vec<Member>,
    is_paused: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    host: String,
    port: Option<u16>,
    role: String,
    state: String,
    timeline: Option<u64>,
}

impl PatroniCluster {
    /// Patroni at port 8008 of each endpoint's address, without TLS.
    pub fn new() -> Self {
        Self {
            page: Page::new("/cluster", PORT),
            last: ArcSwapOption::empty(),
        }
    }

    /// At another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.page.port = Some(port);
        self
    }

    /// Over TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    #[must_use]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.page.secured(tls);
        self
    }

    /// What was said lately. The others leave it to the one that was asked last to ask again: nobody waits for a
    /// node that hangs as long as another one answers.
    fn recent(&self, endpoint: &Endpoint) -> Option<Arc<Topology>> {
        let last = self.last.load_full()?;
        let patience = if last.from == endpoint.id() { 1 } else { 2 };
        (last.at.elapsed() < self.interval() * patience).then_some(last)
    }
}

impl Default for PatroniCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for PatroniCluster {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        if let Some(topology) = self.recent(endpoint) {
            return topology.role(endpoint);
        }
        let reply = self.page.load(endpoint).await?;
        if reply.status != 200 {
            return Err(unexpected(reply.status));
        }
        let page = Value::read(&reply.body).map_err(ProbeError::passing)?;
        let topology = Topology::read(endpoint.id(), &page)
            .ok_or_else(|| ProbeError::passing("Patroni: the page has no members"))?;
        let topology = Arc::new(topology);
        self.last.store(Some(Arc::clone(&topology)));
        topology.role(endpoint)
    }
}

impl Topology {
    fn read(from: u64, page: &Value<'_>) -> Option<Self> {
        let members = page.member("members")?.as_array()?;
        Some(Self {
            from,
            at: Instant::now(),
            members: members.iter().filter_map(Member::read).collect(),
            is_paused: page.member("pause").and_then(Value::as_bool) == Some(true),
        })
    }

    fn role(&self, endpoint: &Endpoint) -> Result<Observation, ProbeError> {
        let Some(member) = self.members.iter().find(|member| member.is(endpoint)) else {
            return Ok(Observation::of(Role::Unknown).by_authority(Authority::Quorum));
        };
        match &*member.state {
            "running" | "streaming" | "in archive recovery" => {}
            // From the store, where members write once in `loop_wait`, 10 s: it may have changed since.
            state => return Err(not_running(Some(state)).unproven()),
        }
        let seen = match &*member.role {
            "leader" => in_timeline(Observation::of(Role::Primary), member.timeline),
            // Also `promoted`: it holds the lock, and its promotion has not ended.
            _ => match self.members.iter().find(|member| member.role == "leader") {
                Some(leader) => pointing_to(leader, endpoint),
                None => Observation::of(Role::Replica),
            },
        };
        Ok(seen.by_authority(authority(self.is_paused)))
    }
}

fn pointing_to(leader: &Member, endpoint: &Endpoint) -> Observation {
    let seen = Observation::of(Role::Replica);
    let port = leader.port.unwrap_or_else(|| endpoint.addr().port());
    match leader.host.parse::<IpAddr>() {
        Ok(ip) => seen.pointing_to(SocketAddr::new(ip, port)),
        Err(_) => seen,
    }
}

impl Member {
    fn read(member: &Value<'_>) -> Option<Self> {
        let text = |name| Some(member.member(name)?.as_str()?.to_owned());
        let number = |name| member.member(name).and_then(Value::as_u64);
        Some(Self {
            name: text("name")?,
            host: text("host").unwrap_or_default(),
            port: number("port").and_then(|port| port.try_into().ok()),
            role: text("role")?,
            state: text("state").unwrap_or_default(),
            timeline: number("timeline"),
        })
    }

    fn is(&self, endpoint: &Endpoint) -> bool {
        let addr = endpoint.addr();
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return ip == addr.ip() && self.port.is_none_or(|port| port == addr.port());
        }
        let label = self.host.split('.').next();
        endpoint
            .name()
            .is_some_and(|name| name == self.name || Some(name) == label)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::{
        endpoint::Address,
        probe::{ProbeFailure, Term, http::Peer},
    };

    /// Patroni 4.1.
    const CLUSTER: &str = r#"{"members": [{"name": "pg-0", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, "timeline": 5, "tags": {"clonefrom": true}}, {"name": "pg-1", "role": "sync_standby", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni", "host": "10.0.0.2", "port": 5432, "timeline": 5, "receive_lag": 0, "receive_lsn": "0/4000060", "replay_lag": 0, "replay_lsn": "0/4000060", "lag": 0, "lsn": "0/4000060"}, {"name": "pg-2", "role": "replica", "state": "stopped", "api_url": "http://pg-2.pg:8008/patroni", "host": "pg-2.pg.prod.svc", "port": 5432, "lag": "unknown"}], "scope": "shop"}"#;

    fn pod(addr: &str, name: Option<&'static str>) -> Endpoint {
        let address = Address::from(addr.parse::<SocketAddr>().unwrap());
        let address = match name {
            Some(name) => address.named(name),
            None => address,
        };
        Endpoint::new(address, Instant::now())
    }

    fn topology(text: &str) -> Topology {
        Topology::read(0, &Value::read(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn members_are_found_by_address_or_by_name() {
        let said = topology(CLUSTER);
        let leader = said.role(&pod("10.0.0.1:5432", None)).unwrap();
        assert_eq!(
            (leader.role(), leader.term()),
            (Role::Primary, Some(Term::new(5)))
        );
        assert_eq!(leader.authority(), Authority::Quorum);
        let replica = said.role(&pod("10.0.0.2:5432", Some("pg-1"))).unwrap();
        assert_eq!(replica.role(), Role::Replica);
        assert_eq!(replica.points_to(), Some("10.0.0.1:5432".parse().unwrap()));
        let stopped = said.role(&pod("10.0.0.9:5432", Some("pg-2"))).unwrap_err();
        assert_eq!(stopped.failure(), ProbeFailure::NotAccepting);
        assert!(!stopped.is_definitive(), "it may have been restarted since");
        // Another server, a pod that took over an address, and one that Patroni does not know.
        for stranger in [
            pod("10.0.0.1:5433", None),
            pod("10.0.0.8:5432", Some("pg-0")),
            pod("10.0.0.9:5432", None),
        ] {
            assert_eq!(said.role(&stranger).unwrap().role(), Role::Unknown);
        }
    }

    #[test]
    fn one_whose_promotion_has_not_ended_is_a_replica_and_a_pause_lowers_the_authority() {
        let said = topology(&CLUSTER.replace("\"leader\"", "\"promoted\""));
        let seen = said.role(&pod("10.0.0.1:5432", None)).unwrap();
        assert_eq!((seen.role(), seen.points_to()), (Role::Replica, None));
        let said = topology(&CLUSTER.replace("\"scope\"", "\"pause\": true, \"scope\""));
        let seen = said.role(&pod("10.0.0.1:5432", None)).unwrap();
        assert_eq!(
            (seen.role(), seen.authority()),
            (Role::Primary, Authority::SelfReported)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_serves_all_until_its_source_fails() {
        let peer = Peer::bind().await;
        let probe = PatroniCluster::new().port(peer.port);
        let page = CLUSTER.replace("10.0.0.1", "127.0.0.1");
        let text = format!("HTTP/1.0 200 OK\r\n\r\n{page}");
        let seen = peer.answer(&probe, &text).await.unwrap();
        assert_eq!(seen.role(), Role::Primary);

        // Nothing listens at that pod's address.
        let other = pod("127.0.0.9:5432", Some("pg-1"));
        advance(Duration::from_millis(1900)).await;
        let seen = probe.observe(&other, &mut ()).await.unwrap();
        assert_eq!(seen.role(), Role::Unknown, "as said 1.9 s ago");
        // The source itself asks again, and so do the others when it does not.
        let changed = text.replace("\"port\": 5432", "\"port\": 1");
        let seen = peer.answer(&probe, &changed).await.unwrap();
        assert_eq!(seen.role(), Role::Unknown);
        advance(Duration::from_millis(2100)).await;
        let error = probe.observe(&other, &mut ()).await.unwrap_err();
        assert_eq!(
            (error.failure(), error.is_definitive()),
            (ProbeFailure::Refused, false)
        );
    }
}

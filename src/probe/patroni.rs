//! PostgreSQL's role by Patroni, which has a lock for it.

use super::{
    Authority, Lineage, Observation, Probe, ProbeError, ProbeFailure, Role, Term,
    http::{Page, unexpected},
    json::Value,
};
use crate::endpoint::Endpoint;

mod cluster;

pub use cluster::PatroniCluster;

/// Where Patroni's configuration examples have its REST API.
const PORT: u16 = 8008;

/// Asks the Patroni beside each PostgreSQL who holds the leader lock: `GET /primary`, by its status *and* its
/// body.
///
/// The lock has one holder at a time, so this is an authority ([`Authority::Quorum`]), and brings timeline,
/// position and system identifier besides. But Patroni only speaks for PostgreSQL, and its interface may be
/// down or hang while PostgreSQL serves; so best is to hear both:
///
/// ```
/// use headless_lb::{Observation, Patroni, ProbeError, Role, probe_fn, probe::authority};
///
/// # let postgres = probe_fn(|_: &headless_lb::Endpoint| async { Ok::<_, ProbeError>(Observation::of(Role::Unknown)) });
/// let probe = authority(Patroni::new()).confirm(postgres);
/// # let _ = probe;
/// ```
///
/// What the reply says of the node:
///
/// | status | `role` in the body | the node is |
/// |---|---|---|
/// | 200 | `primary`, or `master` before Patroni 4 | the primary; [`SelfReported`](Authority::SelfReported) while `pause` is on, when Patroni without its store goes by PostgreSQL's role |
/// | 200 | any other | a replica: the lock is taken *before* the promotion ends |
/// | 503 | `primary`, `master` | fenced: it takes writes, and has no lock |
/// | 503 | any other | a replica, as is the leader of a standby cluster |
///
/// whenever `state` is `running`; any other state is an error. `GET /patroni`, which tempts, says 200 on
/// every node and knows nothing of the lock (<https://patroni.readthedocs.io/en/latest/rest_api.html>).
///
/// The body does not say for how long the lock holds (its `ttl` is 30 s as Patroni comes), so no lease is
/// derived. A replica's `timeline` is one that Patroni remembers, and is not told on.
///
/// Costs a connection to Patroni each second, and Patroni a query. Only a failure that Patroni reports of
/// PostgreSQL is definitive.
#[derive(Clone, Debug)]
pub struct Patroni {
    page: Page,
}

impl Patroni {
    /// Patroni at port 8008 of each endpoint's address, without TLS.
    pub fn new() -> Self {
        Self {
            page: Page::new("/primary", PORT),
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
}

impl Default for Patroni {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for Patroni {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        let reply = self.page.load(endpoint).await?;
        let has_lock = match reply.status {
            200 => true,
            503 => false,
            status => return Err(unexpected(status)),
        };
        node(
            has_lock,
            &Value::read(&reply.body).map_err(ProbeError::passing)?,
        )
    }
}

/// What the page says of the node.
fn node(has_lock: bool, page: &Value<'_>) -> Result<Observation, ProbeError> {
    let text = |name| page.member(name).and_then(Value::as_str);
    match text("state") {
        Some("running") => {}
        state => return Err(not_running(state)),
    }
    let is_primary = matches!(text("role"), Some("primary" | "master"));
    let position = |name| page.member("xlog")?.member(name)?.as_u64();
    let seen = if is_primary {
        let timeline = page.member("timeline").and_then(Value::as_u64);
        let seen = at(Observation::of(Role::Primary), position("location"));
        in_timeline(seen, timeline)
    } else {
        at(
            Observation::of(Role::Replica),
            position("replayed_location"),
        )
    };
    let seen = match text("database_system_identifier") {
        Some(id) => seen.in_lineage(Lineage::of(id)),
        None => seen,
    };
    let is_paused = page.member("pause").and_then(Value::as_bool) == Some(true);
    let seen = seen.by_authority(authority(is_paused));
    Ok(match is_primary && !has_lock {
        true => seen.disowned("no leader lock"),
        false => seen,
    })
}

/// While it is paused and cannot reach its store Patroni goes by the role of PostgreSQL.
fn authority(is_paused: bool) -> Authority {
    match is_paused {
        true => Authority::SelfReported,
        false => Authority::Quorum,
    }
}

fn at(seen: Observation, position: Option<u64>) -> Observation {
    match position {
        Some(position) => seen.at_position(position),
        None => seen,
    }
}

/// Timelines begin at 1; 0 is said for one that is not known.
fn in_timeline(seen: Observation, timeline: Option<u64>) -> Observation {
    match timeline {
        Some(timeline @ 1..) => seen.in_term(Term::new(timeline.into())),
        _ => seen,
    }
}

/// The states are those of `PostgresqlState` in Patroni's `patroni/postgresql/misc.py`. `unknown` is a
/// query that failed though PostgreSQL runs; after a stop that failed it may well go on.
fn not_running(state: Option<&str>) -> ProbeError {
    let failure = match state {
        Some("starting" | "starting after custom bootstrap" | "restarting") => {
            ProbeFailure::Starting
        }
        Some("stopping") => ProbeFailure::ShuttingDown,
        Some(
            "stopped"
            | "crashed"
            | "start failed"
            | "restart failed"
            | "creating replica"
            | "initializing new cluster"
            | "initdb failed"
            | "running custom bootstrap script"
            | "custom bootstrap failed",
        ) => ProbeFailure::NotAccepting,
        _ => ProbeFailure::Other,
    };
    let state = state.unwrap_or("not told");
    ProbeError::new(failure, format!("Patroni: PostgreSQL's state is {state:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::http::Peer;

    /// Patroni 4.
    const LEADER: &str = r#"{"state": "running", "postmaster_start_time": "2026-03-01 10:00:00.000000+00:00", "role": "primary", "server_version": 170002, "xlog": {"location": 83886408}, "timeline": 7, "replication": [{"usename": "repl", "application_name": "pg-1", "client_addr": "10.0.0.2", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1772359200, "tags": {"clonefrom": true}, "database_system_identifier": "7412345678901234567", "patroni": {"version": "4.0.4", "scope": "shop", "name": "pg-0"}}"#;
    const STANDBY: &str = r#"{"state": "running", "role": "replica", "server_version": 170002, "xlog": {"received_location": 83886408, "replayed_location": 83886300, "replayed_timestamp": null, "paused": false}, "timeline": 7, "replication_state": "streaming", "dcs_last_seen": 1772359200, "database_system_identifier": "7412345678901234567", "patroni": {"version": "4.0.4", "scope": "shop", "name": "pg-1"}}"#;
    /// Patroni 2.
    const OLD_LEADER: &str = r#"{"state": "running", "postmaster_start_time": "2021-03-01 10:00:00.000 UTC", "role": "master", "server_version": 130004, "cluster_unlocked": false, "xlog": {"location": 67395656}, "timeline": 3, "database_system_identifier": "6993218765432109876", "patroni": {"version": "2.1.1", "scope": "batman"}}"#;
    /// Patroni 3, cut off from its store and paused.
    const PAUSED: &str = r#"{"state": "running", "role": "master", "server_version": 150003, "xlog": {"location": 67395656}, "timeline": 3, "pause": true, "cluster_unlocked": true, "dcs_last_seen": 1692356718, "database_system_identifier": "6993218765432109876", "patroni": {"version": "3.2.0", "scope": "batman", "name": "pg-0"}}"#;

    async fn answer(status: u16, body: &str) -> Result<Observation, ProbeError> {
        let peer = Peer::bind().await;
        let probe = Patroni::new().port(peer.port);
        let head = "Server: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json";
        let text = format!("HTTP/1.0 {status} x\r\n{head}\r\n\r\n{body}");
        peer.answer(&probe, &text).await
    }

    fn claim(term: u128, position: u64, id: &str) -> Observation {
        Observation::of(Role::Primary)
            .in_term(Term::new(term))
            .at_position(position)
            .in_lineage(Lineage::of(id))
            .by_authority(Authority::Quorum)
    }

    #[tokio::test]
    async fn who_holds_the_lock_and_was_promoted_is_the_primary() {
        let seen = answer(200, LEADER).await.unwrap();
        assert_eq!(seen, claim(7, 83_886_408, "7412345678901234567"));
        let seen = answer(200, OLD_LEADER).await.unwrap();
        assert_eq!(seen, claim(3, 67_395_656, "6993218765432109876"));
    }

    #[tokio::test]
    async fn who_holds_the_lock_and_is_still_a_standby_is_a_replica() {
        let seen = answer(200, STANDBY).await.unwrap();
        assert_eq!(seen.role(), Role::Replica);
    }

    #[tokio::test]
    async fn a_standby_tells_what_it_replayed_and_no_term() {
        let seen = answer(503, STANDBY).await.unwrap();
        let wanted = Observation::of(Role::Replica)
            .at_position(83_886_300)
            .in_lineage(Lineage::of("7412345678901234567"))
            .by_authority(Authority::Quorum);
        assert_eq!(seen, wanted);
        let leader_of_standbys = STANDBY.replace("replica", "standby_leader");
        let seen = answer(503, &leader_of_standbys).await.unwrap();
        assert_eq!(seen.role(), Role::Replica);
    }

    #[tokio::test]
    async fn a_primary_without_the_lock_is_fenced_and_its_term_is_not_told() {
        let seen = answer(503, LEADER).await.unwrap();
        assert_eq!(seen.role(), Role::Primary);
        assert_eq!(seen.fence(), Some("no leader lock"));
        assert_eq!(seen.term(), None);
    }

    #[tokio::test]
    async fn a_pause_leaves_no_authority_but_the_node_itself() {
        let seen = answer(200, PAUSED).await.unwrap();
        assert_eq!(seen.role(), Role::Primary);
        assert_eq!(seen.authority(), Authority::SelfReported);
    }

    #[tokio::test]
    async fn a_server_that_does_not_run_is_a_failure_with_or_without_the_lock() {
        for (state, failure) in [
            ("starting", ProbeFailure::Starting),
            ("restarting", ProbeFailure::Starting),
            ("stopping", ProbeFailure::ShuttingDown),
            ("stopped", ProbeFailure::NotAccepting),
            ("crashed", ProbeFailure::NotAccepting),
            ("creating replica", ProbeFailure::NotAccepting),
            ("unknown", ProbeFailure::Other),
            ("stop failed", ProbeFailure::Other),
        ] {
            for status in [200, 503] {
                let body = format!(r#"{{"state": "{state}", "role": "primary"}}"#);
                let error = answer(status, &body).await.unwrap_err();
                assert_eq!(error.failure(), failure, "{state}");
                assert_eq!(
                    error.is_definitive(),
                    failure != ProbeFailure::Other,
                    "{state}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_page_that_is_not_patronis_proves_nothing() {
        for (status, body) in [
            (200, ""),
            (200, "OK"),
            (200, "[]"),
            (200, "{}"),
            (200, r#"{"state": 1, "role": "primary"}"#),
            (404, LEADER),
            (502, ""),
            (200, &LEADER[..LEADER.len() - 1]),
        ] {
            let error = answer(status, body).await.unwrap_err();
            assert!(!error.is_definitive(), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn numbers_that_do_not_fit_are_not_told() {
        let body = LEADER
            .replace("83886408", "18446744073709551616")
            .replace("\"timeline\": 7", "\"timeline\": 0");
        let seen = answer(200, &body).await.unwrap();
        assert_eq!(
            (seen.role(), seen.position(), seen.term()),
            (Role::Primary, None, None)
        );
    }
}

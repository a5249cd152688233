//! A probe over tokio-postgres: one open session for each server, one row for each question.

use std::{error::Error, io, time::Duration};

use headless_lb::{Endpoint, Lineage, Observation, Probe, ProbeError, ProbeFailure, Role, Term};

use crate::support::postgres::{Session, sqlstate};

/// Role, fence, timeline, position and identity.
const QUESTION: &str = "
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'),
  CASE WHEN pg_is_in_recovery() THEN 0
       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
    - '0/0'::pg_lsn,
  (SELECT system_identifier FROM pg_control_system())";

/// Asks as `probe_trust`, every 250 ms.
#[derive(Debug)]
pub(crate) struct Asking;

impl Probe for Asking {
    type Session = Session;

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(Session, Option<Observation>), ProbeError> {
        let session = Session::open(endpoint.addr(), "probe_trust").await;
        Ok((session.map_err(|error| failure(&*error))?, None))
    }

    async fn observe(
        &self,
        _: &Endpoint,
        session: &mut Session,
    ) -> Result<Observation, ProbeError> {
        let row = session.row(QUESTION).await;
        let row = row.map_err(|error| failure(&*error))?;
        let field = |i: usize| row.get(i).and_then(Option::as_deref).unwrap_or_default();
        let mut seen = Observation::of(if field(0) == "t" {
            Role::Replica
        } else {
            Role::Primary
        });
        if let Ok(timeline @ 1..) = field(2).parse() {
            seen = seen.in_term(Term::new(timeline));
        }
        if field(1) == "on" && field(0) == "f" {
            seen = seen.fenced_by("default_transaction_read_only");
        }
        if let Ok(position) = field(3).parse() {
            seen = seen.at_position(position);
        }
        Ok(seen.in_lineage(Lineage::of(field(4))))
    }

    async fn signalled(&self, session: &mut Session) {
        session.ended().await;
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(250)
    }
}

fn failure(error: &(dyn Error + 'static)) -> ProbeError {
    let text = error.to_string();
    match sqlstate(error) {
        Some("57P03") => return ProbeError::new(ProbeFailure::Starting, text),
        Some("53300") => return ProbeError::new(ProbeFailure::Saturated, text),
        _ => {}
    }
    match error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
    {
        Some(io) => ProbeError::opening(io::Error::new(io.kind(), text)),
        None => ProbeError::passing(text),
    }
}

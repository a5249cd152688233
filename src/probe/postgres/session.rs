//! An open session: what is asked when, and what the answers say.

use std::sync::Arc;

use super::{
    complaint::Broken,
    conversation::{Conversation, Settings, Socket},
    login::Login,
    wire::{self, Column, Malformed},
};
use crate::probe::{Lineage, Observation, Role, Term};

/// The position is asked for with every so many questions, if nobody goes by it. Measured with PostgreSQL 15: an
/// empty round takes 9 microseconds of the server's processor and 11 bytes, a row 13 and 100.
const ROW_EVERY: u32 = 4;

/// Whether it is a standby, whether it refuses writes, how far its data go, and the timeline of a primary.
///
/// The name of the file that is written now begins with the timeline, and says the new one at once after a
/// promotion; the control file says it after the next checkpoint only. On a standby neither is right.
const STATE: &str = "\
    SELECT standby, pg_catalog.current_setting('transaction_read_only'), \
    CASE WHEN standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, \
    CASE WHEN NOT standby THEN \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END \
    FROM pg_catalog.pg_is_in_recovery() AS standby";
/// It is parsed once in a session: each time, that would take twice as long as all the rest.
const STATE_NAME: &str = "state";

/// The role alone, for servers that neither report it nor take [`STATE`].
const ROLE: &str = "\
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";

/// The cluster's identity, for its whole life.
const IDENTITY: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// A probe's connection to one PostgreSQL server, logged in.
#[derive(Debug)]
pub struct PostgresSession {
    conversation: Conversation,
    user: Arc<str>,
    /// The server reports its role unasked: version 14 and later.
    reports: bool,
    /// What a server that does not report it last answered.
    answered: Settings,
    state: Statement,
    /// Questions since the last row.
    since_row: u32,
    term: Option<Term>,
    lineage: Option<Lineage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    New,
    Parsed,
    /// The server does not let us, or does not know it.
    Refused,
}

impl PostgresSession {
    /// Logs in and looks for the first time.
    pub(super) async fn open(
        socket: Box<dyn Socket>,
        login: &Login,
        is_encrypted: bool,
        nonce: &str,
    ) -> Result<(Self, Observation), Broken> {
        let mut conversation = Conversation::over(socket);
        login.run(&mut conversation, is_encrypted, nonce).await?;
        let reports = conversation.settings().in_hot_standby.is_some();
        let lineage = identity(&mut conversation).await?;
        let mut session = Self {
            conversation,
            user: Arc::clone(&login.user),
            reports,
            answered: Settings::default(),
            state: Statement::New,
            since_row: 0,
            term: None,
            lineage,
        };
        let seen = session.observe(true).await?;
        Ok((session, seen))
    }

    pub(super) async fn observe(&mut self, wants_position: bool) -> Result<Observation, Broken> {
        self.since_row += 1;
        let is_due = wants_position || self.since_row >= ROW_EVERY;
        let mut position = None;
        if !self.reports || (is_due && self.state != Statement::Refused) {
            position = self.ask_state().await?;
        } else {
            self.conversation.sync().await?;
        }
        // Promoted: the `Sync` told, or it happened between the row and its end.
        if self.is_primary() && self.term.is_none() && self.state != Statement::Refused {
            position = self.ask_state().await?;
        }
        Ok(self.observation(position))
    }

    pub(super) async fn interrupted(&mut self) {
        self.conversation.interrupted().await;
    }

    /// Takes over what a row says; its position.
    async fn ask_state(&mut self) -> Result<Option<u64>, Broken> {
        self.since_row = 0;
        let mut messages = match self.state {
            Statement::New => wire::parse(STATE_NAME, STATE),
            Statement::Parsed => Vec::new(),
            Statement::Refused => return self.ask_role().await,
        };
        messages.extend(wire::execute(STATE_NAME));
        let row = match self.conversation.ask(messages).await? {
            Ok(row) => row,
            Err(complaint) if complaint.is_refusal() => {
                tracing::debug!(%complaint, "the server does not tell its timeline and position");
                self.state = Statement::Refused;
                self.term = None;
                return match self.reports {
                    true => Ok(None),
                    false => self.ask_role().await,
                };
            }
            Err(complaint) => return Err(Broken::Server(complaint)),
        };
        self.state = Statement::Parsed;
        let unreadable = Malformed("a row that is not what was asked for");
        let [role @ .., position, timeline] = &*row else {
            return Err(unreadable.into());
        };
        self.answered = read_role(role).ok_or(unreadable)?;
        self.term = read(timeline, timeline_number).ok_or(unreadable)?;
        Ok(read(position, log_position).ok_or(unreadable)?)
    }

    async fn ask_role(&mut self) -> Result<Option<u64>, Broken> {
        let mut messages = wire::parse("", ROLE);
        messages.extend(wire::execute(""));
        let row = self.conversation.ask(messages).await?;
        let row = row.map_err(Broken::Server)?;
        let unreadable = Malformed("a row that is not what was asked for");
        self.answered = read_role(&row).ok_or(unreadable)?;
        Ok(None)
    }

    fn settings(&self) -> Settings {
        match self.reports {
            true => self.conversation.settings(),
            false => self.answered,
        }
    }

    fn is_primary(&self) -> bool {
        self.settings().in_hot_standby == Some(false)
    }

    fn observation(&self, position: Option<u64>) -> Observation {
        let mut seen = match self.settings().in_hot_standby {
            Some(true) => Observation::of(Role::Replica),
            Some(false) => Observation::of(Role::Primary),
            None => Observation::of(Role::Unknown),
        };
        if self.is_primary() {
            if let Some(term) = self.term {
                seen = seen.in_term(term);
            }
            if self.settings().read_only == Some(true) {
                seen = seen.fenced_by(format!(
                    "default_transaction_read_only is on: see ALTER SYSTEM and ALTER DATABASE, and ALTER ROLE of the probe's \
                     role \"{}\", which must not have it",
                    self.user
                ));
            }
        }
        if let Some(lineage) = &self.lineage {
            seen = seen.in_lineage(lineage.clone());
        }
        if let Some(position) = position {
            seen = seen.at_position(position);
        }
        seen
    }
}

/// `None` if the server refuses to tell.
async fn identity(conversation: &mut Conversation) -> Result<Option<Lineage>, Broken> {
    let mut messages = wire::parse("", IDENTITY);
    messages.extend(wire::execute(""));
    let row = match conversation.ask(messages).await? {
        Ok(row) => row,
        Err(complaint) if complaint.is_refusal() => return Ok(None),
        Err(complaint) => return Err(Broken::Server(complaint)),
    };
    let unreadable = Malformed("an identity that is no number");
    let [Some(identity)] = &*row else {
        return Err(unreadable.into());
    };
    // An unsigned number that SQL shows as a signed one.
    let identity: i64 = identity.parse().map_err(|_| unreadable)?;
    Ok(Some(Lineage::of(identity.cast_unsigned().to_string())))
}

fn read_role(row: &[Column]) -> Option<Settings> {
    let [Some(standby), Some(read_only)] = row else {
        return None;
    };
    Some(Settings {
        in_hot_standby: Some(standby == "t"),
        read_only: Some(read_only == "on"),
    })
}

/// A column that may be NULL; `None` if it does not read.
fn read<T>(column: &Column, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match column {
        None => Some(None),
        Some(text) => parse(text).map(Some),
    }
}

/// The first eight digits of the name of a file of the log.
fn timeline_number(text: &str) -> Option<Term> {
    let number = u32::from_str_radix(text, 16).ok();
    number.map(|number| Term::new(number.into()))
}

/// `16/B374D848`: the upper and the lower half.
fn log_position(text: &str) -> Option<u64> {
    let (upper, lower) = text.split_once('/')?;
    let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(half(upper)? << 32 | half(lower)?)
}

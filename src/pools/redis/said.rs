//! What errors of Redis say about the node.

#[cfg(feature = "tls")]
use std::io;

#[cfg(feature = "tls")]
use redis::ErrorKind;
use redis::{Arg, Cmd, RedisError, RedisResult, ServerError, Value};

use crate::hint::Hint;

/// An answer, in which errors of the server stand among the values.
pub(super) trait Said {
    fn errors(&self) -> impl Iterator<Item = &ServerError>;
}

impl Said for Value {
    fn errors(&self) -> impl Iterator<Item = &ServerError> {
        match self {
            Self::ServerError(error) => Some(error),
            _ => None,
        }
        .into_iter()
    }
}

impl Said for Vec<Value> {
    fn errors(&self) -> impl Iterator<Item = &ServerError> {
        self.iter().flat_map(Said::errors)
    }
}

pub(super) fn hint_of(answer: &RedisResult<impl Said>) -> Option<Hint> {
    match answer {
        Ok(answer) => answer.errors().find_map(by_code),
        Err(error) => hint(error),
    }
}

pub(super) fn hint(error: &RedisError) -> Option<Hint> {
    if error.is_connection_dropped() || error.is_timeout() {
        return Some(Hint::Connection);
    }
    let errors = error.clone().into_server_errors()?;
    errors.iter().find_map(|(_, error)| by_code(error))
}

/// A peer that could not prove who it is, or has no name to prove: it will not in a moment either.
#[cfg(feature = "tls")]
pub(super) fn unproved(error: &io::Error) -> RedisError {
    let kind = ErrorKind::AuthenticationFailed;
    (
        kind,
        "the primary did not prove its name",
        error.to_string(),
    )
        .into()
}

/// Whether a command that was [refused](is_refused) has had no effect. A script has one: a replica publishes.
pub(super) fn may_repeat(command: &Cmd) -> bool {
    let Some(Arg::Simple(name)) = command.args_iter().next() else {
        return false;
    };
    let begins = |with: &[u8]| {
        let start = name.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    // EVAL, EVALSHA, FCALL, and their kin.
    !begins(b"EVAL") && !begins(b"FCALL")
}

/// Whether the server refused a single command because it is a replica. It does so before it does anything.
pub(super) fn is_refused(answer: &RedisResult<Value>) -> bool {
    matches!(answer, Ok(Value::ServerError(error)) if error.code() == "READONLY")
}

/// With its details, in which `MOVED` has the address.
fn by_code(error: &ServerError) -> Option<Hint> {
    let details = error.details().unwrap_or_default();
    Hint::from_redis(&format!("{} {details}", error.code()))
}

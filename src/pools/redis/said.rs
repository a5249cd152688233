//! What errors of Redis say about the node.

use redis::{RedisError, RedisResult, ServerError, Value};

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

/// Whether the server refused a single command because it is a replica. It does so before it does anything.
pub(super) fn is_refused(answer: &RedisResult<Value>) -> bool {
    matches!(answer, Ok(Value::ServerError(error)) if error.code() == "READONLY")
}

/// With its details, in which `MOVED` has the address.
fn by_code(error: &ServerError) -> Option<Hint> {
    let details = error.details().unwrap_or_default();
    Hint::from_redis(&format!("{} {details}", error.code()))
}

//! What an error of PostgreSQL hints at.

use std::io;

use crate::hint::Hint;

/// By the error's SQLSTATE. `None`: it says nothing of the node.
///
/// Codes: PostgreSQL's documentation, appendix A.
pub(super) fn hint(code: &str) -> Option<Hint> {
    match code {
        "25006" => Some(Hint::NotPrimary),
        "57P01" | "57P02" => Some(Hint::GoingAway),
        "57P03" => Some(Hint::NotReady),
        "53300" => Some(Hint::Overload),
        _ => code.starts_with("08").then_some(Hint::Connection),
    }
}

/// The connection broke or was not made; but a certificate that is not trusted, which rustls tells as invalid
/// data, stays so.
pub(super) fn io_hint(error: &io::Error) -> Option<Hint> {
    use io::ErrorKind::{InvalidData, InvalidInput};
    (!matches!(error.kind(), InvalidData | InvalidInput)).then_some(Hint::Connection)
}

//! How an example that checks itself ends.

use std::{fmt::Display, process::ExitCode};

use super::Result;

/// The last line, `name: ok ...`, and exit code 0; or what went wrong, and 1.
pub(crate) fn outcome(name: &str, outcome: Result<impl Display>) -> ExitCode {
    match outcome {
        Ok(outcome) => {
            println!("\n{name}: ok {outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\n{name}: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

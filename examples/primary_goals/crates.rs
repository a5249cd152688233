//! G9: what the probes depend on, by cargo's own account.

use std::{collections::BTreeSet, env, process::Command};

use crate::{goal::Goal, support::Result};

/// What SCRAM and MD5 authentication compute with.
const ALLOWED: [&str; 4] = ["base64", "hmac", "md-5", "sha2"];

pub(crate) fn measure() -> Result<Goal> {
    let core = tree(&["--no-default-features"])?;
    let postgres = tree(&["--no-default-features", "--features", "postgres"])?;
    let mut allowed = BTreeSet::new();
    for name in ALLOWED {
        allowed.extend(tree(&[
            "--no-default-features",
            "--features",
            "postgres",
            "--package",
            name,
        ])?);
    }
    let added: Vec<&String> = postgres.difference(&core).collect();
    let beyond: Vec<&str> = added
        .iter()
        .filter(|name| !allowed.contains(**name))
        .map(|name| name.as_str())
        .collect();
    let drivers = ["tokio-postgres", "redis", "reqwest", "sqlx"];
    let driver = postgres
        .iter()
        .find(|name| drivers.contains(&name.as_str()));
    Ok(Goal {
        number: 9,
        what: "crates that the PostgreSQL probe adds",
        target: "0 beyond sha2, hmac, base64, md-5",
        is_met: beyond.is_empty() && driver.is_none(),
        measured: format!(
            "{} beyond{}{}; {} with theirs, to a core of {}",
            beyond.len(),
            if beyond.is_empty() { "" } else { ": " },
            beyond.join(", "),
            added.len(),
            core.len(),
        ),
    })
}

/// The names of a package and of all that it depends on.
fn tree(arguments: &[&str]) -> Result<BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree: {}", said.trim()).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let names = lines.lines().filter_map(|line| line.split(' ').next());
    Ok(names
        .map(str::to_owned)
        .filter(|name| !name.is_empty())
        .collect())
}

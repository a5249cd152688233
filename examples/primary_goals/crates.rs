//! G9: what the PostgreSQL probe depends on, by cargo's own account.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

use crate::{goal::Goal, support::Result};

/// What SCRAM and MD5 authentication compute with.
const ALLOWED: [&str; 4] = ["base64", "hmac", "md-5", "sha2"];

/// What each crate that the library names depends on in turn, itself included.
type Tree = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn measure() -> Result<Goal> {
    let core = tree(&["--no-default-features"])?;
    let postgres = tree(&["--no-default-features", "--features", "postgres"])?;
    let names = |tree: &Tree| -> BTreeSet<String> { tree.values().flatten().cloned().collect() };
    let (all, all_of_the_core) = (names(&postgres), names(&core));
    let added: BTreeSet<&String> = all.difference(&all_of_the_core).collect();
    let allowed = |name: &str| {
        let mut allowed = ALLOWED.iter().filter_map(|direct| postgres.get(*direct));
        allowed.any(|tree| tree.contains(name))
    };
    let beyond: Vec<&str> = added
        .iter()
        .map(|name| name.as_str())
        .filter(|name| !allowed(name))
        .collect();
    let named = match beyond.is_empty() {
        true => String::new(),
        false => format!(" ({})", beyond.join(", ")),
    };
    Ok(Goal {
        number: 9,
        what: "crates that the PostgreSQL probe adds",
        target: "0 beyond sha2, hmac, base64, md-5",
        // Nothing added at all would mean that the tree is another one than we think.
        is_met: beyond.is_empty() && !added.is_empty(),
        measured: format!(
            "{}{named}; {} with theirs, to a core of {}",
            beyond.len(),
            added.len(),
            all_of_the_core.len(),
        ),
    })
}

fn tree(features: &[&str]) -> Result<Tree> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--prefix", "depth", "--no-dedupe"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree: {}", said.trim()).into());
    }
    let (mut tree, mut direct) = (Tree::new(), String::new());
    for line in String::from_utf8(output.stdout)?.lines() {
        // `2memchr v2.7.6`: how deep, the name, the version.
        let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let depth = &line[..line.len() - name.len()];
        let name = name.split(' ').next().unwrap_or_default();
        match depth {
            "" | "0" => continue,
            "1" => name.clone_into(&mut direct),
            _ => {}
        }
        tree.entry(direct.clone())
            .or_default()
            .insert(name.to_owned());
    }
    Ok(tree)
}

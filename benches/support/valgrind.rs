//! This program once more, under valgrind, which counts the same on any machine, however busy.

use std::{
    env, error, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

type Error = Box<dyn error::Error + Send + Sync>;

/// Whether it can be used here.
pub(crate) fn is_installed() -> bool {
    let found = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// The instructions of this program, called with `arguments`: those of each dump that the options of
/// callgrind ask for, in order, or of the whole run.
pub(crate) fn instructions(
    bench: &str,
    options: &[&str],
    arguments: &[String],
) -> Result<Vec<u64>, Error> {
    let callgrind = ["--tool=callgrind", "--callgrind-out-file=out"];
    let directory = run(bench, &[&callgrind, options].concat(), arguments)?;
    // Dumps are numbered from 1; the file without a number is what came after the last.
    let dumps: Vec<PathBuf> = (1..)
        .map(|number| directory.join(format!("out.{number}")))
        .take_while(|dump| dump.exists())
        .collect();
    let counted = if dumps.is_empty() {
        vec![directory.join("out")]
    } else {
        dumps
    };
    let total = |text: String| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix("totals: ")?.parse().ok())
    };
    let totals = counted
        .iter()
        .map(|dump| Ok(total(fs::read_to_string(dump)?).ok_or("a dump without totals")?));
    totals.collect()
}

/// Runs it, in a directory for what valgrind writes: that has nothing of another run in it.
pub(crate) fn run(bench: &str, options: &[&str], arguments: &[String]) -> Result<PathBuf, Error> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(bench);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let output = Command::new("valgrind")
        .args(options)
        .arg("--log-file=log")
        .arg(env::current_exe()?)
        .args(arguments)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("valgrind: {}: {}", output.status, said.trim()).into());
    }
    Ok(directory)
}

//! Plain text for people: headings, bars, tables, and one live line where there is a terminal to
//! redraw.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
};

/// Whether standard output is a terminal that can redraw a line.
pub(crate) fn is_live() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text in bold or dim: on a terminal only, and not if `NO_COLOR` asks for none
/// (<https://no-color.org>).
fn styled(text: impl Display, code: u8) -> String {
    if is_live() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

/// A section: a numbered line that says what happens now.
pub(crate) fn heading(text: impl Display) {
    println!("\n{}", styled(text, 1));
}

/// A line of explanation, indented under its heading.
pub(crate) fn say(text: impl Display) {
    for line in text.to_string().lines() {
        println!("   {line}");
    }
}

/// The same, for what is worth less attention.
pub(crate) fn aside(text: impl Display) {
    say(styled(text, 2));
}

/// One bar a row, with the count and the share of the whole.
pub(crate) fn bars(counts: &BTreeMap<String, u64>) {
    const WIDTH: u64 = 30;
    let total = counts.values().sum::<u64>().max(1);
    let longest = counts.values().copied().max().unwrap_or(1).max(1);
    let widest = counts.keys().map(String::len).max().unwrap_or(0);
    for (name, count) in counts {
        let bar = "#".repeat((count * WIDTH / longest) as usize);
        let percent = *count as f64 * 100.0 / total as f64;
        say(format!(
            "{name:<widest$}  {bar:<30}  {count:>5}  {percent:>5.1} %"
        ));
    }
}

/// Columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths);
        let text: String = padded
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.trim_end().to_owned()
    };
    aside(line(head));
    for row in rows {
        say(line(row.each_ref().map(String::as_str)));
    }
}

/// One line that is redrawn in place. Without a terminal it prints nothing. Clears itself when
/// dropped.
#[derive(Default)]
pub(crate) struct Live(());

impl Live {
    pub(crate) fn show(&self, text: fmt::Arguments<'_>) {
        if is_live() {
            print!("\r\x1b[2K   {text}");
            // A terminal that is gone has nobody to tell.
            let _ = io::stdout().flush();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if is_live() {
            print!("\r\x1b[2K");
            let _ = io::stdout().flush();
        }
    }
}

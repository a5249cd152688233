//! What the library holds itself to, where it promises something.

use crate::contestants::{Part, Policies, Row};

/// Time per pick on one thread.
pub(crate) fn nanoseconds(row: Row) -> Option<f64> {
    limits(row).map(|(nanoseconds, _)| nanoseconds)
}

/// Instructions per pick, the loop around it included.
pub(crate) fn instructions(row: Row) -> Option<u64> {
    limits(row).map(|(_, instructions)| instructions)
}

/// Each thread's time when two pick at once, to the time of one alone.
pub(crate) fn ratio(row: Row) -> Option<f64> {
    (is_plain(row) && row.n <= 1_000).then_some(1.5)
}

fn limits(row: Row) -> Option<(f64, u64)> {
    if row.n > 1_000 {
        // More than a DNS answer holds: shows the slope.
        return None;
    }
    match (row.part, row.policy) {
        _ if is_plain(row) => Some((25.0, 120)),
        (Part::Pick, Policies::LeastRequest) => Some((45.0, 250)),
        _ => None,
    }
}

/// The choice of a policy that looks at no counters.
fn is_plain(row: Row) -> bool {
    row.part == Part::Choice && matches!(row.policy, Policies::Random | Policies::RoundRobin)
}

//! What the library holds itself to, where it promises something.

use crate::contestants::{Part, Policies, Row};

/// Time per pick on one thread.
pub(crate) fn nanoseconds(row: Row) -> Option<f64> {
    use Policies::{Adaptive, LeastRequest, Maglev, Random, RoundRobin};
    if row.n > 1_000 {
        // More than a DNS answer holds: shows the slope.
        return None;
    }
    match (row.part, row.policy, row.n) {
        (Part::Given, RoundRobin | Random, _) => Some(5.0),
        (Part::Given, LeastRequest, _) => Some(15.0),
        (Part::Given, Adaptive, ..=20) => Some(65.0),
        (Part::Given, Adaptive, ..=128) => Some(250.0),
        (Part::Choice, RoundRobin | Random, _) => Some(25.0),
        (Part::Choice | Part::Pick, LeastRequest, _) => Some(45.0),
        (Part::Choice, Maglev, _) => Some(40.0),
        (Part::Choice, Adaptive, ..=20) => Some(85.0),
        (Part::Choice, Adaptive, ..=128) => Some(270.0),
        _ => None,
    }
}

/// Instructions per pick, the loop around it included.
pub(crate) fn instructions(row: Row) -> Option<u64> {
    match (row.part, row.policy) {
        _ if row.n > 1_000 => None,
        _ if is_plain(row) => Some(120),
        (Part::Pick, Policies::LeastRequest) => Some(250),
        _ => None,
    }
}

/// Each thread's time when two pick at once, to the time of one alone.
pub(crate) fn ratio(row: Row) -> Option<f64> {
    (is_plain(row) && row.n <= 1_000).then_some(1.5)
}

/// The choice of a policy that looks at no counters.
fn is_plain(row: Row) -> bool {
    row.part == Part::Choice && matches!(row.policy, Policies::Random | Policies::RoundRobin)
}

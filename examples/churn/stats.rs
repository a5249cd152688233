//! What the calls of one scenario amount to.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use crate::{
    load::{Call, DEADLINE, Ending, is_post},
    scenario::Fault,
};

/// The grain of the recovery time.
const WINDOW: Duration = Duration::from_millis(250);

/// So many good ones in a row, 2 s, and it is over. What is slow later has another cause: on a machine
/// that does other work as well, something always is.
const CALM: usize = 8;

/// For how long after DNS is true again a fault is not over yet: the TTL of the records.
const AFTERMATH: Duration = Duration::from_secs(1);

/// How often each request reached a pod, by its number. Pods that were killed count: they noted each
/// request as they read it.
pub(crate) struct Receipts(Vec<u32>);

impl Receipts {
    pub(crate) fn new(requests: u32, received: &[u32]) -> Self {
        let mut tries = vec![0; requests as usize];
        for number in received {
            if let Some(tries) = tries.get_mut(*number as usize) {
                *tries += 1;
            }
        }
        Self(tries)
    }

    fn of(&self, number: u32) -> u32 {
        self.0.get(number as usize).copied().unwrap_or(0)
    }
}

/// The counts of one scenario, or of several together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// GETs without a good response.
    pub(crate) failed: u64,
    /// POSTs that failed although no pod received them: they should have gone to another pod.
    pub(crate) posts_failed_unsent: u64,
    /// POSTs that failed and may have been received. Nobody can send them again, so they are allowed.
    pub(crate) posts_unknown: u64,
    /// POSTs that reached pods more than once.
    pub(crate) posts_doubled: u64,
    /// How often a request reached a pod beyond its first time.
    pub(crate) retried: u64,
}

impl Counts {
    /// A POST that ended by its deadline is judged by the pods, as the library was not asked: if one
    /// received it, hung ones included once they are woken, its outcome is unknown; if none did, it was
    /// unsent all the time, and waiting for the wrong pod was a failure.
    pub(crate) fn of(calls: &[Call], receipts: &Receipts) -> Self {
        let mut counts = Self::default();
        for call in calls {
            let tries = receipts.of(call.number);
            counts.requests += 1;
            counts.retried += u64::from(tries.saturating_sub(1));
            counts.posts_doubled += u64::from(is_post(call.number) && tries > 1);
            let count = match (&call.ending, call.is_post()) {
                (Ending::Served(_), _) => continue,
                (_, false) => &mut counts.failed,
                (Ending::Unsent(_), true) => &mut counts.posts_failed_unsent,
                (Ending::Deadline, true) if tries == 0 => &mut counts.posts_failed_unsent,
                (Ending::Deadline | Ending::Unknown(_), true) => &mut counts.posts_unknown,
            };
            *count += 1;
        }
        counts
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.failed + self.posts_failed_unsent + self.posts_doubled == 0
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.posts_failed_unsent += other.posts_failed_unsent;
        self.posts_unknown += other.posts_unknown;
        self.posts_doubled += other.posts_doubled;
        self.retried += other.retried;
    }
}

/// How long the calls took, and how soon they took no longer than before.
pub(crate) struct Latency {
    pub(crate) before: Duration,
    pub(crate) during: Duration,
    pub(crate) after: Duration,
    pub(crate) slowest_good: Duration,
    /// None: there was no calm within the run.
    pub(crate) recovery: Option<Duration>,
}

impl Latency {
    pub(crate) fn of(calls: &[Call], fault: &Fault) -> Self {
        // A fault befalls what is in flight as well.
        let in_flight = |call: &&Call| call.due + call.took >= fault.begin();
        let first = calls.iter().find(in_flight);
        let begin = first.map_or_else(|| fault.begin(), |call| call.due);
        let end = fault.end() + AFTERMATH;
        let before = percentile(99, due(calls, Duration::ZERO..begin));
        let good = calls.iter().filter(|call| call.is_served());
        Self {
            before,
            during: percentile(99, due(calls, begin..end)),
            after: percentile(99, due(calls, end..Duration::MAX)),
            slowest_good: good.map(|call| call.took).max().unwrap_or_default(),
            recovery: recovery(calls, begin, before * 2),
        }
    }
}

/// The calls that were due in a span of time.
pub(crate) fn due(calls: &[Call], span: Range<Duration>) -> &[Call] {
    let from = calls.partition_point(|call| call.due < span.start);
    let to = calls.partition_point(|call| call.due < span.end);
    &calls[from..to.max(from)]
}

/// The latency that so many percent of the calls do not exceed. One that failed counts as one that
/// took all its time, however soon it failed. Zero if there are no calls.
pub(crate) fn percentile(percent: usize, calls: &[Call]) -> Duration {
    let latency = |call: &Call| match call.ending {
        Ending::Served(_) => call.took,
        _ => call.took.max(DEADLINE),
    };
    let mut sorted: Vec<Duration> = calls.iter().map(latency).collect();
    sorted.sort_unstable();
    // The nearest rank.
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// How long after `begin` the last window ended in which a call failed or the p99 was above `limit`,
/// before calm.
fn recovery(calls: &[Call], begin: Duration, limit: Duration) -> Option<Duration> {
    let windows = (0..)
        .map(|i| due(calls, begin + WINDOW * i..begin + WINDOW * (i + 1)))
        .take_while(|calls| !calls.is_empty());
    let bad: Vec<bool> = windows.map(|calls| percentile(99, calls) > limit).collect();
    let calm = bad.windows(CALM).position(|row| !row.contains(&true));
    calm.map(|windows| WINDOW * windows as u32)
}

/// How many calls each pod served.
pub(crate) fn shares(calls: &[Call]) -> BTreeMap<u8, u64> {
    let mut shares = BTreeMap::new();
    for call in calls {
        if let Ending::Served(pod) = call.ending {
            *shares.entry(pod).or_default() += 1;
        }
    }
    shares
}

/// How often calls failed for each reason, the most frequent first.
pub(crate) fn reasons(calls: &[Call]) -> Vec<(u64, String)> {
    let mut counts = BTreeMap::<String, u64>::new();
    for call in calls {
        let reason = match &call.ending {
            Ending::Served(_) => continue,
            Ending::Unsent(reason) => format!("unsent: {reason}"),
            Ending::Unknown(reason) => reason.clone(),
            Ending::Deadline => "the caller's deadline".to_owned(),
        };
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<_> = counts.into_iter().map(|(reason, n)| (n, reason)).collect();
    reasons.sort_by(|a, b| b.cmp(a));
    reasons
}

//! What a run counts.

use hdrhistogram::Histogram;

use super::engine::{MICRO, Nanos, SECOND};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Success,
    /// A pod answered with an error.
    Error,
    /// Nobody took it.
    Refused,
    /// The caller gave up.
    TimedOut,
    /// There was no endpoint to send it to.
    TurnedAway,
}

/// Counts of one run. All but `timeline` are of what arrived after the warm-up.
pub(crate) struct Tally {
    begin: Nanos,
    /// Microseconds, of successes.
    latency: Histogram<u64>,
    mean: f64,
    /// Nanoseconds of work that arrived.
    work: f64,
    pub(crate) requests: u64,
    pub(crate) ends: [u64; 5],
    pub(crate) retries: u64,
    pub(crate) probes: u64,
    /// Picks whose client had nothing in flight on the picked pod.
    pub(crate) idle: u64,
    /// Attempts that each pod got.
    received: Vec<u64>,
    second: Vec<u32>,
    seconds: u64,
    uneven: f64,
    /// Requests in flight at pods, sampled.
    load: Histogram<u64>,
    pairs: Pairs,
    pods: u32,
    holdings: Holdings,
    /// Attempts in each second since the beginning: all, and those to odd pods.
    timeline: Vec<(u64, u64)>,
    /// Failures that each client saw at odd pods, in the first 10 s of it.
    pub(crate) lessons: Vec<u32>,
}

/// The pods that clients hold on to, where they do.
#[derive(Default)]
struct Holdings {
    last: Vec<u32>,
    looks: u64,
    /// Looks at which two clients held different pods.
    disagreements: u64,
    /// How often a client held another pod than before.
    changes: u64,
}

/// A bit for each pair of client and pod.
struct Pairs {
    pods: usize,
    bits: Vec<u64>,
}

impl Tally {
    pub(crate) fn new(begin: Nanos, clients: u32, pods: u32) -> Self {
        // Three digits, up to an hour in microseconds.
        let histogram = || Histogram::new_with_max(3_600_000_000, 3).expect("valid bounds");
        let pairs = clients as usize * pods as usize;
        Self {
            begin,
            latency: histogram(),
            mean: 0.0,
            work: 0.0,
            requests: 0,
            ends: [0; 5],
            retries: 0,
            probes: 0,
            idle: 0,
            received: vec![0; pods as usize],
            second: vec![0; pods as usize],
            seconds: 0,
            uneven: 0.0,
            load: histogram(),
            pairs: Pairs {
                pods: pods as usize,
                bits: vec![0; pairs.div_ceil(64)],
            },
            pods,
            holdings: Holdings::default(),
            timeline: Vec::new(),
            lessons: vec![0; clients as usize],
        }
    }

    /// A request of so much work arrives.
    pub(crate) fn offered(&mut self, now: Nanos, work: Nanos) {
        if now >= self.begin {
            self.work += work as f64;
        }
    }

    /// An attempt goes to a pod.
    pub(crate) fn sent(&mut self, now: Nanos, client: u32, pod: u32, is_odd: bool, is_idle: bool) {
        let second = (now / SECOND) as usize;
        if self.timeline.len() <= second {
            self.timeline.resize(second + 1, (0, 0));
        }
        self.timeline[second].0 += 1;
        self.timeline[second].1 += u64::from(is_odd);
        if now >= self.begin {
            self.received[pod as usize] += 1;
            self.second[pod as usize] += 1;
            self.idle += u64::from(is_idle);
            let pair = client as usize * self.pairs.pods + pod as usize;
            self.pairs.bits[pair / 64] |= 1 << (pair % 64);
        }
    }

    /// A request that arrived at `arrived` ended.
    pub(crate) fn ended(&mut self, now: Nanos, arrived: Nanos, end: End) {
        if arrived < self.begin {
            return;
        }
        self.requests += 1;
        self.ends[end as usize] += 1;
        if end == End::Success {
            let took = now - arrived;
            self.latency.saturating_record(took.div_ceil(MICRO));
            // Exact, unlike the histogram: the check against the formula needs it.
            self.mean += (took as f64 / 1e6 - self.mean) / self.ends[0] as f64;
        }
    }

    /// Ten times a second: how many requests are at each pod. Once a second: how even it was.
    pub(crate) fn sample(&mut self, now: Nanos, loads: impl Iterator<Item = u32>) {
        if now < self.begin {
            return;
        }
        for load in loads {
            self.load.saturating_record(load.into());
        }
        if now.is_multiple_of(SECOND) {
            let sum: u32 = self.second.iter().sum();
            let used = self.second.iter().filter(|&&count| count > 0).count();
            if sum > 0 && now >= self.begin + SECOND {
                let max = self.second.iter().max().map_or(0, |&max| max);
                self.uneven += f64::from(max) * used as f64 / f64::from(sum);
                self.seconds += 1;
            }
            self.second.fill(0);
        }
    }

    /// Ten times a second: which pod each client holds on to.
    pub(crate) fn holdings(&mut self, now: Nanos, held: impl Iterator<Item = u32>) {
        if now < self.begin {
            return;
        }
        let holdings = &mut self.holdings;
        let held: Vec<u32> = held.collect();
        let differs = |(one, other): &(&u32, &u32)| one != other;
        holdings.looks += u64::from(!held.is_empty());
        let pairs = held.iter().zip(held.iter().skip(1));
        holdings.disagreements += u64::from(pairs.filter(differs).count() > 0);
        let changes = held.iter().zip(&holdings.last).filter(differs).count();
        holdings.changes += changes as u64;
        holdings.last = held;
    }

    /// What it comes to.
    pub(crate) fn figures(&self, odd: u32, span: Option<(Nanos, Nanos)>) -> Figures {
        let ms = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        let sum = self.received.iter().sum::<u64>().max(1) as f64;
        let used = self.received.iter().filter(|&&count| count > 0).count();
        let max = self.received.iter().max().map_or(0, |&max| max);
        let fair = f64::from(odd) / f64::from(self.pods);
        let share = |from: u64, to: u64| {
            let range = self
                .timeline
                .get(from as usize..(to as usize).min(self.timeline.len()));
            let (all, odd) = range
                .unwrap_or_default()
                .iter()
                .fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
            odd as f64 / (all.max(1) as f64 * fair)
        };
        let failed: u64 = self.ends[1..].iter().sum();
        let begin = self.begin / SECOND;
        let last = self.timeline.len() as u64;
        let (from, until) = span.map_or((begin, last), |(from, until)| {
            (from / SECOND, (until / SECOND).min(last))
        });
        Figures {
            mean: self.mean,
            p50: ms(0.5),
            p99: ms(0.99),
            p999: ms(0.999),
            requests: self.requests,
            errors: failed as f64 / self.requests.max(1) as f64,
            failed,
            turned_away: self.ends[End::TurnedAway as usize],
            work: self.work,
            max_mean: max as f64 * used as f64 / sum,
            max_mean_second: self.uneven / self.seconds.max(1) as f64,
            odd: (odd > 0).then(|| share(from, until)),
            odd_at_once: (odd > 0).then(|| share(from + 1, from + 2)),
            odd_after: (odd > 0 && until + 10 <= last).then(|| share(until + 2, until + 10)),
            connections: self
                .pairs
                .bits
                .iter()
                .map(|bits| u64::from(bits.count_ones()))
                .sum(),
            spread: 1.0,
            fewest: 1.0,
            disagree: (self.holdings.looks > 0)
                .then(|| self.holdings.disagreements as f64 / self.holdings.looks as f64),
            changes: self.holdings.changes,
            load_p99: self.load.value_at_quantile(0.99),
            load_max: self.load.max(),
            retries: self.retries,
            probes: self.probes as f64 / self.requests.max(1) as f64,
            idle: self.idle as f64 / sum,
            lessons: self.lessons.iter().max().map_or(0, |&max| max),
        }
    }
}

/// A run, in numbers. Milliseconds where it is time.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) requests: u64,
    /// The share that failed.
    pub(crate) errors: f64,
    pub(crate) failed: u64,
    /// For which there was no endpoint.
    pub(crate) turned_away: u64,
    /// Nanoseconds of work that arrived.
    pub(crate) work: f64,
    /// Of the attempts that pods got: over the run, and second by second.
    pub(crate) max_mean: f64,
    pub(crate) max_mean_second: f64,
    /// What odd pods got while they were odd, in units of a fair share.
    pub(crate) odd: Option<f64>,
    /// The same, in the second second.
    pub(crate) odd_at_once: Option<f64>,
    /// The same, from 2 s to 10 s after it ended.
    pub(crate) odd_after: Option<f64>,
    /// Pairs of client and pod that had a request.
    pub(crate) connections: u64,
    /// The most clients that have a pod in their subset, relative to the mean.
    pub(crate) spread: f64,
    /// The least share of its set that a client had available at any moment.
    pub(crate) fewest: f64,
    /// The share of time in which two clients held different pods, where they hold any.
    pub(crate) disagree: Option<f64>,
    /// How often clients held another pod than before.
    pub(crate) changes: u64,
    pub(crate) load_p99: u64,
    pub(crate) load_max: u64,
    pub(crate) retries: u64,
    /// For each request.
    pub(crate) probes: f64,
    /// The share of picks whose client had nothing in flight there.
    pub(crate) idle: f64,
    /// The most failures that a client saw at odd pods in the first 10 s.
    pub(crate) lessons: u32,
}

//! What the library's policies are compared with, and does not have: written for this simulation alone.
//!
//! They are idealised. C3 knows how many clients there are and has no rate control; Prequal has our
//! estimate at the server and not the guard that its authors mention without details; raw peak EWMA
//! lacks the circuit breakers that stand around it in Finagle and Linkerd.

use std::collections::VecDeque;

use headless_lb::{Candidates, Choice, Endpoint, EndpointSet};
use rand::RngExt;

use super::{
    client::pod_of,
    engine::{Nanos, SECOND},
    pod::Feedback,
    traffic::Stream,
};

/// A rule that needs more than a policy is told: feedback of the pods, or probes.
pub(crate) trait Peer: Send {
    fn pick<'a>(&mut self, now: Nanos, candidates: Candidates<'a>) -> Option<Choice<'a>>;

    /// A request got an answer, good or not, or none in time.
    fn answered(&mut self, now: Nanos, pod: u32, took: Nanos, feedback: Feedback);

    /// Which pods to ask how they are, along with a request.
    fn probes(&mut self, set: &EndpointSet) -> Vec<u32> {
        let _ = set;
        Vec::new()
    }

    /// A pod says how it is.
    fn probed(&mut self, now: Nanos, pod: u32, feedback: Feedback) {
        let _ = (now, pod, feedback);
    }
}

/// What is remembered of each pod, by number.
struct Memory<T>(Vec<T>);

impl<T: Clone + Default> Memory<T> {
    fn of(&mut self, endpoint: &Endpoint) -> &T {
        self.at(pod_of(endpoint))
    }

    fn at(&mut self, pod: u32) -> &mut T {
        let pod = pod as usize;
        if self.0.len() <= pod {
            self.0.resize(pod + 1, T::default());
        }
        &mut self.0[pod]
    }
}

/// `count` different numbers below `n`, all of them if there are no more.
fn distinct(stream: &mut Stream, n: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count.min(n) {
        let one = stream.random_range(0..n);
        if !drawn.contains(&one) {
            drawn.push(one);
        }
    }
    drawn.into_iter()
}

/// The candidate of least cost.
fn cheapest<'a>(
    candidates: Candidates<'a>,
    among: impl Iterator<Item = usize>,
    mut cost: impl FnMut(&Endpoint) -> f64,
) -> Option<Choice<'a>> {
    let costs = among.filter_map(|i| {
        let choice = candidates.choose(i)?;
        Some((cost(choice.endpoint()), choice))
    });
    let best = costs.min_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map(|(_, choice)| choice)
}

/// Peak EWMA as its authors have it: an error is a sample like any other, and a fast one a good sample.
pub(crate) struct RawPeak {
    stream: Stream,
    seen: Memory<Option<Peak>>,
}

#[derive(Clone, Copy)]
struct Peak {
    seconds: f64,
    at: Nanos,
}

impl RawPeak {
    const TAU: f64 = 10e9;
    const SEED: f64 = 0.030;

    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            seen: Memory(Vec::new()),
        }
    }

    fn weight(now: Nanos, at: Nanos) -> f64 {
        (-((now - at) as f64) / Self::TAU).exp()
    }
}

impl Peer for RawPeak {
    fn pick<'a>(&mut self, now: Nanos, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let pair = distinct(&mut self.stream, candidates.len(), 2);
        cheapest(candidates, pair, |endpoint| {
            let estimate = match self.seen.of(endpoint) {
                Some(peak) => peak.seconds * Self::weight(now, peak.at),
                None => Self::SEED,
            };
            estimate * f64::from(endpoint.pending() + 1)
        })
    }

    fn answered(&mut self, now: Nanos, pod: u32, took: Nanos, _: Feedback) {
        let took = took as f64 / 1e9;
        let known = self.seen.at(pod);
        let (old, weight) = known.map_or((Self::SEED, 0.0), |peak| {
            (peak.seconds, Self::weight(now, peak.at))
        });
        let seconds = if took > old * weight {
            took
        } else {
            old * weight + took * (1.0 - weight)
        };
        *known = Some(Peak { seconds, at: now });
    }
}

/// C3 (Suresh et al., NSDI 2015): the cube of the queue that a pod is expected to have, times what it needs for one.
pub(crate) struct C3 {
    stream: Stream,
    clients: f64,
    seen: Memory<Replica>,
}

#[derive(Clone, Copy, Default)]
struct Replica {
    response: f64,
    service: f64,
    queue: f64,
    known: bool,
}

impl C3 {
    const CHOICES: usize = 3;
    /// The weight of a new sample in the authors' code.
    const NEW: f64 = 0.9;

    pub(crate) fn new(stream: Stream, clients: u32) -> Self {
        Self {
            stream,
            clients: f64::from(clients),
            seen: Memory(Vec::new()),
        }
    }
}

impl Peer for C3 {
    fn pick<'a>(&mut self, _: Nanos, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let some = distinct(&mut self.stream, candidates.len(), Self::CHOICES);
        cheapest(candidates, some, |endpoint| {
            let replica = *self.seen.of(endpoint);
            let pending = f64::from(endpoint.pending());
            let queue = 1.0 + pending * self.clients + replica.queue;
            replica.response - replica.service + queue.powi(3) * replica.service
        })
    }

    fn answered(&mut self, _: Nanos, pod: u32, took: Nanos, feedback: Feedback) {
        let replica = self.seen.at(pod);
        let weight = if replica.known { Self::NEW } else { 1.0 };
        let mix = |old: &mut f64, new: f64| *old += weight * (new - *old);
        mix(&mut replica.response, took as f64 / 1e9);
        mix(&mut replica.service, f64::from(feedback.micros) / 1e6);
        mix(&mut replica.queue, f64::from(feedback.in_flight));
        replica.known = true;
    }
}

/// Prequal (Wydrowski et al., NSDI 2024): a pool of fresh probe answers; of the pods that are not
/// hot the fastest, else the least loaded.
pub(crate) struct Prequal {
    stream: Stream,
    pool: Vec<Answer>,
    /// How many pods there are to ask.
    size: u32,
    /// Loads that were seen lately, and how often each.
    loads: VecDeque<u32>,
    counts: Vec<u32>,
    remove_worst: bool,
}

#[derive(Clone, Copy)]
struct Answer {
    pod: u32,
    in_flight: u32,
    micros: u32,
    at: Nanos,
    uses: u32,
}

impl Prequal {
    const POOL: usize = 16;
    const PROBES: usize = 3;
    const MAX_AGE: Nanos = SECOND;
    const HOT: f64 = 0.84;
    const SEEN: usize = 128;

    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            pool: Vec::new(),
            size: 0,
            loads: VecDeque::new(),
            counts: Vec::new(),
            remove_worst: false,
        }
    }

    /// Pods with more in flight than this are hot.
    fn threshold(&self) -> u32 {
        let limit = (Self::HOT * self.loads.len() as f64) as u32;
        let mut below = 0;
        for (load, count) in (0..).zip(&self.counts) {
            below += count;
            if below > limit {
                return load;
            }
        }
        u32::MAX
    }

    fn see(&mut self, load: u32) {
        let at = load as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.loads.push_back(load);
        if self.loads.len() > Self::SEEN
            && let Some(oldest) = self.loads.pop_front()
        {
            self.counts[oldest as usize] -= 1;
        }
    }

    /// One leaves with each request: the oldest and the worst in turn.
    fn remove_one(&mut self, threshold: u32) {
        let worst = |answer: &Answer| match answer.in_flight > threshold {
            true => (1, answer.in_flight),
            false => (0, answer.micros),
        };
        let pool = self.pool.iter().enumerate();
        let leaves = if self.remove_worst {
            pool.max_by_key(|(_, answer)| worst(answer))
        } else {
            pool.min_by_key(|(_, answer)| answer.at)
        };
        if let Some((at, _)) = leaves {
            self.pool.remove(at);
        }
        self.remove_worst = !self.remove_worst;
    }
}

impl Peer for Prequal {
    fn pick<'a>(&mut self, now: Nanos, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        self.pool
            .retain(|answer| now - answer.at <= Self::MAX_AGE && answer.uses > 0);
        let threshold = self.threshold();
        let best = (self.pool.len() >= 2).then(|| {
            let order = |answer: &Answer| match answer.in_flight > threshold {
                true => (1, answer.in_flight),
                false => (0, answer.micros),
            };
            let pool = self.pool.iter().enumerate();
            pool.min_by_key(|(_, answer)| order(answer))
                .map(|(at, _)| at)
        });
        let choice = best.flatten().and_then(|at| {
            let answer = &mut self.pool[at];
            answer.uses -= 1;
            let pod = answer.pod;
            let place = candidates.iter().position(|one| pod_of(one) == pod)?;
            candidates.choose(place)
        });
        let choice = choice.or_else(|| match candidates.len() {
            0 => None,
            n => candidates.choose(self.stream.random_range(0..n)),
        })?;
        let pod = pod_of(choice.endpoint());
        for answer in self.pool.iter_mut().filter(|answer| answer.pod == pod) {
            answer.in_flight += 1;
        }
        self.remove_one(threshold);
        Some(choice)
    }

    fn answered(&mut self, _: Nanos, _: u32, _: Nanos, _: Feedback) {}

    fn probes(&mut self, set: &EndpointSet) -> Vec<u32> {
        self.size = set.len() as u32;
        let drawn = distinct(&mut self.stream, set.len(), Self::PROBES);
        drawn
            .filter_map(|i| set.iter().nth(i).map(|endpoint| pod_of(endpoint)))
            .collect()
    }

    fn probed(&mut self, now: Nanos, pod: u32, feedback: Feedback) {
        self.see(feedback.in_flight);
        // Each probe serves so many requests that the pool neither runs dry nor grows old (the authors' formula, delta 1).
        let n = f64::from(self.size.max(2));
        let share = (Self::POOL as f64).min(n / 2.0) / n;
        let uses = (2.0 / ((1.0 - share) * Self::PROBES as f64 - 1.0)).max(1.0);
        let uses = uses as u32 + u32::from(self.stream.random_bool(uses.fract()));
        self.pool.retain(|answer| answer.pod != pod);
        self.pool.push(Answer {
            pod,
            in_flight: feedback.in_flight,
            micros: feedback.micros,
            at: now,
            uses,
        });
        let room = Self::POOL.min((n / 2.0) as usize);
        while self.pool.len() > room {
            self.pool.remove(0);
        }
    }
}

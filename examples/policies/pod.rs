//! A pod: workers behind one queue. A request whose caller gave up still costs what it costs.

use std::collections::VecDeque;

use super::engine::Nanos;

/// How a pod treats what reaches it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Serves,
    /// Answers this share of requests with an error, at once; serves the others.
    Fails(f64),
    /// Answers at once that all is well, and does nothing.
    Lies,
    /// Answers nothing, and what it had in its queue neither.
    Hangs,
    /// Refuses connections; finishes what it had accepted.
    Refuses,
    /// Nothing that is sent arrives any more; finishes what it had accepted.
    Silent,
}

/// Which attempt of which request; a caller that gave up knows neither of them any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) slot: u32,
    pub(crate) number: u32,
    pub(crate) pod: u32,
    pub(crate) attempt: u8,
}

/// What reaches a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) work: Nanos,
    pub(crate) coin: u32,
}

/// What a pod says of itself with an answer, for those who look at it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Feedback {
    /// Requests in flight here.
    pub(crate) in_flight: u32,
    /// How long this one was served, in microseconds; for a probe: how long a request takes at such a load.
    pub(crate) micros: u32,
}

/// Which worker begins, and how long it will take.
pub(crate) type Begun = (u32, Nanos);

#[derive(Clone, Copy)]
struct Accepted {
    job: Job,
    at: Nanos,
    in_flight: u32,
    service: Nanos,
}

pub(crate) struct Pod {
    pub(crate) mode: Mode,
    /// Work done in a second, in seconds.
    pub(crate) speed: f64,
    workers: Vec<Option<Accepted>>,
    busy: u32,
    queue: VecDeque<Accepted>,
    estimate: Estimate,
}

impl Pod {
    pub(crate) fn new(workers: u32, speed: f64) -> Self {
        Self {
            mode: Mode::Serves,
            speed,
            workers: vec![None; workers as usize],
            busy: 0,
            queue: VecDeque::new(),
            estimate: Estimate::default(),
        }
    }

    /// Served and waiting.
    pub(crate) fn in_flight(&self) -> u32 {
        self.busy + self.queue.len() as u32
    }

    /// Takes a job: the worker that begins at once and how long it will take, if one is idle.
    pub(crate) fn accept(&mut self, now: Nanos, job: Job) -> Option<Begun> {
        self.queue.push_back(Accepted {
            job,
            at: now,
            in_flight: self.in_flight(),
            service: 0,
        });
        self.begin()
    }

    /// A worker is done: what it did, and what it or another one begins.
    pub(crate) fn finish(
        &mut self,
        now: Nanos,
        worker: u32,
    ) -> (Option<(Ticket, Feedback)>, Option<Begun>) {
        let done = self.workers[worker as usize].take();
        self.busy -= u32::from(done.is_some());
        let answer = done.filter(|_| self.mode != Mode::Hangs).map(|done| {
            self.estimate.record(done.in_flight, now - done.at);
            let feedback = Feedback {
                in_flight: self.in_flight(),
                micros: (done.service / 1_000) as u32,
            };
            (done.job.ticket, feedback)
        });
        (answer, self.begin())
    }

    /// The answer to a probe.
    pub(crate) fn probed(&self) -> Feedback {
        let in_flight = self.in_flight();
        // One that fails fast is quick in its own eyes.
        let micros = match self.mode {
            Mode::Fails(_) | Mode::Lies => 0,
            _ => self.estimate.at(in_flight),
        };
        Feedback { in_flight, micros }
    }

    /// The oldest in the queue goes to an idle worker. How fast the pod is counts when work begins.
    fn begin(&mut self) -> Option<Begun> {
        let idle = self.workers.iter().position(Option::is_none)?;
        let mut next = self.queue.pop_front()?;
        next.service = (next.job.work as f64 / self.speed) as Nanos;
        self.workers[idle] = Some(next);
        self.busy += 1;
        Some((idle as u32, next.service))
    }
}

/// How long requests took that met so many in flight: what a Prequal-like server tells.
#[derive(Default)]
struct Estimate {
    /// Microseconds, smoothed; 0: not known yet.
    by_load: Vec<f32>,
}

impl Estimate {
    const SMOOTH: f32 = 0.1;
    const LOADS: usize = 64;

    fn record(&mut self, in_flight: u32, took: Nanos) {
        let (load, took) = (Self::bucket(in_flight), (took / 1_000) as f32);
        if self.by_load.len() <= load {
            self.by_load.resize(load + 1, 0.0);
        }
        let known = &mut self.by_load[load];
        *known = if *known == 0.0 {
            took
        } else {
            *known + Self::SMOOTH * (took - *known)
        };
    }

    /// The nearest load that is known.
    fn at(&self, in_flight: u32) -> u32 {
        let load = Self::bucket(in_flight);
        let known = self.by_load.iter().enumerate();
        let nearest = known
            .filter(|(_, micros)| **micros > 0.0)
            .min_by_key(|(at, _)| at.abs_diff(load));
        nearest.map_or(0, |(_, micros)| *micros as u32)
    }

    fn bucket(in_flight: u32) -> usize {
        (in_flight as usize).min(Self::LOADS - 1)
    }
}

//! The same traffic for every contestant: an open loop, with moments and work that a seed decides.

use std::{iter, sync::Arc, time::Duration};

use headless_lb::{Balancer, HttpPod};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tower::ServiceExt;

use crate::fleet::{Fleet, PODS, WORK};

/// The mean work of a request, in seconds.
const MEAN_WORK: f64 = 0.020;

/// Of what ten healthy pods can do.
const LOAD: f64 = 0.7;

/// What takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Traffic {
    requests: Arc<[Arrival]>,
    warm_up: Duration,
    length: Duration,
}

struct Arrival {
    at: Duration,
    client: usize,
    work: Duration,
}

impl Traffic {
    pub(crate) fn of(seed: u64, clients: usize, warm_up: Duration, time: Duration) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let rate = PODS as f64 * LOAD / MEAN_WORK;
        let exponential = |mean: f64| Exp::new(mean.recip()).expect("a mean above zero");
        let (gap, work) = (exponential(rate.recip()), exponential(MEAN_WORK));
        let (mut at, length) = (Duration::ZERO, warm_up + time);
        let requests = iter::from_fn(|| {
            at += Duration::from_secs_f64(gap.sample(&mut rng));
            (at < length).then(|| Arrival {
                at,
                client: rng.random_range(0..clients),
                work: Duration::from_secs_f64(work.sample(&mut rng)),
            })
        });
        Self {
            requests: requests.collect(),
            warm_up,
            length,
        }
    }

    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    pub(crate) fn measured(&self) -> usize {
        let measured = |arrival: &&Arrival| arrival.at >= self.warm_up;
        self.requests.iter().filter(measured).count()
    }
}

/// What became of the measured requests.
pub(crate) struct Figures {
    /// Of those that succeeded, ascending.
    latencies: Vec<Duration>,
    pub(crate) failed: usize,
    /// How long after its time one request in a hundred left, at least.
    pub(crate) late: Duration,
    /// How many requests each pod had while it was measured, the odd one last.
    served: Vec<u64>,
}

impl Figures {
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).ceil() as usize;
        self.latencies.get(place).copied().unwrap_or(DEADLINE)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Of all requests.
    pub(crate) fn failures(&self) -> f64 {
        self.failed as f64 / (self.failed + self.latencies.len()).max(1) as f64
    }

    /// What the odd pod had of them.
    pub(crate) fn odd_share(&self) -> f64 {
        let total = self.served.iter().sum::<u64>().max(1);
        self.served.last().copied().unwrap_or(0) as f64 / total as f64
    }
}

pub(crate) async fn run(
    fleet: &Fleet,
    clients: Vec<Balancer<HttpPod>>,
    traffic: &Traffic,
    start: Instant,
) -> Figures {
    let (mut calls, mut before, mut lags) = (JoinSet::new(), None, Vec::new());
    for arrival in &*traffic.requests {
        let due = start + arrival.at;
        sleep_until(due).await;
        lags.push(due.elapsed());
        let is_measured = arrival.at >= traffic.warm_up;
        if is_measured && before.is_none() {
            before = Some(fleet.served());
        }
        let call = call(clients[arrival.client].clone(), arrival.work, due);
        calls.spawn(async move { (is_measured, call.await) });
    }
    let results = calls.join_all().await;
    let measured = || results.iter().filter(|(is_measured, _)| *is_measured);
    let mut latencies: Vec<_> = measured().filter_map(|(_, result)| *result).collect();
    latencies.sort_unstable();
    let before = before.unwrap_or_else(|| vec![0; PODS]);
    lags.sort_unstable();
    Figures {
        late: lags.get(lags.len() * 99 / 100).copied().unwrap_or_default(),
        failed: measured().count() - latencies.len(),
        latencies,
        served: iter::zip(fleet.served(), before)
            .map(|(after, before)| after - before)
            .collect(),
    }
}

/// The time from when it was due, if it succeeds.
async fn call(client: Balancer<HttpPod>, work: Duration, due: Instant) -> Option<Duration> {
    let answer = async {
        let request = Request::get("http://catalog.ranking/")
            .header(WORK, work.as_micros() as u64)
            .body(Empty::<Bytes>::new())
            .ok()?;
        let response = client.oneshot(request).await.ok()?;
        let is_good = response.status().is_success();
        response.into_body().collect().await.ok()?;
        is_good.then(|| due.elapsed())
    };
    timeout_at(due + DEADLINE, answer).await.ok().flatten()
}

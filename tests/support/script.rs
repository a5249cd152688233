//! A resolver that says what the test tells it to, and remembers when it was asked.

use std::{
    borrow::Cow,
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use headless_lb::{Address, Resolution, Resolve, ResolveError, ResolveErrorKind};
use tokio::time::{Instant, sleep};

#[expect(
    clippy::disallowed_types,
    reason = "a test's script, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

pub type Answer = Result<Resolution, ResolveError>;

/// Clones share the script.
#[derive(Clone)]
pub struct Script {
    state: Arc<Mutex<State>>,
    start: Instant,
}

struct State {
    next: VecDeque<Answer>,
    then: Box<dyn Fn(Duration) -> Answer + Send>,
    takes: Duration,
    asked: Vec<Duration>,
}

impl Script {
    /// Always the same answer, until told otherwise.
    pub fn new(answer: Answer) -> Self {
        Self::from_fn(move |_| answer.clone())
    }

    /// An answer for each moment, counted from now.
    pub fn from_fn(answer: impl Fn(Duration) -> Answer + Send + 'static) -> Self {
        let state = State {
            next: VecDeque::new(),
            then: Box::new(answer),
            takes: Duration::ZERO,
            asked: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            start: Instant::now(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this.
    pub fn say(&self, answer: Answer) {
        self.state().then = Box::new(move |_| answer.clone());
    }

    /// Before that, these, one a question.
    pub fn say_next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().next.extend(answers);
    }

    /// How long an answer takes.
    pub fn takes(&self, time: Duration) {
        self.state().takes = time;
    }

    /// When the questions came, since the script was made.
    pub fn asked(&self) -> Vec<Duration> {
        self.state().asked.clone()
    }

    /// The times between questions, from the one number `from` on, in seconds.
    pub fn waits(&self, from: usize) -> Vec<f64> {
        let asked = self.asked();
        asked[from..]
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect()
    }
}

impl Resolve for Script {
    async fn resolve(&self) -> Answer {
        let (answer, takes) = {
            let now = self.start.elapsed();
            let mut state = self.state();
            state.asked.push(now);
            // What the source knew when it was asked, however long it takes to say so.
            let answer = state.next.pop_front().unwrap_or_else(|| (state.then)(now));
            (answer, state.takes)
        };
        if !takes.is_zero() {
            sleep(takes).await;
        }
        answer
    }

    fn service(&self) -> Cow<'_, str> {
        Cow::Borrowed("web.default")
    }
}

/// The pod 10.0.0.`host`.
pub fn pod(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

/// These pods, with TTL 30 as kubeadm's CoreDNS says.
pub fn pods(hosts: impl IntoIterator<Item = u8>) -> Answer {
    Ok(Resolution::new(hosts.into_iter().map(pod)).valid_for(Duration::from_secs(30)))
}

/// Pods with names, as from SRV.
pub fn named(pods: impl IntoIterator<Item = (&'static str, u8)>) -> Answer {
    Ok(pods
        .into_iter()
        .map(|(name, host)| Address::from(pod(host)).named(name))
        .collect())
}

/// NXDOMAIN, with the negative TTL of an uncached answer.
pub fn nxdomain() -> Answer {
    nxdomain_for(30)
}

/// NXDOMAIN, with that many seconds to live.
pub fn nxdomain_for(ttl: u64) -> Answer {
    Err(ResolveError::of(ResolveErrorKind::NxDomain).holds_for(Duration::from_secs(ttl)))
}

/// SERVFAIL.
pub fn servfail() -> Answer {
    Err(ResolveError::of(ResolveErrorKind::ServFail).detail("A web.default. at 10.96.0.10:53"))
}

/// The last bytes of the addresses of a set, ascending.
pub fn hosts(set: &headless_lb::EndpointSet) -> Vec<u8> {
    let last = |addr: SocketAddr| match addr {
        SocketAddr::V4(addr) => addr.ip().octets()[3],
        SocketAddr::V6(addr) => addr.ip().octets()[15],
    };
    let mut hosts: Vec<u8> = set.iter().map(|endpoint| last(endpoint.addr())).collect();
    hosts.sort_unstable();
    hosts
}

//! The registry against a naive model, over many random histories on a hand-moved clock.
//!
//! The model is written for reading, not for speed: maps and sets, one rule after the other. A failing
//! history prints its seed and its events; `HEADLESS_LB_SEED=n` runs that one alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicU8,
            Ordering::{Acquire, Release},
        },
        mpsc,
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{Config, NewService, Registry};
use crate::{
    endpoint::Endpoint,
    outcome::{Cause, Outcome},
    resolve::{Resolution, ResolveError, ResolveErrorKind},
    set::{EndpointSet, Position},
};

const HISTORIES: u64 = 12_000;
const EVENTS: usize = 40;
const HOSTS: u8 = 10;
const SECOND: Duration = Duration::from_secs(1);

type Hosts = BTreeSet<u8>;

#[derive(Clone, Debug)]
enum Event {
    Advance(Duration),
    Answer(Hosts),
    Partial(Hosts),
    Empty {
        negative_ttl: u64,
    },
    Fail,
    Refuse(u8),
    Accept(u8),
    /// So many requests to it fail.
    Break(u8, u32),
    Serve(u8),
    Refresh,
}

fn random_event(rng: &mut SmallRng, last: &Hosts) -> Event {
    let mut hosts = |share| {
        (0..HOSTS)
            .filter(|_| rng.random_bool(share))
            .collect::<Hosts>()
    };
    let (few, many) = (hosts(0.2), hosts(0.8));
    match rng.random_range(0..26) {
        0..5 => Event::Advance(SECOND.mul_f64(rng.random_range(0.0..9.0))),
        5 => Event::Advance(SECOND.mul_f64(rng.random_range(0.0..60.0))),
        6 => Event::Answer(many),
        7 | 8 => Event::Answer(last.clone()),
        9 | 10 => Event::Answer(last ^ &few),
        11 => Event::Partial(few),
        12..15 => Event::Empty {
            negative_ttl: [0, 5, 25, 30][rng.random_range(0..4)],
        },
        15 => Event::Fail,
        16 | 17 => Event::Refuse(rng.random_range(0..HOSTS)),
        18 => Event::Accept(rng.random_range(0..HOSTS)),
        20..24 => Event::Break(rng.random_range(0..HOSTS), rng.random_range(1..7)),
        24 | 25 => Event::Serve(rng.random_range(0..HOSTS)),
        _ => Event::Refresh,
    }
}

#[derive(Debug, Default)]
struct Model {
    max_stale: Option<Duration>,
    warm_up: Option<Duration>,
    /// Endpoints that DNS tells of, with how many whole answers in a row lacked them. In the set, but
    /// for those that wait to be.
    listed: BTreeMap<u8, u32>,
    /// Those that wait for a connect, and until when.
    warming: BTreeMap<u8, Instant>,
    /// Endpoints that left the set, and when.
    absent: BTreeMap<u8, Instant>,
    /// The last time that an answer listed it.
    seen: BTreeMap<u8, Instant>,
    /// Absences in a row, and when the last began.
    refused: BTreeMap<u8, (u32, Instant)>,
    /// The empty answers that count: when, and for how long they hold.
    empties: Vec<(Instant, Duration)>,
    truncated: bool,
    /// What is thought of those that are thought of.
    opinions: BTreeMap<u8, Opinion>,
    /// Failures in a row.
    streaks: BTreeMap<u8, u32>,
    /// Ejections that are not forgiven.
    past: BTreeMap<u8, u32>,
    sweep_due: Option<Instant>,
    ejections: u64,
    /// The hosts in the order of their endpoints.
    order: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Opinion {
    Ejected { until: Instant },
    Trial { served: bool, broke: bool },
}

impl Model {
    fn tick(&mut self, now: Instant, published: &Hosts) {
        self.absent.retain(|_, since| now < *since + 30 * SECOND);
        let limit = match self.max_stale {
            None if !self.truncated => Duration::MAX,
            limit => limit.unwrap_or(600 * SECOND),
        };
        let stays = |model: &Self, host: &u8| {
            let fresh = now - model.seen[host] < limit;
            let ejected = || {
                model
                    .is_ejected(*host, now)
                    .unwrap_or_else(|| !published.contains(host))
            };
            fresh || (model.truncated && !ejected())
        };
        let gone: Vec<u8> = self
            .listed
            .keys()
            .filter(|host| !stays(self, host))
            .copied()
            .collect();
        self.leave(now, &gone);
        self.warming.retain(|_, until| now < *until);
        self.forget();
    }

    /// Ends ejections, and forgives one to each that is neither ejected nor on trial, every 10 s.
    fn sweep(&mut self, now: Instant) {
        for (host, opinion) in &mut self.opinions {
            if matches!(opinion, Opinion::Ejected { until } if *until <= now) {
                *opinion = Opinion::Trial {
                    served: false,
                    broke: false,
                };
                self.streaks.remove(host);
            }
        }
        if self.sweep_due.is_some_and(|due| due <= now) {
            self.sweep_due = None;
            for (host, past) in &mut self.past {
                if !self.opinions.contains_key(host) {
                    *past -= 1;
                }
            }
        }
    }

    /// When the next sweep is due, if there is something to forgive.
    fn plan(&mut self, now: Instant) {
        self.past.retain(|_, past| *past > 0);
        self.sweep_due = match self.past.is_empty() {
            true => None,
            false => self.sweep_due.or_else(|| Some(now + 10 * SECOND)),
        };
    }

    /// What the last requests say, of those that were in the set.
    fn judge(&mut self, now: Instant, members: &Hosts, refusing: &Hosts) {
        let mut suspects = Vec::new();
        for host in self.order.clone() {
            if !members.contains(&host) {
                continue;
            }
            match self.opinions.get(&host) {
                Some(Opinion::Ejected { .. }) => {}
                Some(Opinion::Trial { served: true, .. }) => {
                    self.opinions.remove(&host);
                }
                Some(Opinion::Trial { broke, .. }) => suspects.extend(broke.then_some(host)),
                None => {
                    let streak = self.streaks.get(&host).copied();
                    suspects.extend((streak.unwrap_or(0) >= 5).then_some(host));
                }
            }
        }
        for host in suspects {
            let free = |host: &u8| !self.is_doubted(*host) && !self.refuses(*host, now, refusing);
            let others = members
                .iter()
                .filter(|other| **other != host && free(other));
            let others = others.count();
            // Those on trial have nothing to show yet.
            let is_sure = |other: &&u8| **other != host && !self.opinions.contains_key(other);
            let sure = members.iter().filter(is_sure);
            let sure = sure.filter(|other| !self.refuses(**other, now, refusing));
            let is_last = sure.count() == 0;
            let ejected = members
                .iter()
                .filter(|other| self.is_doubted(**other))
                .count();
            let within_cap = ejected == 0 || 10 * ejected < members.len();
            if !is_last && within_cap && 2 * others >= members.len() {
                let past = self.past.entry(host).or_default();
                *past = (*past + 1).min(10);
                let until = now + 30 * SECOND * *past;
                self.opinions.insert(host, Opinion::Ejected { until });
                self.ejections += 1;
            }
        }
    }

    fn is_doubted(&self, host: u8) -> bool {
        matches!(self.opinions.get(&host), Some(Opinion::Ejected { .. }))
    }

    /// Where nobody can tell, it is as it is.
    fn refuses(&self, host: u8, now: Instant, refusing: &Hosts) -> bool {
        self.is_ejected(host, now)
            .unwrap_or_else(|| refusing.contains(&host))
    }

    /// Whether too few would be left if opinion counted.
    fn is_panic(&self, now: Instant, refusing: &Hosts) -> bool {
        let (total, doubted) = (
            self.live().count(),
            self.live().any(|host| self.is_doubted(host)),
        );
        let free = self
            .live()
            .filter(|host| !self.is_doubted(*host) && !self.refuses(*host, now, refusing));
        doubted && 2 * free.count() < total
    }

    /// What is known of endpoints that are gone for good.
    fn forget(&mut self) {
        let (listed, absent) = (&self.listed, &self.absent);
        let known = |host: &u8| listed.contains_key(host) || absent.contains_key(host);
        self.refused.retain(|host, _| known(host));
        self.opinions.retain(|host, _| known(host));
        self.streaks.retain(|host, _| known(host));
        self.past.retain(|host, _| known(host));
    }

    /// Nobody waits while no other endpoint takes connections.
    fn settle(&mut self, now: Instant, refusing: &Hosts) {
        let available = |host: &u8| !self.refuses(*host, now, refusing);
        if !self.live().any(|host| available(&host)) {
            self.warming.clear();
        }
    }

    fn live(&self) -> impl Iterator<Item = u8> {
        self.listed
            .keys()
            .copied()
            .filter(|host| !self.warming.contains_key(host))
    }

    /// The k-th absence in a row is 100 ms doubled k - 1 times, at most 10 s, give or take 20 %:
    /// in between, nobody can tell.
    fn is_ejected(&self, host: u8, now: Instant) -> Option<bool> {
        let Some((row, at)) = self.refused.get(&host) else {
            return Some(false);
        };
        let absence = (0.1 * 2_f64.powi(*row as i32 - 1)).min(10.0);
        match (now - *at).as_secs_f64() / absence {
            passed if passed < 0.8 => Some(true),
            passed if passed >= 1.2 => Some(false),
            _ => None,
        }
    }

    fn apply(
        &mut self,
        now: Instant,
        event: &Event,
        published: &BTreeMap<u8, Position>,
        refusing: &Hosts,
    ) {
        match event {
            Event::Answer(hosts) if hosts.is_empty() => {
                self.empty(now, None, published, refusing);
            }
            Event::Empty { negative_ttl } => {
                let ttl = Duration::from_secs(*negative_ttl);
                self.empty(now, Some(ttl), published, refusing);
            }
            Event::Answer(hosts) => {
                self.empties.clear();
                self.truncated = false;
                let before = self.listed.len();
                self.listed.values_mut().for_each(|misses| *misses += 1);
                self.add(now, hosts, published);
                let missing = self.listed.values().filter(|misses| **misses > 0).count();
                let enough = if missing * 2 > before { 2 } else { 1 };
                let gone: Vec<u8> = self
                    .listed
                    .iter()
                    .filter(|(_, misses)| **misses >= enough)
                    .map(|(host, _)| *host)
                    .collect();
                self.leave(now, &gone);
            }
            Event::Partial(hosts) => {
                self.truncated = true;
                self.add(now, hosts, published);
            }
            Event::Refuse(host) if self.listed.contains_key(host) => {
                self.warming.remove(host);
                // While ejected, more of the same says nothing new.
                if !self.refuses(*host, now, refusing) {
                    let row = self.refused.get(host).map_or(1, |(row, _)| row + 1);
                    self.refused.insert(*host, (row, now));
                }
            }
            Event::Refuse(host) => {
                self.absent.remove(host);
            }
            Event::Accept(host) => {
                self.warming.remove(host);
                self.refused.remove(host);
            }
            Event::Break(host, times) => {
                *self.streaks.entry(*host).or_default() += times;
                if let Some(Opinion::Trial { broke, .. }) = self.opinions.get_mut(host) {
                    *broke = true;
                }
            }
            Event::Serve(host) => {
                self.streaks.remove(host);
                if let Some(Opinion::Trial { served, .. }) = self.opinions.get_mut(host) {
                    *served = true;
                }
            }
            Event::Advance(_) | Event::Fail | Event::Refresh => {}
        }
        self.forget();
    }

    fn add(&mut self, now: Instant, hosts: &Hosts, published: &BTreeMap<u8, Position>) {
        let mut positions = published.values();
        let served = positions.any(|position| *position != Position::Ejected);
        for host in hosts {
            let returns = self.absent.remove(host).is_some();
            self.seen.insert(*host, now);
            let is_new = self.listed.insert(*host, 0).is_none() && !returns;
            if let Some(deadline) = self.warm_up.filter(|_| is_new && served) {
                self.warming.insert(*host, now + deadline);
            }
        }
    }

    fn leave(&mut self, now: Instant, hosts: &[u8]) {
        for host in hosts {
            self.listed.remove(host);
            if self.warming.remove(host).is_none() {
                self.absent.insert(*host, now);
            }
        }
    }

    fn empty(
        &mut self,
        now: Instant,
        ttl: Option<Duration>,
        published: &BTreeMap<u8, Position>,
        refusing: &Hosts,
    ) {
        if self.listed.is_empty() {
            self.empties.clear();
            self.truncated = false;
            return;
        }
        let repeats = self.empties.iter().any(|(then, before)| {
            let (Some(left), true) = (ttl, *before < Duration::MAX) else {
                return false;
            };
            let drift = (left + (now - *then)).as_secs_f64() - before.as_secs_f64();
            drift.abs() <= 1.0 && !before.is_zero()
        });
        if !repeats {
            self.empties.push((now, ttl.unwrap_or(Duration::MAX)));
        }
        let all_refuse = published.keys().all(|host| refusing.contains(host));
        if all_refuse || (self.empties.len() >= 3 && now >= self.empties[0].0 + 10 * SECOND) {
            self.empties.clear();
            self.truncated = false;
            let all: Vec<u8> = self.listed.keys().copied().collect();
            self.leave(now, &all);
        }
    }
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn host(endpoint: &Endpoint) -> u8 {
    (0..HOSTS)
        .find(|&host| addr(host) == endpoint.addr())
        .expect("an address of the history")
}

/// What a service was told last.
mod told {
    pub(super) const NOTHING: u8 = 0;
    pub(super) const REMOVED: u8 = 1;
    pub(super) const RETIRED: u8 = 2;
}

type Service = Arc<AtomicU8>;

/// Makes services that remember what they were told, and connect when asked to.
struct Pods(mpsc::Sender<(Arc<Endpoint>, Service)>);

impl NewService for Pods {
    type Service = Service;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> Service {
        let service = Service::default();
        let made = (Arc::clone(endpoint), Arc::clone(&service));
        self.0.send(made).expect("the run keeps the receiver");
        service
    }

    fn warm(&self, _: &Service) -> bool {
        true
    }

    fn removed(&self, service: &Service) {
        assert_eq!(service.swap(told::REMOVED, Release), told::NOTHING);
    }

    fn returned(&self, service: &Service) {
        assert_eq!(service.swap(told::NOTHING, Release), told::REMOVED);
    }

    fn retired(&self, service: &Service) {
        assert_ne!(service.swap(told::RETIRED, Release), told::RETIRED);
    }
}

/// One registry, its model, and what readers see.
struct Run {
    registry: Registry<Pods>,
    model: Model,
    set: Arc<EndpointSet>,
    made: mpsc::Receiver<(Arc<Endpoint>, Service)>,
    /// The endpoints made so far, with their services, without the retired ones that have successors;
    /// the newest last.
    endpoints: Vec<(Arc<Endpoint>, Service)>,
    /// The id of each endpoint that is known to the model, listed or absent.
    ids: BTreeMap<u8, u64>,
    /// Until when the services of endpoints drain that left the set.
    drains: BTreeMap<u64, Instant>,
}

impl Run {
    fn publish(&mut self, now: Instant) {
        let published = self.registry.publish();
        self.endpoints.extend(self.made.try_iter());
        if let Some(published) = published {
            let set = published.snapshot().set();
            assert!(
                set.generation() > self.set.generation(),
                "the generation must grow"
            );
            self.set = Arc::clone(set);
            for endpoint in published.removed() {
                self.drains.insert(endpoint.id(), now + 30 * SECOND);
            }
            for endpoint in published.added() {
                self.drains.remove(&endpoint.id());
            }
        }
        self.registry.tell_services();
    }

    fn positions(&self) -> BTreeMap<u8, Position> {
        self.set
            .positions()
            .map(|(position, endpoint)| (host(endpoint), position))
            .collect()
    }

    /// Who refuses connections, as the registry has it.
    fn refusing(&self) -> Hosts {
        let slots = self.registry.slots.iter();
        let refusing = slots.filter(|slot| slot.connectivity.is_ejected());
        refusing.map(|slot| host(&slot.endpoint)).collect()
    }

    fn step(&mut self, now: Instant, event: &Event) {
        self.registry.on_tick(now);
        self.publish(now);
        self.model.sweep(now);
        self.model
            .tick(now, &self.positions().into_keys().collect());
        self.model.settle(now, &self.refusing());
        self.model.plan(now);
        self.check(now);
        let (before, refusing) = (self.positions(), self.refusing());
        let of = |hosts: &Hosts| Resolution::new(hosts.iter().map(|&host| addr(host)));
        let answer = match event {
            Event::Answer(hosts) => Some(Ok(of(hosts))),
            Event::Partial(hosts) => Some(Ok(of(hosts).partial())),
            Event::Empty { negative_ttl } => {
                Some(Err(ResolveError::of(ResolveErrorKind::NxDomain)
                    .holds_for(Duration::from_secs(*negative_ttl))))
            }
            Event::Fail => Some(Err(ResolveError::of(ResolveErrorKind::ServFail))),
            _ => None,
        };
        let newest = |host: u8| {
            let mut endpoints = self.endpoints.iter().map(|(endpoint, _)| endpoint);
            endpoints.rfind(|endpoint| endpoint.addr() == addr(host))
        };
        match event {
            Event::Refuse(host) => newest(*host)
                .into_iter()
                .for_each(|endpoint| endpoint.unreachable(Cause::Refused)),
            Event::Accept(host) => newest(*host).into_iter().for_each(|endpoint| {
                endpoint.reached();
            }),
            Event::Break(host, times) => newest(*host).into_iter().for_each(|endpoint| {
                (0..*times).for_each(|_| endpoint.begin().record(Cause::Reset.into()));
            }),
            Event::Serve(host) => newest(*host)
                .into_iter()
                .for_each(|endpoint| endpoint.begin().record(Outcome::Success)),
            Event::Refresh => self.registry.on_refresh(now),
            _ => {}
        }
        let (members, is_answer) = (self.model.live().collect(), answer.is_some());
        match answer {
            Some(answer) => {
                self.registry.on_asked(now);
                self.registry.on_answer(now, answer);
            }
            None => self.registry.on_alarm(now),
        }
        self.publish(now);
        self.model.apply(now, event, &before, &refusing);
        if !is_answer {
            self.model.judge(now, &members, &self.refusing());
        }
        self.model.settle(now, &self.refusing());
        self.model.plan(now);
        self.check(now);
    }

    fn check(&mut self, now: Instant) {
        let positions = self.positions();
        assert!(
            positions.keys().copied().eq(self.model.live()),
            "{positions:?} for {:?}",
            self.model
        );
        let refusing = self.refusing();
        let is_panic = self.model.is_panic(now, &refusing);
        for (host, position) in &positions {
            let is_doubted = self.model.is_doubted(*host) && !is_panic;
            assert_eq!(
                *position == Position::Ejected,
                is_doubted || self.model.refuses(*host, now, &refusing),
                "host {host} of {:?}",
                self.model
            );
        }
        let status = self.registry.status();
        assert_eq!(
            (status.is_panic(), status.ejections()),
            (is_panic, self.model.ejections),
            "{:?}",
            self.model
        );
        let is_tried =
            |host: u8| matches!(self.model.opinions.get(&host), Some(Opinion::Trial { .. }));
        for endpoint in &*self.set {
            assert_eq!(
                endpoint.is_on_trial(),
                is_tried(host(endpoint)),
                "{endpoint} of {:?}",
                self.model
            );
        }
        assert_eq!(self.registry.sweep_due, self.model.sweep_due);
        let Model { listed, absent, .. } = &self.model;
        self.ids
            .retain(|host, _| listed.contains_key(host) || absent.contains_key(host));
        for endpoint in &*self.set {
            let id = self
                .ids
                .entry(host(endpoint))
                .or_insert_with(|| endpoint.id());
            assert_eq!(*id, endpoint.id(), "{endpoint} lost its history");
        }
        assert!(
            self.set.available().is_empty() == listed.is_empty(),
            "no failure and no wait may leave no candidate"
        );
        assert_eq!(self.registry.status().warming(), self.model.warming.len());
        self.check_services(now);
        assert!(
            self.registry.next_deadline().is_some(),
            "nothing would ever happen again"
        );
    }

    /// Services know what became of their endpoints: nothing while in the set or waiting to be, that it
    /// was removed while it drains, and in the end that it is gone.
    fn check_services(&mut self, now: Instant) {
        let (mut newest, mut old) = (Hosts::new(), BTreeSet::new());
        for (endpoint, service) in self.endpoints.iter().rev() {
            let is_newest = newest.insert(host(endpoint));
            let drains = self.drains.get(&endpoint.id());
            let expected = match drains {
                _ if is_newest && self.model.listed.contains_key(&host(endpoint)) => told::NOTHING,
                Some(end) if now < *end => told::REMOVED,
                _ => told::RETIRED,
            };
            assert_eq!(
                service.load(Acquire),
                expected,
                "{endpoint} of {:?}",
                self.model
            );
            if expected == told::RETIRED && !is_newest {
                old.insert(endpoint.id());
            }
        }
        self.endpoints
            .retain(|(endpoint, _)| !old.contains(&endpoint.id()));
    }
}

fn run(seed: u64, history: &mut Vec<Event>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut now = Instant::now();
    let max_stale = rng.random_bool(0.3).then(|| 40 * SECOND);
    let warm_up = rng.random_bool(0.5).then(|| 8 * SECOND);
    let config = Config {
        max_stale,
        warm_up,
        jitter_seed: seed,
        order_seed: seed,
        ..Config::default()
    };
    let (pods, made) = mpsc::channel();
    let registry = Registry::new("model", config, Pods(pods), now);
    let mut order: Vec<u8> = (0..HOSTS).collect();
    order.sort_by_key(|&host| crate::endpoint::rank(addr(host), seed));
    let model = Model {
        max_stale,
        warm_up,
        order,
        ..Model::default()
    };
    let set = Arc::new(EndpointSet::of(Vec::<SocketAddr>::new()));
    let mut run = Run {
        registry,
        model,
        set,
        made,
        endpoints: Vec::new(),
        ids: BTreeMap::new(),
        drains: BTreeMap::new(),
    };
    let mut last = Hosts::new();
    for _ in 0..EVENTS {
        let event = random_event(&mut rng, &last);
        history.push(event.clone());
        match &event {
            Event::Advance(by) => now += *by,
            Event::Answer(hosts) => last.clone_from(hosts),
            _ => {}
        }
        run.step(now, &event);
    }
}

#[test]
fn twelve_thousand_random_histories_give_the_sets_that_the_rules_give() {
    let given = std::env::var("HEADLESS_LB_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| crate::draw::Draw::from_thread().bits());
    let histories = if given.is_some() { 1 } else { HISTORIES };
    for seed in (0..histories).map(|i| first.wrapping_add(i)) {
        let mut history = Vec::new();
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &mut history)));
        assert!(
            result.is_ok(),
            "HEADLESS_LB_SEED={seed} fails at the end of {history:?}"
        );
    }
}

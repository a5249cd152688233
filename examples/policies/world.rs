//! A run: one scenario, one contestant, one seed. One thread, and nothing from outside.

use std::sync::OnceLock;

use rand::RngExt;
use tokio::time::{Duration, Instant};

use super::{
    client::{Chooser, Client, config},
    contestants::Contestant,
    engine::{MILLI, Nanos, Queue},
    incident::{Change, Life, To},
    pod::{Feedback, Job, Pod, Ticket},
    scenario::{DNS_LATE, Scenario},
    subsets,
    tally::{Figures, Tally},
    traffic::{Source, Stream, Traffic, seed_of, stream},
};
use request::Request;

mod request;

/// How often drivers look at the time, where anything can come of it.
const TICK: Nanos = 50 * MILLI;

#[derive(Clone, Copy)]
enum Event {
    /// The next request.
    Arrive,
    Reach(Job),
    Done {
        pod: u32,
        worker: u32,
    },
    Answer(Ticket, Answer, Feedback),
    Deadline {
        slot: u32,
        number: u32,
    },
    Change(u32),
    Refresh(u32),
    Ask {
        client: u32,
        pod: u32,
    },
    Told {
        client: u32,
        pod: u32,
        feedback: Feedback,
    },
    Sample,
    /// The drivers of all clients look at the time.
    Tick,
}

#[derive(Clone, Copy)]
enum Answer {
    Success,
    Error,
    Refused,
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    contestant: &'a Contestant,
    queue: Queue<Event>,
    base: Instant,
    traffic: Traffic,
    phases: Stream,
    lives: Vec<Life>,
    changes: Vec<Change>,
    pods: Vec<Pod>,
    clients: Vec<Client>,
    /// What each client may use of the pods that are there at the start.
    subsets: Option<Vec<Vec<u32>>>,
    requests: Vec<Request>,
    free: Vec<u32>,
    number: u32,
    tally: Tally,
}

/// What virtual time counts from. Nothing depends on it.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// Runs it to the end.
pub(crate) fn run(scenario: &Scenario, contestant: &Contestant, seed: u64) -> Figures {
    let mut world = World::new(scenario, contestant, seed);
    while let Some(event) = world.queue.next() {
        world.on(event);
    }
    let odd = (0..world.lives.len() as u32).filter(|&pod| world.is_odd(pod));
    let mut figures = world
        .tally
        .figures(odd.count() as u32, scenario.incident.span());
    let fewest = world.clients.iter().map(|client| client.fewest);
    figures.fewest = fewest.fold(1.0, f64::min);
    if let Some(subsets) = &world.subsets {
        figures.spread = subsets::spread(subsets, scenario.pods);
    }
    figures
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, contestant: &'a Contestant, seed: u64) -> Self {
        let mut incidents = stream(seed, Source::Incidents, 0);
        let (lives, changes) =
            scenario
                .incident
                .plan(scenario.pods, scenario.end(), &mut incidents);
        let base = base();
        let client = |number: u32| {
            let number = number.into();
            let order = seed_of(seed, Source::Order, 2 * number);
            let jitter = seed_of(seed, Source::Order, 2 * number + 1);
            let config = config(contestant, order, jitter);
            let seed = seed_of(seed, Source::Policies, number);
            Client::new(config, (contestant.make)(seed, scenario.clients), base)
        };
        let mut world = Self {
            queue: Queue::new(&[
                scenario.hop,
                scenario.hop + scenario.zone_hop,
                scenario.deadline,
            ]),
            base,
            traffic: Traffic::new(
                seed,
                scenario.rate(),
                scenario.clients,
                scenario.rates,
                scenario.work,
                scenario.mean_work,
            ),
            phases: stream(seed, Source::Phases, 0),
            pods: lives
                .iter()
                .map(|life| Pod::new(scenario.workers, life.speed))
                .collect(),
            clients: (0..scenario.clients).map(client).collect(),
            subsets: scenario
                .subset
                .map(|subset| subsets::subsets(scenario.clients, scenario.pods, subset)),
            tally: Tally::new(scenario.warm, scenario.clients, lives.len() as u32),
            lives,
            changes,
            requests: Vec::new(),
            free: Vec::new(),
            number: 0,
            scenario,
            contestant,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for change in 0..self.changes.len() {
            let at = self.changes[change].at;
            self.queue.at(at, Event::Change(change as u32));
        }
        for client in 0..self.scenario.clients {
            self.resolve(client, 0);
            if let Some(ttl) = self.scenario.ttl {
                let phase = self.phases.random_range(0..ttl);
                self.queue.at(phase, Event::Refresh(client));
            }
        }
        self.queue.at(0, Event::Sample);
        if self.contestant.is_driven() {
            self.queue.at(0, Event::Tick);
        }
        let gap = self.traffic.gap();
        self.queue.after(gap, Event::Arrive);
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.queue.now())
    }

    fn is_odd(&self, pod: u32) -> bool {
        self.scenario.incident.is_odd(pod, self.scenario.pods)
    }

    fn on(&mut self, event: Event) {
        let now = self.queue.now();
        match event {
            Event::Arrive => self.arrive(),
            Event::Reach(job) => self.reach(job),
            Event::Done { pod, worker } => {
                let (answer, begun) = self.pods[pod as usize].finish(now, worker);
                self.begun(pod, begun);
                if let Some((ticket, feedback)) = answer {
                    self.answer(ticket, Answer::Success, feedback);
                }
            }
            Event::Answer(ticket, answer, feedback) => self.answered(ticket, answer, feedback),
            Event::Deadline { slot, number } => self.give_up(slot, number),
            Event::Change(index) => {
                let change = self.changes[index as usize];
                let pod = &mut self.pods[change.pod as usize];
                match change.to {
                    To::Speed(speed) => pod.speed = speed,
                    To::Mode(mode) => pod.mode = mode,
                }
            }
            Event::Refresh(client) => {
                self.resolve(client, now);
                let ttl = self
                    .scenario
                    .ttl
                    .filter(|ttl| now + ttl < self.scenario.end());
                if let Some(ttl) = ttl {
                    self.queue.after(ttl, Event::Refresh(client));
                }
            }
            Event::Ask { client, pod } => {
                let feedback = self.pods[pod as usize].probed();
                let told = Event::Told {
                    client,
                    pod,
                    feedback,
                };
                self.queue.after(self.scenario.way(client, pod), told);
            }
            Event::Told {
                client,
                pod,
                feedback,
            } => {
                if let Chooser::Peer(peer) = &mut self.clients[client as usize].chooser {
                    peer.probed(now, pod, feedback);
                }
            }
            Event::Tick => {
                let instant = self.now();
                for client in 0..self.scenario.clients {
                    if self.clients[client as usize].tick(instant) {
                        self.resolve(client, now);
                    }
                }
                if now < self.scenario.end() {
                    self.queue.after(TICK, Event::Tick);
                }
            }
            Event::Sample => {
                self.tally.sample(now, self.pods.iter().map(Pod::in_flight));
                let instant = self.now();
                let held = self
                    .clients
                    .iter()
                    .filter_map(|client| client.held(instant));
                self.tally.holdings(now, held);
                if now < self.scenario.end() {
                    self.queue.after(100 * MILLI, Event::Sample);
                }
            }
        }
    }

    /// A client asks DNS, which tells what was so a second ago.
    fn resolve(&mut self, client: u32, now: Nanos) {
        let at = now.saturating_sub(DNS_LATE);
        let instant = self.now();
        let listed = |pod: &u32| {
            let (from, until) = self.lives[*pod as usize].listed;
            from <= at && at < until
        };
        let listed: Vec<u32> = match &self.subsets {
            Some(subsets) => subsets[client as usize]
                .iter()
                .copied()
                .filter(listed)
                .collect(),
            None => (0..self.lives.len() as u32).filter(listed).collect(),
        };
        self.clients[client as usize].resolve(instant, listed.into_iter());
    }
}

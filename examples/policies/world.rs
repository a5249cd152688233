//! A run: one scenario, one contestant, one seed. One thread, and nothing from outside.

use std::sync::OnceLock;

use headless_lb::{Cause, InFlight, Outcome};
use rand::RngExt;
use tokio::time::{Duration, Instant};

use super::{
    client::{Chooser, Client, config, pod_of},
    contestants::Contestant,
    engine::{MILLI, Nanos, Queue, SECOND},
    incident::{Change, Life, To},
    pod::{Begun, Feedback, Job, Mode, Pod, Ticket},
    scenario::{DNS_LATE, Scenario},
    subsets,
    tally::{End, Figures, Tally},
    traffic::{Source, Stream, Traffic, seed_of, stream},
};

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

/// A request on its way.
struct Request {
    /// Which of all requests; another one in the same slot has another.
    number: u32,
    client: u32,
    work: Nanos,
    coin: u32,
    arrived: Nanos,
    sent: Nanos,
    attempt: u8,
    /// Whether its retry is used up.
    retried: bool,
    pod: u32,
    /// Pods that it was sent to before.
    tried: Vec<u32>,
    in_flight: Option<InFlight>,
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
            let config = config(order, seed_of(seed, Source::Order, 2 * number + 1));
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

    fn arrive(&mut self) {
        let now = self.queue.now();
        let arrival = self.traffic.arrival();
        let gap = self.traffic.gap();
        if now + gap < self.scenario.end() {
            self.queue.after(gap, Event::Arrive);
        }
        let request = Request {
            number: self.number,
            client: arrival.client,
            work: arrival.work,
            coin: arrival.coin,
            arrived: now,
            sent: now,
            attempt: 0,
            retried: !self.contestant.retries,
            pod: 0,
            tried: Vec::new(),
            in_flight: None,
        };
        let number = self.number;
        self.number = self.number.wrapping_add(1);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.requests[slot as usize] = request;
                slot
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        };
        let deadline = Event::Deadline { slot, number };
        self.queue.after(self.scenario.deadline, deadline);
        self.clients[arrival.client as usize].budget.earn();
        self.tally.offered(now, arrival.work);
        self.send(slot);
    }

    /// Picks a pod for a request, and sends it there.
    fn send(&mut self, slot: u32) {
        let (now, instant) = (self.queue.now(), self.now());
        let request = &mut self.requests[slot as usize];
        let client = &mut self.clients[request.client as usize];
        let picked = client.pick(now, instant, &request.tried);
        let Some(in_flight) = picked.and_then(|place| client.begin(instant, place)) else {
            return self.end(slot, End::TurnedAway);
        };
        let pod = pod_of(in_flight.endpoint());
        let is_idle = in_flight.endpoint().pending() == 1;
        request.in_flight = Some(in_flight);
        request.pod = pod;
        request.sent = now;
        let job = Job {
            ticket: Ticket {
                slot,
                number: request.number,
                pod,
                attempt: request.attempt,
            },
            work: request.work,
            coin: request.coin.rotate_left(8 * u32::from(request.attempt)),
        };
        let number = request.client;
        let probes = match &mut client.chooser {
            Chooser::Peer(peer) => peer.probes(&client.set),
            Chooser::Policy(_) => Vec::new(),
        };
        let is_odd = self.is_odd(pod);
        self.tally.sent(now, number, pod, is_odd, is_idle);
        if now >= self.scenario.warm {
            self.tally.probes += probes.len() as u64;
        }
        for pod in probes {
            let ask = Event::Ask {
                client: number,
                pod,
            };
            self.queue.after(self.scenario.way(number, pod), ask);
        }
        let way = self.scenario.way(number, pod);
        self.queue.after(way, Event::Reach(job));
    }

    fn reach(&mut self, job: Job) {
        let now = self.queue.now();
        let number = job.ticket.pod;
        let pod = &mut self.pods[number as usize];
        let at_once = match pod.mode {
            Mode::Serves => None,
            Mode::Fails(share) if f64::from(job.coin) >= share * f64::from(u32::MAX) => None,
            Mode::Fails(_) => Some(Answer::Error),
            Mode::Lies => Some(Answer::Success),
            Mode::Refuses => Some(Answer::Refused),
            Mode::Hangs | Mode::Silent => return,
        };
        match at_once {
            Some(answer) => {
                let feedback = Feedback {
                    in_flight: pod.in_flight(),
                    micros: 0,
                };
                self.answer(job.ticket, answer, feedback);
            }
            None => {
                let begun = pod.accept(now, job);
                self.begun(number, begun);
            }
        }
    }

    fn begun(&mut self, pod: u32, begun: Option<Begun>) {
        if let Some((worker, takes)) = begun {
            self.queue.after(takes, Event::Done { pod, worker });
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer, feedback: Feedback) {
        // Whose caller gave up finds nobody; the way is that of the slot's client all the same.
        let client = self.requests[ticket.slot as usize].client;
        let way = self.scenario.way(client, ticket.pod);
        self.queue
            .after(way, Event::Answer(ticket, answer, feedback));
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, feedback: Feedback) {
        let (now, instant) = (self.queue.now(), self.now());
        let request = &mut self.requests[ticket.slot as usize];
        if request.number != ticket.number || request.attempt != ticket.attempt {
            return;
        }
        let Some(in_flight) = request.in_flight.take() else {
            return;
        };
        let (number, pod, sent) = (request.client, request.pod, request.sent);
        let client = &mut self.clients[number as usize];
        if let Chooser::Peer(peer) = &mut client.chooser {
            peer.answered(now, pod, now - sent, feedback);
        }
        let (end, cause) = match answer {
            Answer::Success => {
                if self.contestant.connects {
                    in_flight.endpoint().reached();
                }
                client.settle(instant, in_flight, Outcome::Success);
                return self.end(ticket.slot, End::Success);
            }
            Answer::Refused if self.contestant.connects => {
                // It was not sent, so sending it elsewhere is no retry, as long as there is another pod.
                client.refused(instant, in_flight);
                if request.tried.len() + 1 < client.set.len() {
                    return self.again(ticket.slot);
                }
                return self.end(ticket.slot, End::Refused);
            }
            Answer::Error => (End::Error, Cause::Status(503)),
            Answer::Refused => (End::Refused, Cause::Refused),
        };
        client.settle(instant, in_flight, cause.into());
        self.learn(number, pod);
        let request = &mut self.requests[ticket.slot as usize];
        if request.retried || !self.clients[number as usize].budget.take() {
            return self.end(ticket.slot, end);
        }
        request.retried = true;
        if request.arrived >= self.scenario.warm {
            self.tally.retries += 1;
        }
        self.again(ticket.slot);
    }

    /// Sends a request to a pod that it was not at.
    fn again(&mut self, slot: u32) {
        let request = &mut self.requests[slot as usize];
        request.attempt += 1;
        request.tried.push(request.pod);
        self.send(slot);
    }

    fn give_up(&mut self, slot: u32, number: u32) {
        let (now, instant) = (self.queue.now(), self.now());
        let request = &mut self.requests[slot as usize];
        if request.number != number {
            return;
        }
        let Some(in_flight) = request.in_flight.take() else {
            return;
        };
        let (client, pod, sent) = (request.client, request.pod, request.sent);
        let caller = &mut self.clients[client as usize];
        if let Chooser::Peer(peer) = &mut caller.chooser {
            peer.answered(now, pod, now - sent, Feedback::default());
        }
        caller.settle(instant, in_flight, Cause::TimedOut.into());
        self.learn(client, pod);
        self.end(slot, End::TimedOut);
    }

    /// A client saw a failure.
    fn learn(&mut self, client: u32, pod: u32) {
        let now = self.queue.now();
        let is_new = |(from, _): (Nanos, Nanos)| (from..from + 10 * SECOND).contains(&now);
        if self.is_odd(pod) && self.scenario.incident.span().is_some_and(is_new) {
            self.tally.lessons[client as usize] += 1;
        }
    }

    fn end(&mut self, slot: u32, end: End) {
        let request = &mut self.requests[slot as usize];
        request.in_flight = None;
        self.tally.ended(self.queue.now(), request.arrived, end);
        self.free.push(slot);
    }
}

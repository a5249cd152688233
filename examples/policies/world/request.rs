//! The life of a request: it arrives, is sent to a pod, perhaps to another one, and ends.

use headless_lb::{Cause, InFlight, Outcome};

use super::{Answer, Event, World};
use crate::{
    client::{Chooser, pod_of},
    engine::{Nanos, SECOND},
    pod::{Begun, Feedback, Job, Mode, Ticket},
    tally::End,
};

/// A request on its way.
pub(super) struct Request {
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

impl World<'_> {
    pub(super) fn arrive(&mut self) {
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

    pub(super) fn reach(&mut self, job: Job) {
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

    pub(super) fn begun(&mut self, pod: u32, begun: Option<Begun>) {
        if let Some((worker, takes)) = begun {
            self.queue.after(takes, Event::Done { pod, worker });
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer, feedback: Feedback) {
        // Whose caller gave up finds nobody; the way is that of the slot's client all the same.
        let client = self.requests[ticket.slot as usize].client;
        let way = self.scenario.way(client, ticket.pod);
        self.queue
            .after(way, Event::Answer(ticket, answer, feedback));
    }

    pub(super) fn answered(&mut self, ticket: Ticket, answer: Answer, feedback: Feedback) {
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

    pub(super) fn give_up(&mut self, slot: u32, number: u32) {
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

//! The tries of one request: when another begins, and what they come to.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use tokio::time::Instant;

use crate::{
    backoff::{exponential, spread},
    balancer::{Balancer, Wait},
    draw::thread_unit,
    endpoint::{Endpoint, InFlight},
    http::{
        HttpBody, HttpError,
        attempt::{Attempt, Event, Failed},
        client::{Client, Retrying},
        message::Message,
        pod::HttpPod,
    },
    service::Error,
};

/// How long a request waits for a connection before it is offered to another pod as well: the Connection
/// Attempt Delay of RFC 8305, 5.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// When an answer is late before it is known how long answers take.
const LATE_AT_FIRST: Duration = Duration::from_millis(500);

/// To how many pods a request is sent at most that they may have seen. HAProxy makes as many retries by default
/// (`retries 3`, its manual) where they cost nothing; if three pods fail, the fault is hardly theirs.
const MAX_SENT: usize = 3;

/// Before the second retry, and doubled before the third. The first goes at once.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

pub(super) type Outcome = Result<Response<HttpBody>, Error<HttpError>>;

/// The tries of one request, and what is left of it.
pub(super) struct Tries {
    balancer: Balancer<HttpPod>,
    message: Message,
    under_way: [Option<Try>; MAX_SENT],
    /// How many pods were picked.
    picks: usize,
    /// How many may have seen it, or are seeing it.
    sent: usize,
    /// Pods that get it no more.
    tried: Vec<Arc<Endpoint>>,
    /// Those of them that may get it again if there is no other.
    spared: Vec<Arc<Endpoint>>,
    /// Why the last pod did not take it.
    unsent: Option<HttpError>,
    /// The last pod that may have seen it, and how it failed.
    seen: Option<(Arc<Endpoint>, HttpError)>,
    /// Such a pod has failed since it was last permitted to go on.
    needs_leave: bool,
    retrying: Option<Retrying>,
    /// For endpoints, once.
    wait: Option<Wait>,
    has_waited: bool,
    /// When to look again: for another pod, or whether a pause is over.
    due: Option<Instant>,
    /// The time until the look after that.
    patience: Duration,
}

/// One pod's try.
struct Try {
    attempt: Attempt,
    in_flight: InFlight,
    /// It may be sent although another pod has it at this moment.
    is_hedge: bool,
    /// The end of its time, if tries are limited.
    limit: Option<Instant>,
}

/// By which budget a late request goes to another pod as well.
enum Leave {
    Hedge(Arc<Client>),
    Retry,
}

impl Tries {
    pub(super) fn new(balancer: Balancer<HttpPod>, message: Message) -> Self {
        Self {
            balancer,
            message,
            under_way: [const { None }; MAX_SENT],
            picks: 0,
            sent: 0,
            tried: Vec::new(),
            spared: Vec::new(),
            unsent: None,
            seen: None,
            needs_leave: false,
            retrying: None,
            wait: None,
            has_waited: false,
            due: None,
            patience: Duration::ZERO,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx)).map_err(Error::Pick)?;
                self.wait = None;
            }
            if self.is_idle() {
                if self.due.is_some() {
                    // A pause.
                    return Poll::Pending;
                }
                if let Some(outcome) = self.begin(false) {
                    return Poll::Ready(outcome);
                }
                if self.wait.is_some() {
                    continue;
                }
            }
            let mut has_changed = false;
            for place in 0..self.under_way.len() {
                let Some(one) = &mut self.under_way[place] else {
                    continue;
                };
                let Poll::Ready(event) = one.attempt.poll(cx) else {
                    continue;
                };
                has_changed = true;
                if let Some(outcome) = self.on_event(place, event) {
                    return Poll::Ready(outcome);
                }
            }
            if !has_changed {
                if self.due.is_none() && !self.is_out() {
                    self.be_patient(CONNECT_PATIENCE, Instant::now());
                }
                return Poll::Pending;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.under_way.iter().all(Option::is_none)
    }

    /// Whether a pod has it now.
    fn is_out(&self) -> bool {
        let mut under_way = self.under_way.iter().flatten();
        under_way.any(|one| one.attempt.sent_at().is_some())
    }

    /// Offers the request to another pod. Ends it if there is none, and no try is under way.
    fn begin(&mut self, is_hedge: bool) -> Option<Outcome> {
        let mut is_last = false;
        let known = (self.tried.len(), self.spared.len());
        if self.picks == 0 && !self.message.has_host() {
            let error = HttpError::MissingHost;
            return Some(Err(Error::unsent(&self.balancer, &mut self.tried, error)));
        }
        loop {
            let place = self.under_way.iter().position(Option::is_none)?;
            if self.picks >= self.balancer.max_attempts() {
                return self.end();
            }
            let picked = match self.is_idle() {
                true => self.balancer.pick_uncounted(&self.tried),
                false if is_hedge => self.balancer.pick_another(&self.with_those_under_way()),
                false => self.balancer.pick_uncounted(&self.with_those_under_way()),
            };
            let (pick, picked) = match picked {
                Ok(pick) => pick,
                Err(_) if !self.is_idle() => {
                    // A pod that is being found out about may have been by the next look.
                    self.tried.truncate(known.0);
                    self.spared.truncate(known.1);
                    return None;
                }
                Err(_) if !self.spared.is_empty() => {
                    // Rather one of these than none.
                    let spared = mem::take(&mut self.spared);
                    self.tried
                        .retain(|one| !spared.iter().any(|other| Arc::ptr_eq(one, other)));
                    is_last = true;
                    continue;
                }
                Err(error) => {
                    if self.unsent.is_some() || self.seen.is_some() {
                        return self.end();
                    }
                    self.balancer.count_nothing(Some(&error));
                    let first = !mem::replace(&mut self.has_waited, true);
                    self.wait = self.balancer.wait_for(&error).filter(|_| first);
                    return self.wait.is_none().then(|| Err(Error::Pick(error)));
                }
            };
            let (mut pod, in_flight) = pick.into_parts();
            pod.picked(picked);
            if let Err(error) = pod.admit(self.message.is_repeatable(), is_last) {
                self.unsent = Some(error);
                self.exclude(in_flight.endpoint(), true);
                continue;
            }
            if self.picks == 0 {
                if let Err(error) = self.message.prepare(pod.pool.client.form) {
                    return Some(Err(Error::unsent(&self.balancer, &mut self.tried, error)));
                }
                pod.pool.client.begin();
            }
            let meter = &pod.pool.client.signals.meter;
            match (is_hedge, self.picks) {
                (true, _) => meter.hedged(),
                (false, 0) => {}
                (false, _) => meter.retried(self.seen.is_some()),
            }
            self.picks += 1;
            self.under_way[place] = Some(Try {
                attempt: Attempt::new(pod),
                in_flight,
                is_hedge,
                limit: None,
            });
            return None;
        }
    }

    fn on_event(&mut self, place: usize, event: Result<Event, Failed>) -> Option<Outcome> {
        match event {
            Ok(Event::Ready) => self.send(place),
            Ok(Event::Back(request)) => {
                self.message.put_back(*request);
                self.sent -= 1;
                if let Some(one) = &mut self.under_way[place] {
                    // Its time begins with its next way out.
                    one.limit = None;
                }
                self.be_patient_anew();
                None
            }
            Ok(Event::Answer(mut response)) => {
                let one = self.under_way[place].take()?;
                response.body_mut().count(one.in_flight);
                // The losers end here, and count no more.
                self.under_way = Default::default();
                Some(Ok(response))
            }
            Err(failed) => {
                let one = self.under_way[place].take()?;
                self.sent -= usize::from(failed.is_back);
                self.failed(&one, failed)
            }
        }
    }

    /// A connection is at hand. Unless the request has left meanwhile over another, it goes out.
    fn send(&mut self, place: usize) -> Option<Outcome> {
        let is_out = self.is_out();
        let one = self.under_way[place].as_mut()?;
        if is_out && !one.is_hedge {
            // The connection goes to the next request.
            self.under_way[place] = None;
            return None;
        }
        let Some(request) = self.message.take() else {
            self.under_way[place] = None;
            return self.end();
        };
        if let Err(failed) = one.attempt.send(request) {
            let one = self.under_way[place].take()?;
            return self.failed(&one, failed);
        }
        self.sent += 1;
        let client = &one.attempt.pod.pool.client;
        if let Some(at) = one.attempt.sent_at() {
            one.limit = client
                .settings
                .try_timeout
                .and_then(|limit| at.checked_add(limit));
            let late = client.late_after().unwrap_or(LATE_AT_FIRST);
            self.due = at.checked_add(late);
            self.patience = late / 2;
        }
        None
    }

    /// A try has come to nothing. Others may be under way; if not, another begins, now or after a pause.
    fn failed(&mut self, one: &Try, failed: Failed) -> Option<Outcome> {
        let endpoint = one.in_flight.endpoint();
        self.exclude(endpoint, failed.is_pod_alive);
        if let Some(request) = failed.request {
            self.message.put_back(*request);
        }
        let was_seen = !failed.is_unsent;
        match was_seen {
            true => self.seen = Some((Arc::clone(endpoint), failed.error)),
            false => self.unsent = Some(failed.error),
        }
        self.needs_leave |= was_seen;
        if self.is_out() {
            return None;
        }
        // Other tries may be waiting for their connections.
        self.be_patient_anew();
        if !self.message.can_be_sent() || !self.may_go_on(&one.attempt.pod.pool.client) {
            self.under_way = Default::default();
            return self.end();
        }
        if was_seen && self.sent > 1 && self.is_idle() {
            let pause = exponential(RETRY_PAUSE, RETRY_PAUSE * 8, self.sent as u32 - 1);
            self.due = Instant::now().checked_add(spread(pause, 0.8, 1.2, thread_unit()));
        }
        None
    }

    /// No pod has it now. Whether another may get it that one may have seen.
    fn may_go_on(&mut self, client: &Arc<Client>) -> bool {
        if !self.needs_leave {
            return true;
        }
        let mut under_way = self.under_way.iter_mut().flatten();
        if let Some(hedge) = under_way.find(|one| one.is_hedge) {
            // It was permitted, and takes the place of the one that failed.
            hedge.is_hedge = false;
        } else {
            if !self.message.may_repeat() || self.sent >= MAX_SENT {
                return false;
            }
            self.retrying = client.may_retry();
            if self.retrying.is_none() {
                return false;
            }
        }
        self.needs_leave = false;
        true
    }

    /// The time has come to look again.
    pub(super) fn on_alarm(&mut self, now: Instant) -> Option<Outcome> {
        for place in 0..self.under_way.len() {
            let one = self.under_way[place].as_ref();
            if one
                .and_then(|one| one.limit)
                .is_some_and(|limit| limit <= now)
            {
                let one = self.under_way[place].take()?;
                one.attempt.pod.pool.silent();
                let failed = Failed::sent(HttpError::TryTimeout);
                if let Some(outcome) = self.failed(&one, failed) {
                    return Some(outcome);
                }
            }
        }
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        if self.is_idle() {
            // The pause is over.
            return None;
        }
        if !self.is_out() {
            // Whichever pod takes a connection first gets it.
            return self.begin(false);
        }
        self.be_patient(self.patience, now);
        let leave = self.may_double(now)?;
        let picks = self.picks;
        let outcome = self.begin(true);
        if let Leave::Hedge(client) = leave
            && self.picks == picks
        {
            // There is no other pod: the leave serves another request.
            client.return_hedge();
        }
        outcome
    }

    /// Reports the tries that are late. Whether the request may go to another pod as well.
    fn may_double(&mut self, now: Instant) -> Option<Leave> {
        let mut late = None;
        for one in self.under_way.iter_mut().flatten() {
            // If not: another pod has been found, but no connection yet.
            one.attempt.sent_at()?;
            let is_silent = one.attempt.late(now);
            late = Some((Arc::clone(&one.attempt.pod.pool.client), is_silent));
        }
        let (client, is_silent) = late?;
        if self.sent >= MAX_SENT || !self.message.may_double() {
            return None;
        }
        if client.may_hedge() {
            return Some(Leave::Hedge(client));
        }
        if !is_silent {
            return None;
        }
        // A pod that is silent has as good as failed.
        self.retrying = client.may_retry();
        self.retrying.is_some().then_some(Leave::Retry)
    }

    /// Waits for connections as at first, unless a pod has the request.
    fn be_patient_anew(&mut self) {
        if !self.is_out() {
            self.due = None;
        }
    }

    /// Looks again after this long, and then after twice as long.
    fn be_patient(&mut self, patience: Duration, now: Instant) {
        self.due = now.checked_add(patience);
        self.patience = patience * 2;
    }

    /// When something is to be done next.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let limits = self.under_way.iter().flatten().filter_map(|one| one.limit);
        limits.chain(self.due).min()
    }

    fn with_those_under_way(&self) -> Vec<Arc<Endpoint>> {
        let under_way = self.under_way.iter().flatten();
        let under_way = under_way.map(|one| Arc::clone(one.in_flight.endpoint()));
        self.tried.iter().cloned().chain(under_way).collect()
    }

    fn exclude(&mut self, endpoint: &Arc<Endpoint>, is_spared: bool) {
        self.tried.push(Arc::clone(endpoint));
        if is_spared {
            self.spared.push(Arc::clone(endpoint));
        }
    }

    /// No pod is left to try: the request ends, unless a try is under way.
    fn end(&mut self) -> Option<Outcome> {
        if !self.is_idle() {
            return None;
        }
        let error = match (self.seen.take(), self.unsent.take()) {
            (Some((endpoint, error)), _) => Error::Service {
                service: self.balancer.status().service().into(),
                endpoint,
                error,
            },
            (None, error) => {
                let error = error.unwrap_or(HttpError::SetAside);
                Error::unsent(&self.balancer, &mut self.tried, error)
            }
        };
        Some(Err(error))
    }
}

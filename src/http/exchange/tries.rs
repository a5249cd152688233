//! The tries of one request: how it comes to a pod, from there to another, and to its end.

mod alarm;
mod leave;
mod tried;

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use tokio::time::Instant;

use crate::{
    balancer::{Balancer, Wait},
    endpoint::{Endpoint, InFlight},
    http::{
        HttpBody, HttpError,
        answering::Answering,
        attempt::{Attempt, Event, Failed},
        client::Retrying,
        message::Message,
        pod::HttpPod,
    },
    outcome::Outcome,
    service::Error,
};

use alarm::late_after;
use leave::MAX_SENT;
use tried::Tried;

pub(super) type Done = Result<Response<HttpBody>, Error<HttpError>>;

/// The tries of one request, and what is left of it.
pub(super) struct Tries {
    balancer: Balancer<HttpPod>,
    message: Message,
    under_way: [Option<Try>; MAX_SENT],
    /// How many pods were picked.
    picks: usize,
    /// How many may have seen it, or are seeing it.
    sent: usize,
    tried: Tried,
    /// A pod that may have seen it has failed since it was last permitted to go on.
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

impl Tries {
    pub(super) fn new(balancer: Balancer<HttpPod>, message: Message) -> Self {
        Self {
            balancer,
            message,
            // Not repeated: each would be copied, room for a try included.
            under_way: [None, None, None],
            picks: 0,
            sent: 0,
            tried: Tried::default(),
            needs_leave: false,
            retrying: None,
            wait: None,
            has_waited: false,
            due: None,
            patience: Duration::ZERO,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
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
                self.await_connection();
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
    fn begin(&mut self, is_hedge: bool) -> Option<Done> {
        let mut is_last = false;
        let known = self.tried.mark();
        if self.picks == 0 && !self.message.has_host() {
            return Some(self.end_unsent(HttpError::MissingHost));
        }
        loop {
            let place = self.under_way.iter().position(Option::is_none)?;
            if self.picks >= self.balancer.max_attempts() {
                return self.end();
            }
            let picked = match self.is_idle() {
                true => self.balancer.pick_uncounted(self.tried.pods()),
                false if is_hedge => self.balancer.pick_another(&self.with_those_under_way()),
                false => self.balancer.pick_uncounted(&self.with_those_under_way()),
            };
            let (pick, picked) = match picked {
                Ok(pick) => pick,
                Err(_) if !self.is_idle() => {
                    // A pod that is being found out about may have been by the next look.
                    self.tried.back_to(known);
                    return None;
                }
                Err(_) if self.tried.has_spared() => {
                    // Rather one of these than none.
                    self.tried.readmit();
                    is_last = true;
                    continue;
                }
                Err(_) if self.tried.has_error() => return self.end(),
                Err(error) => {
                    self.balancer.count_nothing(Some(&error));
                    let first = !mem::replace(&mut self.has_waited, true);
                    self.wait = self.balancer.wait_for(&error).filter(|_| first);
                    return self.wait.is_none().then(|| Err(Error::Pick(error)));
                }
            };
            let (mut pod, mut in_flight) = pick.into_parts();
            pod.picked(picked);
            if let Err(error) = pod.admit(self.message.is_repeatable(), is_last) {
                self.tried.unsent(error);
                self.tried.exclude(in_flight.endpoint(), true);
                continue;
            }
            if self.picks == 0 {
                if let Err(error) = self.message.prepare(pod.pool.client.form) {
                    return Some(self.end_unsent(error));
                }
                pod.pool.client.begin();
            }
            let meter = &pod.pool.client.signals.meter;
            match (is_hedge, self.picks) {
                (true, _) => meter.hedged(),
                (false, 0) => {}
                (false, _) => meter.retried(self.tried.was_seen()),
            }
            self.picks += 1;
            if let Some(now) = in_flight.sent() {
                pod.picked_at(now);
            }
            if self.message.is_ignored() {
                in_flight.record(Outcome::Ignore);
            }
            self.under_way[place] = Some(Try {
                attempt: Attempt::new(pod, self.message.is_ignored()),
                in_flight,
                is_hedge,
                limit: None,
            });
            return None;
        }
    }

    fn on_event(&mut self, place: usize, event: Result<Event, Failed>) -> Option<Done> {
        match event {
            Ok(Event::Ready) => self.send(place),
            Ok(Event::Back(request)) => {
                self.message.put_back(*request);
                self.sent -= 1;
                if let Some(one) = &mut self.under_way[place] {
                    // Its time begins with its next way out.
                    one.limit = None;
                    one.in_flight.unwatch();
                }
                self.await_connection_anew();
                None
            }
            Ok(Event::Answer(mut response)) => {
                let Try {
                    attempt,
                    mut in_flight,
                    ..
                } = self.under_way[place].take()?;
                let Some((at, is_upgrade)) = attempt.answered_at() else {
                    unreachable!("it is where an answer leaves an attempt");
                };
                if is_upgrade {
                    // The start of a conversation, which is the caller's.
                    in_flight.record(Outcome::Ignore);
                } else {
                    let classify = &attempt.pod.pool.client.settings.classify;
                    let answering = Answering::new(in_flight, Some(at), &response, classify);
                    response.body_mut().count(answering);
                }
                self.end_losers(at);
                Some(Ok(response))
            }
            Err(failed) => {
                let one = self.under_way[place].take()?;
                self.sent -= usize::from(failed.is_back);
                self.failed(one, failed)
            }
        }
    }

    /// A connection is at hand. Unless the request has left meanwhile over another, it goes out.
    fn send(&mut self, place: usize) -> Option<Done> {
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
            return self.failed(one, failed);
        }
        self.sent += 1;
        if let Some(at) = one.attempt.sent_at() {
            let client = &one.attempt.pod.pool.client;
            let limit = client.settings.try_timeout;
            one.limit = limit.and_then(|limit| at.checked_add(limit));
            // From now on a caller who gives up may mean the pod.
            one.in_flight.watch(Some(at));
            let late = late_after(client);
            self.await_answer(at, late);
        }
        None
    }

    /// A try has come to nothing. Others may be under way; if not, another begins, now or after a pause.
    fn failed(&mut self, mut one: Try, failed: Failed) -> Option<Done> {
        one.in_flight.record(match failed.is_told {
            true => Outcome::Ignore,
            false => failed.error.outcome(),
        });
        let endpoint = one.in_flight.endpoint();
        self.tried.exclude(endpoint, failed.is_pod_alive);
        if let Some(request) = failed.request {
            self.message.put_back(*request);
        }
        let was_seen = !failed.is_unsent;
        match was_seen {
            true => self.tried.seen(endpoint, failed.error),
            false => self.tried.unsent(failed.error),
        }
        self.needs_leave |= was_seen;
        if self.is_out() {
            return None;
        }
        // Other tries may be waiting for their connections.
        self.await_connection_anew();
        if !self.message.can_be_sent() || !self.may_go_on(&one.attempt.pod.pool.client) {
            self.under_way = Default::default();
            return self.end();
        }
        if was_seen && self.sent > 1 && self.is_idle() {
            self.pause(self.sent);
        }
        None
    }

    /// A pod has answered. Those that have the request as well were too slow, if they have had more time for it than
    /// they need, and count no more.
    fn end_losers(&mut self, now: Instant) {
        for loser in &mut self.under_way {
            let Some(one) = loser else {
                continue;
            };
            if one.attempt.sent_at().is_some() {
                one.in_flight.beaten_at(now);
            }
            *loser = None;
        }
    }

    fn with_those_under_way(&self) -> Vec<Arc<Endpoint>> {
        let under_way = self.under_way.iter().flatten();
        let under_way = under_way.map(|one| Arc::clone(one.in_flight.endpoint()));
        self.tried.pods().iter().cloned().chain(under_way).collect()
    }

    /// No pod is left to try: the request ends, unless a try is under way.
    fn end(&mut self) -> Option<Done> {
        self.is_idle().then(|| Err(self.tried.end(&self.balancer)))
    }

    /// It is not fit to be sent to any pod.
    fn end_unsent(&mut self, error: HttpError) -> Done {
        Err(self.tried.end_unsent(&self.balancer, error))
    }
}

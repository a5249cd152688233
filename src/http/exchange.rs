//! One request, from pick to response, over as many pods as it takes.
//!
//! Most requests have one try. Another begins when one fails and the request may go on, or when one is late:
//! a connect after a moment, for nothing was sent; an answer when it takes much longer than the others do, if
//! the request may be repeated and the budget allows. The first answer wins, and the others are dropped.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{message::Message, pod::HttpPod};
use crate::balancer::Balancer;

mod tries;

use tries::{Done, Tries};

pin_project! {
    /// A request under way.
    pub(super) struct Exchange {
        tries: Tries,
        #[pin]
        alarm: Option<Sleep>,
    }
}

impl Exchange {
    pub(super) fn new(balancer: Balancer<HttpPod>, message: Message) -> Self {
        let tries = Tries::new(balancer, message);
        Self { tries, alarm: None }
    }
}

impl Future for Exchange {
    type Output = Done;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(outcome) = this.tries.poll(cx) {
                return Poll::Ready(outcome);
            }
            let Some(at) = this.tries.alarm() else {
                this.alarm.set(None);
                return Poll::Pending;
            };
            match this.alarm.as_mut().as_pin_mut() {
                Some(alarm) if alarm.deadline() == at => {}
                Some(alarm) => alarm.reset(at),
                None => this.alarm.set(Some(sleep_until(at))),
            }
            if let Some(alarm) = this.alarm.as_mut().as_pin_mut() {
                ready!(alarm.poll(cx));
            }
            if let Some(outcome) = this.tries.on_alarm(Instant::now()) {
                return Poll::Ready(outcome);
            }
        }
    }
}

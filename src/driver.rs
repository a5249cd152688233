//! The one task: asks, probes, keeps the time, and publishes what the registry says.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    balancer::{Reported, Serving, Shared, Signals},
    primary::Probes,
    registry::{NewService, Published, Registry},
    resolve::{Resolution, ResolveError, Source},
};

mod checking;
mod events;
mod metering;
mod probing;
mod subsetting;

pub(crate) use checking::Checker;
use events::{LastResort, Outage};
use metering::Metering;
use probing::Probing;
pub(crate) use probing::{Prober, Probers};
pub(crate) use subsetting::Subsetting;

/// So long after an alarm the next one is heard at the earliest. Each is a look at all endpoints, and where every
/// pod refuses, each request of the program raises several.
const QUIET: Duration = Duration::from_millis(1);

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The work behind a [`Balancer`](crate::Balancer): a future that resolves, probes and publishes.
///
/// Spawn it, or select over it. It completes when the last handle is dropped; dropping it early stops
/// discovery, and the handles go on with the endpoints they have.
#[must_use = "nothing is resolved unless the driver is polled: spawn it"]
pub struct Driver {
    run: BoxFuture<'static, ()>,
}

impl Driver {
    pub(crate) fn new<N: NewService>(
        source: Arc<dyn Source>,
        probers: Probers,
        subsetting: Option<Subsetting>,
        registry: Registry<N>,
        shared: Weak<Shared<N::Service>>,
        signals: Arc<Signals>,
        hints: mpsc::Receiver<Reported>,
    ) -> Self {
        let (outage, last_resort) = (Outage::default(), LastResort::default());
        let metering = Metering::new(signals.meter.clone(), Instant::now());
        let probing = Probing::new(probers.roles);
        let checking = Probing::new(probers.health);
        let loops = Loop {
            registry,
            shared,
            signals,
            hints,
            probing,
            checking,
            subsetting: subsetting.unwrap_or_default(),
            outage,
            last_resort,
            metering,
            serving: Serving::default(),
        };
        Self {
            run: Box::pin(loops.run(source)),
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.run.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

struct Loop<N: NewService> {
    registry: Registry<N>,
    shared: Weak<Shared<N::Service>>,
    signals: Arc<Signals>,
    hints: mpsc::Receiver<Reported>,
    probing: Probing,
    /// Of health, which is nobody's role.
    checking: Probing,
    subsetting: Subsetting,
    outage: Outage,
    last_resort: LastResort,
    metering: Metering,
    serving: Serving,
}

impl<N: NewService> Loop<N> {
    async fn run(mut self, source: Arc<dyn Source>) {
        let mut question: Option<BoxFuture<'_, Result<Resolution, ResolveError>>> = None;
        let baseline = Arc::clone(self.registry.baseline());
        let mut quiet_until = Instant::now();
        while self.shared.strong_count() > 0 {
            if question.is_none() && self.registry.is_due(Instant::now()) {
                self.registry.on_asked(Instant::now());
                self.metering.asked(Instant::now());
                question = Some(source.ask());
            }
            let turns = self
                .shared
                .upgrade()
                .and_then(|shared| self.serving.deadline(shared.waiters()));
            let deadline = [self.registry.next_deadline(), turns]
                .into_iter()
                .flatten()
                .min();
            let alarm = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let answer = async {
                match &mut question {
                    Some(question) => question.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            // In this order: what rings meanwhile is kept for the next turn.
            let alarmed = async {
                sleep_until(quiet_until).await;
                baseline.alarmed().await;
            };
            tokio::select! {
                answer = answer => {
                    question = None;
                    let now = Instant::now();
                    self.metering.answered(now, &answer);
                    self.registry.on_answer(now, self.subsetting.narrow(answer));
                    self.outage.observe(now, self.registry.status());
                }
                () = alarm => self.registry.on_tick(Instant::now()),
                () = self.signals.notify.notified() => self.on_signal(),
                chosen = self.subsetting.next() => {
                    self.registry.on_narrowed(Instant::now(), &chosen);
                }
                () = alarmed => {
                    if self.registry.take_alarm() {
                        let now = Instant::now();
                        self.registry.on_alarm(now);
                        quiet_until = now + QUIET;
                    }
                }
                seen = self.probing.next() => {
                    self.registry.on_all_observed(Instant::now(), seen);
                }
                () = self.metering.beat() => {}
                seen = self.checking.next() => {
                    let results = seen.into_iter().map(|(id, seen)| (id, seen.map(drop)));
                    self.registry.on_all_checked(Instant::now(), results);
                }
                Some(reported) = self.hints.recv() => {
                    self.registry.on_hint(Instant::now(), reported.from.map(|stamp| (stamp.endpoint, stamp.epoch)), reported.hint);
                }
            }
            self.publish();
            self.direct();
            self.metering.state(Instant::now(), self.registry.status());
        }
    }

    fn on_signal(&mut self) {
        let now = Instant::now();
        if self.signals.refresh.swap(false, Relaxed) {
            self.registry.on_refresh(now);
        }
        if self.signals.forget_term.swap(false, Relaxed) {
            self.registry.forget_term(now);
        }
    }

    /// What the registry wants of the probes.
    fn direct(&mut self) {
        let now = Instant::now();
        let pace = self.registry.fast_pace(now).unwrap_or_default();
        self.probing.set_pace(pace);
        match self.registry.take_probes(now) {
            Some(Probes::All) => self.probing.ask_all(),
            Some(Probes::These(ids)) => ids.into_iter().for_each(|id| self.probing.ask(id)),
            None => {}
        }
        for event in self.registry.take_health_events() {
            events::health(self.registry.status().service(), &event);
            self.metering.judged(&event);
        }
        for event in self.registry.take_events() {
            events::primary(self.registry.status().service(), &event);
        }
    }

    fn publish(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let published = self.registry.publish();
        if let Some(published) = &published {
            events::changed(self.registry.status(), published);
            self.metering.changed(published);
            let (service, set) = (self.registry.status().service(), published.snapshot().set());
            self.last_resort.observe(Instant::now(), service, set);
            if published.has_other_members() {
                self.probing.follow(set);
                self.checking.follow(set);
            }
            self.subsetting.follow(published);
        }
        self.subsetting.look(self.registry.status());
        shared.publish(
            published.map(Published::into_snapshot),
            self.registry.status(),
        );
        if let Some(at) = self.registry.confirmed_at() {
            shared.confirm(at);
        }
        shared.observed();
        self.serving
            .serve(Instant::now(), shared.waiters(), shared.has_primary());
        // Now that no new pick finds those that left.
        self.registry.tell_services();
    }
}

impl<N: NewService> Drop for Loop<N> {
    /// Handles that remain keep what they know, and say that it will not change.
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            self.metering.ended();
            return;
        };
        shared.close();
        self.metering
            .abandoned(Instant::now(), self.registry.status());
        if std::thread::panicking() {
            let service = self.registry.status().service();
            tracing::error!(
                service,
                "discovery has ended: a resolver, probe or service maker panicked"
            );
        }
    }
}
